"""Reading tar as container tools write it: ustar, GNU's long names, and of PAX headers path, link path and size.

Sparse files, incremental dumps and every other extension are refused by name. Nothing is written here, and no entry's
content is held: what a header announces is bounded before it is read.

Source: POSIX.1-2017 pax, GNU tar manual (Basic Tar Format), OCI image-spec 1.1 (layer.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from cloister.enclave.exact import ExactStream
from cloister.errors import DecodeError, TooLarge, quoted

BLOCK = 512
MAX_PATH = 4096
_EXTENSION_CAP = 1 << 20
"""Bytes of one extended header."""
_MAX_SIZE = 1 << 40
_ZERO_BLOCK = bytes(BLOCK)
_OCTAL = re.compile(rb"[ 0]*([0-7]{0,21})[ \0]*")
_FIELDS = frozenset({b"path", b"linkpath", b"size"})


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    DEVICE = "device"
    FIFO = "fifo"


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.DEVICE,
    b"4": Kind.DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. ``path`` and ``link`` are as they stand there; bytes that are no UTF-8 are kept as surrogates."""

    path: str
    kind: Kind
    size: int = 0
    mode: int = 0o644
    link: str = ""
    _content: _Content | None = field(default=None, repr=False, compare=False)

    def content(self) -> Iterator[memoryview]:
        """The bytes of a file, once, before the next entry is asked for."""
        return iter(()) if self._content is None else self._content.pieces()


def read_entries(stream: ExactStream, *, most: int) -> Iterator[Entry]:
    """Yield the entries in order. Content that the caller leaves is passed over.

    Raises:
        DecodeError: not tar, cut short, or an extension that is not read. TooLarge: more than ``most`` entries.
    """
    count = 0
    extended: dict[bytes, bytes] = {}
    while not stream.at_end():
        header = stream.take(BLOCK)
        if header == _ZERO_BLOCK:
            stream.drain()
            return
        count += 1
        if count > most:
            raise TooLarge(f"an archive has more than {most} entries")
        _check_sum(header)
        kind, size = header[156:157], _number(header[124:136])
        if kind in (b"x", b"g", b"L", b"K"):
            extended |= _extension(kind, size, stream)
            continue
        entry, content = _parse(header, kind, size, extended, stream)
        extended = {}
        yield entry
        content.finish()
    if extended:
        raise DecodeError("an archive ends in the middle of an entry")


def _extension(kind: bytes, size: int, stream: ExactStream) -> dict[bytes, bytes]:
    """What a header says of the entry behind it. What one says of all entries is not needed."""
    if size > _EXTENSION_CAP:
        raise TooLarge(f"an extended header has {size} bytes; the cap is {_EXTENSION_CAP}")
    text = stream.take(size)
    stream.take(-size % BLOCK)
    match kind:
        case b"x":
            return _pax(text)
        case b"g":
            return {}
        case _:
            return {b"path" if kind == b"L" else b"linkpath": text.rstrip(b"\0")}


class _Content:
    """The bytes of one entry, counted apart from what the caller reads: content that is left half-way must not shift what
    follows.
    """

    def __init__(self, stream: ExactStream, size: int) -> None:
        self._stream = stream
        self._left = size
        self._padding = -size % BLOCK

    def pieces(self) -> Iterator[memoryview]:
        while self._left and (piece := next(self._stream.pieces(self._left))):
            self._left -= len(piece)
            yield piece

    def finish(self) -> None:
        for _ in self.pieces():
            pass
        self._stream.take(self._padding)


def _parse(
    header: bytes, kind: bytes, size: int, extended: dict[bytes, bytes], stream: ExactStream
) -> tuple[Entry, _Content]:
    meaning = _KINDS.get(kind)
    if meaning is None:
        raise DecodeError(f"an archive entry has the type {quoted(kind)}, which is not read")
    name, link = _text(header[0:100]), _text(header[157:257])
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
        name = prefix + b"/" + name
    name, link = extended.get(b"path", name), extended.get(b"linkpath", link)
    if b"size" in extended:
        size = _decimal(extended[b"size"])
    if len(name) > MAX_PATH or len(link) > MAX_PATH or b"\0" in name + link:
        raise DecodeError(f"an archive entry's name is longer than {MAX_PATH} bytes or holds a null byte")
    path = name.decode("utf-8", "surrogateescape")
    if meaning is Kind.FILE and kind != b"7" and path.endswith("/"):
        meaning = Kind.DIRECTORY  # as tar before POSIX wrote them
    if meaning is not Kind.FILE:
        size = 0
    mode = _number(header[100:108]) & 0o7777
    content = _Content(stream, size)
    return Entry(path, meaning, size, mode, link.decode("utf-8", "surrogateescape"), content), content


def _check_sum(header: bytes) -> None:
    unsigned = sum(header) - sum(header[148:156]) + 8 * 0x20
    if _number(header[148:156]) != unsigned:
        raise DecodeError("an archive entry has a wrong header checksum")


def _number(raw: bytes) -> int:
    """An octal number, or GNU's big-endian one with the first bit set."""
    if raw[0] == 0x80:
        value = int.from_bytes(raw[1:], "big")
    else:
        match = _OCTAL.fullmatch(raw)
        if match is None:
            raise DecodeError(f"an archive entry holds the number {quoted(raw)}")
        value = int(match.group(1) or b"0", 8)
    if value > _MAX_SIZE:
        raise TooLarge(f"an archive entry announces {value} bytes")
    return value


def _decimal(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 13:
        raise DecodeError(f"an archive entry holds the number {quoted(raw)}")
    return int(raw)


def _pax(content: bytes) -> dict[bytes, bytes]:
    """Read ``<length> <key>=<value>\\n`` records; of unknown keys only sparse files matter."""
    found: dict[bytes, bytes] = {}
    while content:
        length, space, _ = content[:20].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 3 <= int(length) <= len(content):
            raise DecodeError("an extended header of an archive is malformed")
        record, content = content[len(length) + 1 : int(length)], content[int(length) :]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise DecodeError("an extended header of an archive is malformed")
        if key.startswith(b"GNU.sparse."):
            raise DecodeError("an archive holds a sparse file, which is not read")
        if key in _FIELDS:
            found[key] = value[:-1]
    return found


def _text(field_: bytes) -> bytes:
    return field_.split(b"\0", 1)[0]
