"""From the ``where`` of a query to SQL conditions: The Graph's filter dialect (reference 4.1)."""

from __future__ import annotations

import operator
import re
import string
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_, exists, false, func, not_, or_, true

from cloister.errors import InputError, quoted
from cloister.services.indexer.entities import WORDS, Derived, Kind, Reference, References, Scalar, Subgraph
from cloister.services.indexer.tables import (
    BIG_INT_DIGITS,
    RLC_DIGITS,
    TABLES,
    EntityTables,
    clean_text,
    snake,
    valid_at,
)

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
MAX_CONDITIONS = 400
"""Most conditions of one filter: the databases read long chains of them as deep trees."""
MAX_VALUES = 10_000
"""Most values in all lists of one filter: the databases bind so many and not any number."""
CHANGE = "_change_block"
"""The filter for entities that changed at or after a block."""

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
        case Scalar(kind=Kind.BOOLEAN | Kind.TASK_STATUS | Kind.CONTRIBUTION):
            return ("not", "in", "not_in")
        case Scalar(kind=Kind.STRING):
            return COMPARISONS + TEXTS
        case Scalar(kind=Kind.BYTES):
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
    """Builds the conditions of one filter, of one subgraph at one block."""

    def __init__(self, subgraph: Subgraph, block: int | None) -> None:
        self._tables = TABLES[subgraph.name]
        self._block = block
        self._left = MAX_CONDITIONS
        self._values = MAX_VALUES

    def build(self, entity: str, where: object, table: FromClause, depth: int = 0) -> ColumnElement[bool]:
        """Build the condition on ``table``, which is the entity's table or an alias of it.

        Raises: InputError for values that a field cannot hold, overlong lists, too many conditions and too deep nesting.
        """
        if where is None:
            return true()
        if not isinstance(where, Mapping):
            raise InputError(f"expected a filter, got {quoted(where)}")
        if depth > MAX_DEPTH:
            raise InputError(f"filters are nested deeper than {MAX_DEPTH}")
        parts: list[ColumnElement[bool]] = []
        for name, value in where.items():
            if name in ("and", "or"):
                if value is not None:
                    inner = [self.build(entity, each, table, depth + 1) for each in self._bounded(name, value)]
                    self._spend(len(inner))
                    parts.append(and_(true(), *inner) if name == "and" else or_(false(), *inner))
            elif name == CHANGE:
                parts.append(_changed(table, value))
            else:
                self._spend(1)
                parts.append(self._condition(self._tables[entity], name, value, table, depth))
        return and_(true(), *parts)

    def _spend(self, conditions: int) -> None:
        self._left -= conditions
        if self._left < 0:
            raise InputError(f"a filter has more than {MAX_CONDITIONS} conditions")

    def _bounded(self, name: str, value: Any) -> list[Any]:
        values = value if isinstance(value, list | tuple) else [value]
        self._values -= len(values)
        if len(values) > MAX_LIST or self._values < 0:
            raise InputError(f"{name}: more than {MAX_LIST} values, or {MAX_VALUES} in all")
        return list(values)

    def _condition(
        self, tables: EntityTables, name: str, value: Any, table: FromClause, depth: int
    ) -> ColumnElement[bool]:
        field_name, suffix = _split(tables, name)
        field = tables.entity.fields[field_name]
        if suffix == "_":
            return true() if value is None else self._nested(tables, field_name, value, table, depth)
        match field:
            case References():
                return self._list_condition(tables.lists[field_name], suffix, value, table)
            case Derived():
                raise InputError(f"{name} cannot be compared")
            case Scalar(kind=kind):
                return self._compare(table.c[snake(field_name)], kind, suffix, value, name)
            case Reference(entity=other):
                kind = self._tables[other].entity.id_kind
                return self._compare(table.c[snake(field_name)], kind, suffix, value, name)

    def _nested(
        self, tables: EntityTables, name: str, where: object, table: FromClause, depth: int
    ) -> ColumnElement[bool]:
        """``rel_: {…}``: at least one entity on the other side fits."""
        field = tables.entity.fields[name]
        assert not isinstance(field, Scalar)  # noqa: S101 - scalars have no nested filter in the schema
        there = self._tables[field.entity]
        other = there.table.alias()
        conditions = [valid_at(other, self._block), self.build(field.entity, where, other, depth + 1)]
        match field:
            case Reference():
                conditions.append(other.c.id == table.c[snake(name)])
            case Derived() if field.field in there.lists:
                conditions += self._linked(there.lists[field.field], other.c.id, table.c.id)
            case Derived():
                conditions.append(other.c[snake(field.field)] == table.c.id)
            case References():
                conditions += self._linked(tables.lists[name], table.c.id, other.c.id)
        return exists().where(*conditions)

    def _linked(
        self, links: FromClause, holder: ColumnElement[Any], target: ColumnElement[Any]
    ) -> list[ColumnElement[bool]]:
        link = links.alias()
        return [link.c.id == holder, link.c.target == target, valid_at(link, self._block)]

    def _compare(
        self, column: ColumnElement[Any], kind: Kind, suffix: str, value: Any, name: str
    ) -> ColumnElement[bool]:
        if suffix in ("in", "not_in"):
            values = [pack(kind, each) for each in self._bounded(name, value if value is not None else [])]
            return column.in_(values) if suffix == "in" else column.not_in(values)
        if value is None:
            if suffix not in ("", "not"):
                raise InputError(f"{name} cannot be null")
            return column.is_(None) if suffix == "" else column.is_not(None)
        compare = _OPERATORS.get(suffix)
        if compare is None:
            return _compare_text(column, kind, suffix, value, name)
        return compare(column, pack(kind, value))

    def _list_condition(self, links: FromClause, suffix: str, value: Any, table: FromClause) -> ColumnElement[bool]:
        """Conditions on a list of ids: ``contains`` means that every one named is in it."""
        wanted = [str(pack(Kind.ID, each)) for each in self._bounded("list", value)] if value is not None else []
        self._spend(len(wanted))

        def has(target: str, *, nocase: bool = False) -> ColumnElement[bool]:
            each = links.alias()
            column = func.lower(each.c.target) if nocase else each.c.target
            same = column == (target.translate(_LOWER) if nocase else target)
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


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"expected a string, got {quoted(value)}")
    if len(value) > MAX_TEXT:
        raise InputError(f"a filter has more than {MAX_TEXT} characters")
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise InputError(f"expected a string, got half a character in {quoted(value)}")
    return clean_text(value)


_BELOW, _ABOVE = "-", "~"
"""Sort below and above all digits: numbers that no field holds compare as they should and equal nothing."""
_NUMBER = re.compile(r"(-?)(?=[0-9])0*([0-9]{0,78})(?:\.([0-9]{1,78}))?")


def pack(kind: Kind, value: Any) -> Any:
    """Bring a filter's value to the form that the tables hold. Raises: InputError."""
    match kind:
        case Kind.BOOLEAN:
            if not isinstance(value, bool):
                raise InputError(f"expected true or false, got {quoted(value)}")
            return value
        case Kind.BIG_INT:
            return _number(value, places=0)
        case Kind.DECIMAL:
            return _number(value, places=RLC_DIGITS)
        case Kind.BYTES | Kind.ID:
            text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(value)
            return text.lower() if text.startswith(("0x", "0X")) else text
        case Kind.TASK_STATUS | Kind.CONTRIBUTION:
            if value not in WORDS[kind]:
                raise InputError(f"expected one of {', '.join(WORDS[kind])}, got {quoted(value)}")
            return value
        case Kind.STRING:
            return _text(value)


def _number(value: Any, *, places: int) -> str:
    """Write a number as ``tables.pack_big_int`` does, in units of 10^-``places``; what is left of it after a point."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    given = None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        given = _NUMBER.fullmatch(f"{value:f}" if isinstance(value, float) else str(value).strip()[:200])
    if given is None:
        raise InputError(f"expected a {'number' if places else 'whole number'}, got {quoted(value)}")
    fraction = (given[3] or "").rstrip("0")
    if fraction and not places:
        raise InputError(f"expected a whole number, got {quoted(value)}")
    digits = (given[2] + fraction[:places].ljust(places, "0")).lstrip("0")
    rest = fraction[places:]
    if given[1] and (digits or rest):
        return _BELOW
    if len(digits) > BIG_INT_DIGITS:
        return _ABOVE
    packed = digits.zfill(BIG_INT_DIGITS)
    return f"{packed}.{rest}" if rest else packed


def _changed(table: FromClause, value: object) -> ColumnElement[bool]:
    if value is None:
        return true()
    block = value.get("number_gte") if isinstance(value, Mapping) else None
    if isinstance(block, bool) or not isinstance(block, int) or not 0 <= block < 2**63:
        raise InputError(f"{CHANGE}: expected number_gte, a block's number")
    changed: ColumnElement[bool] = table.c.block_from >= block
    return changed


_LOWER = {ord(c): c.lower() for c in string.ascii_uppercase}


def _compare_text(column: ColumnElement[Any], kind: Kind, suffix: str, value: object, name: str) -> ColumnElement[bool]:
    text = _text(value)
    negated = suffix.startswith("not_")
    bare = suffix.removeprefix("not_")
    subject = column
    if bare.endswith("_nocase"):
        # The databases lower ASCII only, so that both say the same of every text.
        bare, subject, text = bare.removesuffix("_nocase"), func.lower(column), text.translate(_LOWER)
    elif kind is Kind.BYTES:
        text = text.lower()
    if bare == "contains" and kind is Kind.BYTES:
        # Bytes contain bytes: the prefix is not part of the value.
        text, subject = text.removeprefix("0x"), func.substr(subject, 3)
    length = len(text)
    match bare:
        case "contains":
            found = func.replace(subject, text, "") != subject if length else subject.is_not(None)
        case "starts_with":
            found = func.substr(subject, 1, length) == text
        case "ends_with":
            # Counted from the end, and never by LIKE, whose wildcards and case rules differ between databases.
            found = (func.length(subject) >= length) & (
                func.substr(subject, func.length(subject) - length + 1, length) == text
            )
        case _:
            raise InputError(f"no filter is named {quoted(name)}")
    return not_(found) if negated else found
