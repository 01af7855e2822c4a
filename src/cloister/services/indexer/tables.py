"""The tables of the entities, generated. Every row holds for a range of blocks.

A change closes the row (``block_to``) and adds another, so that a block that the chain takes back is undone
exactly, and a query may ask for the past.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    FromClause,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from cloister.services.indexer.entities import Derived, Entity, Kind, Reference, References, Scalar, Subgraph
from cloister.services.indexer.subgraphs import SUBGRAPHS

METADATA = MetaData()
BIG_INT_DIGITS = 78
RLC_DIGITS = 9
"""Decimal places of RLC."""
TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text in the order of its bytes on every database: zero-padded numbers and hex are compared as text."""

CURSORS = Table(
    "indexer_cursors",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("cursor", Text, nullable=False),
    Column("block", BigInteger, nullable=False),
    Column("block_hash", Text),
    Column("block_time", BigInteger),
)

PENDING = Table(
    "indexer_bulk_pending",
    METADATA,
    # The deal, and which of its files: -1 is the root, others are slices by the index of their task.
    Column("deal", TEXT, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("cid", Text, nullable=False),
    Column("block", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Index("indexer_bulk_pending_by_due", "due_at"),
)
"""Files of bulk deals that were not read yet; ``due_at`` is unix milliseconds."""


@dataclass(frozen=True, slots=True)
class EntityTables:
    """Where an entity is stored; ``lists`` by the name of a field of several references."""

    entity: Entity
    table: Table
    lists: dict[str, Table]


def snake(name: str) -> str:
    """``creationTimestamp`` to ``creation_timestamp``."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def clean_text(text: str) -> str:
    """A text that every database stores: PostgreSQL takes no NUL."""
    return text.replace("\x00", "\ufffd")


def pack_big_int(value: int) -> str:
    """Write a number so that text order is number order."""
    return str(value).zfill(BIG_INT_DIGITS)


def unpack_big_int(text: str) -> str:
    """Read it back as decimal text, as GraphQL answers it."""
    return text.lstrip("0") or "0"


def unpack_decimal(text: str) -> str:
    """Read it back as RLC without trailing zeros: 1500000000 nRLC is ``1.5``."""
    whole, rest = text[:-RLC_DIGITS].lstrip("0") or "0", text[-RLC_DIGITS:].rstrip("0")
    return f"{whole}.{rest}" if rest else whole


def table_name(subgraph: Subgraph, entity: Entity, field: str | None = None) -> str:
    """The SQL name of an entity's table, or of one of its lists."""
    prefix = "dp" if subgraph.name.startswith("dataprotector") else "poco"
    return f"indexer_{prefix}_{snake(entity.name)}" + (f"_{snake(field)}" if field else "")


def _column(name: str, field: Scalar | Reference) -> Column[Any]:
    required = field.required
    if isinstance(field, Scalar) and field.kind is Kind.BOOLEAN:
        return Column(snake(name), Boolean, nullable=not required)
    return Column(snake(name), TEXT, nullable=not required)


def _range() -> tuple[Column[Any], Column[Any]]:
    return Column("block_from", BigInteger, primary_key=True, autoincrement=False), Column("block_to", BigInteger)


def _build(subgraph: Subgraph, entity: Entity) -> EntityTables:
    name = table_name(subgraph, entity)
    columns: list[Any] = []
    lists: dict[str, Table] = {}
    for field_name, field in entity.fields.items():
        match field:
            case Scalar() if field_name == "id":
                columns.append(Column("id", TEXT, primary_key=True))
            case Scalar() | Reference():
                columns.append(_column(field_name, field))
            case References():
                list_name = table_name(subgraph, entity, field_name)
                lists[field_name] = Table(
                    list_name,
                    METADATA,
                    Column("id", TEXT, primary_key=True),
                    Column("position", Integer, primary_key=True),
                    Column("target", TEXT, nullable=False),
                    *_range(),
                    Index(f"{list_name}_by_target", "target", "id"),
                )
            case Derived():
                pass
    indexes = [
        Index(f"{name}_by_{snake(field_name)}", snake(field_name))
        for field_name, field in entity.fields.items()
        if isinstance(field, Reference) or field_name in ("creationTimestamp", "timestamp", "requestorder")
    ]
    return EntityTables(entity, Table(name, METADATA, *columns, *_range(), *indexes), lists)


TABLES: dict[str, dict[str, EntityTables]] = {
    subgraph.name: {name: _build(subgraph, entity) for name, entity in subgraph.entities.items()}
    for subgraph in SUBGRAPHS.values()
}
"""By subgraph and entity name."""


def valid_at(table: FromClause, block: int | None) -> ColumnElement[bool]:
    """The condition that a row holds at a block, or now."""
    if block is None:
        return table.c.block_to.is_(None)
    return (table.c.block_from <= block) & or_(table.c.block_to.is_(None), table.c.block_to > block)


class EntityWriter:
    """Writes entities of one subgraph inside a transaction, at one block after the other."""

    def __init__(self, session: Session, subgraph: Subgraph) -> None:
        self._session = session
        self._tables = TABLES[subgraph.name]

    def get(self, entity: str, identity: str) -> dict[str, Any] | None:
        """The current values by SQL name."""
        table = self._tables[entity].table
        row = (
            self._session.execute(select(table).where(table.c.id == identity, valid_at(table, None))).mappings().first()
        )
        return None if row is None else dict(row)

    def put(self, entity: str, identity: str, block: int, **values: Any) -> None:
        """Set fields (GraphQL names, plain Python values) of an entity from ``block`` on; others stay as they are.

        A list of ids is given whole. Missing fields of a new entity are null.
        """
        tables = self._tables[entity]
        table = tables.table
        columns = {
            snake(name): _pack(tables.entity, name, value) for name, value in values.items() if name not in tables.lists
        }
        current = self.get(entity, identity)
        here = (table.c.id == identity, valid_at(table, None))
        if current is None:
            self._session.execute(insert(table).values(id=identity, **columns, block_from=block))
        elif current["block_from"] == block:
            if columns:
                self._session.execute(update(table).where(*here).values(**columns))
        elif any(current[name] != value for name, value in columns.items()):
            self._session.execute(update(table).where(*here).values(block_to=block))
            row = {**current, **columns, "block_from": block, "block_to": None}
            self._session.execute(insert(table).values(**row))
        for name in tables.lists.keys() & values.keys():
            self._put_list(tables.lists[name], identity, block, values[name])

    def add(self, entity: str, identity: str, block: int, **values: Any) -> None:
        """Write an entity that never changes and follows from what ``block`` says, whenever it is learnt."""
        table = self._tables[entity].table
        current = self.get(entity, identity)
        if current is None:
            self.put(entity, identity, block, **values)
        elif current["block_from"] > block:
            lists = self._tables[entity].lists.values()
            for each in (table, *lists):
                self._session.execute(update(each).where(each.c.id == identity).values(block_from=block))

    def _put_list(self, table: Table, identity: str, block: int, targets: list[str]) -> None:
        rows = self._session.execute(
            select(table.c.target).where(table.c.id == identity, valid_at(table, None)).order_by(table.c.position)
        )
        if list(rows.scalars()) == targets:
            return
        self._session.execute(delete(table).where(table.c.id == identity, table.c.block_from == block))
        self._session.execute(update(table).where(table.c.id == identity, valid_at(table, None)).values(block_to=block))
        for position, target in enumerate(targets):
            row = {"id": identity, "position": position, "target": target, "block_from": block}
            self._session.execute(insert(table).values(**row))


def _pack(entity: Entity, name: str, value: Any) -> Any:
    field = entity.fields[name]
    if isinstance(field, Scalar) and field.kind in (Kind.BIG_INT, Kind.DECIMAL) and value is not None:
        return pack_big_int(value)
    return value


def roll_back(session: Session, block: int) -> None:
    """Forget everything after ``block``."""
    # First what is pending: whoever is about to write a slice of a lost deal ends before this goes on, or finds nothing.
    session.execute(delete(PENDING).where(PENDING.c.block > block))
    for tables in TABLES.values():
        for each in tables.values():
            for table in (each.table, *each.lists.values()):
                session.execute(delete(table).where(table.c.block_from > block))
                session.execute(update(table).where(table.c.block_to > block).values(block_to=None))
