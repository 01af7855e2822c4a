"""What a subgraph must answer, computed from rows in plain Python: filters in the logic of three values, order, pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from cloister.services.indexer.entities import Derived, Kind, Reference, References, Scalar, Subgraph

Row = Mapping[str, Any]
_TEXTS = ("contains", "starts_with", "ends_with")


@dataclass
class Rows:
    """All versions of all entities: by entity and id the blocks from which values hold, oldest first."""

    subgraph: Subgraph
    versions: dict[str, dict[str, list[tuple[int, Row]]]] = field(default_factory=dict)

    def put(self, entity: str, identity: str, block: int, values: Row) -> None:
        history = self.versions.setdefault(entity, {}).setdefault(identity, [])
        before = history[-1][1] if history else {}
        history.append((block, {**before, **values, "id": identity}))

    def at(self, entity: str, block: int) -> dict[str, tuple[int, Row]]:
        """The entities at a block, with the block in which each changed last."""
        found = {}
        for identity, history in self.versions.get(entity, {}).items():
            holding = [version for version in history if version[0] <= block]
            if holding:
                found[identity] = holding[-1]
        return found


@dataclass
class Oracle:
    """Answers for one block."""

    rows: Rows
    block: int

    def many(
        self,
        entity: str,
        where: Mapping[str, Any] | None,
        *,
        order: str = "id",
        descending: bool = False,
        skip: int = 0,
        first: int = 100,
        among: Sequence[str] | None = None,
    ) -> list[str]:
        """The ids of a list, in order."""
        standing = self.rows.at(entity, self.block)
        found = [
            (changed, row)
            for identity, (changed, row) in standing.items()
            if (among is None or identity in among) and self._judge(entity, where, changed, row) is True
        ]
        found.sort(key=lambda pair: str(pair[1]["id"]), reverse=descending)
        kind = self._kind(entity, order)
        there = [row for _, row in found if row.get(order) is not None]
        there.sort(key=lambda row: _comparable(kind, row[order]), reverse=descending)
        nowhere = [row for _, row in found if row.get(order) is None]
        return [str(row["id"]) for row in (there + nowhere)][skip : skip + first]

    def related(self, entity: str, identity: str, name: str) -> list[str]:
        """The ids at the other side of a field."""
        row = self.rows.at(entity, self.block)[identity][1]
        match self.rows.subgraph.entities[entity].fields[name]:
            case Reference():
                return [] if row.get(name) is None else [row[name]]
            case References():
                return list(row.get(name) or [])
            case Derived(entity=other, field=back):
                return [
                    found
                    for found, (_, values) in self.rows.at(other, self.block).items()
                    if identity == values.get(back) or identity in (values.get(back) or [])
                ]
            case _:
                raise AssertionError(name)

    def _kind(self, entity: str, name: str) -> Kind:
        found = self.rows.subgraph.entities[entity].fields[name]
        return found.kind if isinstance(found, Scalar) else Kind.ID

    def _judge(self, entity: str, where: Mapping[str, Any] | None, changed: int, row: Row) -> bool | None:
        return _all(self._one(entity, name, value, changed, row) for name, value in (where or {}).items())

    def _one(self, entity: str, name: str, value: Any, changed: int, row: Row) -> bool | None:
        if name in ("and", "or"):
            if value is None:
                return True
            judged = [self._judge(entity, each, changed, row) for each in value]
            return _all(judged) if name == "and" else _any(judged)
        if name == "_change_block":
            return value is None or changed >= value["number_gte"]
        fields = self.rows.subgraph.entities[entity].fields
        field_name = next(each for each in fields if name == each or name.startswith(f"{each}_"))
        suffix = name[len(field_name) + 1 :]
        if name == f"{field_name}_":
            if value is None:
                return True
            other = fields[field_name]
            assert not isinstance(other, Scalar)
            standing = self.rows.at(other.entity, self.block)
            return any(
                self._judge(other.entity, value, *standing[each]) is True
                for each in self.related(entity, row["id"], field_name)
                if each in standing
            )
        found = fields[field_name]
        if isinstance(found, References):
            return _list_judgement(suffix, row.get(field_name) or [], value or [])
        if isinstance(found, Reference):
            kind = self.rows.subgraph.entities[found.entity].id_kind
        else:
            assert isinstance(found, Scalar)
            kind = found.kind
        return _scalar_judgement(kind, suffix, row.get(field_name), value)


def _all(values: Any) -> bool | None:
    seen = list(values)
    return False if False in seen else None if None in seen else True


def _any(values: Any) -> bool | None:
    seen = list(values)
    return True if True in seen else None if None in seen else False


def _list_judgement(suffix: str, held: list[str], wanted: list[str]) -> bool:
    if suffix.endswith("nocase"):
        held, wanted = [_lower(each) for each in held], [_lower(each) for each in wanted]
    match suffix.removesuffix("_nocase"):
        case "":
            return set(held) == set(wanted)
        case "not":
            return set(held) != set(wanted)
        case "contains":
            return set(wanted) <= set(held)
        case _:
            return not set(wanted) & set(held)


def _scalar_judgement(kind: Kind, suffix: str, held: Any, wanted: Any) -> bool | None:
    if suffix in ("in", "not_in"):
        if not wanted:
            return suffix == "not_in"
        if held is None:
            return None
        inside = _comparable(kind, held) in [_comparable(kind, each) for each in wanted]
        return inside is (suffix == "in")
    if wanted is None:
        return (held is None) is (suffix == "")
    if held is None:
        return None
    plain = suffix.removeprefix("not_").removesuffix("_nocase")
    if plain in _TEXTS:
        text, part = str(held), str(wanted)
        if suffix.endswith("_nocase"):
            text, part = _lower(text), _lower(part)
        elif kind is Kind.BYTES:
            part = part.lower()
        if kind is Kind.BYTES and plain == "contains":
            text, part = text[2:], part.removeprefix("0x")
        found = {"contains": part in text, "starts_with": text.startswith(part), "ends_with": text.endswith(part)}
        return found[plain] is not suffix.startswith("not_")
    left, right = _comparable(kind, held), _comparable(kind, wanted)
    judgements: dict[str, bool] = {
        "": left == right,
        "not": left != right,
        "gt": left > right,
        "gte": left >= right,
        "lt": left < right,
        "lte": left <= right,
    }
    return judgements[suffix]


def _comparable(kind: Kind, value: Any) -> Any:
    match kind:
        case Kind.BIG_INT:
            return int(value)
        case Kind.DECIMAL:
            # Rows hold nRLC, filters RLC.
            return Decimal(value) / 10**9 if isinstance(value, int) else Decimal(value)
        case Kind.BYTES | Kind.ID:
            text = str(value)
            return (text.lower() if text[:2] in ("0x", "0X") else text).encode()
        case Kind.STRING:
            return str(value).encode()
        case _:
            return value


def _lower(text: str) -> str:
    """Lower ASCII only, as both databases do."""
    return "".join(c.lower() if c.isascii() else c for c in text)
