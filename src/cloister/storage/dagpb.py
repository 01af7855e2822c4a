"""dag-pb blocks: links and data (IPLD dag-pb specification), in their one canonical form.

Written without a protobuf library because the order of fields (links before data) decides the hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloister.errors import DecodeError, TooLarge
from cloister.storage.cid import Block, Cid
from cloister.storage.varint import build_varint, parse_varint

BLOCK_CAP = 2 * 1024 * 1024
"""Largest block that IPFS nodes exchange, in bytes."""

Field = tuple[int, int, int | bytes]
"""Number, wire type (0 varint, 2 bytes) and value of a protobuf field."""


@dataclass(frozen=True, slots=True)
class Link:
    """A named link. ``total_size`` (Tsize) is the size of every block beneath it, the linked one included, in bytes."""

    cid: Cid
    name: str
    total_size: int


@dataclass(frozen=True, slots=True)
class Node:
    """A dag-pb block. ``data`` is what UnixFS puts in; ``None`` when the field is absent."""

    links: tuple[Link, ...]
    data: bytes | None


def build_node(links: Sequence[Link], data: Block | None) -> bytes:
    """Encode canonically. The links keep the given order: a directory sorts them first."""
    out: list[Block] = []
    for link in links:
        name = link.name.encode()
        raw = link.cid.raw
        parts = (b"\x0a", build_varint(len(raw)), raw, b"\x12", build_varint(len(name)), name, b"\x18")
        body = b"".join((*parts, build_varint(link.total_size)))
        out += (b"\x12", build_varint(len(body)), body)
    if data is not None:
        out += (b"\x0a", build_varint(memoryview(data).nbytes), data)
    return b"".join(out)


def parse_node(block: bytes) -> Node:
    """Decode a block.

    Raises:
        TooLarge: more than ``BLOCK_CAP`` bytes.
        DecodeError: not dag-pb, or a link to a codec or hash that is not supported.
    """
    if len(block) > BLOCK_CAP:
        raise TooLarge(f"block has {len(block)} bytes, more than {BLOCK_CAP}")
    links: list[Link] = []
    data: bytes | None = None
    for number, wire, value in parse_fields(block):
        if (number, wire) == (2, 2) and isinstance(value, bytes):
            links.append(_parse_link(value))
        elif (number, wire) == (1, 2) and isinstance(value, bytes) and data is None:
            data = value
        else:
            raise DecodeError(f"dag-pb block has an unexpected field {number}")
    return Node(tuple(links), data)


def _parse_link(body: bytes) -> Link:
    cid: Cid | None = None
    name = ""
    total_size = 0
    last = 0
    for number, wire, value in parse_fields(body):
        if number <= last:
            raise DecodeError("dag-pb link has its fields out of order")
        last = number
        if (number, wire) == (1, 2) and isinstance(value, bytes):
            cid = Cid.from_raw(value)
        elif (number, wire) == (2, 2) and isinstance(value, bytes):
            try:
                name = value.decode("utf-8")
            except UnicodeDecodeError:
                raise DecodeError("dag-pb link has a name that is not utf-8") from None
        elif (number, wire) == (3, 0) and isinstance(value, int):
            total_size = value
        else:
            raise DecodeError(f"dag-pb link has an unexpected field {number}")
    if cid is None:
        raise DecodeError("dag-pb link names no block")
    return Link(cid, name, total_size)


def parse_fields(data: bytes) -> Iterator[Field]:
    """Walk the fields of a protobuf message that uses varints and byte strings only.

    Raises:
        DecodeError: cut short, or a field of another wire type.
    """
    position = 0
    while position < len(data):
        tag, position = parse_varint(data, position)
        number, wire = tag >> 3, tag & 7
        value, position = parse_varint(data, position)
        if wire == 0:
            yield number, wire, value
        elif wire == 2:
            end = position + value
            if end > len(data):
                raise DecodeError("protobuf field is cut short")
            yield number, wire, data[position:end]
            position = end
        else:
            raise DecodeError(f"protobuf wire type {wire} is not supported")
