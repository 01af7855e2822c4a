"""Content of a result file as bytes: text, JSON, tables, files. The same value gives the same bytes."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path, PurePath
from typing import Any

from cloister.errors import ConfigurationError, InputError, quoted

Chunks = Iterable[bytes | memoryview]
_READ = 1 << 20


def build_content(name: str, value: object) -> Chunks:
    """The bytes of ``value`` for a file of that name, in pieces.

    Raises:
        InputError: nothing that a file can hold, or a table and another suffix than ``.csv`` and ``.parquet``.
    """
    if isinstance(value, str):
        return (_encode(name, value),)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return (memoryview(value).cast("B"),)
    if isinstance(value, PurePath):
        return _read_file(Path(value))
    if "pandas" in sys.modules or "pyarrow" in sys.modules:
        from cloister.datasets.frames import is_table

        if is_table(value):
            return _build_table(name, value)
    return (_encode(name, build_json(name, value)),)


def build_json(name: str, value: object) -> str:
    """JSON with sorted keys, one member a line. Raises InputError for what JSON does not have."""
    try:
        return json.dumps(value, default=_plain, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise InputError(f"{quoted(name)} cannot be JSON: it is nested too deep") from None
    except TypeError as error:
        raise InputError(f"{quoted(name)} cannot be JSON: {quoted(str(error))}") from None
    except ValueError as error:
        reason = "it holds itself" if "ircular" in str(error) else "it holds NaN or an infinity"
        raise InputError(f"{quoted(name)} cannot be JSON: {reason}") from None


def _plain(value: Any) -> object:
    """What JSON has instead of ``value``."""
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        return {field: getattr(value, field) for field in fields}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set):
        return sorted(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for method in ("tolist", "isoformat"):  # numpy and pandas; dates and times
        if callable(found := getattr(value, method, None)):
            return found()
    raise TypeError(f"a value of type {type(value).__name__} has no form in JSON")


def _encode(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the text of {quoted(name)} is not valid Unicode") from error


def _read_file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(_READ):
                yield piece
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"there is no file {quoted(str(path))}") from error


def _build_table(name: str, table: Any) -> Chunks:
    match PurePath(name).suffix.lower():
        case ".parquet":
            from cloister.datasets.frames import build_table_entry

            entry = build_table_entry(table, PurePath(name).stem)
            return (entry.content,) if isinstance(entry.content, bytes) else (memoryview(c) for c in entry.content())
        case ".csv":
            return (_build_csv(table),)
        case suffix:
            raise InputError(f"a table is written as .csv or .parquet, not as {quoted(suffix or name)}")


def _build_csv(table: Any) -> bytes:
    if hasattr(table, "to_csv"):
        # Row numbers that nobody chose are no column.
        numbered = type(table.index).__name__ == "RangeIndex"
        return str(table.to_csv(index=not numbered, lineterminator="\n")).encode()
    try:
        from pyarrow import csv
    except ImportError as error:
        raise ConfigurationError("writing this table as CSV needs pyarrow.csv") from error
    sink = io.BytesIO()
    csv.write_csv(table, sink)
    return sink.getvalue()
