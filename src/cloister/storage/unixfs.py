"""UnixFS: files and directories as dag-pb blocks (the IPFS UnixFS specification), built as Kubo builds them by default.

A file is cut into 262,144-byte leaves; up to 174 of them hang on a node, up to 174 nodes on the next, all leaves at
one depth. The builder takes a stream and keeps one leaf and one node per level in memory, whatever the size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from cloister.errors import DecodeError, InputError, TooLarge, quoted
from cloister.storage.cid import Block, Cid, Codec
from cloister.storage.dagpb import Link, Node, build_node, parse_fields
from cloister.storage.varint import build_varint

CHUNK_SIZE = 262_144
"""Bytes of content in a leaf: Kubo's default ``size-262144`` chunker."""

LINKS_PER_NODE = 174
"""Children of a file's inner node: Kubo's default."""

DIRECTORY_CAP = 262_144
"""Size (names and CIDs, in bytes) from which Kubo spreads a directory over a hash trie, which is not written here."""

NAME_CAP = 255
"""Longest name of a directory entry, in bytes of UTF-8."""


class Kind(IntEnum):
    """UnixFS node types."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    SHARDED_DIRECTORY = 5


@dataclass(frozen=True, slots=True)
class UnixFs:
    """The UnixFS message inside a dag-pb block. ``file_size`` counts own data and everything beneath, in bytes."""

    kind: Kind
    data: bytes
    file_size: int
    block_sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file becomes blocks. The default is Kubo's (``Qm…``); its other one is ``Layout(1, raw_leaves=True)``."""

    cid_version: int = 0
    raw_leaves: bool = False

    def __post_init__(self) -> None:
        if self.cid_version not in (0, 1):
            raise InputError(f"cid version is 0 or 1, not {self.cid_version}")

    def leaf_frame(self, size: int) -> tuple[bytes, bytes]:
        """The bytes before and after ``size`` bytes of content in a leaf's block."""
        if self.raw_leaves:
            return b"", b""
        tail = b"\x18" + build_varint(size)
        head = b"\x08\x02" + (b"\x12" + build_varint(size) if size else b"")
        return b"\x0a" + build_varint(len(head) + size + len(tail)) + head, tail

    def leaf_cid(self, digest: bytes) -> Cid:
        """Name a leaf by the digest of its block."""
        return Cid(1, Codec.RAW, digest) if self.raw_leaves else Cid(self.cid_version, Codec.DAG_PB, digest)


@dataclass(frozen=True, slots=True)
class Built:
    """What a block holds: its CID, the content's size and the size of all blocks (Tsize), in bytes."""

    cid: Cid
    size: int
    total_size: int


class FileBuilder:
    """Builds a file's blocks from a stream. Write, then finish once; not thread safe.

    ``on_leaf(leaf, content)`` sees each leaf in order with its content, not its block, valid only during the call.
    ``on_node(cid, block)`` sees each inner node, children before parents.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        on_leaf: Callable[[Built, memoryview], None] | None = None,
        on_node: Callable[[Cid, bytes], None] | None = None,
    ) -> None:
        self._layout = layout
        self._on_leaf = on_leaf
        self._on_node = on_node
        self._pending = bytearray()
        self._levels: list[list[Built]] = [[]]
        self._frame = layout.leaf_frame(CHUNK_SIZE)
        self._leaves = 0
        self.size = 0

    def write(self, chunk: Block) -> None:
        """Take the next bytes of the content."""
        view = memoryview(chunk).cast("B")
        self.size += len(view)
        position = 0
        if self._pending:
            position = min(CHUNK_SIZE - len(self._pending), len(view))
            self._pending += view[:position]
            if len(self._pending) == CHUNK_SIZE:
                full, self._pending = self._pending, bytearray()
                self._add_leaf(memoryview(full))
        while len(view) - position >= CHUNK_SIZE:  # whole leaves are hashed where they lie
            self._add_leaf(view[position : position + CHUNK_SIZE])
            position += CHUNK_SIZE
        if position < len(view):
            self._pending += view[position:]

    def finish(self) -> Built:
        """Close the tree and return its root."""
        if self._pending or not self._leaves:
            self._add_leaf(memoryview(bytes(self._pending)))
        level = 0
        while True:
            children = self._levels[level]
            top = level == len(self._levels) - 1
            if top and len(children) == 1:
                return children[0]
            if children:
                self._close(level)
            level += 1

    def _add_leaf(self, content: memoryview) -> None:
        size = len(content)
        head, tail = self._frame if size == CHUNK_SIZE else self._layout.leaf_frame(size)
        digest = hashlib.sha256(head)
        digest.update(content)
        digest.update(tail)
        leaf = Built(self._layout.leaf_cid(digest.digest()), size, len(head) + size + len(tail))
        self._leaves += 1
        if self._on_leaf is not None:
            self._on_leaf(leaf, content)
        self._push(0, leaf)

    def _push(self, level: int, child: Built) -> None:
        if level == len(self._levels):
            self._levels.append([])
        # A full node is closed when its next sibling comes: a tree of exactly 174 leaves has one node and no more.
        if len(self._levels[level]) == LINKS_PER_NODE:
            self._close(level)
        self._levels[level].append(child)

    def _close(self, level: int) -> None:
        children, self._levels[level] = self._levels[level], []
        size = sum(child.size for child in children)
        message = b"".join(
            (b"\x08\x02\x18", build_varint(size), *(b"\x20" + build_varint(child.size) for child in children))
        )
        block = build_node([Link(child.cid, "", child.total_size) for child in children], message)
        cid = Cid.of_block(block, version=self._layout.cid_version, codec=Codec.DAG_PB)
        if self._on_node is not None:
            self._on_node(cid, block)
        self._push(level + 1, Built(cid, size, len(block) + sum(child.total_size for child in children)))


def build_directory(entries: Mapping[str, Built], *, cid_version: int = 0) -> tuple[Built, bytes]:
    """Build a directory's block from its entries' names; return what it is and the block.

    Raises:
        InputError: a name that is empty, ``.``, ``..``, holds ``/`` or NUL, or is longer than ``NAME_CAP`` bytes.
        TooLarge: so many entries that Kubo would spread them over several blocks.
    """
    for name in entries:
        check_name(name)
    if sum(len(name.encode()) + len(entry.cid.raw) for name, entry in entries.items()) > DIRECTORY_CAP:
        raise TooLarge(
            f"a directory of {len(entries)} entries does not fit one block", hint="use subdirectories or an archive"
        )
    ordered = sorted(entries.items(), key=lambda item: item[0].encode())
    links = [Link(entry.cid, name, entry.total_size) for name, entry in ordered]
    block = build_node(links, b"\x08\x01")
    cid = Cid.of_block(block, version=cid_version, codec=Codec.DAG_PB)
    total = len(block) + sum(entry.total_size for entry in entries.values())
    return Built(cid, sum(entry.size for entry in entries.values()), total), block


def check_name(name: str) -> None:
    """Refuse a name that cannot stand in a directory.

    Raises:
        InputError: empty, ``.``, ``..``, holds ``/`` or NUL, not UTF-8, or longer than ``NAME_CAP`` bytes.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise InputError(f"not a file name: {quoted(name)}") from None
    if name in ("", ".", "..") or "/" in name or "\0" in name or length > NAME_CAP:
        raise InputError(f"not a file name: {quoted(name)}", hint=f"1 to {NAME_CAP} bytes without a slash")


def parse_unixfs(node: Node) -> UnixFs:
    """Read the UnixFS message of a dag-pb block and check it against the block's links.

    Raises:
        DecodeError: no UnixFS message, or sizes that do not fit the links.
    """
    if node.data is None:
        raise DecodeError("dag-pb block holds no unixfs message")
    fields: dict[int, int | bytes] = {}
    block_sizes: list[int] = []
    for number, wire, value in parse_fields(node.data):
        if number > 8 or wire != (2 if number in (2, 8) else 0):
            raise DecodeError(f"unixfs message has an unexpected field {number}")
        if number == _BLOCK_SIZES and isinstance(value, int):
            block_sizes.append(value)
        else:
            fields[number] = value
    kind = _parse_kind(fields.get(_TYPE))
    data = fields.get(_DATA, b"")
    data = data if isinstance(data, bytes) else b""
    file_size = fields.get(_FILE_SIZE)
    if kind in (Kind.FILE, Kind.RAW):
        if len(block_sizes) != len(node.links):
            raise DecodeError(f"unixfs file has {len(node.links)} links and {len(block_sizes)} sizes")
        total = len(data) + sum(block_sizes)
        if file_size is not None and file_size != total:
            raise DecodeError(f"unixfs file of {total} bytes says it has {file_size!r}")
        return UnixFs(kind, data, total, tuple(block_sizes))
    return UnixFs(kind, data, 0, ())


# Fields of the message. 5 to 8 are hash type and fan-out of shards, mode and time of files; they change no content.
_TYPE, _DATA, _FILE_SIZE, _BLOCK_SIZES = 1, 2, 3, 4


def _parse_kind(value: int | bytes | None) -> Kind:
    number = value if isinstance(value, int) else -1
    try:
        return Kind(number)
    except ValueError:
        raise DecodeError(f"unixfs type {number} is not known") from None
