"""The market's HTTP API: find orders and deals, publish and withdraw orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloister.errors import DecodeError, Denied, quoted
from cloister.protocol import authorization
from cloister.protocol.codec import Address, Bytes32, parse_uint
from cloister.protocol.orders import Order, OrderKind, parse_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cloister.protocol.signatures import PrivateKey

PAGE_SIZE = 100
ANSWER_CAP = 64 * 1024 * 1024
"""A page of a thousand requests with the longest params."""
_ATTEMPTS = 5
# The market says these in words only; transport puts its own before them.
ALREADY_PUBLISHED = "order already published"
LOGIN_REFUSED = "invalid authorization"

_FLAGS = {
    "app_strict": "isAppStrict",
    "dataset_strict": "isDatasetStrict",
    "workerpool_strict": "isWorkerpoolStrict",
    "requester_strict": "isRequesterStrict",
}
_SPECIAL = {"min_work_clock": "minWorkClockTimeRef", "max_work_clock": "maxWorkClockTimeRef"}


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """An order as the market lists it. ``published_at`` is ISO 8601 in UTC; ``bulk`` is meant for dataset orders
    only.
    """

    order: Order
    order_hash: Bytes32
    remaining: int
    status: str
    signer: Address
    published_at: str
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class DealRecord:
    """A deal as the market lists it; ``record`` is everything that the market told, by iExec's names."""

    deal_id: Bytes32
    app: Address
    dataset: Address
    workerpool: Address
    requester: Address
    dataset_hash: Bytes32
    request_hash: Bytes32
    bot_first: int
    bot_size: int
    block: int
    transaction: Bytes32
    record: Mapping[str, Any]


class MarketClient:
    """Talks to one market about one chain. Safe to share between threads.

    Filters are iExec's in snake_case: ``dataset``, ``dataset_owner``, ``requester``, ``min_tag``, ``bulk_only``,
    ``requester_strict`` … None is left out; an address may be ``"any"``. Restrictions that are left out list only what
    is for everybody; so do requests without ``workerpool``. Every method raises ``UnavailableError`` when the service
    does not answer.
    """

    def __init__(self, base_url: str, chain_id: int, *, timeout: float = 30.0) -> None:
        from cloister.transport import Http

        self._http = Http(base_url, timeout=timeout, max_response=ANSWER_CAP)
        self._chain_id = chain_id

    def publish(self, order: Order, key: PrivateKey) -> Bytes32:
        """Publish a signed order; returns its hash. An order that stands there already is no error.

        Raises: Denied with the market's words when a rule refuses it.
        """
        try:
            answer = self._authorized("POST", order.kind, {"order": order.to_json()}, key)
        except Denied as error:
            if not error.message.startswith(ALREADY_PUBLISHED):
                raise
            return self._hash_of(order, key)
        published = answer.get("published")
        if not isinstance(published, dict):
            raise DecodeError("the market's answer names no order")
        return Bytes32(str(published.get("orderHash")))

    def unpublish(self, kind: OrderKind | str, order_hash: Bytes32 | str, key: PrivateKey) -> None:
        """Take one of one's own orders from the books; it stays valid on chain. Raises: Denied."""
        self._authorized("PUT", OrderKind(kind), {"target": "unpublish_orderHash", "orderHash": str(order_hash)}, key)

    def unpublish_all(self, kind: OrderKind | str, resource: Address | str, key: PrivateKey) -> list[Bytes32]:
        """Take all of one's own orders for a resource from the books. Raises: Denied when there are none."""
        field = {"apporder": "app", "datasetorder": "dataset", "workerpoolorder": "workerpool"}.get(
            OrderKind(kind).value, "requester"
        )
        body = {"target": "unpublish_all", field: str(resource)}
        hashes = self._authorized("PUT", OrderKind(kind), body, key).get("unpublished")
        if not isinstance(hashes, list):
            raise DecodeError("the market's answer names no orders")
        return [Bytes32(str(each)) for each in hashes]

    def order(self, kind: OrderKind | str, order_hash: Bytes32 | str) -> OrderRecord:
        """One order in any status. Raises: NotFound."""
        kind = OrderKind(kind)
        return _parse_record(kind, self._get(f"/{kind.value}s/{order_hash}", {}))

    def orders(self, kind: OrderKind | str, *, page_size: int = PAGE_SIZE, **filters: object) -> Iterator[OrderRecord]:
        """Yield the open orders that fit, best first, asking for further pages as they are needed."""
        kind = OrderKind(kind)
        for record in self._pages(f"/{kind.value}s", "orders", page_size, filters):
            yield _parse_record(kind, record)

    def deal(self, deal_id: Bytes32 | str) -> DealRecord:
        """One deal. Raises: NotFound."""
        return _parse_deal(self._get(f"/deals/{deal_id}", {}))

    def deals(self, *, page_size: int = PAGE_SIZE, **filters: object) -> Iterator[DealRecord]:
        """Yield the deals that fit, newest first."""
        for record in self._pages("/deals", "deals", page_size, filters):
            yield _parse_deal(record)

    def categories(self, **filters: object) -> Iterator[Mapping[str, Any]]:
        """Yield the categories, shortest first, by iExec's names."""
        yield from self._pages("/categories", "categories", PAGE_SIZE, filters)

    def _pages(
        self, path: str, name: str, page_size: int, filters: Mapping[str, object]
    ) -> Iterator[Mapping[str, Any]]:
        query = {_wire_name(key): _wire_value(value) for key, value in filters.items() if value is not None}
        index = 0
        while True:
            answer = self._get(path, {**query, "pageIndex": str(index), "pageSize": str(page_size)})
            records = answer.get(name)
            if not isinstance(records, list):
                raise DecodeError(f"the market's answer has no {name}")
            yield from records
            if not answer.get("nextPage"):
                return
            index += 1

    def _get(self, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        answer = self._http.json("GET", path, query={**query, "chainId": str(self._chain_id)})
        if not isinstance(answer, dict) or answer.get("ok") is not True:
            raise DecodeError(f"the market answered {quoted(path)} without ok")
        return answer

    def _authorized(self, method: str, kind: OrderKind, body: object, key: PrivateKey) -> Mapping[str, Any]:
        """Log in and send. A login is good once and shared by all calls of a wallet, so a lost race is run again."""
        for attempt in range(_ATTEMPTS):
            header = self._login(key)
            try:
                answer = self._http.json(
                    method,
                    f"/{kind.value}s",
                    query={"chainId": str(self._chain_id)},
                    body=body,
                    headers={"authorization": header},
                )
            except Denied as error:
                if not error.message.startswith(LOGIN_REFUSED) or attempt == _ATTEMPTS - 1:
                    raise
                continue
            if not isinstance(answer, dict):
                raise DecodeError("the market's answer is not an object")
            return answer
        raise AssertionError("the last attempt returns or raises")

    def _login(self, key: PrivateKey) -> str:
        data = self._get("/challenge", {"address": str(key.address)}).get("data")
        message = data.get("message") if isinstance(data, dict) else None
        text = message.get("challenge") if isinstance(message, dict) else None
        if not isinstance(text, str) or not text.startswith(authorization.MARKET_CHALLENGE_TEXT):
            # Anything else could be a message that means something to somebody else.
            raise DecodeError("the market sent a challenge that is none")
        digest = authorization.challenge_digest(authorization.MARKET_CHALLENGE, self._chain_id, text)
        return authorization.build_challenge_header(digest, key.sign_digest(digest), key.address)

    def _hash_of(self, order: Order, key: PrivateKey) -> Bytes32:
        """Find the published record that is this very order."""
        for record in self.orders(order.kind, **_whereabouts(order), page_size=1000):
            if record.order == order:
                return record.order_hash
        raise Denied(ALREADY_PUBLISHED, hint="it is in the books, but no longer open")


def _whereabouts(order: Order) -> dict[str, object]:
    """Filters under which an open order must be listed."""
    anywhere: dict[str, object] = dict.fromkeys(("app", "dataset", "workerpool", "requester"), "any")
    name = {"apporder": "app", "datasetorder": "dataset", "workerpoolorder": "workerpool"}.get(
        order.kind.value, "requester"
    )
    return {**anywhere, name: order.resource}


def _wire_name(name: str) -> str:
    if name in _FLAGS or name in _SPECIAL:
        return _FLAGS.get(name) or _SPECIAL[name]
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _wire_value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse_record(kind: OrderKind, value: Mapping[str, Any]) -> OrderRecord:
    try:
        return OrderRecord(
            order=parse_order(kind, value["order"]),
            order_hash=Bytes32(value["orderHash"]),
            remaining=parse_uint("remaining", value["remaining"]),
            status=str(value["status"]),
            signer=Address(value["signer"]),
            published_at=str(value["publicationTimestamp"]),
            bulk=value.get("bulk") is True,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DecodeError("the market listed an order that does not parse") from error


def _parse_deal(value: Mapping[str, Any]) -> DealRecord:
    try:
        return DealRecord(
            deal_id=Bytes32(value["dealid"]),
            app=Address(value["app"]["pointer"]),
            dataset=Address(value["dataset"]["pointer"]),
            workerpool=Address(value["workerpool"]["pointer"]),
            requester=Address(value["requester"]),
            dataset_hash=Bytes32(value["datasetHash"]),
            request_hash=Bytes32(value["requestHash"]),
            bot_first=parse_uint("botFirst", value["botFirst"]),
            bot_size=parse_uint("botSize", value["botSize"]),
            block=parse_uint("blockNumber", value["blockNumber"]),
            transaction=Bytes32(value["transactionHash"]),
            record=value,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DecodeError("the market listed a deal that does not parse") from error
