"""The log's rows: entries as they were hashed, every node of the tree, and its size.

An append happens inside the transaction that writes the record's lines, so a line without its entry does not exist. The
row of the size is locked first: whoever holds it gives out the next indexes, so there is no gap, on one database and
with several replicas (SQLite has one writer; PostgreSQL locks the row).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy.orm import Session

from cloister.attestation.transparency import (
    Node,
    consistency_ranges,
    fold_ranges,
    fold_root,
    frontier,
    grow,
    hash_leaf,
    inclusion_ranges,
    nodes_of,
)
from cloister.errors import InputError, LocalError, NotFound
from cloister.protocol.codec import canonical_json
from cloister.services.database import Database
from cloister.services.sms.tables import LOG_ENTRIES, LOG_HEAD, LOG_NODES

ENTRY_VERSION: Final = 1
PAGE: Final = 256
"""Most entries of one answer."""


@dataclass(frozen=True, slots=True)
class Proven:
    """One entry with what proves it: the log's size and root, and the path between them."""

    index: int
    size: int
    root: bytes
    entry: bytes
    path: tuple[bytes, ...]


def append(session: Session, lines: Sequence[tuple[int, Mapping[str, Any]]], size: int) -> tuple[int, ...]:
    """Put lines (id of the record's row, its values) behind ``size`` entries, which ``lock`` gave. Returns the indexes."""
    entries: list[dict[str, object]] = []
    leaves: list[bytes] = []
    for offset, (release_id, values) in enumerate(lines):
        entry = canonical_json({**values, "index": size + offset, "version": ENTRY_VERSION})
        entries.append({"index": size + offset, "release_id": release_id, "entry": entry.decode()})
        leaves.append(hash_leaf(entry))
    nodes = grow(size, _read(session, frontier(size)), leaves)
    session.execute(insert(LOG_ENTRIES), entries)
    session.execute(
        insert(LOG_NODES), [{"level": level, "index": index, "hash": value} for (level, index), value in nodes.items()]
    )
    session.execute(update(LOG_HEAD).where(LOG_HEAD.c.id == 1).values(size=size + len(entries)))
    return tuple(range(size, size + len(entries)))


def lock(session: Session) -> int:
    """Take the log for this transaction; returns its size. To be called before the record's lines are written, so that
    their ids rise with their indexes.
    """
    size = session.execute(select(LOG_HEAD.c.size).where(LOG_HEAD.c.id == 1).with_for_update()).scalar()
    if size is None:
        raise LocalError("the log has no head")
    return int(size)


class LogStore:
    """Reads the log. Every method is one consistent view; safe to call from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def root(self) -> tuple[int, bytes]:
        """Size and root."""
        with self._database.read_scope() as session:
            size = _size(session)
            return size, fold_root(size, _read(session, frontier(size)))

    def entries(self, start: int, end: int) -> list[str]:
        """The entries from ``start`` up to, and without, ``end``; fewer where the log ends before.

        Raises: InputError for a range that is empty or longer than a page.
        """
        if not 0 <= start < end or end - start > PAGE:
            raise InputError(
                f"entries {start} to {end} are not 1 to {PAGE}", hint="end is the first that is not wanted"
            )
        query = select(LOG_ENTRIES.c.entry).where(LOG_ENTRIES.c.index >= start, LOG_ENTRIES.c.index < end)
        with self._database.read_scope() as session:
            return list(session.execute(query.order_by(LOG_ENTRIES.c.index)).scalars())

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The proof that entry ``index`` is in the log of ``size`` entries.

        Raises: InputError, NotFound when the log is not that long.
        """
        if not 0 <= index < size:
            raise InputError(f"entry {index} is not in a log of {size} entries")
        with self._database.read_scope() as session:
            _check_size(session, size)
            ranges = inclusion_ranges(index, size)
            return fold_ranges(ranges, _read(session, nodes_of(ranges)))

    def consistency(self, first: int, second: int) -> tuple[bytes, ...]:
        """The proof that the log of ``second`` entries begins with that of ``first``.

        Raises: InputError, NotFound when the log is not that long.
        """
        if not 0 < first <= second:
            raise InputError(f"a log of {second} entries has no consistency proof with one of {first}")
        with self._database.read_scope() as session:
            _check_size(session, second)
            ranges = consistency_ranges(first, second)
            return fold_ranges(ranges, _read(session, nodes_of(ranges)))

    def proven(self, index: int) -> Proven:
        """An entry and its proof in the log as it is now."""
        with self._database.read_scope() as session:
            size = _size(session)
            entry = session.execute(select(LOG_ENTRIES.c.entry).where(LOG_ENTRIES.c.index == index)).scalar()
            if entry is None or index >= size:
                raise LocalError(f"entry {index} is not in the log")
            ranges = inclusion_ranges(index, size)
            known = _read(session, nodes_of(ranges) | set(frontier(size)))
            return Proven(index, size, fold_root(size, known), entry.encode(), fold_ranges(ranges, known))


def _size(session: Session) -> int:
    return int(session.execute(select(LOG_HEAD.c.size).where(LOG_HEAD.c.id == 1)).scalar_one())


def _check_size(session: Session, size: int) -> None:
    there = _size(session)
    if size > there:
        raise NotFound(f"the log has {there} entries, not {size}")


def _read(session: Session, nodes: Iterable[Node]) -> dict[Node, bytes]:
    """Read nodes by name; at most some hundred."""
    wanted = list(nodes)
    if not wanted:
        return {}
    query = select(LOG_NODES.c.level, LOG_NODES.c.index, LOG_NODES.c.hash).where(
        or_(*(and_(LOG_NODES.c.level == level, LOG_NODES.c.index == index) for level, index in wanted))
    )
    found: dict[Node, bytes] = {(level, index): value for level, index, value in session.execute(query)}
    if len(found) != len(set(wanted)):
        raise LocalError("a node of the log is missing")
    return found
