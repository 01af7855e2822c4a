"""Archives of protected data and of results: a deterministic ZIP writer and a reader that trusts nothing.

Build with ``build_archive(entries)``; read with ``Archive(file, limits)``. The reader refuses an archive as a whole
when anything in it is doubtful (zip_directory says what); it never writes to a file system.
"""

from __future__ import annotations

import io
import os
import zlib
from typing import IO

from cloister.datasets import zip_records as z
from cloister.datasets.zip_directory import ArchiveLimits, Member, read_directory
from cloister.datasets.zip_writer import Buffer, Entry, archive_size, build_archive
from cloister.errors import DecodeError, InputError, NotFound, TooLarge, quoted

__all__ = [
    "Archive",
    "ArchiveLimits",
    "Entry",
    "Member",
    "archive_size",
    "build_archive",
    "read_member",
    "read_names",
]

MAX_READ = 1 << 30
"""Largest entry that ``read`` gives in one piece, bytes; ``open`` has no such cap."""
_PIECE = 1 << 16


class Archive:
    """The entries of a ZIP in ``file`` (seekable, kept open by the caller). Not safe to share between threads.

    Raises DecodeError or TooLarge from the constructor when the archive is refused.
    """

    __slots__ = ("_file", "_members", "limits")

    def __init__(self, file: IO[bytes], limits: ArchiveLimits | None = None) -> None:
        self.limits = limits or ArchiveLimits()
        self._file = file
        self._members = {member.path: member for member in read_directory(file, self.limits)}

    @property
    def members(self) -> tuple[Member, ...]:
        """All entries, folders included, in the archive's order."""
        return tuple(self._members.values())

    def names(self) -> list[str]:
        """Paths of the files, in the archive's order."""
        return [member.path for member in self._members.values() if not member.folder]

    def member(self, path: str) -> Member:
        """The file at ``path``. Raises NotFound."""
        member = self._members.get(path)
        if member is None or member.folder:
            raise NotFound(f'no "{quoted(path)}" file found in the archive')
        return member

    def open(self, path: str) -> io.RawIOBase:
        """A file's bytes as a stream; seekable when it is stored, as all archives written here are.

        Reading to the end proves the size and the CRC-32. Raises NotFound; reads raise DecodeError, TooLarge.
        """
        member = self.member(path)
        return _StoredFile(self._file, member) if member.method == z.STORED else _DeflatedFile(self._file, member)

    def read(self, path: str, *, max_size: int = MAX_READ) -> bytes:
        """A file's bytes in one piece. Raises NotFound, DecodeError, TooLarge over ``max_size``."""
        member = self.member(path)
        if member.size > max_size:
            raise TooLarge(f"{quoted(path)} is {member.size} bytes, the cap is {max_size}", hint="read it as a stream")
        with self.open(path) as stream:
            return stream.readall() or b""


def read_names(file: IO[bytes], limits: ArchiveLimits | None = None) -> list[str]:
    """Paths of the files in the archive. Raises DecodeError, TooLarge."""
    return Archive(file, limits).names()


def read_member(file: IO[bytes], path: str, limits: ArchiveLimits | None = None) -> bytes:
    """One file of the archive. Raises DecodeError, TooLarge, NotFound."""
    return Archive(file, limits).read(path)


def _damaged(member: Member) -> DecodeError:
    return DecodeError(f"the entry {quoted(member.path)} is damaged or cut")


class _StoredFile(io.RawIOBase):
    def __init__(self, file: IO[bytes], member: Member) -> None:
        super().__init__()
        self._file, self._member = file, member
        self._position = 0
        self._proved, self._crc = 0, 0  # bytes from the start that the running CRC covers

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._member.size}[whence]
        if base + offset < 0:
            raise InputError(f"cannot seek to {base + offset}: a position is 0 or more")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer) -> int:  # type: ignore[override]  # typeshed's WriteableBuffer is not public
        target = memoryview(buffer).cast("B")
        wanted = max(0, min(len(target), self._member.size - self._position))
        self._file.seek(self._member.data_offset + self._position)
        data = self._file.read(wanted)
        if len(data) < wanted and not data:
            raise _damaged(self._member)
        target[: len(data)] = data
        if self._position == self._proved:
            self._crc = zlib.crc32(data, self._crc)
            self._proved += len(data)
            if self._proved == self._member.size and self._crc != self._member.crc:
                raise _damaged(self._member)
        self._position += len(data)
        return len(data)


class _DeflatedFile(io.RawIOBase):
    def __init__(self, file: IO[bytes], member: Member) -> None:
        super().__init__()
        self._file, self._member = file, member
        self._packed_read = self._size = self._crc = 0
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:  # type: ignore[override]  # typeshed's WriteableBuffer is not public
        target = memoryview(buffer).cast("B")
        if not len(target):
            return 0
        data = self._inflate(len(target))
        self._size += len(data)
        self._crc = zlib.crc32(data, self._crc)
        if self._size > self._member.size:
            raise TooLarge(f"the entry {quoted(self._member.path)} expands over the size it claims")
        if not data:
            self._verify_end()
        target[: len(data)] = data
        return len(data)

    def _inflate(self, most: int) -> bytes:
        data = b""
        while not data and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail
            if not packed:
                self._file.seek(self._member.data_offset + self._packed_read)
                packed = self._file.read(min(_PIECE, self._member.packed_size - self._packed_read))
                self._packed_read += len(packed)
            try:
                # Even without new input: a short read may have left output inside the inflater.
                data = self._inflater.decompress(packed, most)
            except zlib.error:
                raise _damaged(self._member) from None
            if not packed and not data and not self._inflater.eof:
                raise _damaged(self._member)
        return data

    def _verify_end(self) -> None:
        whole = self._packed_read == self._member.packed_size and not self._inflater.unused_data
        if not whole or self._size != self._member.size or self._crc != self._member.crc:
            raise _damaged(self._member)
