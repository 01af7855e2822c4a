"""What ``/openapi.json`` says of each of the market's operations: parameters with their ranges, bodies, refusals.

The tables here stand beside the parsers of ``filters``; a test asks the service with every parameter that is
described.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloister.protocol.codec import SAFE_INTEGER_MAX
from cloister.protocol.orders import OrderKind
from cloister.services.market.filters import DEFAULT_PAGE_SIZE, MAX_PAGE_INDEX, MAX_PAGE_SIZE, MAX_SKIP, MIN_PAGE_SIZE
from cloister.services.market.records import RESOURCE_FIELD, TARGETS
from cloister.services.market.schemas import ADDRESS, ADDRESS_OR_ANY, WORD, ErrorBody, order_input

Parameter = dict[str, Any]
Parts = dict[str, Any]


def _parameter(name: str, schema: dict[str, Any], text: str, *, required: bool = False) -> Parameter:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": text}


def _integer(name: str, text: str, *, minimum: int = 0, maximum: int = SAFE_INTEGER_MAX, **more: Any) -> Parameter:
    return _parameter(name, {"type": "integer", "minimum": minimum, "maximum": maximum, **more}, text)


def _address(name: str, text: str) -> Parameter:
    return _parameter(name, {"type": "string", "pattern": ADDRESS_OR_ANY}, text)


def _word(name: str, text: str) -> Parameter:
    return _parameter(name, {"type": "string", "pattern": WORD}, text)


def _flag(name: str, text: str) -> Parameter:
    return _parameter(name, {"type": "string", "enum": ["true", "false"]}, text)


def _restrictions(*names: str) -> list[Parameter]:
    found = []
    for name in names:
        text = f"orders for this {name} and for everybody; any: no filter; absent: for everybody only"
        found.append(_address(name, text))
        found.append(_flag(f"is{name.capitalize()}Strict", f"only orders for exactly this {name}"))
    return found


def chain_parameter(chain_id: int) -> Parameter:
    """The parameter that every call but a few has."""
    return _parameter(
        "chainId", {"type": "integer", "enum": [chain_id]}, "the chain that this market is about", required=True
    )


PAGES = [
    _integer("pageIndex", "which page, from 0", maximum=MAX_PAGE_INDEX),
    _integer("pageSize", "records on a page", minimum=MIN_PAGE_SIZE, maximum=MAX_PAGE_SIZE, default=DEFAULT_PAGE_SIZE),
    _integer("page", "older form: how many records to skip; pageIndex comes before it", maximum=MAX_SKIP),
]
WALLET = [
    _parameter("address", {"type": "string", "pattern": ADDRESS}, "who is going to log in", required=True),
]
CATEGORY_FILTERS = [
    _integer("minWorkClockTimeRef", "shortest time in seconds"),
    _integer("maxWorkClockTimeRef", "longest time in seconds"),
]
CHART = [
    _parameter("category", {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}, "which category", required=True),
]
_TAGS = [
    _word("minTag", "orders whose tag has all of these bits"),
    _word("maxTag", "orders whose tag has no other bit than these"),
    _integer("minVolume", "orders with at least this much remaining"),
]
_CATEGORY = _integer("category", "orders of this category")
ORDER_FILTERS: dict[OrderKind, list[Parameter]] = {
    OrderKind.APP: [
        _address("app", "the app that is offered; this or appOwner is required"),
        _address("appOwner", "who offers it"),
        *_restrictions("dataset", "workerpool", "requester"),
        *_TAGS,
    ],
    OrderKind.DATASET: [
        _address("dataset", "the dataset that is offered; this or datasetOwner is required"),
        _address("datasetOwner", "who offers it"),
        *_restrictions("app", "workerpool", "requester"),
        *_TAGS,
        _flag("bulkOnly", "only free, practically endless orders, which bulk requests may use"),
    ],
    OrderKind.WORKERPOOL: [
        _address("workerpool", "the workerpool that is offered"),
        _address("workerpoolOwner", "who offers it"),
        *_restrictions("app", "dataset", "requester"),
        _CATEGORY,
        *_TAGS,
        _integer("minTrust", "offers of at least this trust"),
    ],
    OrderKind.REQUEST: [
        _address("requester", "who asks"),
        _address("beneficiary", "who gets the result"),
        _address("app", "which app is asked for"),
        _address("dataset", "which dataset is asked for"),
        *_restrictions("workerpool"),
        _CATEGORY,
        *_TAGS,
        _integer("maxTrust", "requests of at most this trust"),
    ],
}
DEAL_FILTERS = [
    *(
        _address(name, f"deals with this {name}")
        for name in (
            *("requester", "beneficiary", "app", "dataset", "workerpool"),
            *("appOwner", "datasetOwner", "workerpoolOwner"),
        )
    ),
    *(
        _word(name, f"deals that this {name.removesuffix('Hash')} went into")
        for name in ("apporderHash", "datasetorderHash", "workerpoolorderHash", "requestorderHash")
    ),
    _integer("category", "deals of this category"),
]

_REFUSALS = {
    400: "something in the request does not parse; the text names it",
    403: "invalid authorization, or a rule of publication; the text says which",
    404: "there is no such record",
    413: "the body is too large",
    429: "too many requests from this address; loopback is exempt",
    503: "the chain or the database does not answer: try again",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of an operation, beside those that every one has."""
    found: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": _REFUSALS[status]} for status in (*statuses, 429, 503)
    }
    # Named so that the framework does not describe its own error body, which this service never gives.
    found["default"] = {"model": ErrorBody, "description": "any other refusal has the same form"}
    return found


def query_of(chain_id: int, *groups: Iterable[Parameter]) -> Parts:
    """The query of an operation, as a part of its description."""
    return {"parameters": [chain_parameter(chain_id), *(each for group in groups for each in group)]}


def publish_body(kind: OrderKind) -> Parts:
    """The body that publishes an order."""
    schema = {"type": "object", "required": ["order"], "properties": {"order": order_input(kind)}}
    return _body(schema)


def unpublish_body(kind: OrderKind) -> Parts:
    """The body that unpublishes orders: one by its hash, or the last or all for one resource."""
    name = RESOURCE_FIELD[kind]
    by_hash = {
        "type": "object",
        "required": ["orderHash"],
        "properties": {
            "target": {"type": "string", "enum": [TARGETS[0]], "default": TARGETS[0]},
            "orderHash": {"type": "string", "pattern": WORD},
        },
    }
    by_resource = {
        "type": "object",
        "required": ["target"] if kind is OrderKind.REQUEST else ["target", name],
        "properties": {
            "target": {"type": "string", "enum": list(TARGETS[1:])},
            name: {"type": "string", "pattern": ADDRESS},
        },
    }
    return _body({"oneOf": [by_hash, by_resource]})


def _body(schema: dict[str, Any]) -> Parts:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
