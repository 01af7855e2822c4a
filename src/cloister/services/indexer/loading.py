"""Loads entities level by level: what one row asks of a neighbour is loaded for all its siblings in one query."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from cloister.errors import InputError, quoted
from cloister.services.indexer.entities import Derived, Entity, Kind, Reference, References, Scalar, Subgraph
from cloister.services.indexer.filters import FilterBuilder, pack
from cloister.services.indexer.tables import TABLES, snake, unpack_big_int, unpack_decimal, valid_at

DEFAULT_FIRST = 100
MAX_FIRST = 1000
MAX_SKIP = 5000
ROW_BUDGET = 50_000
"""Most rows that one query may load."""
TEXT_BUDGET = 32 * 1024 * 1024
"""Most characters that one query may load."""
STATEMENT_BUDGET = 200
"""Most questions that one query may put to the database."""
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
        direction = given.get("orderDirection")
        if direction not in (None, "asc", "desc"):
            raise InputError(f"orderDirection: expected asc or desc, got {quoted(direction)}")
        self.descending = direction == "desc"
        self.key = repr((self.first, self.skip, self.order, self.descending, self.where))


def _bounded(name: str, value: Any, default: int, maximum: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        # The Graph's own words.
        raise InputError(f"The value of the argument `{name}` must be between 0 and {maximum}, but is {quoted(value)}")
    return value


class Budget:
    """What is left of one request's share, over all its fields and blocks."""

    __slots__ = ("rows", "statements", "text")

    def __init__(self) -> None:
        self.rows = ROW_BUDGET
        self.text = TEXT_BUDGET
        self.statements = STATEMENT_BUDGET

    def spend_statement(self) -> None:
        """Count one question. Raises: InputError when that was too many."""
        self.statements -= 1
        if self.statements < 0:
            raise InputError(f"the query needs more than {STATEMENT_BUDGET} lookups", hint="ask for fewer lists")

    def spend_row(self, row: Mapping[str, Any]) -> None:
        """Count one row. Raises: InputError when that was too many, or too much."""
        self.rows -= 1
        self.text -= sum(len(value) for value in row.values() if isinstance(value, str))
        if self.rows < 0:
            raise InputError(f"the query asks for more than {ROW_BUDGET} entities", hint="ask for smaller pages")
        if self.text < 0:
            raise InputError(f"the query asks for more than {TEXT_BUDGET} characters", hint="ask for smaller pages")


class Loader:
    """Reads of one query: one subgraph, one transaction, one block."""

    def __init__(self, session: Session, subgraph: Subgraph, block: int | None, budget: Budget) -> None:
        self._session = session
        self._subgraph = subgraph
        self._tables = TABLES[subgraph.name]
        self._block = block
        self._budget = budget

    def one(self, entity: str, identity: str) -> Node | None:
        """One entity by id."""
        text = str(pack(Kind.ID, identity))
        return self._by_id(entity, [text]).get(text)

    def many(self, entity: str, arguments: Arguments) -> list[Node]:
        """A list at the root."""
        table = self._tables[entity].table
        query = (
            select(table)
            .where(valid_at(table, self._block), self._filter(entity, arguments))
            .order_by(*self._order(entity, arguments))
            .offset(arguments.skip)
            .limit(arguments.first)
        )
        return self._nodes(entity, query)

    def scalar(self, node: Node, name: str) -> Any:
        """A value of the entity, in the form that GraphQL answers."""
        value = node.values[snake(name)]
        field = node.entity.fields[name]
        if value is None or not isinstance(field, Scalar):
            return value
        match field.kind:
            case Kind.BIG_INT:
                return unpack_big_int(value)
            case Kind.DECIMAL:
                return unpack_decimal(value)
            case _:
                return value

    def reference(self, node: Node, name: str, *, only_id: bool) -> Node | None:
        """The entity that a field refers to."""
        field, column = node.entity.fields[name], snake(name)
        assert isinstance(field, Reference)  # noqa: S101 - the schema is made from the fields
        target = node.values[column]
        if target is None:
            return None
        if only_id and field.certain:
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
        there = self._tables[field.entity]
        links = there.lists.get(field.field)
        parent = there.table.c[snake(field.field)] if links is None else links.c.target
        matching = [] if links is None else [valid_at(links, self._block), links.c.id == there.table.c.id]
        columns = (there.table, parent.label("parent"))
        found = self._together(
            node,
            (name, arguments.key),
            lambda: self._of_parents(node, field.entity, columns, parent, matching, arguments),
        )
        return list(found.get(node.values["id"], ()))

    def _of_parents(
        self, node: Node, entity: str, columns: tuple[Any, ...], parent: Any, matching: list[Any], arguments: Arguments
    ) -> Mapping[str, list[Node]]:
        """Load the lists of all siblings: the database numbers the rows of each parent, so that each gets its own
        page.
        """
        table = self._tables[entity].table
        place = func.row_number().over(partition_by=parent, order_by=self._order(entity, arguments)).label("row_place")
        identities = list(dict.fromkeys(each.values["id"] for each in node.siblings.nodes))
        found: dict[str, list[Node]] = {}
        siblings = Siblings()
        for start in range(0, len(identities), _CHUNK):
            numbered = (
                select(*columns, place)
                .where(
                    parent.in_(identities[start : start + _CHUNK]),
                    valid_at(table, self._block),
                    self._filter(entity, arguments),
                    *matching,
                )
                .subquery()
            )
            page = numbered.c.row_place
            query = select(numbered).where(page > arguments.skip, page <= arguments.skip + arguments.first)
            for made in self._nodes(entity, query.order_by(numbered.c.parent, page), siblings):
                found.setdefault(made.values["parent"], []).append(made)
        return found

    def _by_id(self, entity: str, identities: list[str]) -> dict[str, Node]:
        table = self._tables[entity].table
        siblings = Siblings()
        for start in range(0, len(identities), _CHUNK):
            part = identities[start : start + _CHUNK]
            query = select(table).where(table.c.id.in_(part), valid_at(table, self._block))
            self._nodes(entity, query, siblings)
        return {made.values["id"]: made for made in siblings.nodes}

    def _filter(self, entity: str, arguments: Arguments) -> Any:
        return FilterBuilder(self._subgraph, self._block).build(entity, arguments.where, self._tables[entity].table)

    def _nodes(self, entity: str, query: Select[Any], siblings: Siblings | None = None) -> list[Node]:
        self._budget.spend_statement()
        siblings = siblings if siblings is not None else Siblings()
        made = []
        for found in self._session.execute(query).mappings():
            row = dict(found)
            self._budget.spend_row(row)
            made.append(Node(self._subgraph.entities[entity], row, siblings))
        siblings.nodes.extend(made)
        return made

    def _order(self, entity: str, arguments: Arguments) -> list[Any]:
        tables = self._tables[entity]
        if not isinstance(tables.entity.fields.get(arguments.order), Scalar | Reference):
            raise InputError(f"orderBy: {entity} is not ordered by {quoted(arguments.order)}")
        table, chosen = tables.table, tables.table.c[snake(arguments.order)]
        first = chosen.desc() if arguments.descending else chosen
        if chosen.nullable:
            first = first.nulls_last()
        # The id decides between equals, in the same direction, so that pages never overlap.
        return [first] if chosen is table.c.id else [first, table.c.id.desc() if arguments.descending else table.c.id]

    @staticmethod
    def _together(node: Node, key: Hashable, load: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        loaded = node.siblings.loaded.get(key)
        if loaded is None:
            loaded = node.siblings.loaded[key] = load()
        return loaded
