"""The interface of every block store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from cloister.errors import InputError, quoted
from cloister.storage.cid import Block, Cid


@dataclass(frozen=True, slots=True)
class Stored:
    """Content that is durable in a store. ``size`` is the content's, in bytes."""

    cid: Cid
    size: int


@dataclass(frozen=True, slots=True)
class Stat:
    """What lies under a CID. ``size`` is a file's content, or all that is under a directory, in bytes."""

    size: int
    kind: Literal["file", "directory"]


class ContentStore(Protocol):
    """Keeps content under CIDs. Safe to use from several threads.

    A CID may be given as text; a path may follow it (``Qm…/a/b``), also with ``/ipfs/`` before. Reads yield only
    bytes that were proven to belong to the CID. Every method raises ``UnavailableError`` when the store does not
    answer, ``NotFound`` for content it does not have, ``VerificationError`` when what it holds is not what the CID
    names, ``DecodeError`` for a CID or content of a kind that is not supported, and ``TooLarge`` at a cap.
    """

    def put(self, chunks: Iterable[Block]) -> Stored:
        """Store a file from a stream; on return it is durable and readable. A failed put leaves nothing behind."""
        ...

    def put_directory(self, entries: Mapping[str, Cid]) -> Stored:
        """Store a directory of content that is already stored: names to CIDs."""
        ...

    def open(
        self, cid: Cid | str, *, offset: int = 0, length: int | None = None, cap: int | None = None
    ) -> Iterator[bytes]:
        """Yield a file's bytes. ``cap`` refuses longer content before its first byte."""
        ...

    def stat(self, cid: Cid | str) -> Stat:
        """Tell size and kind without reading the content."""
        ...


def parse_reference(reference: Cid | str) -> tuple[Cid, str]:
    """Split ``<cid>[/path]`` or ``/ipfs/<cid>[/path]`` into the CID and the path (``""`` when none).

    Raises:
        DecodeError: no CID.
        InputError: a path that climbs (``.`` or ``..``).
    """
    if isinstance(reference, Cid):
        return reference, ""
    name, _, path = reference.removeprefix("/ipfs/").partition("/")
    if any(part in (".", "..") for part in path.split("/")):
        raise InputError(f"path climbs: {quoted(path)}")
    return Cid.parse(name), path
