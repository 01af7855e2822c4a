"""datasets.archive: the deterministic writer, and what other programs make of it."""

from __future__ import annotations

import hashlib
import io
import os
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.datasets.archive import (
    Archive,
    ArchiveLimits,
    Entry,
    archive_size,
    build_archive,
    read_member,
    read_names,
)
from cloister.errors import DecodeError, InputError, NotFound, TooLarge

NAME = st.text("abcé€ .-_", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))
FILES = st.dictionaries(NAME, st.tuples(st.binary(max_size=200), st.booleans(), st.sampled_from(["", "i128", "x/é"])))


def build(*entries: Entry) -> bytes:
    built = b"".join(build_archive(entries))
    assert len(built) == archive_size(entries)
    return built


def streamed(path: str, data: bytes, comment: str = "") -> Entry:
    return Entry(path, lambda: (data[i : i + 7] for i in range(0, len(data), 7)), len(data), comment)


def entry(path: str, data: bytes, is_streamed: bool, comment: str) -> Entry:
    return streamed(path, data, comment) if is_streamed else Entry(path, data, comment=comment)


@given(FILES)
def test_reads_what_it_writes_and_so_does_zipfile(files: dict[str, tuple[bytes, bool, str]]) -> None:
    entries = [Entry("dir/"), *(entry(f"dir/{name}", *rest) for name, rest in files.items())]
    normal = len({unicodedata.normalize("NFC", name) for name in files}) == len(files)
    built = build(*entries)
    assert built == build(*entries)
    with zipfile.ZipFile(io.BytesIO(built)) as other:
        assert other.testzip() is None
        assert other.namelist() == [e.path for e in entries]
        for name, (data, _, comment) in files.items():
            assert other.read(f"dir/{name}") == data
            assert other.getinfo(f"dir/{name}").comment.decode() == comment
    if normal:
        archive = Archive(io.BytesIO(built))
        assert archive.names() == [f"dir/{name}" for name in files]
        for name, (data, _, comment) in files.items():
            assert archive.read(f"dir/{name}") == data
            assert archive.member(f"dir/{name}").comment == comment


@given(
    st.dictionaries(NAME, st.binary(max_size=2000), max_size=5),
    st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
)
@settings(deadline=None)
def test_reads_what_zipfile_writes(files: dict[str, bytes], method: int) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as other:
        other.mkdir("dir")
        for name, data in files.items():
            other.writestr(f"dir/{name}", data)
    archive = Archive(made)
    for name, data in files.items():
        assert archive.read(f"dir/{name}") == data
        with archive.open(f"dir/{name}") as stream:
            assert b"".join(iter(lambda: stream.read(3), b"")) == data


def test_reads_an_archive_that_was_written_to_a_pipe() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data)
            return len(data)

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        pipe = Pipe()
        with zipfile.ZipFile(pipe, "w", method) as other, other.open("a", "w", force_zip64=True) as member:
            member.write(b"content" * 100)
        assert Archive(io.BytesIO(pipe.data)).read("a") == b"content" * 100


def test_the_bytes_are_the_ones_of_the_first_release() -> None:
    built = build(Entry("a/"), Entry("a/b", b"hello", comment="string"), streamed("c", b"stream"))
    assert len(built) == 295
    assert hashlib.sha256(built).hexdigest() == "9924ff7753e898d4dbdd027ca7bde8baa66eb3f2bc235b51aa84b6fee0dddc01"


def test_a_seekable_stream_gives_any_part() -> None:
    data = os.urandom(10_000)
    with Archive(io.BytesIO(build(Entry("x", b"pad"), Entry("a", data)))).open("a") as stream:
        assert stream.seekable()
        assert stream.seek(5000) == 5000
        assert stream.read(10) == data[5000:5010]
        assert stream.seek(-5, os.SEEK_END) == 9995
        assert stream.read() == data[-5:]
        assert stream.read() == b""
        assert stream.seek(3) == stream.tell()
        assert stream.seek(2, os.SEEK_CUR) == 5
        assert stream.read(1) == data[5:6]
        with pytest.raises(InputError):
            stream.seek(-1)


def test_a_damaged_entry_is_noticed_at_its_end() -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", method) as other:
            other.writestr("a", os.urandom(50))
        damaged = bytearray(made.getvalue())
        damaged[40] ^= 1
        with pytest.raises(DecodeError, match="damaged"):
            Archive(io.BytesIO(bytes(damaged))).read("a")


def test_missing_entries_and_folders_are_not_found() -> None:
    archive = Archive(io.BytesIO(build(Entry("a/"), Entry("a/b", b"x"))))
    for path in ("b", "a/", "a", "", "a/b/"):
        with pytest.raises(NotFound):
            archive.read(path)
    assert len(archive.members) == 2


def test_the_short_forms_read_names_and_members() -> None:
    built = build(Entry("a/"), Entry("a/b", b"x"))
    assert read_names(io.BytesIO(built)) == ["a/b"]
    assert read_member(io.BytesIO(built), "a/b", ArchiveLimits()) == b"x"


def test_a_large_entry_is_not_read_in_one_piece() -> None:
    archive = Archive(io.BytesIO(build(Entry("a", bytes(100)))))
    with pytest.raises(TooLarge):
        archive.read("a", max_size=99)


@pytest.mark.parametrize("claimed", [4, 6])
def test_a_file_that_changed_while_it_was_read_is_refused(claimed: int) -> None:
    with pytest.raises(InputError, match="changed while it was read"):
        list(build_archive([Entry("a", lambda: [b"hello"], claimed)]))


@pytest.mark.parametrize("path", ["", "/a", "../a", "a//b", "a/./b", "a\\b", "C:a", "a\n", "a\0b", "x" * 1025])
def test_a_path_that_no_reader_takes_is_not_written(path: str) -> None:
    with pytest.raises(InputError):
        Entry(path, b"")


def test_more_entries_than_16_bits_count_go_as_zip64() -> None:
    built = build(*(Entry(f"e{number}", b"") for number in range(65_536)))
    with zipfile.ZipFile(io.BytesIO(built)) as other:
        assert len(other.namelist()) == 65_536
    assert len(Archive(io.BytesIO(built)).names()) == 65_536


class _Sparse(io.RawIOBase):
    """A file of which only what is not zero is kept: holds an archive of many GiB of zeros."""

    def __init__(self, chunks: Iterator[bytes], zeros: bytes) -> None:
        self._kept: list[tuple[int, bytes]] = []
        self.size = 0
        self._position = 0
        for chunk in chunks:
            if chunk is not zeros:
                self._kept.append((self.size, chunk))
            self.size += len(chunk)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self.size - self._position)
        found = bytearray(size)
        for start, chunk in self._kept:
            low, high = max(start, self._position), min(start + len(chunk), self._position + size)
            if low < high:
                found[low - self._position : high - self._position] = chunk[low - start : high - start]
        buffer[:size] = found
        self._position += size
        return size


def test_entries_and_offsets_over_4_gib_go_as_zip64() -> None:
    zeros = bytes(1 << 22)
    large = Entry("large", lambda: (zeros for _ in range(1025)), 1025 << 22, "application/octet-stream")
    entries = [Entry("first", b"1"), large, Entry("last", b"2")]
    sparse = _Sparse(build_archive(entries), zeros)
    assert sparse.size == archive_size(entries) > 4 << 30
    archive = Archive(sparse)  # type: ignore[arg-type]
    assert [(m.path, m.size) for m in archive.members] == [("first", 1), ("large", 1025 << 22), ("last", 1)]
    assert archive.read("last") == b"2"
    with archive.open("large") as stream:
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == bytes(10)
    with zipfile.ZipFile(sparse) as other:
        assert other.getinfo("large").file_size == 1025 << 22
        assert other.read("last") == b"2"


def test_256_mib_are_written_in_constant_memory() -> None:
    zeros = bytes(1 << 20)
    tracemalloc.start()
    try:
        total = sum(len(c) for c in build_archive([Entry("a", lambda: (zeros for _ in range(256)), 256 << 20)]))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total > 256 << 20
    assert peak < 16 << 20
