"""Write a deterministic ZIP as a stream: stored entries in the given order, ZIP64 where sizes need it.

The same entries give the same bytes: no times, no owners, fixed modes. An entry held in memory has its checksum in its
header; an entry that is streamed has it in a data descriptor behind its bytes, so a file is read once, and what was
checked is what was written. Every size is known beforehand, so the size of the archive is too.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

from cloister.datasets import zip_records as z
from cloister.errors import InputError, quoted

Buffer = bytes | bytearray | memoryview

MAX_NAME = 1024
"""Longest path of an entry, in bytes of UTF-8."""
_GATHER = 1 << 18
"""Small records are given out in pieces of about this many bytes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: ``path`` with slashes (a folder's ends in one), its bytes, and a comment (its schema type).

    ``content`` is the bytes, or a function that starts a fresh stream of exactly ``size`` bytes.
    """

    path: str
    content: bytes | Callable[[], Iterable[Buffer]] = b""
    size: int = 0
    comment: str = ""

    def __post_init__(self) -> None:
        fault = z.find_path_fault(self.path)
        if fault is not None:
            raise InputError(f"the path {quoted(self.path)} {fault}")
        name = self.path.encode()
        if not 1 <= len(name) <= MAX_NAME:
            raise InputError(f"the path {quoted(self.path)} is longer than {MAX_NAME} bytes, or empty")
        if len(self.comment.encode()) > z.U16_MAX:
            raise InputError(f"the comment of {quoted(self.path)} is too long")
        if isinstance(self.content, bytes) and self.size != len(self.content):
            object.__setattr__(self, "size", len(self.content))

    @property
    def streamed(self) -> bool:
        """Whether the bytes come from a stream."""
        return not isinstance(self.content, bytes)

    @property
    def large(self) -> bool:
        """Whether the entry needs 8-byte sizes."""
        return self.size >= z.U32_MAX


def archive_size(entries: Iterable[Entry]) -> int:
    """Bytes of the archive of ``entries``, without reading any."""
    offset, directory, count = 0, 0, 0
    for entry in entries:
        directory += len(_central_header(entry, 0, offset))
        offset += len(_local_header(entry, 0)) + entry.size + len(_descriptor(entry, 0))
        count += 1
    return offset + directory + len(_end_records(count, directory, offset))


def build_archive(entries: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the archive of ``entries``, in constant memory but for the directory (about 100 bytes an entry).

    Raises InputError when a stream gives another number of bytes than its entry says.
    """
    directory = bytearray()
    pending = bytearray()
    offset = count = 0
    for entry in entries:
        start = offset
        if isinstance(entry.content, bytes):
            checksum = zlib.crc32(entry.content)
            pending += _local_header(entry, checksum)
            pending += entry.content
        else:
            yield bytes(pending) + _local_header(entry, 0)
            pending.clear()
            checksum = yield from _stream(entry, entry.content())
            pending += _descriptor(entry, checksum)
        offset += len(_local_header(entry, checksum)) + entry.size + len(_descriptor(entry, checksum))
        directory += _central_header(entry, checksum, start)
        count += 1
        if len(pending) >= _GATHER:
            yield bytes(pending)
            pending.clear()
    yield bytes(pending + directory + _end_records(count, len(directory), offset))


def _stream(entry: Entry, chunks: Iterable[Buffer]) -> Generator[bytes, None, int]:
    """Pass the entry's bytes on; the generator's value is their CRC-32."""
    checksum = size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > entry.size:
            break
        checksum = zlib.crc32(chunk, checksum)
        yield chunk if isinstance(chunk, bytes) else bytes(chunk)
    if size != entry.size:
        raise InputError(
            f"{quoted(entry.path)} changed while it was read: it was {entry.size} bytes",
            hint="run it again when nothing writes there",
        )
    return checksum


def _flags(entry: Entry) -> int:
    return (z.FLAG_DESCRIPTOR if entry.streamed else 0) | (0 if entry.path.isascii() else z.FLAG_UTF8)


def _local_header(entry: Entry, checksum: int) -> bytes:
    name = entry.path.encode()
    size = 0 if entry.streamed else entry.size
    crc = 0 if entry.streamed else checksum
    extra = struct.pack("<HHQQ", z.ZIP64_EXTRA, 16, size, size) if entry.large else b""
    field = z.U32_MAX if entry.large else size
    version = z.VERSION_ZIP64 if entry.large else z.VERSION
    header = z.LOCAL_HEADER.pack(
        z.LOCAL_SIGNATURE, version, _flags(entry), z.STORED, 0, z.DATE_1980, crc, field, field, len(name), len(extra)
    )
    return header + name + extra


def _descriptor(entry: Entry, checksum: int) -> bytes:
    if not entry.streamed:
        return b""
    layout = z.DESCRIPTOR64 if entry.large else z.DESCRIPTOR
    return layout.pack(z.DESCRIPTOR_SIGNATURE, checksum, entry.size, entry.size)


def _central_header(entry: Entry, checksum: int, offset: int) -> bytes:
    name, comment = entry.path.encode(), entry.comment.encode()
    wide = [entry.size, entry.size] if entry.large else []
    if offset >= z.U32_MAX:
        wide.append(offset)
    extra = struct.pack(f"<HH{len(wide)}Q", z.ZIP64_EXTRA, 8 * len(wide), *wide) if wide else b""
    field = z.U32_MAX if entry.large else entry.size
    version = z.VERSION_ZIP64 if wide else z.VERSION
    folder = entry.path.endswith("/")
    attributes = z.FOLDER_MODE << 16 | z.FOLDER_ATTRIBUTE if folder else z.FILE_MODE << 16
    header = z.CENTRAL_HEADER.pack(
        z.CENTRAL_SIGNATURE,
        z.MADE_BY_UNIX | version,
        version,
        _flags(entry),
        z.STORED,
        0,
        z.DATE_1980,
        checksum,
        field,
        field,
        len(name),
        len(extra),
        len(comment),
        0,
        0,
        attributes,
        min(offset, z.U32_MAX),
    )
    return header + name + extra + comment


def _end_records(count: int, size: int, offset: int) -> bytes:
    records = b""
    if count >= z.U16_MAX or size >= z.U32_MAX or offset >= z.U32_MAX:
        version = z.VERSION_ZIP64
        records += z.ZIP64_END_RECORD.pack(
            z.ZIP64_END_SIGNATURE,
            z.ZIP64_END_RECORD.size - 12,
            z.MADE_BY_UNIX | version,
            version,
            0,
            0,
            count,
            count,
            size,
            offset,
        )
        records += z.ZIP64_LOCATOR.pack(z.ZIP64_LOCATOR_SIGNATURE, 0, offset + size, 1)
    short, narrow = min(count, z.U16_MAX), min(size, z.U32_MAX)
    records += z.END_RECORD.pack(z.END_SIGNATURE, 0, 0, short, short, narrow, min(offset, z.U32_MAX), 0)
    return records
