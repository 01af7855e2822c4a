"""Archives made to hurt their reader. Each must be refused as a whole, in bounded time and memory."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.datasets.archive import Archive, ArchiveLimits, Entry, build_archive
from cloister.errors import DecodeError, TooLarge

LINK, FILE, FOLDER, FIFO, DEVICE, SOCKET = 0o120777, 0o100644, 0o040755, 0o010644, 0o020644, 0o140644


def local(
    name: bytes, data: bytes, *, method: int = 0, flags: int = 0, size: int | None = None, crc: int | None = None
) -> bytes:
    real = len(data) if size is None else size
    crc = zlib.crc32(data) if crc is None else crc
    return (
        struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, method, 0, 33, crc, len(data), real, len(name), 0) + name + data
    )


def central(
    name: bytes,
    data: bytes,
    offset: int,
    *,
    method: int = 0,
    flags: int = 0,
    size: int | None = None,
    mode: int = 0,
    extra: bytes = b"",
    disk: int = 0,
    crc: int | None = None,
    packed: int | None = None,
) -> bytes:
    real = len(data) if size is None else size
    crc = zlib.crc32(data) if crc is None else crc
    stored = len(data) if packed is None else packed
    sizes = (crc, stored, real, len(name), len(extra), 0, disk, 0, mode << 16, offset)
    head = struct.pack("<4s6H3I5H2I", b"PK\1\2", 3 << 8 | 20, 20, flags, method, 0, 33, *sizes)
    return head + name + extra


def end(count: int, size: int, offset: int, *, here: int | None = None, disk: int = 0, comment: int = 0) -> bytes:
    return struct.pack("<4s4H2IH", b"PK\5\6", disk, disk, count if here is None else here, count, size, offset, comment)


def one(name: bytes = b"a", data: bytes = b"x", **changes: int | bytes | None) -> bytes:
    """An archive of one entry; keywords go to its directory record, those with ``local_`` to its header."""
    of_local = {key[6:]: value for key, value in changes.items() if key.startswith("local_")}
    of_central = {key: value for key, value in changes.items() if not key.startswith("local_")}
    for key in ("method", "flags", "size", "crc"):
        if key in of_central and key not in of_local:
            of_local[key] = of_central[key]
    head = local(name, data, **of_local)  # type: ignore[arg-type]
    directory = central(name, data, 0, **of_central)  # type: ignore[arg-type]
    return head + directory + end(1, len(directory), len(head))


def many(*names: bytes) -> bytes:
    heads, directory = b"", b""
    for name in names:
        directory += central(name, b"", len(heads))
        heads += local(name, b"")
    return heads + directory + end(len(names), len(directory), len(heads))


def test_the_well_formed_ones_pass() -> None:
    assert Archive(io.BytesIO(one())).read("a") == b"x"
    assert Archive(io.BytesIO(one(mode=FILE))).read("a") == b"x"
    assert Archive(io.BytesIO(many(b"a", b"b/", b"b/c"))).names() == ["a", "b/c"]
    assert Archive(io.BytesIO(end(0, 0, 0))).names() == []


def overlapping() -> bytes:
    """Two names for the same bytes."""
    head = local(b"a", b"xy")
    directory = central(b"a", b"xy", 0) + central(b"b", b"xy", 0)
    return head + directory + end(2, len(directory), len(head))


def nested_overlap() -> bytes:
    """An entry whose content holds another entry's header (as the 42 TB bombs do)."""
    inner = local(b"b", b"y" * 50)
    head = local(b"a", inner)
    directory = central(b"a", inner, 0) + central(b"b", b"y" * 50, 31)
    return head + directory + end(2, len(directory), len(head))


def over_directory() -> bytes:
    """An entry that claims the directory's bytes as its own."""
    head = local(b"a", b"x" * 100)[:-40]
    directory = central(b"a", b"x" * 100, 0)
    return head + directory + end(1, len(directory), len(head))


def deflated_bomb(size: int) -> bytes:
    packed = zlib.compress(bytes(50_000_000), 9)[2:-4]
    return one(data=packed, method=8, size=size, crc=zlib.crc32(bytes(50_000_000)))


def zip64(count: int, *, record: Callable[[bytes], bytes] = bytes, locator: Callable[[bytes], bytes] = bytes) -> bytes:
    head = local(b"a", b"x")
    directory = central(b"a", b"x", 0)
    offset = len(head) + len(directory)
    wide = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(directory), len(head))
    place = struct.pack("<4sIQI", b"PK\6\7", 0, offset, 1)
    return head + directory + record(wide) + locator(place) + end(0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)


GOOD = one()
SHIFT = len(local(b"a", b"x"))
DIRECTORY = central(b"a", b"x", 0)

ABUSES: dict[str, bytes] = {
    "parent": one(b"../a"),
    "parent inside": one(b"a/../../b"),
    "parent, windows": one(b"..\\a"),
    "only dots": one(b".."),
    "a dot": one(b"./a"),
    "absolute": one(b"/etc/passwd"),
    "absolute, windows": one(b"\\a"),
    "drive letter": one(b"C:/a"),
    "drive letter, relative": one(b"c:a"),
    "share": one(b"//host/share"),
    "empty part": one(b"a//b"),
    "empty name": one(b""),
    "slash only": one(b"/"),
    "nul in the name": one(b"a\0.txt"),
    "newline in the name": one(b"a\nb"),
    "escape in the name": one(b"\x1b[2J"),
    "delete in the name": one(b"a\x7f"),
    "name is not utf-8": one(b"\xff\xfe"),
    "overlong utf-8 slash": one(b"..\xc0\xafa"),
    "utf-16 surrogate": one(b"\xed\xa0\x80"),
    "symlink": one(data=b"/etc/passwd", mode=LINK),
    "fifo": one(mode=FIFO),
    "device": one(mode=DEVICE),
    "socket": one(mode=SOCKET),
    "folder that is no folder": one(mode=FOLDER),
    "file that is no file": one(b"a/", b"", mode=FILE),
    "folder with content": one(b"a/", b"content"),
    "twice": many(b"a", b"a"),
    "twice to a file system": many("é".encode(), "e\u0301".encode()),
    "file and folder": many(b"a", b"a/"),
    "file used as a folder": many(b"a", b"a/b"),
    "file used as a folder, other order": many(b"a/b/c", b"a"),
    "overlap": overlapping(),
    "overlap inside": nested_overlap(),
    "overlap with the directory": over_directory(),
    "entry outside": local(b"a", b"x") + central(b"a", b"x", 10_000) + end(1, len(DIRECTORY), SHIFT),
    "encrypted": one(flags=1),
    "strongly encrypted": one(flags=1 | 1 << 6),
    "masked header": one(flags=1 << 13),
    "lzma": one(method=14),
    "deflate64": one(method=9),
    "unknown method": one(method=99),
    "stored with two sizes": one(size=1000),
    "header with another name": local(b"b", b"x") + DIRECTORY + end(1, len(DIRECTORY), SHIFT),
    "header with another size": one(local_size=2),
    "header with another checksum": one(local_crc=1),
    "header with another method": one(local_method=8),
    "header encrypted, directory not": one(local_flags=1),
    "header with a descriptor, directory without": one(local_flags=8),
    "no header there": bytes(SHIFT) + DIRECTORY + end(1, len(DIRECTORY), SHIFT),
    "another disk": one(disk=1),
    "several disks": GOOD[:-22] + end(1, len(DIRECTORY), SHIFT, disk=1),
    "entries on another disk": GOOD[:-22] + end(1, len(DIRECTORY), SHIFT, here=0),
    "count too large": GOOD[:-22] + end(2, len(DIRECTORY), SHIFT),
    "count too small": GOOD[:-22] + end(0, len(DIRECTORY), SHIFT),
    "directory elsewhere": GOOD[:-22] + end(1, len(DIRECTORY), SHIFT - 1),
    "directory size": GOOD[:-22] + end(1, len(DIRECTORY) - 1, SHIFT),
    "bytes before": b"#!/bin/sh\n" + GOOD,
    "bytes behind": GOOD + b"more",
    "bytes behind the directory": GOOD[:-22] + b"hidden" + GOOD[-22:],
    "a comment that is not there": GOOD[:-22] + end(1, len(DIRECTORY), SHIFT, comment=5),
    "cut": GOOD[:-1],
    "cut to the end record": GOOD[-22:],
    "cut to nothing": b"",
    "no zip": b"MZ" + bytes(1000),
    "only end signatures": b"PK\5\6" * 1000,
    "extra field cut": one(extra=b"\1\0\xff\0"),
    "extra field cut in its head": one(extra=b"\1\0"),
    "zip64 sizes missing": one(extra=b"\1\0\0\0", size=0xFFFFFFFF, packed=0xFFFFFFFF),
    "zip64 sizes twice": one(extra=struct.pack("<HHQ", 1, 8, 1) * 2, size=0xFFFFFFFF, local_size=1),
    "2^64 entries": zip64(2**64 - 1),
    "2^32 entries": zip64(2**32),
    "zip64 record on another disk": zip64(1, locator=lambda r: r[:4] + b"\1\0\0\0" + r[8:]),
    "zip64 record elsewhere": zip64(1, locator=lambda r: r[:8] + struct.pack("<Q", 2**63) + r[16:]),
    "zip64 record with another signature": zip64(1, record=lambda r: b"XXXX" + r[4:]),
    "zip64 record with another length": zip64(1, record=lambda r: r[:4] + struct.pack("<Q", 45) + r[12:]),
    "zip64 record that disagrees": zip64(1)[:-22] + end(2, len(DIRECTORY), SHIFT),
    "bomb": deflated_bomb(300_000_000),
    "claims 4 EiB": one(extra=struct.pack("<HHQQ", 1, 16, 2**62, 2**62), size=0xFFFFFFFF, packed=0xFFFFFFFF),
    "a name of 60,000 bytes": one(b"a" * 60_000),
    "deep": one(b"/".join([b"a"] * 100)),
}


def test_the_zip64_one_passes_untouched() -> None:
    assert Archive(io.BytesIO(zip64(1))).read("a") == b"x"


@pytest.mark.parametrize("name", ABUSES)
def test_it_is_refused_as_a_whole(name: str) -> None:
    with pytest.raises((DecodeError, TooLarge)) as refusal:
        Archive(io.BytesIO(ABUSES[name]))
    assert len(str(refusal.value)) < 300


def test_a_file_of_zeros_is_no_bomb() -> None:
    archive = Archive(io.BytesIO(deflated_bomb(50_000_000)))
    assert archive.read("a") == bytes(50_000_000)
    with pytest.raises(TooLarge, match="expands"):
        Archive(io.BytesIO(deflated_bomb(50_000_000)), ArchiveLimits(ratio_free=1000))


def test_a_deflated_entry_that_is_noise_is_refused() -> None:
    for noise in (b"\xff" * 40, b"\x07" * 40):
        with pytest.raises(DecodeError, match="damaged"):
            Archive(io.BytesIO(one(data=noise, method=8, size=40))).read("a")


def test_a_file_that_shrinks_while_it_is_read_is_refused() -> None:
    file = io.BytesIO(b"".join(build_archive([Entry("a", bytes(1000))])))
    archive = Archive(file)
    file.truncate(40)
    with pytest.raises(DecodeError, match="damaged"):
        archive.read("a")


def test_a_deflated_entry_that_grows_over_its_claim_is_stopped() -> None:
    packed = zlib.compress(bytes(1_000_000), 9)[2:-4]
    archive = Archive(io.BytesIO(one(data=packed, method=8, size=len(packed) * 100)))
    with pytest.raises((TooLarge, DecodeError)):
        archive.read("a")


@pytest.mark.parametrize("tail", [b"", b"hidden"])
def test_a_deflated_entry_that_ends_early_is_refused(tail: bytes) -> None:
    packed = zlib.compress(b"hello", 9)[2:-4]
    with pytest.raises(DecodeError):
        Archive(io.BytesIO(one(data=packed[:-1] + tail, method=8, size=5, crc=zlib.crc32(b"hello")))).read("a")
    behind = one(data=packed + b"hidden", method=8, size=5, crc=zlib.crc32(b"hello"))
    with pytest.raises(DecodeError):
        Archive(io.BytesIO(behind)).read("a")


def test_a_zip_in_a_zip_is_only_bytes() -> None:
    inner = GOOD
    for _ in range(5):
        inner = b"".join(build_archive([Entry("a", inner)]))
    assert Archive(io.BytesIO(inner)).read("a").startswith(b"PK")


@pytest.mark.parametrize(
    "limits",
    [
        ArchiveLimits(max_entries=2),
        ArchiveLimits(max_directory=100),
        ArchiveLimits(max_entry_size=999),
        ArchiveLimits(max_total_size=2999),
        ArchiveLimits(max_depth=1),
        ArchiveLimits(max_name=2),
    ],
)
def test_every_cap_holds(limits: ArchiveLimits) -> None:
    built = b"".join(build_archive([Entry("a", bytes(1000)), Entry("b", bytes(1000)), Entry("c/d", bytes(1000))]))
    assert len(Archive(io.BytesIO(built)).names()) == 3
    with pytest.raises(TooLarge):
        Archive(io.BytesIO(built), limits)


def _sample() -> bytes:
    return b"".join(build_archive([Entry("a/"), Entry("a/b", b"hello"), Entry("c", lambda: [b"stream"], 6)]))


SAMPLE = _sample()


@given(st.integers(0, len(SAMPLE) - 1), st.integers(1, 255))
def test_a_flipped_byte_never_gives_other_content_or_another_error(place: int, mask: int) -> None:
    changed = bytearray(SAMPLE)
    changed[place] ^= mask
    try:
        archive = Archive(io.BytesIO(bytes(changed)))
        found = {name: archive.read(name) for name in archive.names()}
    except (DecodeError, TooLarge):
        return
    assert sorted(found.values()) == [b"hello", b"stream"]


@given(st.integers(0, len(SAMPLE) - 1))
def test_a_cut_archive_is_refused(size: int) -> None:
    with pytest.raises((DecodeError, TooLarge)):
        Archive(io.BytesIO(SAMPLE[:size]))


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_noise_is_refused_with_our_errors(noise: bytes, tail: bytes) -> None:
    for data in (noise, noise + end(1, len(noise), 0) + tail, noise + SAMPLE[-120:]):
        with pytest.raises((DecodeError, TooLarge)):
            Archive(io.BytesIO(data))


def test_zipfile_reads_the_forged_base_case_too() -> None:
    """Shows that the forger of this module makes real archives, so its refusals are for the stated reason."""
    with zipfile.ZipFile(io.BytesIO(one())) as other:
        assert other.read("a") == b"x"
