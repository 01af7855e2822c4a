"""How an iApp reads protected data. Standard library only, but for tables.

    with ProtectedDataReader() as data:          # the file that the platform gave this task
        data.read("user.email")                  # "a@b.c"
        data.dataframe("table")                  # a pandas DataFrame
        with data.open("video") as stream: ...   # a seekable binary file

Reads archives packed here and by iExec's DataProtector, old and new.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from cloister.datasets.archive import Archive, ArchiveLimits, Member
from cloister.datasets.frames import read_table
from cloister.datasets.schema import HEAD_SIZE, OCTET_STREAM, VALUE_TYPES, Schema, detect_media_type, schema_name
from cloister.datasets.values import Value, parse_untyped, parse_value
from cloister.errors import DecodeError, InputError, NotFound, quoted

_ALIASES = {"boolean": "bool", "number": "f64"}
_BUFFER = 1 << 18
_LARGEST_TYPED = 1 << 20
"""Entries without a named type are looked into for a string up to this size, when the schema is told."""


@dataclass(frozen=True, slots=True)
class DataEntry:
    """One entry: its path with slashes, its type (empty when the archive does not say), its size in bytes."""

    path: str
    type: str
    size: int


class ProtectedDataReader:
    """The entries of one protected data file. Not safe to share between threads."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        index: int | None = None,
        environment: Mapping[str, str] = os.environ,
        limits: ArchiveLimits | None = None,
    ) -> None:
        """Open ``path``; without one, the file that the task's environment names (item ``index`` of a bulk, from 1).

        Raises NotFound when there is none, DecodeError when it is not an archive that may be read.
        """
        self._path = Path(path) if path is not None else find_protected_data(environment, index)
        try:
            self._file = self._path.open("rb")
        except OSError as error:
            raise NotFound(f"missing protected data: {quoted(str(self._path))} cannot be opened") from error
        try:
            self._archive = Archive(self._file, limits)
        except BaseException:
            self._file.close()
            raise
        self._found = self._index()

    def _index(self) -> dict[str, str | None]:
        """Every way to name a file -> its path, or None when two files go by that name."""
        found: dict[str, str | None] = {}
        for path in self._archive.names():
            short = ".".join(schema_name(part) for part in path.split("/"))
            for alias in {path.replace("/", "."), short, short.replace(".", "/")} - {path}:
                found[alias] = None if alias in found else path
        found.update({path: path for path in self._archive.names()})
        return found

    def __enter__(self) -> ProtectedDataReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; streams that were opened from it end too."""
        self._file.close()

    def entries(self) -> tuple[DataEntry, ...]:
        """All files, in the archive's order."""
        return tuple(DataEntry(m.path, m.comment, m.size) for m in self._archive.members if not m.folder)

    @property
    def schema(self) -> Schema:
        """Names and types, nested. Where the archive names no type it is told from the content."""
        schema: Schema = {}
        for member in self._archive.members:
            *folders, last = member.path.removesuffix("/").split("/")
            place = schema
            for folder in folders:
                place = place.setdefault(folder, {})
            place.setdefault(last, {} if member.folder else self._type(member))
        return schema

    def read(self, path: str, type: str | None = None) -> Value:  # noqa: A002  # the word of the schema
        """One value: bool, int, float, str or bytes. ``path`` has dots or slashes.

        Without ``type`` it is what the archive says; an archive that says nothing (iExec's) gives a string where the
        bytes prove one, else the bytes. Raises NotFound; DecodeError when the content is not of that type.
        """
        member = self._member(path)
        named = member.comment if type is None else _ALIASES.get(type, type)
        if type is not None and member.comment and not _fits(named, member.comment):
            raise DecodeError(f"{quoted(path)} is of type {quoted(member.comment)}, not {quoted(type)}")
        data = self._archive.read(member.path)
        if not named:
            return parse_untyped(data)
        return parse_value(named if member.comment else type or named, data)

    def read_bytes(self, path: str) -> bytes:
        """One entry's bytes as they are. Raises NotFound, DecodeError, TooLarge over 1 GiB."""
        return self._archive.read(self._member(path).path)

    def open(self, path: str) -> io.BufferedReader:
        """One entry as a binary file, for what is larger than memory. Raises NotFound."""
        return io.BufferedReader(self._archive.open(self._member(path).path), _BUFFER)

    def dataframe(self, path: str) -> Any:
        """One entry as a pandas DataFrame: Parquet, or a ``.csv`` file.

        Raises NotFound, DecodeError, ConfigurationError when pandas or pyarrow is missing.
        """
        member = self._member(path)
        with self.open(member.path) as stream:
            return read_table(stream if stream.seekable() else io.BytesIO(stream.read()), member.path)

    def _member(self, path: str) -> Member:
        found = self._found.get(path, "")
        if found is None:
            raise InputError(f"{quoted(path)} names more than one entry", hint="give the path as entries() shows it")
        if not found:
            shown = ", ".join(quoted(name) for name in self._archive.names()[:10])
            raise NotFound(f"failed to load path {quoted(path)}: there is no such entry", hint=f"there is: {shown}")
        return self._archive.member(found)

    def _type(self, member: Member) -> str:
        if member.comment:
            return member.comment
        with self._archive.open(member.path) as stream:
            media = detect_media_type(stream.read(HEAD_SIZE) or b"")
        if media == OCTET_STREAM and member.size <= _LARGEST_TYPED:
            return "string" if isinstance(parse_untyped(self._archive.read(member.path)), str) else media
        return media


def _fits(asked: str, named: str) -> bool:
    """Whether an entry that says ``named`` may be read as ``asked``: the same, or a file's bytes, or a file's text."""
    return asked == named or (named not in VALUE_TYPES and asked not in VALUE_TYPES - {"string"})


def find_protected_data(environment: Mapping[str, str], index: int | None = None) -> Path:
    """Where the platform put this task's protected data, or item ``index`` (from 1) of its bulk. Raises NotFound."""
    variable = "IEXEC_DATASET_FILENAME" if index is None else f"IEXEC_DATASET_{index}_FILENAME"
    folder, name = environment.get("IEXEC_IN", ""), environment.get(variable, "")
    if not folder or not name:
        raise NotFound(
            f"missing protected data: IEXEC_IN and {variable} are not both set",
            hint="this task was given no protected data; give a path to read a file",
        )
    return Path(folder) / name


def load_bulk(environment: Mapping[str, str] = os.environ) -> list[ProtectedDataReader]:
    """A reader for every item of a bulk task, in order; none when the task has no bulk. Raises as the reader does."""
    size = environment.get("IEXEC_BULK_SLICE_SIZE", "0")
    if not size.isdecimal():
        raise InputError(f"IEXEC_BULK_SLICE_SIZE is not a number: {quoted(size)}")
    return [ProtectedDataReader(index=index, environment=environment) for index in range(1, int(size) + 1)]
