"""What entities are made of. Tables, GraphQL types, filters and orderings are generated from it.

Field kinds:

============  ==========================================  ==============================
kind          holds                                       in SQL
============  ==========================================  ==============================
ID, BYTES     text; addresses and hashes lower-case hex   text
STRING        text                                        text
TASK_STATUS,
CONTRIBUTION  a word of an enumeration                    text
BIG_INT       0..2^256-1                                  78 digits, zero-padded
DECIMAL       amount of RLC as decimal text               nRLC, 78 digits, zero-padded
BOOLEAN       true or false                               boolean
============  ==========================================  ==============================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a scalar field holds."""

    ID = "ID"
    BYTES = "Bytes"
    STRING = "String"
    TASK_STATUS = "TaskStatus"
    CONTRIBUTION = "ContributionStatus"
    BIG_INT = "BigInt"
    DECIMAL = "BigDecimal"
    BOOLEAN = "Boolean"


WORDS: Mapping[Kind, tuple[str, ...]] = {
    # The public subgraph spells the last one so, and clients filter by it (reference 4.4).
    Kind.TASK_STATUS: ("UNSET", "ACTIVE", "REVEALING", "COMPLETED", "FAILLED"),
    Kind.CONTRIBUTION: ("UNSET", "CONTRIBUTED", "PROVED", "REJECTED"),
}
"""The words of the enumerations, in the order of their numbers on the chain."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value of the entity itself."""

    kind: Kind
    required: bool = True


@dataclass(frozen=True, slots=True)
class Reference:
    """The id of one other entity. Where it may not be indexed (yet), ``certain`` is false."""

    entity: str
    required: bool = True
    certain: bool = True


@dataclass(frozen=True, slots=True)
class References:
    """The ids of several other entities, in order."""

    entity: str


@dataclass(frozen=True, slots=True)
class Derived:
    """All entities whose ``field`` (one reference or several) refers here, or the only one. Nothing is stored for it."""

    entity: str
    field: str
    single: bool = False


Field = Scalar | Reference | References | Derived


@dataclass(frozen=True, slots=True)
class Entity:
    """One type. ``name`` is GraphQL's; ``plural`` the name of its list at the root; every entity has an ``id``."""

    name: str
    plural: str
    fields: Mapping[str, Field]

    @property
    def singular(self) -> str:
        """The name of the single entity at the root."""
        return self.name[0].lower() + self.name[1:]

    @property
    def id_kind(self) -> Kind:
        """What an id of this entity is: bytes in hex, or text."""
        field = self.fields["id"]
        return field.kind if isinstance(field, Scalar) else Kind.ID


@dataclass(frozen=True, slots=True)
class Subgraph:
    """A set of entities that refer to each other, served under one path."""

    name: str
    entities: Mapping[str, Entity]
