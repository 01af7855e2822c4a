"""The entities of the two subgraphs, as data: tables, GraphQL types, filters and orderings are generated from here.

Field kinds:

===========  ==========================================  =========================
kind         holds                                       in SQL
===========  ==========================================  =========================
ID, BYTES    text; addresses and hashes lower-case hex   text
STRING       text                                        text
STATUS       a word of an enumeration                    text
INT          32-bit number                               integer
BIG_INT      0..2^256-1                                  78 digits, zero-padded
DECIMAL      amount of RLC as decimal text               text
BOOLEAN      true or false                               boolean
===========  ==========================================  =========================
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
    STATUS = "TaskStatus"
    INT = "Int"
    BIG_INT = "BigInt"
    DECIMAL = "BigDecimal"
    BOOLEAN = "Boolean"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value of the entity itself."""

    kind: Kind
    required: bool = True


@dataclass(frozen=True, slots=True)
class Reference:
    """The id of one other entity."""

    entity: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class References:
    """The ids of several other entities, in order."""

    entity: str


@dataclass(frozen=True, slots=True)
class Derived:
    """All entities whose ``field`` refers here. Nothing is stored for it."""

    entity: str
    field: str


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


@dataclass(frozen=True, slots=True)
class Subgraph:
    """A set of entities that refer to each other, served under one path."""

    name: str
    entities: Mapping[str, Entity]


def _subgraph(name: str, *entities: Entity) -> Subgraph:
    return Subgraph(name, {entity.name: entity for entity in entities})


_ID, _BYTES, _STRING, _BIG = Scalar(Kind.ID), Scalar(Kind.BYTES), Scalar(Kind.STRING), Scalar(Kind.BIG_INT)
_FLAG, _RLC = Scalar(Kind.BOOLEAN), Scalar(Kind.DECIMAL)
_MINED: Mapping[str, Field] = {"creationTimestamp": _BIG, "transactionHash": _BYTES, "blockNumber": _BIG}

DATAPROTECTOR = _subgraph(
    "dataprotector-v2",
    Entity(
        "ProtectedData",
        "protectedDatas",
        {
            "id": Scalar(Kind.BYTES),
            "owner": Reference("Account"),
            "name": _STRING,
            "jsonSchema": _STRING,
            "schema": References("SchemaEntry"),
            "collection": Reference("Collection", required=False),
            "isIncludedInSubscription": _FLAG,
            "isRentable": _FLAG,
            "isForSale": _FLAG,
            "sales": Derived("Sale", "protectedData"),
            "rentals": Derived("Rental", "protectedData"),
            "consumptions": Derived("Consumption", "protectedData"),
            "rentalParams": Reference("RentalParam", required=False),
            "saleParams": Reference("SaleParam", required=False),
            "multiaddr": _BYTES,
            "checksum": _BYTES,
            **_MINED,
        },
    ),
    Entity("SchemaEntry", "schemaEntries", {"id": _ID, "path": _STRING, "type": _STRING}),
    Entity(
        "Account",
        "accounts",
        {
            "id": Scalar(Kind.BYTES),
            "datasets": Derived("ProtectedData", "owner"),
            "collections": Derived("Collection", "owner"),
            "subscriptions": Derived("CollectionSubscription", "subscriber"),
            "addOnlyAppWhitelists": Derived("AddOnlyAppWhitelist", "owner"),
            "apps": Derived("App", "owner"),
        },
    ),
    Entity(
        "Collection",
        "collections",
        {
            "id": _ID,
            "owner": Reference("Account"),
            "protectedDatas": Derived("ProtectedData", "collection"),
            "subscriptions": Derived("CollectionSubscription", "collection"),
            "subscriptionParams": Reference("SubscriptionParam", required=False),
            **_MINED,
        },
    ),
    Entity("SubscriptionParam", "subscriptionParams", {"id": _ID, "duration": _BIG, "price": _BIG}),
    Entity("RentalParam", "rentalParams", {"id": _ID, "duration": _BIG, "price": _BIG}),
    Entity("SaleParam", "saleParams", {"id": _ID, "price": _BIG}),
    Entity(
        "CollectionSubscription",
        "collectionSubscriptions",
        {
            "id": _ID,
            "collection": Reference("Collection"),
            "subscriber": Reference("Account"),
            "endDate": _BIG,
            "subscriptionParams": Reference("SubscriptionParam", required=False),
            **_MINED,
        },
    ),
    Entity(
        "Rental",
        "rentals",
        {
            "id": _ID,
            "renter": _BYTES,
            "protectedData": Reference("ProtectedData"),
            "endDate": _BIG,
            "collection": Reference("Collection", required=False),
            "rentalParams": Reference("RentalParam", required=False),
            **_MINED,
        },
    ),
    Entity(
        "Sale",
        "sales",
        {
            "id": _ID,
            "buyer": Reference("Account"),
            "protectedData": Reference("ProtectedData"),
            "collection": Reference("Collection", required=False),
            "saleParams": Reference("SaleParam", required=False),
            **_MINED,
        },
    ),
    Entity(
        "Consumption",
        "consumptions",
        {"id": _ID, "dealId": _BYTES, "protectedData": Reference("ProtectedData"), "mode": _STRING, **_MINED},
    ),
    Entity(
        "AddOnlyAppWhitelist",
        "addOnlyAppWhitelists",
        {"id": Scalar(Kind.BYTES), "owner": Reference("Account"), "apps": References("App")},
    ),
    Entity("App", "apps", {"id": Scalar(Kind.BYTES), "owner": Reference("Account", required=False)}),
)
"""Protected data and its sharing."""

_AT: Mapping[str, Field] = {"timestamp": _BIG, "blockNumber": _BIG, "transactionHash": _BYTES}

POCO = _subgraph(
    "poco-v5",
    Entity(
        "Account",
        "accounts",
        {
            "id": Scalar(Kind.BYTES),
            "apps": Derived("App", "owner"),
            "datasets": Derived("Dataset", "owner"),
            "workerpools": Derived("Workerpool", "owner"),
            "dealRequester": Derived("Deal", "requester"),
            "dealBeneficiary": Derived("Deal", "beneficiary"),
            "taskRequester": Derived("Task", "requester"),
        },
    ),
    *(
        Entity(
            name,
            f"{name.lower()}s",
            {
                "id": Scalar(Kind.BYTES),
                "owner": Reference("Account"),
                "usages": Derived("Deal", name.lower()),
                **_AT,
            },
        )
        for name in ("App", "Dataset", "Workerpool")
    ),
    Entity(
        "Deal",
        "deals",
        {
            "id": Scalar(Kind.BYTES),
            "requester": Reference("Account"),
            "beneficiary": Reference("Account"),
            "callback": _BYTES,
            "app": Reference("App"),
            "appOwner": Reference("Account"),
            "appPrice": _RLC,
            "dataset": Reference("Dataset", required=False),
            "datasetOwner": Reference("Account", required=False),
            "datasetPrice": _RLC,
            "workerpool": Reference("Workerpool"),
            "workerpoolOwner": Reference("Account"),
            "workerpoolPrice": _RLC,
            "trust": _BIG,
            "category": _BIG,
            "tag": _BYTES,
            "params": _STRING,
            "startTime": _BIG,
            "botFirst": _BIG,
            "botSize": _BIG,
            "workerStake": _RLC,
            "schedulerRewardRatio": _BIG,
            "sponsor": Reference("Account"),
            "apporder": _BYTES,
            "datasetorder": _BYTES,
            "workerpoolorder": _BYTES,
            "requestorder": _BYTES,
            "tasks": Derived("Task", "deal"),
            "bulk": Reference("Bulk", required=False),
            **_AT,
        },
    ),
    Entity(
        "Task",
        "tasks",
        {
            "id": Scalar(Kind.BYTES),
            "status": Scalar(Kind.STATUS),
            "deal": Reference("Deal"),
            "requester": Reference("Account"),
            "index": _BIG,
            "contributionDeadline": _BIG,
            "finalDeadline": _BIG,
            "consensus": Scalar(Kind.BYTES, required=False),
            "resultDigest": Scalar(Kind.BYTES, required=False),
            "results": Scalar(Kind.BYTES, required=False),
            "resultsCallback": Scalar(Kind.BYTES, required=False),
            "bulkSlice": Reference("BulkSlice", required=False),
            **_AT,
        },
    ),
    Entity("Bulk", "bulks", {"id": _ID, "hash": _STRING, "slices": Derived("BulkSlice", "bulk")}),
    Entity(
        "BulkSlice",
        "bulkSlices",
        {
            "id": _ID,
            "hash": _STRING,
            "bulk": Reference("Bulk"),
            "task": Reference("Task", required=False),
            "index": _BIG,
            "datasets": References("Dataset"),
        },
    ),
)
"""Deals and tasks."""

SUBGRAPHS = {subgraph.name: subgraph for subgraph in (DATAPROTECTOR, POCO)}
