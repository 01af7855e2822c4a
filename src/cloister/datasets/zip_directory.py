"""Read the directory of a ZIP that nobody vouches for, and refuse everything that could be read in two ways.

Refused: paths that leave the archive, links and devices, repeated or colliding names, entries that overlap, encrypted
or exotic compression, several disks, bytes before the archive, behind its directory or its end, headers that say other
things than the directory, and counts and sizes over their caps. Source: APPNOTE.TXT 4.3; CWE-22, CWE-409.
"""

from __future__ import annotations

import os
import stat
import struct
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from cloister.datasets import zip_records as z
from cloister.errors import DecodeError, TooLarge, quoted


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may ask of its reader. Sizes in bytes."""

    max_entries: int = 100_000
    max_directory: int = 64 << 20
    max_entry_size: int = 1 << 42
    max_total_size: int = 1 << 42
    max_ratio: int = 200
    """Most bytes that one compressed byte may become, once the archive holds more than ``ratio_free`` bytes."""
    ratio_free: int = 256 << 20
    """An app that writes a file of zeros makes no bomb: up to here the ratio does not matter."""
    max_depth: int = 64
    max_name: int = 1024


@dataclass(frozen=True, slots=True)
class Member:
    """One entry, as directory and header agree on it."""

    path: str
    folder: bool
    method: int
    crc: int
    packed_size: int
    size: int
    comment: str
    header_offset: int
    data_offset: int


@dataclass(frozen=True, slots=True)
class _Record:
    raw_name: bytes
    flags: int
    method: int
    crc: int
    packed_size: int
    size: int
    attributes: int
    offset: int
    comment: bytes


_MAX_TAIL = z.END_RECORD.size + z.U16_MAX
_MAX_FOLDER_PACKED = 2
"""A deflated nothing takes two bytes; some archivers write folders so."""


def read_directory(file: IO[bytes], limits: ArchiveLimits) -> list[Member]:
    """Read and prove the directory of ``file`` (seekable). Raises DecodeError, TooLarge."""
    count, start, size = _find_directory(file, limits)
    records = list(_parse_records(_read_exactly(file, start, size), count))
    _verify_sizes(records, limits)
    members = [_member(file, record, start, limits) for record in records]
    _verify_names(members)
    _verify_extents(members, start)
    return members


def _read_exactly(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise DecodeError("the archive is cut: it ends inside a record")
    return data


def _find_directory(file: IO[bytes], limits: ArchiveLimits) -> tuple[int, int, int]:
    """(number of entries, offset of the directory, its size)."""
    total = file.seek(0, os.SEEK_END)
    tail = _read_exactly(file, max(0, total - _MAX_TAIL), min(total, _MAX_TAIL))
    place = tail.rfind(z.END_SIGNATURE)
    if place < 0 or len(tail) - place < z.END_RECORD.size:
        raise DecodeError("this is not a zip archive, or its end is cut", hint="fetch it again")
    _, disk, first_disk, here, count, size, start, comment = z.END_RECORD.unpack_from(tail, place)
    if place + z.END_RECORD.size + comment != len(tail):
        raise DecodeError("the archive has bytes behind its end")
    end = total - len(tail) + place
    if end >= z.ZIP64_LOCATOR.size:
        locator = _read_exactly(file, end - z.ZIP64_LOCATOR.size, z.ZIP64_LOCATOR.size)
        if locator.startswith(z.ZIP64_LOCATOR_SIGNATURE):
            wide = _parse_zip64_end(file, locator, end - z.ZIP64_LOCATOR.size)
            narrow = (disk, first_disk, here, count, size, start)
            caps = (z.U16_MAX, z.U16_MAX, z.U16_MAX, z.U16_MAX, z.U32_MAX, z.U32_MAX)
            if any(n not in (w, cap) for n, w, cap in zip(narrow, wide[:6], caps, strict=True)):
                raise DecodeError("the archive's two end records disagree")
            disk, first_disk, here, count, size, start, end = wide
    if disk or first_disk or here != count:
        raise DecodeError("the archive is one of several disks")
    if count > limits.max_entries:
        raise TooLarge(f"the archive has {count} entries, the cap is {limits.max_entries}")
    if size > limits.max_directory:
        raise TooLarge(f"the archive's directory is {size} bytes, the cap is {limits.max_directory}")
    if start + size != end:
        raise DecodeError("the archive has bytes before its start or behind its directory")
    return count, start, size


def _parse_zip64_end(file: IO[bytes], locator: bytes, locator_offset: int) -> tuple[int, int, int, int, int, int, int]:
    _, disk, offset, disks = z.ZIP64_LOCATOR.unpack(locator)
    if disk or disks != 1 or offset + z.ZIP64_END_RECORD.size > locator_offset:
        raise DecodeError("the archive's zip64 end record is not where it must be")
    record = _read_exactly(file, offset, z.ZIP64_END_RECORD.size)
    signature, rest, _, _, disk, first_disk, here, count, size, start = z.ZIP64_END_RECORD.unpack(record)
    if signature != z.ZIP64_END_SIGNATURE or offset + 12 + rest != locator_offset:
        raise DecodeError("the archive's zip64 end record is not where it must be")
    return disk, first_disk, here, count, size, start, offset


def _parse_records(directory: bytes, count: int) -> Iterator[_Record]:
    place = 0
    for _ in range(count):
        if len(directory) - place < z.CENTRAL_HEADER.size:
            raise DecodeError("the archive's directory is cut")
        fields = z.CENTRAL_HEADER.unpack_from(directory, place)
        signature, _, _, flags, method, _, _, crc, packed, size, names, extras, comments, disk, _, mode, at = fields
        body = place + z.CENTRAL_HEADER.size
        place = body + names + extras + comments
        if signature != z.CENTRAL_SIGNATURE or place > len(directory) or disk:
            raise DecodeError("the archive's directory is damaged")
        extra = directory[body + names : body + names + extras]
        size, packed, at = _widen(extra, [size, packed, at])
        yield _Record(
            directory[body : body + names],
            flags,
            method,
            crc,
            packed,
            size,
            mode,
            at,
            directory[place - comments : place],
        )
    if place != len(directory):
        raise DecodeError("the archive's directory holds more than its entries")


def _widen(extra: bytes, fields: list[int]) -> list[int]:
    """Replace each field that says 0xFFFFFFFF by the next number of the zip64 extra field."""
    wide = _find_extra(extra, z.ZIP64_EXTRA)
    place, found = 0, []
    for field in fields:
        if field != z.U32_MAX or wide is None:
            found.append(field)
            continue
        if len(wide) < place + 8:
            raise DecodeError("the archive's zip64 sizes are cut")
        found.append(int.from_bytes(wide[place : place + 8], "little"))
        place += 8
    return found


def _find_extra(extra: bytes, wanted: int) -> bytes | None:
    place, found = 0, None
    while place < len(extra):
        if len(extra) - place < 4:
            raise DecodeError("an entry's extra field is cut")
        kind, size = struct.unpack_from("<HH", extra, place)
        place += 4 + size
        if place > len(extra):
            raise DecodeError("an entry's extra field is cut")
        if kind == wanted:
            if found is not None:
                raise DecodeError("an entry's zip64 sizes stand there twice")
            found = extra[place - size : place]
    return found


def _verify_sizes(records: list[_Record], limits: ArchiveLimits) -> None:
    total = sum(record.size for record in records)
    if total > limits.max_total_size:
        raise TooLarge(f"the archive holds {total} bytes, the cap is {limits.max_total_size}")
    for record in records:
        name = quoted(record.raw_name.decode(errors="replace"))
        if record.flags & z.FLAGS_ENCRYPTED:
            raise DecodeError(f"the entry {name} is encrypted")
        if record.method not in (z.STORED, z.DEFLATED):
            raise DecodeError(f"the entry {name} is compressed in a way that is not read here ({record.method})")
        if record.method == z.STORED and record.size != record.packed_size:
            raise DecodeError(f"the stored entry {name} has two sizes")
        if record.size > limits.max_entry_size:
            raise TooLarge(f"the entry {name} is {record.size} bytes, the cap is {limits.max_entry_size}")
        if total > limits.ratio_free and record.size > limits.max_ratio * (record.packed_size + 64):
            raise TooLarge(f"the entry {name} expands more than {limits.max_ratio} times")


def _member(file: IO[bytes], record: _Record, directory_offset: int, limits: ArchiveLimits) -> Member:
    path = _parse_path(record, limits)
    folder = path.endswith("/")
    kind = stat.S_IFMT(record.attributes >> 16)
    if kind not in (0, stat.S_IFDIR if folder else stat.S_IFREG):
        raise DecodeError(f"the entry {quoted(path)} is a link, a device or another thing that is no file")
    if folder and (record.size or record.packed_size > _MAX_FOLDER_PACKED):
        raise DecodeError(f"the folder {quoted(path)} has content")
    if record.offset + z.LOCAL_HEADER.size > directory_offset:
        raise DecodeError(f"the entry {quoted(path)} lies outside of the archive")
    data_offset = _verify_header(file, record, path)
    try:
        comment = record.comment.decode()
    except UnicodeDecodeError:
        comment = ""
    return Member(
        path, folder, record.method, record.crc, record.packed_size, record.size, comment, record.offset, data_offset
    )


def _verify_header(file: IO[bytes], record: _Record, path: str) -> int:
    """Offset of the entry's bytes, when its own header says what the directory says."""
    fields = z.LOCAL_HEADER.unpack(_read_exactly(file, record.offset, z.LOCAL_HEADER.size))
    signature, _, flags, method, _, _, crc, packed, size, names, extras = fields
    name = file.read(names)
    agreed = signature == z.LOCAL_SIGNATURE and name == record.raw_name and method == record.method
    agreed = agreed and (flags ^ record.flags) & (z.FLAGS_ENCRYPTED | z.FLAG_DESCRIPTOR) == 0
    if agreed and not flags & z.FLAG_DESCRIPTOR:
        size, packed = _widen(file.read(extras), [size, packed])
        agreed = (crc, packed, size) == (record.crc, record.packed_size, record.size)
    if not agreed:
        raise DecodeError(f"the header of {quoted(path)} disagrees with the directory")
    return record.offset + z.LOCAL_HEADER.size + len(name) + int(extras)


def _parse_path(record: _Record, limits: ArchiveLimits) -> str:
    raw = record.raw_name
    try:
        path = raw.decode()
    except UnicodeDecodeError:
        raise DecodeError(f"the entry name {quoted(raw.decode(errors='replace'))} is not UTF-8") from None
    if not 1 <= len(raw) <= limits.max_name:
        raise TooLarge(f"an entry name has {len(raw)} bytes, allowed are 1 to {limits.max_name}")
    fault = z.find_path_fault(path)
    if fault is not None:
        raise DecodeError(f"the entry name {quoted(path)} {fault}")
    depth = path.removesuffix("/").count("/") + 1
    if depth > limits.max_depth:
        raise TooLarge(f"the entry {quoted(path)} lies {depth} folders deep, the cap is {limits.max_depth}")
    return path


def _verify_names(members: list[Member]) -> None:
    """No name twice (as a file system may see it), and none that is a file here and a folder there."""
    seen: set[str] = set()
    files: set[str] = set()
    for member in members:
        name = unicodedata.normalize("NFC", member.path.removesuffix("/"))
        if name in seen:
            raise DecodeError(f"the archive holds {quoted(member.path)} twice")
        seen.add(name)
        if not member.folder:
            files.add(name)
    for name in seen:
        parent = name.rpartition("/")[0]
        while parent:
            if parent in files:
                raise DecodeError(f"the archive holds {quoted(parent)} as a file and as a folder")
            parent = parent.rpartition("/")[0]


def _verify_extents(members: list[Member], directory_offset: int) -> None:
    free = 0
    for member in sorted(members, key=lambda m: m.header_offset):
        if member.header_offset < free:
            raise DecodeError(f"the entry {quoted(member.path)} overlaps another")
        free = member.data_offset + member.packed_size
    if free > directory_offset:
        raise DecodeError("an entry overlaps the archive's directory")
