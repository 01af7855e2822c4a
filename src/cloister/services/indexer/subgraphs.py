"""The entities of the two subgraphs, with the names that clients ask for (reference 4.4)."""

from __future__ import annotations

from collections.abc import Mapping

from cloister.services.indexer.entities import (
    Derived,
    Entity,
    Field,
    Kind,
    Reference,
    References,
    Scalar,
    Subgraph,
)


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
    Entity(
        "App",
        "apps",
        {
            "id": Scalar(Kind.BYTES),
            "owner": Reference("Account", required=False),
            "addOnlyAppWhitelists": Derived("AddOnlyAppWhitelist", "apps"),
        },
    ),
)
"""Protected data and its sharing."""

_AT: Mapping[str, Field] = {"timestamp": _BIG, "blockNumber": _BIG, "transactionHash": _BYTES}
_ENTRY: Mapping[str, Field] = {"id": Scalar(Kind.BYTES), "owner": Reference("Account"), **_AT}
_OPTIONAL_STRING, _OPTIONAL_BYTES = Scalar(Kind.STRING, required=False), Scalar(Kind.BYTES, required=False)

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
            "contributions": Derived("Contribution", "worker"),
        },
    ),
    Entity(
        "App",
        "apps",
        {
            **_ENTRY,
            # What its author wrote is null when nobody can read it.
            "name": _OPTIONAL_STRING,
            "type": _OPTIONAL_STRING,
            "multiaddr": _OPTIONAL_BYTES,
            "checksum": _OPTIONAL_BYTES,
            "mrenclave": _OPTIONAL_BYTES,
            "usages": Derived("Deal", "app"),
        },
    ),
    Entity(
        "Dataset",
        "datasets",
        {
            **_ENTRY,
            "name": _OPTIONAL_STRING,
            "multiaddr": _OPTIONAL_BYTES,
            "checksum": _OPTIONAL_BYTES,
            "usages": Derived("Deal", "dataset"),
            "orders": Derived("DatasetOrder", "dataset"),
        },
    ),
    Entity(
        "Workerpool",
        "workerpools",
        {**_ENTRY, "description": _OPTIONAL_STRING, "usages": Derived("Deal", "workerpool")},
    ),
    Entity(
        "Category",
        "categories",
        {
            "id": _ID,
            "name": _STRING,
            "description": _STRING,
            "workClockTimeRef": _BIG,
            "usages": Derived("Deal", "category"),
            **_AT,
        },
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
            "category": Reference("Category"),
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
            "status": Scalar(Kind.TASK_STATUS),
            "deal": Reference("Deal"),
            "requester": Reference("Account"),
            "index": _BIG,
            "contributionDeadline": _BIG,
            "finalDeadline": _BIG,
            "consensus": _OPTIONAL_BYTES,
            "resultDigest": _OPTIONAL_BYTES,
            "results": _OPTIONAL_BYTES,
            "resultsCallback": _OPTIONAL_BYTES,
            "contributions": Derived("Contribution", "task"),
            "bulkSlice": Derived("BulkSlice", "task", single=True),
            **_AT,
        },
    ),
    Entity(
        "Contribution",
        "contributions",
        {
            "id": _ID,
            "task": Reference("Task"),
            "worker": Reference("Account"),
            "status": Scalar(Kind.CONTRIBUTION),
            "hash": _BYTES,
            "seal": _BYTES,
            "challenge": _BYTES,
            "weight": _BIG,
            **_AT,
        },
    ),
    Entity(
        "DatasetOrder",
        "datasetOrders",
        {
            "id": Scalar(Kind.BYTES),
            "dataset": Reference("Dataset"),
            "datasetprice": _RLC,
            "volume": _BIG,
            "tag": _BYTES,
            "apprestrict": _BYTES,
            "workerpoolrestrict": _BYTES,
            "requesterrestrict": _BYTES,
            "salt": _BYTES,
            "sign": _BYTES,
        },
    ),
    # A slice's id is that of its task, which may not be initialised yet.
    Entity(
        "Bulk",
        "bulks",
        {
            "id": Scalar(Kind.BYTES),
            "hash": _STRING,
            "deal": Reference("Deal"),
            "slices": Derived("BulkSlice", "bulk"),
        },
    ),
    Entity(
        "BulkSlice",
        "bulkSlices",
        {
            "id": Scalar(Kind.BYTES),
            "hash": _STRING,
            "bulk": Reference("Bulk"),
            "task": Reference("Task", certain=False),
            "index": _BIG,
            "datasets": References("Dataset"),
            "datasetOrders": References("DatasetOrder"),
        },
    ),
)
"""Deals and tasks."""

SUBGRAPHS = {subgraph.name: subgraph for subgraph in (DATAPROTECTOR, POCO)}
