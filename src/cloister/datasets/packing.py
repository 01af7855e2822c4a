"""Turn what the owner has into protected data: a schema and an archive, streamed.

| value                          | entry                                  | schema type                     |
|--------------------------------|----------------------------------------|---------------------------------|
| bool, int, float, str          | borsh                                  | bool, i128, f64, string         |
| bytes                          | as they are                            | media type from the first bytes |
| dict                           | folder ``name/``                       | nested                          |
| Path to a file, as a dict value| the file's bytes, under the dict's name| media type from the first bytes |
| Path to a file, alone          | under the file's own name              | same                            |
| Path to a folder               | its files under their own names        | nested                          |
| pandas DataFrame, pyarrow Table| ``name.parquet``                       | application/octet-stream        |

A dict packs to what iExec's DataProtector packs, so its deserializer reads it. Each entry's type also stands in the
archive, as the entry's comment: an iApp knows it without the chain. Names in a dict follow iExec's rule. Names of files
are kept in the archive; in the schema, characters outside the rule become ``_``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.datasets import frames
from cloister.datasets.files import load_entries, load_file
from cloister.datasets.schema import (
    HEAD_SIZE,
    MAX_DEPTH,
    MEDIA_TYPES,
    OCTET_STREAM,
    Schema,
    build_schema,
    detect_media_type,
    schema_name,
    verify_key,
)
from cloister.datasets.values import build_value
from cloister.datasets.zip_writer import Entry, archive_size, build_archive
from cloister.errors import InputError, quoted

MAX_FOLDER_SCHEMA = 2048
"""Longest schema text of a folder: the chain is paid by the byte, so a larger one is told from fewer levels."""
MAX_ENTRIES = 100_000


class ArchiveChunks:
    """The bytes of an archive; iterate again to build it again, the same."""

    __slots__ = ("_entries",)

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self._entries = entries

    def __iter__(self) -> Iterator[bytes]:
        return build_archive(self._entries)


@dataclass(frozen=True, slots=True)
class Packed:
    """What ``pack`` made. ``size`` is the bytes of ``chunks`` together."""

    schema: Schema
    chunks: ArchiveChunks
    size: int | None

    @property
    def schema_json(self) -> str:
        """The schema as the compact text that goes on the chain."""
        return build_schema(self.schema)


def pack(value: object, *, name: str = "data") -> Packed:
    """Pack ``value``; ``name`` is the entry of bytes or of a table that stand alone.

    Reads only names, sizes and first bytes of files; their content is read while ``chunks`` is iterated.
    Raises InputError (reference texts, ``data is not valid: …``), NotFound for a missing file.
    """
    verify_key(name)
    value = _plain(value)
    entries: list[Entry] = []
    schema: Schema
    if isinstance(value, Mapping):
        if not value:
            raise InputError("data is not valid: there is nothing in it to protect")
        schema = _pack_mapping(value, "", entries, 1)
    elif isinstance(value, Path):
        entries = load_entries(value)
        schema = _fit(_folder_schema(entries, ""), name)
    elif isinstance(value, bytes | bytearray | memoryview) or frames.is_table(value):
        schema = {name: _pack_leaf(value, name, entries, 1)}
    else:
        raise _unsupported(value, "a dict, bytes, a Path or a DataFrame can be protected")
    if not any(not entry.path.endswith("/") for entry in entries):
        raise InputError("data is not valid: there is nothing in it to protect")
    if len(entries) > MAX_ENTRIES:
        raise InputError(f"data is not valid: it has {len(entries)} entries, the cap is {MAX_ENTRIES}")
    return Packed(schema, ArchiveChunks(tuple(entries)), archive_size(entries))


def _plain(value: object) -> object:
    """A numpy scalar as the Python value it stands for."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        item: Callable[[], object] = getattr(value, "item")  # noqa: B009  # numpy is not imported here
        return item()
    return value


def _pack_mapping(value: Mapping[Any, Any], prefix: str, entries: list[Entry], depth: int) -> Schema:
    if depth > MAX_DEPTH:
        raise InputError(f"data is not valid: it is nested deeper than {MAX_DEPTH}")
    schema: Schema = {}
    for key, item in value.items():
        name = verify_key(key)
        schema[name] = _pack_leaf(_plain(item), prefix + name, entries, depth)
    return schema


def _pack_leaf(value: object, path: str, entries: list[Entry], depth: int) -> str | Schema:
    """Add the entries of one named value; gives its type or nested schema."""
    if isinstance(value, Mapping):
        entries.append(Entry(path + "/"))
        return _pack_mapping(value, path + "/", entries, depth + 1)
    if isinstance(value, bool | int | float | str):
        kind, data = build_value(value)
        entries.append(Entry(path, data, comment=kind))
        return kind
    if isinstance(value, bytes | bytearray | memoryview):
        kind = detect_media_type(bytes(value[:HEAD_SIZE]))
        entries.append(Entry(path, bytes(value), comment=kind))
        return kind
    if isinstance(value, Path):
        return _pack_path(value, path, entries)
    if frames.is_table(value):
        entry = frames.build_table_entry(value, path)
        entries.append(entry)
        return OCTET_STREAM
    raise _unsupported(value)


def _pack_path(source: Path, path: str, entries: list[Entry]) -> str | Schema:
    if not source.is_dir():
        entry = load_file(source, path)
        entries.append(entry)
        return entry.comment
    found = load_entries(source, path + "/")
    entries.append(Entry(path + "/"))
    entries.extend(found)
    schema = _folder_schema(found, path + "/")
    return schema if len(build_schema(schema)) <= MAX_FOLDER_SCHEMA else OCTET_STREAM


def _folder_schema(entries: list[Entry], prefix: str) -> Schema:
    schema: Schema = {}
    for entry in entries:
        *folders, last = [schema_name(part) for part in entry.path.removeprefix(prefix).removesuffix("/").split("/")]
        place = schema
        for folder in folders:
            inner = place.setdefault(folder, {})
            if isinstance(inner, str):  # two names that became one: the first stays
                break
            place = inner
        else:
            kind = entry.comment if entry.comment in MEDIA_TYPES else OCTET_STREAM
            place.setdefault(last, {} if entry.path.endswith("/") else kind)
    return schema


def _fit(schema: Schema, name: str) -> Schema:
    """Cut levels from the bottom until the schema's text is short enough for the chain."""
    depth = MAX_DEPTH
    while len(build_schema(schema)) > MAX_FOLDER_SCHEMA and depth > 0:
        depth = min(depth - 1, _depth(schema) - 1)
        schema = _cut(schema, depth) if depth > 0 else {name: OCTET_STREAM}
    return schema


def _depth(schema: Schema) -> int:
    return 1 + max((_depth(item) for item in schema.values() if isinstance(item, dict)), default=0)


def _cut(schema: Schema, depth: int) -> Schema:
    return {
        key: item if isinstance(item, str) else (_cut(item, depth - 1) if depth > 1 else OCTET_STREAM)
        for key, item in schema.items()
    }


_KINDS = ((type(None), "null"), ((list, tuple, set, frozenset), "array"))


def _unsupported(value: object, hint: str | None = None) -> InputError:
    kind = next((word for types, word in _KINDS if isinstance(value, types)), None)
    if kind is None:
        kind = "function" if callable(value) and not isinstance(value, type) else quoted(type(value).__name__)
    if re.fullmatch(r"ndarray|Series|Index", kind):
        kind = "array"
    return InputError(
        f"data is not valid: Unsupported {kind} data",
        hint=hint or "supported: bool, int, float, str, bytes, Path, DataFrame, and dicts of them",
    )
