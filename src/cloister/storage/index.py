"""The local store's index: inner blocks, where leaves lie in content files, and how much is used. One SQLite file.

A commit here is the moment at which content exists. It is durable (``synchronous=FULL``) before it returns.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError, UnavailableError

_VERSION: Final = 1
_BUSY_SECONDS: Final = 30.0

_SCHEMA: Final = """
CREATE TABLE blocks (digest BLOB PRIMARY KEY, block BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE files (digest BLOB PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE leaves (
    digest BLOB PRIMARY KEY, file BLOB NOT NULL, position INTEGER NOT NULL, size INTEGER NOT NULL, raw INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE roots (digest BLOB PRIMARY KEY, cid TEXT NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE usage (bytes INTEGER NOT NULL);
INSERT INTO usage VALUES (0);
"""


@dataclass(frozen=True, slots=True)
class LeafPlace:
    """Where a leaf's content lies: in the content file of a root's digest, from a byte position."""

    digest: bytes
    file: bytes
    position: int
    size: int
    raw: bool


class Index:
    """Safe to use from several threads and processes. Raises ``UnavailableError`` when the database does not answer."""

    def __init__(self, path: Path) -> None:
        try:
            self._writer = _connect(path)
            self._reader = _connect(path)
        except sqlite3.Error as error:
            raise UnavailableError(f"cannot open the store's index {path.name}: {error}") from error
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        with self.transaction() as transaction:
            transaction.migrate()

    def close(self) -> None:
        with self._writing, self._reading:
            self._writer.close()
            self._reader.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One write transaction, alone among all processes; durable when the block ends."""
        with self._writing, _translated():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(self._writer)
            except BaseException:
                self._writer.rollback()
                raise
            self._writer.commit()

    def block(self, digest: bytes) -> bytes | None:
        """An inner block or a small file's only block."""
        with self._reading, _translated():
            row = self._reader.execute("SELECT block FROM blocks WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    def leaf(self, digest: bytes) -> LeafPlace | None:
        """Where a leaf's content lies."""
        with self._reading, _translated():
            row = self._reader.execute(
                "SELECT digest, file, position, size, raw FROM leaves WHERE digest = ?", (digest,)
            ).fetchone()
        return None if row is None else LeafPlace(row[0], row[1], row[2], row[3], bool(row[4]))

    def used(self) -> int:
        """Bytes of all content."""
        with self._reading, _translated():
            return int(self._reader.execute("SELECT bytes FROM usage").fetchone()[0])

    def count(self) -> int:
        """How many things were put."""
        with self._reading, _translated():
            return int(self._reader.execute("SELECT count(*) FROM roots").fetchone()[0])

    def roots(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """CIDs and sizes of what was put, in the order of their digests; ``after`` is the last CID's digest in hex."""
        with self._reading, _translated():
            rows = self._reader.execute(
                "SELECT cid, size FROM roots WHERE digest > ? ORDER BY digest LIMIT ?", (bytes.fromhex(after), limit)
            ).fetchall()
        return [(str(cid), int(size)) for cid, size in rows]


class Transaction:
    """What may be done inside :meth:`Index.transaction`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def migrate(self) -> None:
        """Create the tables of a new index.

        Raises:
            ConfigurationError: the index was written by a newer release.
        """
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise ConfigurationError("the store was written by a newer release", hint="upgrade this installation")
        if version == 0:
            for statement in _SCHEMA.split(";"):
                self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def has_file(self, digest: bytes) -> bool:
        return self._connection.execute("SELECT 1 FROM files WHERE digest = ?", (digest,)).fetchone() is not None

    def has_root(self, digest: bytes) -> bool:
        return self._connection.execute("SELECT 1 FROM roots WHERE digest = ?", (digest,)).fetchone() is not None

    def used(self) -> int:
        return int(self._connection.execute("SELECT bytes FROM usage").fetchone()[0])

    def add_blocks(self, blocks: Iterable[tuple[bytes, bytes]]) -> None:
        """Add digests with their blocks. What is there already is replaced by the same bytes."""
        self._connection.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?)", blocks)

    def add_file(self, digest: bytes, size: int) -> None:
        self._connection.execute("INSERT OR IGNORE INTO files VALUES (?, ?)", (digest, size))

    def add_leaves(self, leaves: Iterable[LeafPlace]) -> None:
        """Add leaves; a leaf that another file holds too moves to this one, whose bytes were just written."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO leaves VALUES (?, ?, ?, ?, ?)",
            ((leaf.digest, leaf.file, leaf.position, leaf.size, leaf.raw) for leaf in leaves),
        )

    def add_root(self, digest: bytes, cid: str, size: int, *, used: int) -> None:
        """Name what was put and count the bytes that it took."""
        done = self._connection.execute("INSERT OR IGNORE INTO roots VALUES (?, ?, ?)", (digest, cid, size))
        if done.rowcount:
            self._connection.execute("UPDATE usage SET bytes = bytes + ?", (used,))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "trusted_schema=OFF", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise UnavailableError("the store's index does not answer", hint="is the disk full or read-only?") from error
