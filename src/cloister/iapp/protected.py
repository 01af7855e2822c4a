"""Protected data: the one of a task, or the items of a bulk task."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from cloister.datasets.reader import ProtectedDataReader
from cloister.datasets.values import Value
from cloister.errors import InputError, NotFound, quoted

_NOBODY = "0x" + "0" * 40
_TABLES = (".parquet", ".csv")
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Item:
    """One protected data of the task. ``index`` counts from 1; ``address`` is its dataset's, in lower case.

    An item that was refused, or that could not be had or opened, is not ``available``: it has no file. ``cause`` names
    the reason where the environment says it.
    """

    index: int
    address: str
    path: Path
    cause: str | None = None

    @property
    def available(self) -> bool:
        """Whether there is anything to read."""
        return self.cause is None and self.path.is_file()

    @overload
    def read(self, path: str, type: Literal["string"]) -> str: ...
    @overload
    def read(self, path: str, type: Literal["bool", "boolean"]) -> bool: ...
    @overload
    def read(self, path: str, type: Literal["i128"]) -> int: ...
    @overload
    def read(self, path: str, type: Literal["f64", "number"]) -> float: ...
    @overload
    def read(self, path: str, type: str | None = None) -> Value: ...
    def read(self, path: str, type: str | None = None) -> Value:  # noqa: A002  # the word of the schema
        """One value: bool, int, float, str or bytes; ``path`` has dots or slashes, ``type`` is the schema's word.

        Raises:
            NotFound: no such entry, or the item is not available. DecodeError: it is not of that type.
        """
        reader = _keep(self._check())
        try:
            return reader.read(path, type)
        except NotFound:
            raise NotFound(f"no {quoted(path)} in the protected data: there is {_shown(reader)}") from None

    def data(self) -> ProtectedDataReader:
        """Open the item; close it, or use ``with``. Raises NotFound when it is not available."""
        return ProtectedDataReader(self._check())

    def dataframe(self, path: str | None = None) -> Any:
        """A table of the item as a pandas DataFrame; without a path the only one there is. Raises as ``dataframe``."""
        reader = _keep(self._check())
        return reader.dataframe(_find_table(reader) if path is None else path)

    def _check(self) -> Path:
        if not self.available:
            reason = "it was refused, or could not be opened" if self.cause is None else self.cause
            raise NotFound(f"item {self.index} ({quoted(self.address)}) is not available: {reason}")
        return self.path


@overload
def read(path: str, type: Literal["string"]) -> str: ...
@overload
def read(path: str, type: Literal["bool", "boolean"]) -> bool: ...
@overload
def read(path: str, type: Literal["i128"]) -> int: ...
@overload
def read(path: str, type: Literal["f64", "number"]) -> float: ...
@overload
def read(path: str, type: str | None = None) -> Value: ...
def read(path: str, type: str | None = None) -> Value:  # noqa: A002  # the word of the schema
    """One value of the task's protected data: bool, int, float, str or bytes.

    ``path`` has dots or slashes (``"user.email"``). ``type`` is the schema's word (``string``, ``bool``, ``i128``, ``f64``,
    a media type); data that was packed by iExec's clients does not say its types, so name them there.

    Raises:
        NotFound: no protected data, or no such entry. DecodeError: the content is not of that type.
    """
    return _single().read(path, type)


def data() -> ProtectedDataReader:
    """Open the task's protected data, for its ``schema``, ``entries()`` and large files; use it with ``with``.

    Raises:
        NotFound: there is none. DecodeError: it is not an archive that may be read.
    """
    return _single().data()


def dataframe(path: str | None = None) -> Any:
    """A table of the task's protected data as a pandas DataFrame: Parquet or CSV. Without a path the only one there is.

    Raises:
        NotFound: there is none. InputError: several, and none is named. DecodeError: it is no table.
        ConfigurationError: pandas or pyarrow is not in the bundle.
    """
    return _single().dataframe(path)


def items() -> Iterator[Item]:
    """The items of a bulk task in the request's order, those too that are not available; or the task's single data.

    Raises:
        NotFound: the task was given no protected data.
    """
    size = _bulk_size()
    if size == 0:
        return iter((_single(),))
    folder = _folder()
    return iter(tuple(_item(folder, number) for number in range(1, size + 1)))


def _item(folder: Path, number: int) -> Item:
    name = os.environ.get(f"IEXEC_DATASET_{number}_FILENAME")
    if not name:
        raise NotFound(f"item {number} has no name: IEXEC_DATASET_{number}_FILENAME is not set")
    return Item(number, name, folder / name, os.environ.get(f"CLOISTER_DATASET_{number}_CAUSE"))


def _single() -> Item:
    size = _bulk_size()
    if size:
        raise NotFound(f"this is a bulk task of {size} protected data: go through them with iapp.items()")
    name = os.environ.get("IEXEC_DATASET_FILENAME")
    if not name or name == _NOBODY:
        raise NotFound("this task was given no protected data")
    item = Item(1, os.environ.get("IEXEC_DATASET_ADDRESS") or name, _folder() / name)
    if not item.available:
        raise NotFound(f"the task's protected data is missing: there is no file {quoted(str(item.path))}")
    return item


def _folder() -> Path:
    folder = os.environ.get("IEXEC_IN")
    if not folder:
        raise NotFound("IEXEC_IN is not set: this is not running as a task")
    return Path(folder)


def _bulk_size() -> int:
    text = os.environ.get("IEXEC_BULK_SLICE_SIZE") or "0"
    if not text.isascii() or not text.isdigit():
        raise InputError(f"IEXEC_BULK_SLICE_SIZE is not a number: {quoted(text)}")
    return int(text)


def _find_table(reader: ProtectedDataReader) -> str:
    tables = [entry.path for entry in reader.entries() if entry.path.endswith(_TABLES)]
    if not tables:
        raise NotFound(f"no table in the protected data: there is {_shown(reader)}")
    if len(tables) > 1:
        raise InputError(f"the protected data has {len(tables)} tables, name one: {', '.join(map(quoted, tables))}")
    return tables[0]


def _shown(reader: ProtectedDataReader) -> str:
    paths = [quoted(entry.path) for entry in reader.entries()]
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return (", ".join(paths[:_SHOWN]) or "nothing") + more


class _Kept(threading.local):
    """The reader that was used last: many reads of one archive read its directory once. One for each thread and process,
    because a file has one position.
    """

    key: tuple[object, ...] | None = None
    reader: ProtectedDataReader | None = None


_kept = _Kept()


def _keep(path: Path) -> ProtectedDataReader:
    status = path.stat()
    key = (os.getpid(), path, status.st_ino, status.st_mtime_ns, status.st_size)
    if _kept.reader is None or _kept.key != key:
        if _kept.reader is not None:
            _kept.reader.close()
            _kept.reader = None
        _kept.reader = ProtectedDataReader(path)
        _kept.key = key
    return _kept.reader
