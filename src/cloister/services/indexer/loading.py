"""Loads entities level by level: what one row asks of a neighbour is loaded for all its siblings in one query."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from sqlalchemy import Table, func, select
from sqlalchemy.orm import Session

from cloister.errors import InputError
from cloister.services.indexer.entities import Derived, Entity, Kind, Reference, References, Scalar, Subgraph
from cloister.services.indexer.filters import FilterBuilder
from cloister.services.indexer.tables import TABLES, snake, unpack_big_int, valid_at

DEFAULT_FIRST = 100
MAX_FIRST = 1000
MAX_SKIP = 100_000
ROW_BUDGET = 50_000
"""Most rows that one query may load."""
_CHUNK = 500


class Node:
    """One entity in an answer. ``siblings`` are the nodes that were loaded together with it."""

    __slots__ = ("entity", "siblings", "values")

    def __init__(self, entity: Entity, values: Mapping[str, Any], siblings: Siblings) -> None:
        self.entity = entity
        self.values = values
        self.siblings = siblings


class Siblings:
    """Nodes of one entity and what was loaded for them, by field and arguments."""

    __slots__ = ("loaded", "nodes")

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.loaded: dict[Hashable, Mapping[str, Any]] = {}


class Arguments:
    """Checked arguments of a list field."""

    __slots__ = ("descending", "first", "key", "order", "skip", "where")

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.first = _bounded("first", given.get("first"), DEFAULT_FIRST, MAX_FIRST)
        self.skip = _bounded("skip", given.get("skip"), 0, MAX_SKIP)
        self.where: Mapping[str, Any] = given.get("where") or {}
        self.order: str = given.get("orderBy") or "id"
        self.descending = given.get("orderDirection") == "desc"
        self.key = repr((self.first, self.skip, self.order, self.descending, self.where))


def _bounded(name: str, value: Any, default: int, maximum: int) -> int:
    if value is None:
        return default
    if not isinstance(value, int) or not 0 <= value <= maximum:
        raise InputError(f"the value of the argument `{name}` must be between 0 and {maximum}, but is {value}")
    return value


class Loader:
    """Reads of one query: one subgraph, one transaction, one block."""

    def __init__(self, session: Session, subgraph: Subgraph, block: int | None) -> None:
        self._session = session
        self._subgraph = subgraph
        self._tables = TABLES[subgraph.name]
        self._block = block
        self._filters = FilterBuilder(subgraph, block)
        self._left = ROW_BUDGET

    def one(self, entity: str, identity: str) -> Node | None:
        """One entity by id."""
        text = identity.lower() if identity.startswith(("0x", "0X")) else identity
        return self._by_id(entity, [text]).get(text)

    def many(self, entity: str, arguments: Arguments) -> list[Node]:
        """A list at the root."""
        table = self._tables[entity].table
        query = (
            select(table)
            .where(valid_at(table, self._block), self._filters.build(entity, arguments.where, table))
            .order_by(*self._order(table, arguments))
            .offset(arguments.skip)
            .limit(arguments.first)
        )
        return self._nodes(entity, self._session.execute(query).mappings())

    def scalar(self, node: Node, name: str) -> Any:
        """A value of the entity, in the form that GraphQL answers."""
        value = node.values[snake(name)]
        field = node.entity.fields[name]
        if value is not None and isinstance(field, Scalar) and field.kind is Kind.BIG_INT:
            return unpack_big_int(value)
        return value

    def reference(self, node: Node, name: str, *, only_id: bool) -> Node | None:
        """The entity that a field refers to."""
        field, column = node.entity.fields[name], snake(name)
        assert isinstance(field, Reference)  # noqa: S101 - the schema is made from the fields
        target = node.values[column]
        if target is None:
            return None
        if only_id:
            return Node(self._subgraph.entities[field.entity], {"id": target}, Siblings())

        def load() -> Mapping[str, Node]:
            wanted = {each.values[column] for each in node.siblings.nodes}
            return self._by_id(field.entity, sorted(each for each in wanted if each is not None))

        return self._together(node, name, load).get(target)

    def references(self, node: Node, name: str, arguments: Arguments) -> list[Node]:
        """The entities of a stored list, filtered, ordered and cut as asked."""
        field = node.entity.fields[name]
        assert isinstance(field, References)  # noqa: S101
        links = self._tables[node.entity.name].lists[name]
        other = self._tables[field.entity].table
        joined = (other, links.c.id.label("parent"), links.c.position.label("place"))
        matching = [valid_at(links, self._block), links.c.target == other.c.id]
        found = self._together(
            node,
            (name, arguments.key),
            lambda: self._of_parents(node, field.entity, joined, links.c.id, matching, arguments),
        )
        return list(found.get(node.values["id"], ()))

    def derived(self, node: Node, name: str, arguments: Arguments) -> list[Node]:
        """The entities that refer to a node, filtered, ordered and cut as asked."""
        field = node.entity.fields[name]
        assert isinstance(field, Derived)  # noqa: S101
        other = self._tables[field.entity].table
        parent = other.c[snake(field.field)]
        found = self._together(
            node,
            (name, arguments.key),
            lambda: self._of_parents(node, field.entity, (other, parent.label("parent")), parent, [], arguments),
        )
        return list(found.get(node.values["id"], ()))

    def _of_parents(
        self, node: Node, entity: str, columns: tuple[Any, ...], parent: Any, matching: list[Any], arguments: Arguments
    ) -> Mapping[str, list[Node]]:
        """Load the lists of all siblings: the database numbers the rows of each parent, so that each gets its own
        page.
        """
        table = self._tables[entity].table
        place = func.row_number().over(partition_by=parent, order_by=self._order(table, arguments)).label("row_place")
        identities = [each.values["id"] for each in node.siblings.nodes]
        found: dict[str, list[Node]] = {}
        siblings = Siblings()
        for start in range(0, len(identities), _CHUNK):
            numbered = (
                select(*columns, place)
                .where(
                    parent.in_(identities[start : start + _CHUNK]),
                    valid_at(table, self._block),
                    self._filters.build(entity, arguments.where, table),
                    *matching,
                )
                .subquery()
            )
            page = numbered.c.row_place
            query = select(numbered).where(page > arguments.skip, page <= arguments.skip + arguments.first)
            rows = self._session.execute(query.order_by(numbered.c.parent, page)).mappings()
            for made in self._nodes(entity, rows, siblings):
                found.setdefault(made.values["parent"], []).append(made)
        return found

    def _by_id(self, entity: str, identities: list[str]) -> dict[str, Node]:
        table = self._tables[entity].table
        siblings = Siblings()
        for start in range(0, len(identities), _CHUNK):
            part = identities[start : start + _CHUNK]
            query = select(table).where(table.c.id.in_(part), valid_at(table, self._block))
            self._nodes(entity, self._session.execute(query).mappings(), siblings)
        return {made.values["id"]: made for made in siblings.nodes}

    def _nodes(self, entity: str, rows: Iterable[Mapping[Any, Any]], siblings: Siblings | None = None) -> list[Node]:
        siblings = siblings if siblings is not None else Siblings()
        made = [Node(self._subgraph.entities[entity], dict(row), siblings) for row in rows]
        siblings.nodes.extend(made)
        self._left -= len(made)
        if self._left < 0:
            raise InputError(f"the query asks for more than {ROW_BUDGET} entities", hint="ask for smaller pages")
        return made

    def _order(self, table: Table, arguments: Arguments) -> list[Any]:
        entity_column = table.c[snake(arguments.order)]
        first = entity_column.desc() if arguments.descending else entity_column
        # The id decides between equals, in the same direction, so that pages never overlap.
        return (
            [first] if arguments.order == "id" else [first, table.c.id.desc() if arguments.descending else table.c.id]
        )

    @staticmethod
    def _together(node: Node, key: Hashable, load: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        loaded = node.siblings.loaded.get(key)
        if loaded is None:
            loaded = node.siblings.loaded[key] = load()
        return loaded
