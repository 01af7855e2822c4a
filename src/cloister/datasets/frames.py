"""Tables as Parquet. pandas and pyarrow are imported only when a table is at hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import IO, Any

from cloister.datasets.zip_writer import Entry
from cloister.errors import ConfigurationError, DecodeError, InputError, quoted

SUFFIX = ".parquet"
PARQUET = "application/vnd.apache.parquet"
MAGIC = b"PAR1"
_PIECE = 1 << 20
_HINT = "pip install 'cloister[dataframe]'"


def is_table(value: object) -> bool:
    """Whether ``value`` is a pandas DataFrame or a pyarrow Table. Imports neither: who made one has imported it."""
    pandas, pyarrow = sys.modules.get("pandas"), sys.modules.get("pyarrow")
    return bool(
        (pandas is not None and isinstance(value, pandas.DataFrame))
        or (pyarrow is not None and hasattr(pyarrow, "Table") and isinstance(value, pyarrow.Table))
    )


def build_table_entry(table: Any, name: str) -> Entry:
    """The table as a Parquet entry ``<name>.parquet``; the same table gives the same bytes.

    Raises InputError when a column cannot be written, ConfigurationError when pyarrow is missing.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigurationError("packing a table needs pyarrow", hint=_HINT) from error
    try:
        arrow = table if isinstance(table, pa.Table) else pa.Table.from_pandas(table)
        sink = pa.BufferOutputStream()
        pq.write_table(arrow, sink, compression="zstd", version="2.6")
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"the table {quoted(name)} cannot be written as Parquet: {quoted(str(error))}") from error
    content = memoryview(sink.getvalue())

    def read() -> Iterator[memoryview]:
        for place in range(0, len(content), _PIECE):
            yield content[place : place + _PIECE]

    return Entry(name + SUFFIX, read, len(content), PARQUET)


def read_table(file: IO[bytes], path: str) -> Any:
    """A pandas DataFrame from Parquet (told by its first bytes) or from CSV (told by the name).

    Raises DecodeError when it is neither, ConfigurationError when pandas or pyarrow is missing.
    """
    try:
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigurationError("reading a table needs pandas and pyarrow", hint=_HINT) from error
    head = file.read(len(MAGIC))
    file.seek(0)
    try:
        if head == MAGIC:
            return pq.read_table(file).to_pandas()
        if path.endswith(".csv"):
            return pd.read_csv(file)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise DecodeError(f"{quoted(path)} is not a readable table: {quoted(str(error))}") from error
    raise DecodeError(f"{quoted(path)} is neither Parquet nor CSV")
