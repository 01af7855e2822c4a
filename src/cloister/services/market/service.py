"""Publishing and unpublishing: the rules of reference 3.1, in their order and their words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, delete, select

from cloister.errors import CloisterError, Denied, InputError, UnavailableError, quoted
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.eip712 import Domain
from cloister.protocol.orders import Order, OrderKind, RequestOrder, WorkerpoolOrder, parse_order
from cloister.services.market.announcing import ORDERS_TOPIC, Audience, Event, published, unpublished, updated
from cloister.services.market.challenges import Challenges, Login
from cloister.services.market.counterparts import bury_stranded, check_counterparts
from cloister.services.market.ledger import MarketLedger, PublicationFacts
from cloister.services.market.recency import Recency
from cloister.services.market.records import RESOURCE_FIELD, TARGETS, order_columns, render_order, stake_per_unit
from cloister.services.market.store import MarketStore, find_order, insert_order, look_up
from cloister.services.market.tables import ORDERS

T = TypeVar("T")

MAX_DRAFTS = 4
"""How often an order is judged anew because the chain changed something about it meanwhile."""
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

    @property
    def names(self) -> tuple[str, ...]:
        """What the facts are about."""
        return str(self.order.resource), str(self.facts.signer), str(self.order_hash)


@dataclass(frozen=True, slots=True)
class _Taken:
    """What an unpublication did: the caller's orders that are gone, and others' requests that died with them."""

    hashes: list[str]
    dead: list[str]


class _ChangedError(Exception):
    """The chain changed what a draft rests on; nothing was written."""


class PublishingService:
    """Takes orders in and out of the books. Safe to call from several threads."""

    def __init__(
        self,
        *,
        store: MarketStore,
        challenges: Challenges,
        ledger: MarketLedger,
        domain: Domain,
        recency: Recency,
        audience: Audience,
        max_open_orders: int,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._challenges = challenges
        self._ledger = ledger
        self._domain = domain
        self._recency = recency
        self._audience = audience
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
        for _ in range(MAX_DRAFTS):
            mark = self._recency.mark()
            draft: _Draft | CloisterError
            try:
                draft = parsed if isinstance(parsed, CloisterError) else self._draft(parsed, login)
            except CloisterError as error:
                draft = error
            try:
                return self._write(
                    self._publication(kind, login, parsed, draft, mark),
                    login,
                    lambda record: self._audience.tell([published(kind, record)]),
                )
            except _ChangedError:
                continue
        raise UnavailableError("the chain changes this order's circumstances too fast", hint="try again in a moment")

    def _publication(
        self,
        kind: OrderKind,
        login: Login,
        parsed: _Parsed | CloisterError,
        draft: _Draft | CloisterError,
        mark: int,
    ) -> Callable[[Connection], dict[str, Any] | CloisterError]:
        """The job that writes a draft, or what is wrong with it."""
        now = int(self._clock() * 1000)

        def job(connection: Connection) -> dict[str, Any] | CloisterError:
            if isinstance(draft, _Draft) and self._recency.changed_since(mark, draft.names):
                raise _ChangedError
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

        return job

    def unpublish(self, kind: OrderKind, payload: object, header: str | None) -> list[str]:
        """Delete the caller's open orders that the payload names; returns their hashes.

        Raises: Denied for a bad login or when nothing of the caller's is there, InputError for a malformed payload.
        """
        login = self._login(header)

        told: list[Event] = []

        def job(connection: Connection) -> _Taken | CloisterError:
            told.clear()
            _use_up(connection, login)
            try:
                taken = _unpublish(connection, kind, payload, login.address)
            except CloisterError as error:
                return error
            if self._audience.has_listeners(ORDERS_TOPIC):
                told.extend(unpublished(kind, order_hash) for order_hash in taken.hashes)
                told.extend(updated(connection, taken.dead, self._domain.chain_id))
            return taken

        return self._write(job, login, lambda _: self._audience.tell(told)).hashes

    def _login(self, header: str | None) -> Login:
        generation = self._store.generation(self._challenges.claimed(header))
        return self._challenges.verify(header, generation)

    def _write(self, job: Callable[[Connection], T | CloisterError], login: Login, tell: Callable[[T], None]) -> T:
        """Run a job that uses up a login; a rule's refusal comes back as a value, so that the login stays used up."""

        def afterwards(outcome: T | CloisterError) -> None:
            if not isinstance(outcome, CloisterError):
                tell(outcome)

        try:
            outcome = self._store.writer.write(job, afterwards=afterwards)
        except _ChangedError:
            raise
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
            check_counterparts(connection, order)
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


def _unpublish(connection: Connection, kind: OrderKind, payload: object, caller: Address) -> _Taken:
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
    dead: list[str] = []
    if kind in (OrderKind.APP, OrderKind.DATASET):
        dead = bury_stranded(connection, kind, dict.fromkeys(resources, NOT_UNDONE))
    return _Taken(hashes, dead)


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
