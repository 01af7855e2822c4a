"""Mock tables: columns by type, or after a real table's columns and row count, never after its values.

With ``categories`` the values of columns that hold few different ones are drawn from the real ones: only for tables
whose owner says that they are no secret.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from cloister.errors import ConfigurationError, InputError, quoted
from cloister.generator.mock.values import Inventor

CATEGORIES_MOST = 20
"""Most different values of a column whose values are categories."""
CSV_CELLS = 2_000
"""Rows of a real CSV that its types are told from."""
TYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "string"),
    *("date", "timestamp", "binary"),
)
_HINT = "pip install 'cloister[dataframe]'"
_SNIFFED = 64 << 10
_DELIMITERS = ",;\t|"


def build_table(columns: Mapping[str, str], rows: int, inventor: Inventor) -> Any:
    """A pyarrow Table with columns of named ``TYPES``. Raises InputError, ConfigurationError without pyarrow."""
    pa = _pyarrow()
    arrow = {"date": pa.date32(), "timestamp": pa.timestamp("us", tz="UTC"), "string": pa.string(), "bool": pa.bool_()}
    fields = []
    for name, kind in columns.items():
        if kind not in TYPES:
            raise InputError(
                f"column {quoted(name)}: there is no type {quoted(kind)}", hint=f"known: {', '.join(TYPES)}"
            )
        fields.append(pa.field(name, arrow.get(kind) or pa.type_for_alias(kind)))
    return _fill(pa.schema(fields), rows, inventor, {})


def mock_parquet(source: Path | IO[bytes], inventor: Inventor, *, rows: int | None, categories: bool) -> bytes:
    """A Parquet file with the columns, types and row count of a real one.

    Raises:
        InputError: it cannot be read, or a column has a type that cannot be invented. ConfigurationError: no pyarrow.
    """
    pa = _pyarrow()
    import pyarrow.parquet as pq

    try:
        real = pq.ParquetFile(source)
        # Metadata may hold values: pandas keeps an index there.
        schema = pa.schema([field.remove_metadata() for field in real.schema_arrow.remove_metadata()])
        kept = _categories(real.read()) if categories else {}
        table = _fill(schema, real.metadata.num_rows if rows is None else rows, inventor, kept)
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd", version="2.6")
    except (pa.ArrowException, OSError, ValueError) as error:
        # Arrow's own words may quote a value.
        name = source if isinstance(source, Path) else "an entry"
        raise InputError(f"{quoted(str(name))} is no Parquet table that can be mocked") from error
    return sink.getvalue()


def _categories(table: Any) -> dict[str, list[object]]:
    found = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        with suppress(Exception):  # columns whose values have no order or no hash are no categories
            values = [value for value in column.unique().to_pylist() if value is not None]
            if 0 < len(values) <= CATEGORIES_MOST and len(values) < len(column):
                found[name] = values
    return found


def _fill(schema: Any, rows: int, inventor: Inventor, kept: Mapping[str, list[object]]) -> Any:
    pa = _pyarrow()
    columns = []
    for field in schema:
        if field.name in kept:
            values = [inventor.choice(kept[field.name]) for _ in range(rows)]
        else:
            values = [_value(field.type, field.name, inventor) for _ in range(rows)]
        try:
            plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            column = pa.array(values, plain)
            columns.append(column.cast(field.type) if pa.types.is_dictionary(field.type) else column)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InputError(f"column {quoted(field.name)} of type {field.type} cannot be invented") from error
    return pa.Table.from_arrays(columns, schema=schema)


def _value(kind: Any, name: str, inventor: Inventor) -> Any:
    """One value of an Arrow type."""
    types = _pyarrow().types
    if types.is_dictionary(kind):
        return _value(kind.value_type, name, inventor)
    if types.is_list(kind) or types.is_large_list(kind):
        return [_value(kind.value_type, name, inventor) for _ in range(inventor.integer(high=3))]
    if types.is_struct(kind):
        return {field.name: _value(field.type, field.name, inventor) for field in kind}
    for named, invent in _SCALARS.items():
        if any(getattr(types, f"is_{one}")(kind) for one in named.split()):
            return invent(kind, name, inventor)
    raise InputError(f"column {quoted(name)} of type {kind} cannot be invented")


_SCALARS: Mapping[str, Callable[[Any, str, Inventor], object]] = {
    "boolean": lambda kind, name, inventor: inventor.flag(),
    "unsigned_integer": lambda kind, name, inventor: inventor.integer(name, low=0, high=(1 << kind.bit_width) - 1),
    "signed_integer": lambda kind, name, inventor: inventor.integer(name, high=(1 << (kind.bit_width - 1)) - 1),
    "floating": lambda kind, name, inventor: inventor.number(),
    "string large_string": lambda kind, name, inventor: inventor.text(name),
    "binary large_binary": lambda kind, name, inventor: inventor.bytes(8),
    "decimal": lambda kind, name, inventor: Decimal(inventor.integer(high=10 ** (kind.precision - kind.scale) - 1)),
    "fixed_size_binary": lambda kind, name, inventor: inventor.bytes(kind.byte_width),
    "date": lambda kind, name, inventor: inventor.date(),
    "timestamp": lambda kind, name, inventor: datetime.combine(inventor.date(), time(), UTC if kind.tz else None),
    "time": lambda kind, name, inventor: time(inventor.integer(high=23), inventor.integer(high=59)),
    "null": lambda kind, name, inventor: None,
}
"""Which of pyarrow's tests of types -> what invents such a value. Decimals are fixed-size binary too, so they come first."""


def mock_csv(path: Path, inventor: Inventor, *, rows: int | None, categories: bool, header: bool) -> bytes:
    """A CSV file with the columns and row count of a real one; its first line is names where ``header``.

    A first line that looks like data (a number, an empty or a repeated name) is taken as data all the same.

    Raises:
        InputError: it is no CSV.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            dialect = _dialect(file.read(_SNIFFED))
            file.seek(0)
            lines = csv.reader(file, dialect)
            first = next(lines, [])
            named = header and _are_names(first)
            sample = list(itertools.islice(lines if named else itertools.chain([first], lines), CSV_CELLS))
            count = len(sample) + sum(1 for line in lines if line)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{quoted(str(path))} is no CSV that can be read") from error
    if not first:
        raise InputError(f"{quoted(str(path))} is empty")
    names = first if named else [""] * len(first)
    width = range(len(names))
    cells = [[line[place] for line in sample if place < len(line) and line[place] != ""] for place in width]
    kinds = [_cell_kind(column) for column in cells]
    kept = [_few(column) if categories else None for column in cells]
    out = io.StringIO()
    writer = csv.writer(out, dialect, lineterminator="\n")
    if named:
        writer.writerow(names)
    for _ in range(count if rows is None else rows):
        writer.writerow(
            [
                inventor.choice(list(few)) if few else _cell(kind, name, inventor)
                for few, kind, name in zip(kept, kinds, names, strict=True)
            ]
        )
    return out.getvalue().encode()


def _dialect(text: str) -> type[csv.Dialect]:
    """Commas and double quotes, and the delimiter that the first line has most of."""
    line = text.partition("\n")[0]

    class Found(csv.excel):
        delimiter = max(_DELIMITERS, key=line.count) if any(mark in line for mark in _DELIMITERS) else ","

    return Found


def _are_names(first: list[str]) -> bool:
    return len(set(first)) == len(first) and all(name.strip() and _cell_kind([name]) == "string" for name in first)


def _few(column: list[str]) -> list[str] | None:
    values = sorted(set(column))
    return values if 0 < len(values) <= CATEGORIES_MOST and len(values) < len(column) else None


def _cell_kind(column: Iterable[str]) -> str:
    """The narrowest type that all cells have."""
    cells = list(column)
    if not cells:
        return "string"
    for kind, read in (("int", int), ("float", float), ("date", datetime.fromisoformat)):
        with suppress(ValueError):
            for cell in cells:
                read(cell)
            return kind
    return "bool" if {cell.lower() for cell in cells} <= {"true", "false"} else "string"


def _cell(kind: str, name: str, inventor: Inventor) -> object:
    match kind:
        case "int":
            return inventor.integer(name)
        case "float":
            return inventor.number()
        case "date":
            return inventor.date().isoformat()
        case "bool":
            return str(inventor.flag()).lower()
        case _:
            return inventor.text(name)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ConfigurationError("mock tables need pyarrow", hint=_HINT) from error
    return pyarrow


def parse_columns(text: str) -> dict[str, str]:
    """Read ``age=int64,sex=string``. Raises InputError."""
    return dict(_columns(text))


def _columns(text: str) -> Iterator[tuple[str, str]]:
    seen = set()
    for part in text.split(","):
        name, separator, kind = part.strip().partition("=")
        if not separator or not name or name in seen:
            raise InputError(
                f"{quoted(part)} is no column, or is there twice", hint="--table patients:age=int64,sex=string"
            )
        seen.add(name)
        yield name, kind
