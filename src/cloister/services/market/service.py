"""Publishing and unpublishing: the rules of reference 3.1, in their order and their words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, func, select

from cloister.errors import CloisterError, Denied, InputError, quoted
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.eip712 import Domain
from cloister.protocol.orders import Order, OrderKind, RequestOrder, WorkerpoolOrder, parse_order
from cloister.protocol.tags import TEE
from cloister.services.market.challenges import Challenges, Login
from cloister.services.market.ledger import MarketLedger, PublicationFacts
from cloister.services.market.records import RESOURCE_FIELD, TARGETS, order_columns, render_order, stake_per_unit
from cloister.services.market.store import MarketStore, find_order, insert_order, look_up, mark_dead
from cloister.services.market.tables import ORDERS

T = TypeVar("T")

NOT_UNDONE = -1
"""Block of a death that no reorganised chain takes back: it has no block."""


@dataclass(frozen=True, slots=True)
class _Parsed:
    """An order as the request gave it."""

    order: Order
    order_hash: Bytes32
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Draft:
    """An order that passed every rule that needs no other order."""

    order: Order
    order_hash: Bytes32
    columns: dict[str, Any]
    facts: PublicationFacts


class PublishingService:
    """Takes orders in and out of the books. Safe to call from several threads."""

    def __init__(
        self,
        *,
        store: MarketStore,
        challenges: Challenges,
        ledger: MarketLedger,
        domain: Domain,
        max_open_orders: int,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._challenges = challenges
        self._ledger = ledger
        self._domain = domain
        self._max_open_orders = max_open_orders
        self._clock = clock

    def publish(self, kind: OrderKind, payload: object, header: str | None) -> dict[str, Any]:
        """Publish an order and return its record, which is on disk by then.

        The login is used up even when a rule refuses the order.

        Raises: Denied for a bad login or a rule (iExec's texts), InputError or DecodeError for an order that does not
        parse, UnavailableError when the chain does not answer.
        """
        login = self._login(header)
        parsed = _parse(kind, payload, self._domain)
        draft: _Draft | CloisterError
        try:
            draft = parsed if isinstance(parsed, CloisterError) else self._draft(parsed, login)
        except CloisterError as error:
            draft = error
        now = int(self._clock() * 1000)

        def job(connection: Connection) -> dict[str, Any] | CloisterError:
            _use_up(connection, login)
            if isinstance(parsed, CloisterError):
                return parsed
            status, open_orders = look_up(connection, kind, parsed.order_hash, str(login.address))
            if status not in (None, "dead"):
                return Denied("order already published")
            if isinstance(draft, CloisterError):
                return draft
            try:
                return self._insert(connection, draft, now, open_orders=open_orders, replaces=status is not None)
            except CloisterError as error:
                return error

        return self._write(job, login)

    def unpublish(self, kind: OrderKind, payload: object, header: str | None) -> list[str]:
        """Delete the caller's open orders that the payload names; returns their hashes.

        Raises: Denied for a bad login or when nothing of the caller's is there, InputError for a malformed payload.
        """
        login = self._login(header)

        def job(connection: Connection) -> list[str] | CloisterError:
            _use_up(connection, login)
            try:
                return _unpublish(connection, kind, payload, login.address)
            except CloisterError as error:
                return error

        return self._write(job, login)

    def _login(self, header: str | None) -> Login:
        generation = self._store.generation(self._challenges.claimed(header))
        return self._challenges.verify(header, generation)

    def _write(self, job: Callable[[Connection], T | CloisterError], login: Login) -> T:
        """Run a job that uses up a login; a rule's refusal comes back as a value, so that the login stays used up."""
        try:
            outcome = self._store.writer.write(job)
        except BaseException:
            self._store.forget_generation(login.address)
            raise
        self._store.remember_generation(login.address, login.generation + 1)
        if isinstance(outcome, CloisterError):
            raise outcome
        return outcome

    def _draft(self, parsed: _Parsed, login: Login) -> _Draft:
        """The rules that need the order and the chain, in order."""
        order, order_hash = parsed.order, parsed.order_hash
        facts = self._ledger.publication_facts(order, order_hash)
        if facts.signer is None:
            raise Denied("Resource not deployed")
        if facts.signer != login.address:
            raise Denied(f"only order signer {facts.signer} can publish an order")
        if not facts.signed:
            raise Denied("invalid sign")
        return _Draft(order, order_hash, parsed.columns, facts)

    def _insert(
        self, connection: Connection, draft: _Draft, now: int, *, open_orders: int, replaces: bool
    ) -> dict[str, Any]:
        """The rules that need the books, then the row."""
        order, facts, kind = draft.order, draft.facts, draft.order.kind
        signer = str(facts.signer)
        if open_orders >= self._max_open_orders:
            limit = f"maximum of {self._max_open_orders} published open {kind.value}"
            raise Denied(f"{limit} has been reached for wallet {signer}")
        remaining = max(0, order.volume - facts.consumed)
        if remaining == 0:
            raise Denied("order already consumed")
        _check_stake(order, remaining, facts.stake)
        if isinstance(order, RequestOrder):
            _check_counterparts(connection, order)
        row = {
            **draft.columns,
            "signer": signer,
            "remaining": remaining,
            "status": "open",
            "consumed_at_publication": facts.consumed,
            "published_block": facts.block,
            "dead_at_block": None,
            "published_at": now,
        }
        insert_order(connection, row, replaces=replaces)
        return render_order(_AsRow(row), self._domain.chain_id)


class _AsRow:
    """Gives a row's values as attributes before the row is read back."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)


def _use_up(connection: Connection, login: Login) -> None:
    if not MarketStore.use_challenge(connection, login.address, login.generation):
        raise Denied("invalid authorization")


def _parse(kind: OrderKind, payload: object, domain: Domain) -> _Parsed | CloisterError:
    """Read the order of a request; what is wrong with it is kept for later, since a bad login comes first."""
    if not isinstance(payload, Mapping) or "order" not in payload:
        return InputError("order is a required field")
    try:
        order = parse_order(kind, payload["order"])
        order_hash = order.hash(domain)
        return _Parsed(order, order_hash, order_columns(order, order_hash))
    except CloisterError as error:
        return error


def _check_stake(order: Order, remaining: int, stake: int) -> None:
    needed = stake_per_unit(order) * remaining
    if needed <= stake:
        return
    if isinstance(order, WorkerpoolOrder):
        raise Denied("workerpool owner's stake is too low to cover required workerpool lock")
    raise Denied(f"requester stake is too low to cover requestorder payment, minimum stake required is {needed} nRLC")


def _check_counterparts(connection: Connection, order: RequestOrder) -> None:
    """A request needs an app offer, and a dataset offer if it names a dataset, that it can pay."""
    tee = order.tag.has(TEE)
    restrictions = {"workerpool": order.workerpool, "requester": order.requester}
    best = _best_price(connection, OrderKind.APP, order.app, {**restrictions, "dataset": order.dataset}, tee=tee)
    if best is None:
        raise Denied(f"No {'tee enabled ' if tee else ''}apporder published for app {order.app}")
    if best > order.appmaxprice:
        raise Denied(f"appmaxprice for app {order.app} is too low, actual best price is {best} nRLC")
    if order.dataset == ZERO_ADDRESS:
        return
    best = _best_price(connection, OrderKind.DATASET, order.dataset, {**restrictions, "app": order.app}, tee=False)
    if best is None:
        raise Denied(f"No datasetorder published for dataset {order.dataset}")
    if best > order.datasetmaxprice:
        raise Denied(f"datasetmaxprice for dataset {order.dataset} is too low, actual best price is {best} nRLC")


def _best_price(
    connection: Connection, kind: OrderKind, resource: Address, parties: Mapping[str, Address], *, tee: bool
) -> int | None:
    conditions = [ORDERS.c.kind == kind.value, ORDERS.c.status == "open", ORDERS.c.resource == str(resource)]
    conditions += [ORDERS.c[name].in_((str(ZERO_ADDRESS), str(party))) for name, party in parties.items()]
    if tee:
        conditions.append(ORDERS.c.tag_low.op("&")(TEE.bits) == TEE.bits)
    best: int | None = connection.execute(select(func.min(ORDERS.c.price)).where(*conditions)).scalar()
    return best


def _unpublish(connection: Connection, kind: OrderKind, payload: object, caller: Address) -> list[str]:
    if not isinstance(payload, Mapping):
        raise InputError("the body must be an object")
    target = payload.get("target", TARGETS[0])
    if target not in TARGETS:
        raise InputError(f"target must be one of {', '.join(TARGETS)}, got {quoted(target)}")
    if target == TARGETS[0]:
        hashes = [_own_order(connection, kind, payload, caller)]
    else:
        hashes = _own_orders(connection, kind, payload, caller)
        hashes = hashes[:1] if target == "unpublish_last" else hashes
    resources = set(connection.execute(select(ORDERS.c.resource).where(ORDERS.c.order_hash.in_(hashes))).scalars())
    connection.execute(delete(ORDERS).where(ORDERS.c.order_hash.in_(hashes)))
    if kind in (OrderKind.APP, OrderKind.DATASET):
        _bury_requests(connection, kind, resources)
    return hashes


def _own_order(connection: Connection, kind: OrderKind, payload: Mapping[str, object], caller: Address) -> str:
    given = payload.get("orderHash")
    if not isinstance(given, str):
        raise InputError("orderHash is a required field")
    order_hash = Bytes32(given)
    row = find_order(connection, kind, order_hash)
    if row is None or row.status != "open":
        raise Denied(f"{kind.value} with orderHash {order_hash} is not published")
    if row.signer != caller:
        raise Denied(f"only order signer {row.signer} can unpublish an order")
    return str(order_hash)


def _own_orders(connection: Connection, kind: OrderKind, payload: Mapping[str, object], caller: Address) -> list[str]:
    """The caller's open orders for one resource, newest first."""
    name = RESOURCE_FIELD[kind]
    given = payload.get(name, str(caller) if kind is OrderKind.REQUEST else None)
    if not isinstance(given, str):
        raise InputError(f"{name} is a required field")
    resource = Address(given)
    query = select(ORDERS.c.order_hash).where(
        ORDERS.c.kind == kind.value,
        ORDERS.c.status == "open",
        ORDERS.c.signer == str(caller),
        ORDERS.c.resource == str(resource),
    )
    hashes = list(connection.execute(query.order_by(ORDERS.c.published_at.desc(), ORDERS.c.order_hash)).scalars())
    if not hashes:
        raise Denied(f"no open {kind.value} published by signer {caller} for {name} {resource}")
    return hashes


def _bury_requests(connection: Connection, kind: OrderKind, resources: set[str]) -> None:
    """Mark requests dead whose app or dataset nobody offers any more."""
    for resource in resources:
        offered = select(ORDERS.c.order_hash).where(
            ORDERS.c.kind == kind.value, ORDERS.c.status == "open", ORDERS.c.resource == resource
        )
        if connection.execute(offered.limit(1)).first() is None:
            waiting = ORDERS.c.dataset if kind is OrderKind.DATASET else ORDERS.c.app
            mark_dead(connection, [ORDERS.c.kind == OrderKind.REQUEST.value, waiting == resource], NOT_UNDONE)
