"""Read files and directories from blocks, trusting nothing but the CID.

Every block is hashed before a byte of it is used. Sizes that a parent states are checked against what its children
hold, so a reader always knows where it is, and a hostile tree costs no more than the bytes it yields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from cloister.errors import DecodeError, InputError, NotFound, TooLarge, quoted
from cloister.storage.cid import Cid, Codec
from cloister.storage.dagpb import Link, parse_node
from cloister.storage.unixfs import Kind, UnixFs, parse_unixfs

DEPTH_CAP = 16
"""Deepest tree that is followed; 174 links a node reach 2**63 bytes at depth 9."""

PATH_CAP = 64
"""Most segments of a path."""


class BlockSource(Protocol):
    """Where blocks come from. The reader verifies them, so a source need not.

    ``get_block`` raises ``NotFound`` for a block it does not have and ``UnavailableError`` when it cannot tell.
    """

    def get_block(self, cid: Cid) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A verified block, decoded: a file's leaf or inner node, or a directory. Built only by :func:`load_entry`."""

    cid: Cid
    block_size: int
    links: tuple[Link, ...]
    content: UnixFs

    @property
    def is_directory(self) -> bool:
        return self.content.kind is Kind.DIRECTORY

    @property
    def size(self) -> int:
        """Bytes of the file; of a directory's entries, blocks included, as no more is known without reading them."""
        if self.is_directory:
            return sum(link.total_size for link in self.links)
        return self.content.file_size

    @property
    def total_size(self) -> int:
        """Bytes of this block and all beneath, as the links state them."""
        return self.block_size + sum(link.total_size for link in self.links)


@dataclass(frozen=True, slots=True)
class Piece:
    """``size`` bytes of a file from ``offset``: those under ``link``, or ``inline`` when there is none."""

    offset: int
    size: int
    link: Link | None
    inline: bytes = b""


def load_entry(source: BlockSource, cid: Cid) -> Entry:
    """Fetch, verify and decode one block.

    Raises:
        VerificationError: the source gave other bytes.
        DecodeError: the bytes are of no kind that is understood (a sharded directory, a symbolic link).
        NotFound, UnavailableError: from the source.
    """
    block = source.get_block(cid)
    cid.verify_block(block)
    if cid.codec is Codec.RAW:
        return Entry(cid, len(block), (), UnixFs(Kind.RAW, block, len(block), ()))
    node = parse_node(block)
    content = parse_unixfs(node)
    if content.kind not in (Kind.FILE, Kind.RAW, Kind.DIRECTORY):
        raise DecodeError(
            f"{cid} is a {content.kind.name.lower().replace('_', ' ')}, which is not supported",
            hint="files and plain directories can be read",
            code="unsupported-content",
        )
    return Entry(cid, len(block), node.links, content)


def find_entry(source: BlockSource, root: Cid, path: str = "") -> Entry:
    """Follow ``path`` (``a/b/c``, no escapes) from a directory.

    Raises:
        NotFound: a name on the way does not exist, or stands under a file.
        InputError: more than ``PATH_CAP`` segments.
        VerificationError, DecodeError, UnavailableError: as :func:`load_entry`.
    """
    names = [name for name in path.split("/") if name]
    if len(names) > PATH_CAP:
        raise InputError(f"path has {len(names)} segments, more than {PATH_CAP}")
    entry = load_entry(source, root)
    for name in names:
        link = next((link for link in entry.links if link.name == name), None) if entry.is_directory else None
        if link is None:
            raise NotFound(f"no entry {quoted(name)} under {entry.cid}")
        entry = load_entry(source, link.cid)
    return entry


def read_file(
    source: BlockSource, entry: Entry, *, offset: int = 0, length: int | None = None, cap: int | None = None
) -> Iterator[bytes]:
    """Yield the file's bytes from ``offset``, block by block, each verified.

    Raises:
        InputError: ``entry`` is a directory, or the range lies outside the file.
        TooLarge: more than ``cap`` bytes are asked for; raised before the first byte.
        VerificationError, DecodeError, NotFound, UnavailableError: as :func:`load_entry`.
    """
    start, end = check_range(entry, offset, length, cap)
    return _read(source, entry, 0, start, end, 0)


def check_range(entry: Entry, offset: int, length: int | None, cap: int | None) -> tuple[int, int]:
    """Turn offset and length into start and end within a file; raises as :func:`read_file`."""
    if entry.is_directory:
        raise InputError(f"{entry.cid} is a directory, not a file", hint="name a file in it: <cid>/<name>")
    if offset < 0 or offset > entry.size or (length is not None and length < 0):
        raise InputError(f"range {offset}+{length} lies outside a file of {entry.size} bytes")
    end = entry.size if length is None else min(entry.size, offset + length)
    if cap is not None and end - offset > cap:
        raise TooLarge(f"content has {end - offset} bytes, more than {cap}")
    return offset, end


def pieces(entry: Entry, position: int) -> Iterator[Piece]:
    """The parts of a node whose content begins at ``position`` of the file, in order; empty ones are left out."""
    if entry.content.data:
        yield Piece(position, len(entry.content.data), None, entry.content.data)
        position += len(entry.content.data)
    for link, size in zip(entry.links, entry.content.block_sizes, strict=True):
        if size:
            yield Piece(position, size, link)
            position += size


def load_child(source: BlockSource, piece: Piece, depth: int) -> Entry:
    """Fetch and verify the block under a piece, and that it holds as much as its parent said.

    Raises: as :func:`load_entry`; DecodeError also for a tree that is too deep or a size that is wrong.
    """
    if depth >= DEPTH_CAP:
        raise DecodeError(f"file tree is deeper than {DEPTH_CAP}")
    if piece.link is None:
        raise DecodeError("inline content has no block")
    child = load_entry(source, piece.link.cid)
    if child.is_directory or child.size != piece.size:
        raise DecodeError(f"block {child.cid} holds {child.size} bytes, its parent says {piece.size}")
    return child


def _read(source: BlockSource, entry: Entry, position: int, start: int, end: int, depth: int) -> Iterator[bytes]:
    for piece in pieces(entry, position):
        if piece.offset >= end:
            return
        if piece.offset + piece.size <= start:
            continue
        if piece.link is None:
            yield piece.inline[max(start - piece.offset, 0) : end - piece.offset]
        else:
            yield from _read(source, load_child(source, piece, depth), piece.offset, start, end, depth + 1)
