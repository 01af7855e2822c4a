"""From a query string to conditions on the tables (reference 3.1, "List filters")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_

from cloister.errors import DecodeError, InputError, quoted
from cloister.protocol.codec import SAFE_INTEGER_MAX, ZERO_ADDRESS, Address, Bytes32, parse_uint
from cloister.protocol.orders import OrderKind
from cloister.protocol.tags import Tag
from cloister.services.market.records import MAX_TAG_BITS
from cloister.services.market.tables import CATEGORIES, DEALS, ORDERS

ANY = "any"
DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 1000
MIN_PAGE_SIZE = 10
MAX_SKIP = 2**31 - 1
MAX_PAGE_INDEX = MAX_SKIP // MAX_PAGE_SIZE
_LOW_BITS = (1 << MAX_TAG_BITS) - 1

Query = Mapping[str, str]
Conditions = list[ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    skip: int
    size: int
    next_index: int
    """What ``nextPage`` says when this page is full."""


def parse_page(query: Query) -> Page:
    """Read ``pageIndex`` and ``pageSize``, or the older ``page`` that counts single items to skip.

    Raises: InputError.
    """
    size = _integer(query, "pageSize", default=DEFAULT_PAGE_SIZE)
    if "pageSize" in query and not MIN_PAGE_SIZE <= size <= MAX_PAGE_SIZE:
        raise InputError(f"pageSize must be between {MIN_PAGE_SIZE} and {MAX_PAGE_SIZE}, got {size}")
    skip = _integer(query, "page", default=0, maximum=MAX_SKIP)
    if "page" in query and "pageIndex" not in query:
        return Page(skip, size, skip + size)
    index = _integer(query, "pageIndex", default=0, maximum=MAX_PAGE_INDEX)
    return Page(index * size, size, index + 1)


_OFFERS: dict[OrderKind, tuple[str, tuple[str, ...]]] = {
    OrderKind.APP: ("app", ("dataset", "workerpool", "requester")),
    OrderKind.DATASET: ("dataset", ("app", "workerpool", "requester")),
    OrderKind.WORKERPOOL: ("workerpool", ("app", "dataset", "requester")),
}


def order_conditions(kind: OrderKind, query: Query) -> Conditions:
    """Build the conditions of an orderbook: open orders of ``kind`` that fit the query.

    Raises: InputError, DecodeError for values that do not parse or a missing required filter.
    """
    conditions: Conditions = [ORDERS.c.kind == kind.value, ORDERS.c.status == "open"]
    if kind is OrderKind.REQUEST:
        conditions += _request_conditions(query)
    else:
        conditions += _offer_conditions(kind, query)
    conditions += _tag_conditions(query)
    if "minVolume" in query:
        conditions.append(ORDERS.c.remaining >= _integer(query, "minVolume", default=0))
    if "category" in query and kind in (OrderKind.WORKERPOOL, OrderKind.REQUEST):
        conditions.append(ORDERS.c.category == _integer(query, "category", default=0))
    if "minTrust" in query and kind is OrderKind.WORKERPOOL:
        conditions.append(ORDERS.c.trust >= _integer(query, "minTrust", default=0))
    if "maxTrust" in query and kind is OrderKind.REQUEST:
        conditions.append(ORDERS.c.trust <= _integer(query, "maxTrust", default=0))
    if kind is OrderKind.DATASET and _flag(query, "bulkOnly"):
        conditions.append(ORDERS.c.bulk.is_(True))
    return conditions


def _offer_conditions(kind: OrderKind, query: Query) -> Conditions:
    resource, restrictions = _OFFERS[kind]
    owner = f"{resource}Owner"
    if kind is not OrderKind.WORKERPOOL and resource not in query and owner not in query:
        raise InputError(f"{resource} or {owner} is required")
    conditions: Conditions = []
    if (wanted := _address(query, resource)) is not None:
        conditions.append(ORDERS.c.resource == str(wanted))
    if (wanted := _address(query, owner)) is not None:
        conditions.append(ORDERS.c.signer == str(wanted))
    for name in restrictions:
        conditions += _restriction_conditions(name, query)
    return conditions


def _restriction_conditions(name: str, query: Query) -> Conditions:
    """Whom an order is for: nobody in particular unless the query names somebody (or ``any``)."""
    column, open_to_all = ORDERS.c[name], str(ZERO_ADDRESS)
    text = query.get(name)
    if text == ANY:
        return []
    if text is None:
        return [column == open_to_all]
    wanted = str(parse_address(name, text))
    if _flag(query, f"is{name.capitalize()}Strict"):
        return [column == wanted]
    return [column.in_((open_to_all, wanted))]


def _request_conditions(query: Query) -> Conditions:
    conditions: Conditions = []
    for name in ("requester", "beneficiary", "app", "dataset"):
        if (wanted := _address(query, name)) is not None:
            conditions.append(ORDERS.c[name] == str(wanted))
    return conditions + _restriction_conditions("workerpool", query)


def _tag_conditions(query: Query) -> Conditions:
    conditions: Conditions = []
    if "minTag" in query:
        needed = _tag(query, "minTag").bits
        if needed > _LOW_BITS:
            # No order in the market has such a bit, so none can have all of them.
            return [and_(ORDERS.c.order_hash.is_(None))]
        conditions.append(ORDERS.c.tag_low.op("&")(needed) == needed)
    if "maxTag" in query:
        outside = _LOW_BITS & ~_tag(query, "maxTag").bits
        conditions.append(ORDERS.c.tag_low.op("&")(outside) == 0)
    return conditions


_DEAL_ADDRESSES = {
    "requester": "requester",
    "beneficiary": "beneficiary",
    "app": "app",
    "dataset": "dataset",
    "workerpool": "workerpool",
    "appOwner": "app_owner",
    "datasetOwner": "dataset_owner",
    "workerpoolOwner": "workerpool_owner",
}
_DEAL_HASHES = {
    "apporderHash": "app_hash",
    "datasetorderHash": "dataset_hash",
    "workerpoolorderHash": "workerpool_hash",
    "requestorderHash": "request_hash",
}


def deal_conditions(query: Query) -> Conditions:
    """Build the conditions of a list of deals. Raises: InputError, DecodeError."""
    conditions: Conditions = []
    for name, column in _DEAL_ADDRESSES.items():
        if (wanted := _address(query, name)) is not None:
            conditions.append(DEALS.c[column] == str(wanted))
    for name, column in _DEAL_HASHES.items():
        if name in query:
            conditions.append(DEALS.c[column] == str(_parse_hash(name, query[name])))
    if "category" in query:
        conditions.append(DEALS.c.category == _integer(query, "category", default=0))
    return conditions


def category_conditions(query: Query) -> Conditions:
    """Build the conditions of a list of categories. Raises: InputError, DecodeError."""
    conditions: Conditions = []
    if "minWorkClockTimeRef" in query:
        conditions.append(CATEGORIES.c.clock >= _integer(query, "minWorkClockTimeRef", default=0))
    if "maxWorkClockTimeRef" in query:
        conditions.append(CATEGORIES.c.clock <= _integer(query, "maxWorkClockTimeRef", default=0))
    return conditions


def _integer(query: Query, name: str, *, default: int, maximum: int = SAFE_INTEGER_MAX) -> int:
    text = query.get(name)
    return default if text is None else parse_uint(name, text, maximum=maximum)


def _flag(query: Query, name: str) -> bool:
    text = query.get(name)
    if text not in (None, "true", "false"):
        raise InputError(f"{name} must be true or false, got {quoted(text)}")
    return text == "true"


def _address(query: Query, name: str) -> Address | None:
    text = query.get(name)
    return None if text is None or text == ANY else parse_address(name, text)


def parse_address(name: str, text: str) -> Address:
    """Read an address of a query. Raises: InputError that names the parameter."""
    try:
        return Address(text)
    except DecodeError as error:
        raise InputError(f"{name} must be an address, got {quoted(text)}") from error


def _parse_hash(name: str, text: str) -> Bytes32:
    try:
        return Bytes32(text)
    except DecodeError as error:
        raise InputError(f"{name} must be 32 bytes of hex, got {quoted(text)}") from error


def _tag(query: Query, name: str) -> Tag:
    try:
        return Tag(query[name])
    except DecodeError as error:
        raise InputError(f"{name} must be 32 bytes of hex, got {quoted(query[name])}") from error
