"""The host of a rehearsal: answers one enclave from this machine's disk and a throwaway SMS (``relay.RelayServices``)."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import CloisterError, Denied, NotFound, TooLarge, VerificationError, quoted
from cloister.generator.rehearsal.broker import Broker
from cloister.generator.rehearsal.data import read_pieces
from cloister.protocol.codec import Bytes32
from cloister.protocol.countersigning import CountersignRequest
from cloister.protocol.params import INPUT_FILE_CAP
from cloister.protocol.progress import ProgressMessage, parse_message, parse_update, progress_info, verify_update
from cloister.protocol.sessions import NonceGrant, SessionAnswer, SessionRequest
from cloister.sealing import envelope
from cloister.sealing.envelope import HpkePrivateKey
from cloister.worker.connecting import Connector

if TYPE_CHECKING:
    from cloister.storage.cid import Block, Cid
    from cloister.storage.content import Stat, Stored

Heard = Callable[[str, ProgressMessage | None], None]
"""Told a status word; and with the word ``PROGRESS`` what the iApp said."""


@dataclass(slots=True)
class RehearsalHost:
    """``content`` maps locations to files. What is a web address and not among them is fetched as a worker does, from
    public addresses only. ``times`` are when the agent's status words came (monotonic), ``progress_heard`` what the iApp said,
    proven and opened with the requester's ``key``.
    """

    broker: Broker
    key: HpkePrivateKey = field(repr=False)
    content: Mapping[str, Path]
    result: Path
    heard: Heard
    connector: Connector
    times: dict[str, float] = field(default_factory=dict)
    progress_heard: list[ProgressMessage] = field(default_factory=list)

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

    def connect(self, host: str, port: int) -> socket.socket:
        return self.connector.connect(host, port)

    def report(self, status: str) -> None:
        self.times.setdefault(status, time.monotonic())
        self.heard(status, None)

    def progress(self, number: int, update: bytes) -> None:
        try:
            message = self._open_update(number, update)
        except CloisterError:
            return  # as with a requester: what is not proven was not said
        self.progress_heard.append(message)
        self.heard("PROGRESS", message)

    def _open_update(self, number: int, raw: bytes) -> ProgressMessage:
        update, task_id = parse_update(raw), self.broker.task_id
        challenge = verify_update(update, task_id, number, self.broker.address)
        if not update.sealed:
            raise VerificationError("the update is not sealed, and its task's result is")
        return parse_message(envelope.open(self.key, update.content, progress_info(task_id, challenge, number)))


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
