"""Mock protected data: the names, types and shapes of real data, with invented values.

From a schema (as it stands on the chain, or put together from fields and tables) or from the real thing. Of real data
the names of entries and columns, their types and the number of rows are taken; no value, no range, no size of a file.
The same seed gives the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloister.datasets.archive import Archive, Entry, build_archive
from cloister.datasets.frames import SUFFIX as PARQUET_SUFFIX
from cloister.datasets.packing import pack
from cloister.datasets.schema import (
    HEAD_SIZE,
    MEDIA_TYPES,
    OCTET_STREAM,
    VALUE_TYPES,
    Schema,
    detect_media_type,
    verify_key,
)
from cloister.datasets.values import build_value
from cloister.errors import Conflict, InputError, NotFound, TooLarge, quoted
from cloister.generator.mock.media import build_media
from cloister.generator.mock.tables import build_table, mock_csv, mock_parquet
from cloister.generator.mock.values import Inventor
from cloister.generator.rehearsal.data import JSON_CAP, load_object

ROWS = 100
FILES_CAP = 10_000
_OLD_TYPES = {"boolean": "bool", "number": "f64"}
"""Types of older releases -> what is packed today."""
_TEXTS = (".txt", ".md", ".log", ".rst", ".html")
_LIST_MOST = 1000


@dataclass(frozen=True, slots=True)
class Table:
    """A table to invent: column names to types (``mock_tables.TYPES``)."""

    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wish:
    """How to invent. ``rows`` None: as many as the real table has, or 100. ``categories``: draw values of columns that hold
    few different ones from the real ones. ``header``: the first line of a CSV is names.
    """

    seed: int = 0
    rows: int | None = None
    categories: bool = False
    header: bool = True


@dataclass(frozen=True, slots=True)
class Mock:
    """Files to write, by path under the mock folder, and what ``run.toml`` calls the whole."""

    name: str
    files: Mapping[str, bytes] = field(repr=False)


def mock_value(schema: Mapping[str, Any], *, seed: int = 0, rows: int | None = None) -> dict[str, Any]:
    """An object of the schema, as ``pack`` and ``rehearse`` take it. A ``Table`` may stand where a type does.

    Raises:
        InputError: a name or type that cannot be. ConfigurationError: a table without pyarrow.
    """
    return _object(schema, Inventor(seed), Wish(seed, rows))


def mock_schema(schema: Mapping[str, Any], name: str, wish: Wish) -> Mock:
    """A mock of a schema: JSON where that can hold it, else packed protected data (``.zip``)."""
    value = _object(schema, Inventor(wish.seed), wish)
    if _is_plain(value):
        return Mock(f"{name}.json", {f"{name}.json": _as_json(value)})
    return Mock(f"{name}.zip", {f"{name}.zip": b"".join(bytes(chunk) for chunk in pack(value).chunks)})


def mock_path(path: Path, wish: Wish) -> Mock:
    """A mock of a real file or folder, under the same name.

    A ``.json`` object, a table and packed protected data keep their inner names and types; any other file becomes a small
    one of the same kind.

    Raises:
        NotFound, InputError, DecodeError, TooLarge: it cannot be read. ConfigurationError: a Parquet file without pyarrow.
    """
    if not path.exists():
        raise NotFound(f"there is no file or folder {quoted(str(path))}")
    path = path.resolve()
    if path.is_dir():
        files = {f"{path.name}/{name}": _file(inner, wish, number) for number, (name, inner) in enumerate(_walk(path))}
        if not files:
            raise InputError(f"{quoted(str(path))} has no files")
        return Mock(path.name, files)
    if path.suffix == ".json":
        value = _like_object(load_object(path), Inventor(wish.seed))
        return Mock(path.name, {path.name: _as_json(value)})
    if path.suffix == ".zip":
        return _mock_archive(path, wish)
    return Mock(path.name, {path.name: _file(path, wish, 0)})


def write_mock(mock: Mock, folder: Path, *, replace: bool) -> list[Path]:
    """Write the files under ``folder``. A file that is there with another content stays unless ``replace``.

    Raises:
        Conflict: such a file. InputError: it cannot be written.
    """
    places = [(folder / name, content) for name, content in mock.files.items()]
    for path, content in places:
        if not replace and path.exists() and (not path.is_file() or path.read_bytes() != content):
            raise Conflict(
                f"{quoted(str(path))} is there already", hint="--force writes over it, --name takes another name"
            )
    try:
        for path, content in places:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise InputError(f"the mock cannot be written to {quoted(str(folder))}: {error.strerror}") from error
    return [path for path, _ in places]


def _object(schema: Mapping[str, Any], inventor: Inventor, wish: Wish) -> dict[str, Any]:
    if not schema:
        raise InputError("the schema is empty", hint="--field email=string")
    return {verify_key(name): _entry(name, kind, inventor, wish) for name, kind in schema.items()}


def _entry(name: str, kind: object, inventor: Inventor, wish: Wish) -> Any:
    if isinstance(kind, Table):
        return build_table(kind.columns, ROWS if wish.rows is None else wish.rows, inventor)
    if isinstance(kind, Mapping):
        return {verify_key(inner): _entry(inner, item, inventor, wish) for inner, item in kind.items()}
    named = _OLD_TYPES.get(str(kind), str(kind))
    if named in VALUE_TYPES:
        return inventor.value(named, name)
    if named in MEDIA_TYPES:
        return build_media(named, inventor)
    known = ", ".join((*sorted(VALUE_TYPES), *sorted(MEDIA_TYPES)))
    raise InputError(f"{quoted(name)}: there is no type {quoted(named)}", hint=f"known: {known}")


def _is_plain(value: Mapping[str, Any]) -> bool:
    return all(
        _is_plain(item) if isinstance(item, Mapping) else isinstance(item, bool | int | float | str)
        for item in value.values()
    )


def _as_json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _like_object(value: Mapping[str, Any], inventor: Inventor) -> dict[str, Any]:
    """The same keys with invented values of the same types."""
    return {str(name): _like(item, str(name), inventor) for name, item in value.items()}


def _like(value: object, name: str, inventor: Inventor) -> Any:
    match value:
        case dict():
            return _like_object(value, inventor)
        case list():
            return [_like(item, name, inventor) for item in value[:_LIST_MOST]]
        case bool():
            return inventor.flag()
        case int():
            return inventor.integer(name)
        case float():
            return inventor.number()
        case str():
            return inventor.text(name)
        case _:
            return None


def _file(path: Path, wish: Wish, number: int) -> bytes:
    """A small file of the same kind. Of tables the columns are kept."""
    inventor = Inventor(wish.seed * FILES_CAP + number)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return mock_csv(path, inventor, rows=wish.rows, categories=wish.categories, header=wish.header)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_SIZE)
    except OSError as error:
        raise InputError(f"{quoted(str(path))} cannot be read: {error.strerror}") from error
    if suffix == ".parquet":
        return mock_parquet(path, inventor, rows=wish.rows, categories=wish.categories)
    if suffix == ".json":
        return _as_json(_like(_load_json(path), "", inventor))
    if suffix in _TEXTS:
        return f"{inventor.sentences(8)}\n".encode()
    return build_media(detect_media_type(head), inventor)


def _load_json(path: Path) -> object:
    if path.stat().st_size > JSON_CAP:
        raise TooLarge(f"{quoted(str(path))} is larger than {JSON_CAP} bytes")
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{quoted(str(path))} is not JSON") from error


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    count = 0
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError(
                f"{quoted(str(path))} is no plain file", hint="protected data holds files and folders only"
            )
        if path.is_file():
            count += 1
            if count > FILES_CAP:
                raise InputError(f"{quoted(str(folder))} has more than {FILES_CAP} files", hint="mock a part of it")
            yield path.relative_to(folder).as_posix(), path


def _mock_archive(path: Path, wish: Wish) -> Mock:
    """Packed protected data, mocked by the names and types in its directory; of its entries only tables are read."""
    inventor, entries = Inventor(wish.seed), list[Entry]()
    with path.open("rb") as file:
        archive = Archive(file)
        for member in archive.members:
            if member.folder:
                entries.append(Entry(member.path))
                continue
            kind = _OLD_TYPES.get(member.comment, member.comment)
            if member.path.endswith(PARQUET_SUFFIX):
                with io.BufferedReader(archive.open(member.path)) as table:
                    source = io.BytesIO(table.read())
                content = mock_parquet(source, inventor, rows=wish.rows, categories=wish.categories)
            elif kind in VALUE_TYPES:
                content = build_value(inventor.value(kind, member.path.rpartition("/")[2]))[1]
            else:
                content = build_media(kind if kind in MEDIA_TYPES else OCTET_STREAM, inventor)
            entries.append(Entry(member.path, content, comment=kind))
    return Mock(path.name, {path.name: b"".join(build_archive(tuple(entries)))})


def parse_fields(fields: tuple[str, ...], tables: tuple[tuple[str, Mapping[str, str]], ...]) -> Schema:
    """A schema from ``email=string`` and ``photos.cat=image/png``; dots nest.

    Raises:
        InputError: a field without a type, or a name twice.
    """
    schema: Schema = {}
    pairs: list[tuple[str, object]] = []
    for text in fields:
        name, separator, type_name = text.partition("=")
        if not separator or not type_name:
            raise InputError(f"{quoted(text)} is no field", hint="--field email=string")
        pairs.append((name, type_name))
    pairs += [(name, Table(columns)) for name, columns in tables]
    for name, kind in pairs:
        *folders, last = name.split(".")
        place = schema
        for part in folders:
            place = place.setdefault(verify_key(part), {})
            if not isinstance(place, dict):
                raise InputError(f"{quoted(name)} is both a value and a folder")
        if verify_key(last) in place:
            raise InputError(f"{quoted(name)} is there twice")
        place[last] = kind
    return schema
