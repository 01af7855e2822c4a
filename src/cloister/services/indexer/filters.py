"""From the ``where`` of a query to SQL conditions: The Graph's filter dialect (reference 4.1)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, false, func, not_, or_, true

from cloister.errors import InputError, quoted
from cloister.protocol.codec import UINT256_MAX
from cloister.services.indexer.entities import Derived, Kind, Reference, References, Scalar, Subgraph
from cloister.services.indexer.tables import TABLES, EntityTables, pack_big_int, snake, valid_at

_Operator = Callable[[ColumnElement[Any], Any], ColumnElement[bool]]
_OPERATORS: Mapping[str, _Operator] = {
    "": operator.eq,
    "not": operator.ne,
    "gt": operator.gt,
    "lt": operator.lt,
    "gte": operator.ge,
    "lte": operator.le,
}
MAX_LIST = 1000
MAX_DEPTH = 6
MAX_TEXT = 4096

COMPARISONS = ("not", "gt", "lt", "gte", "lte", "in", "not_in")
TEXTS = (
    "contains",
    "contains_nocase",
    "not_contains",
    "not_contains_nocase",
    "starts_with",
    "starts_with_nocase",
    "not_starts_with",
    "not_starts_with_nocase",
    "ends_with",
    "ends_with_nocase",
    "not_ends_with",
    "not_ends_with_nocase",
)


def suffixes(field: Scalar | Reference | References | Derived) -> tuple[str, ...]:
    """The filter suffixes that a field has, without the plain equality and without the nested filter."""
    match field:
        case Scalar(kind=Kind.BOOLEAN | Kind.STATUS):
            return ("not", "in", "not_in")
        case Scalar(kind=Kind.STRING):
            return COMPARISONS + TEXTS
        case Scalar(kind=Kind.BYTES | Kind.ID):
            return (*COMPARISONS, "contains", "not_contains")
        case Scalar():
            return COMPARISONS
        case Reference():
            return COMPARISONS + TEXTS
        case References():
            return ("not", "contains", "contains_nocase", "not_contains", "not_contains_nocase")
        case Derived():
            return ()


class FilterBuilder:
    """Builds conditions of one subgraph at one block."""

    def __init__(self, subgraph: Subgraph, block: int | None) -> None:
        self._tables = TABLES[subgraph.name]
        self._block = block

    def build(
        self, entity: str, where: Mapping[str, Any] | None, table: FromClause, depth: int = 0
    ) -> ColumnElement[bool]:
        """Build the condition on ``table``, which is the entity's table or an alias of it.

        Raises: InputError for values that a field cannot hold, overlong lists and too deep nesting.
        """
        if not where:
            return true()
        if depth > MAX_DEPTH:
            raise InputError(f"filters are nested deeper than {MAX_DEPTH}")
        tables = self._tables[entity]
        parts: list[ColumnElement[bool]] = []
        for name, value in where.items():
            if name in ("and", "or"):
                if value is not None:
                    inner = [self.build(entity, each, table, depth + 1) for each in _bounded(name, value)]
                    parts.append(and_(true(), *inner) if name == "and" else or_(false(), *inner))
            else:
                parts.append(self._condition(tables, name, value, table, depth))
        return and_(true(), *parts)

    def _condition(
        self, tables: EntityTables, name: str, value: Any, table: FromClause, depth: int
    ) -> ColumnElement[bool]:
        field_name, suffix = _split(tables, name)
        field = tables.entity.fields[field_name]
        if suffix == "_":
            return self._nested(tables, field_name, value, table, depth)
        match field:
            case References():
                return self._list_condition(tables.lists[field_name], suffix, value, table)
            case Derived():
                raise InputError(f"{name} cannot be compared")
            case Scalar(kind=kind):
                return _compare(table.c[snake(field_name)], kind, suffix, value, name)
            case Reference():
                return _compare(table.c[snake(field_name)], Kind.ID, suffix, value, name)

    def _nested(
        self, tables: EntityTables, name: str, where: Mapping[str, Any] | None, table: FromClause, depth: int
    ) -> ColumnElement[bool]:
        """``rel_: {…}``: at least one entity on the other side fits."""
        field = tables.entity.fields[name]
        assert not isinstance(field, Scalar)  # noqa: S101 - scalars have no nested filter in the schema
        other = self._tables[field.entity].table.alias()
        conditions = [valid_at(other, self._block), self.build(field.entity, where, other, depth + 1)]
        match field:
            case Reference():
                conditions.append(other.c.id == table.c[snake(name)])
            case Derived():
                conditions.append(other.c[snake(field.field)] == table.c.id)
            case References():
                links = tables.lists[name].alias()
                conditions += [
                    links.c.id == table.c.id,
                    links.c.target == other.c.id,
                    valid_at(links, self._block),
                ]
        return exists().where(*conditions)

    def _list_condition(self, links: FromClause, suffix: str, value: Any, table: FromClause) -> ColumnElement[bool]:
        """Conditions on a list of ids: ``contains`` means that every one named is in it."""
        wanted = [_text(each) for each in _bounded("list", value)] if value is not None else []

        def has(target: str, *, nocase: bool = False) -> ColumnElement[bool]:
            each = links.alias()
            same = func.lower(each.c.target) == target.lower() if nocase else each.c.target == target
            return exists().where(each.c.id == table.c.id, same, valid_at(each, self._block))

        match suffix:
            case "contains" | "contains_nocase":
                return and_(true(), *(has(each, nocase=suffix.endswith("nocase")) for each in wanted))
            case "not_contains" | "not_contains_nocase":
                return and_(true(), *(not_(has(each, nocase=suffix.endswith("nocase"))) for each in wanted))
            case "" | "not":
                other = links.alias()
                extra = exists().where(
                    other.c.id == table.c.id,
                    other.c.target.not_in(wanted),
                    valid_at(other, self._block),
                )
                same = and_(not_(extra), *(has(each) for each in wanted))
                return not_(same) if suffix else same
            case _:
                raise InputError(f"a list has no filter {quoted(suffix)}")


def _split(tables: EntityTables, name: str) -> tuple[str, str]:
    """Split ``creationTimestamp_gte`` into field and suffix; the nested filter's suffix is ``_``."""
    fields = tables.entity.fields
    if name in fields:
        return name, ""
    if name.endswith("_") and name[:-1] in fields:
        return name[:-1], "_"
    for field_name in fields:
        if name.startswith(f"{field_name}_"):
            return field_name, name[len(field_name) + 1 :]
    raise InputError(f"no filter is named {quoted(name)}")


def _bounded(name: str, value: Any) -> list[Any]:
    values = value if isinstance(value, list | tuple) else [value]
    if len(values) > MAX_LIST:
        raise InputError(f"{name}: more than {MAX_LIST} values")
    return list(values)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"expected a string, got {quoted(value)}")
    if len(value) > MAX_TEXT:
        raise InputError(f"a filter has more than {MAX_TEXT} characters")
    return value


def pack(kind: Kind, value: Any) -> Any:
    """Bring a filter's value to the form that the tables hold. Raises: InputError."""
    match kind:
        case Kind.BOOLEAN:
            if not isinstance(value, bool):
                raise InputError(f"expected true or false, got {quoted(value)}")
            return value
        case Kind.BIG_INT | Kind.INT:
            number = _number(value)
            return pack_big_int(number) if kind is Kind.BIG_INT else number
        case Kind.BYTES | Kind.ID:
            text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)
            return text.lower() if text.startswith(("0x", "0X")) else text
        case Kind.STRING | Kind.STATUS | Kind.DECIMAL:
            return _text(value)


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError(f"expected a whole number, got {quoted(value)}")
    text = str(value).strip()
    digits = text[1:] if text[:1] == "-" else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 78:
        raise InputError(f"expected a whole number, got {quoted(value)}")
    # Nothing is stored below zero, so a bound below zero compares as zero does from below.
    return min(max(int(text), 0), UINT256_MAX)


def _compare(column: ColumnElement[Any], kind: Kind, suffix: str, value: Any, name: str) -> ColumnElement[bool]:
    if suffix in ("in", "not_in"):
        values = [pack(kind, each) for each in _bounded(name, value if value is not None else [])]
        return column.in_(values) if suffix == "in" else column.not_in(values)
    if value is None:
        if suffix not in ("", "not"):
            raise InputError(f"{name} cannot be null")
        return column.is_(None) if suffix == "" else column.is_not(None)
    packed = pack(kind, value)
    compare = _OPERATORS.get(suffix)
    return _compare_text(column, suffix, str(packed), name) if compare is None else compare(column, packed)


def _compare_text(column: ColumnElement[Any], suffix: str, text: str, name: str) -> ColumnElement[bool]:
    negated = suffix.startswith("not_")
    bare = suffix.removeprefix("not_")
    subject = column
    if bare.endswith("_nocase"):
        bare, subject, text = bare.removesuffix("_nocase"), func.lower(column), text.lower()
    if bare not in ("contains", "starts_with", "ends_with") or len(text) > MAX_TEXT:
        raise InputError(f"no filter is named {quoted(name)}")
    if bare == "contains" and column.key not in ("name", "params") and text.startswith("0x"):
        # Bytes contain bytes: the prefix is not part of the value.
        text = text[2:]
    length = len(text)
    match bare:
        case "contains":
            found = func.replace(subject, text, "") != subject if length else true()
        case "starts_with":
            found = func.substr(subject, 1, length) == text
        case _:
            # Counted from the end, and never by LIKE, whose wildcards and case rules differ between databases.
            found = func.substr(subject, func.length(subject) - length + 1, length) == text
    return not_(found) if negated else found
