"""The host of a rehearsal: answers one enclave from this machine's disk and a throwaway SMS (``relay.RelayServices``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import Denied, NotFound, TooLarge, quoted
from cloister.generator.rehearsal_broker import Broker
from cloister.generator.rehearsal_data import read_pieces
from cloister.protocol.codec import Bytes32
from cloister.protocol.countersigning import CountersignRequest
from cloister.protocol.sessions import NonceGrant, SessionAnswer, SessionRequest

if TYPE_CHECKING:
    from cloister.storage.cid import Block, Cid
    from cloister.storage.content import Stat, Stored

INPUT_FILE_CAP = 256 << 20
"""Largest input file that a worker fetches, bytes."""
Heard = Callable[[str], None]


@dataclass(slots=True)
class RehearsalHost:
    """``content`` maps locations to files. What is a web address and not among them is fetched as a worker does, from
    public addresses only. ``heard`` is told the agent's status words; ``times`` are when they came (monotonic).
    """

    broker: Broker
    content: Mapping[str, Path]
    result: Path
    heard: Heard
    times: dict[str, float] = field(default_factory=dict)

    def nonce(self, task_id: Bytes32) -> NonceGrant:
        return self.broker.nonce(task_id)

    def session(self, request: SessionRequest) -> SessionAnswer:
        return self.broker.session(request)

    def countersign(self, request: CountersignRequest) -> bytes:
        return self.broker.countersign(request)

    def fetch(
        self, location: str, purpose: str, max_bytes: int, *, seconds: float, ahead: tuple[str, ...]
    ) -> Iterator[bytes]:
        path = self.content.get(location)
        if path is None:
            return _fetch_web(location, purpose, max_bytes)
        most = min(max_bytes, INPUT_FILE_CAP) if purpose == "input" else max_bytes
        if path.stat().st_size > most:
            raise TooLarge(f"{quoted(path.name)} is larger than {most} bytes")
        return read_pieces(path)

    def store_result(self, chunks: Iterable[bytes], size: int) -> None:
        with self.result.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)

    def report(self, status: str) -> None:
        self.times.setdefault(status, time.monotonic())
        self.heard(status)


class _NoStore:
    """A content store with nothing in it (``storage.content.ContentStore``): a rehearsal has no network to read from."""

    def put(self, chunks: Iterable[Block]) -> Stored:
        raise Denied("a rehearsal stores nothing")

    def put_directory(self, entries: Mapping[str, Cid]) -> Stored:
        raise Denied("a rehearsal stores nothing")

    def open(
        self, cid: Cid | str, *, offset: int = 0, length: int | None = None, cap: int | None = None
    ) -> Iterator[bytes]:
        raise NotFound(
            f"a rehearsal has no content store: {quoted(str(cid))}", hint="give a local file or a web address"
        )

    def stat(self, cid: Cid | str) -> Stat:
        raise NotFound(f"a rehearsal has no content store: {quoted(str(cid))}")


def _fetch_web(location: str, purpose: str, max_bytes: int) -> Iterator[bytes]:
    # Few rehearsals fetch anything, and the HTTP client is slow to import.
    from cloister.worker.fetching import ContentFetcher

    return ContentFetcher(_NoStore()).fetch(location, purpose, max_bytes)
