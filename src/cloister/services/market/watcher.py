"""Keeps the books true to the chain: matches, revocations, ownership, stakes and categories, through
reorganisations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, literal, select

from cloister.chain.events import Batch, Cursor
from cloister.chain.logs import (
    TOPICS,
    CategoryCreated,
    ChainEvent,
    EntryTransfer,
    Log,
    OrderClosed,
    OrdersMatched,
    TokenTransfer,
)
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.orders import OrderKind
from cloister.services.market.announcing import DEALS_TOPIC, ORDERS_TOPIC, Audience, Event, dealt, updated
from cloister.services.market.counterparts import bury_stranded
from cloister.services.market.ledger import MarketLedger
from cloister.services.market.recency import Recency
from cloister.services.market.records import BIGINT_MAX, MinedDeal, deal_columns, iso_time
from cloister.services.market.store import (
    MarketStore,
    add_consumption,
    mark_dead,
    roll_back,
    save_cursor,
    settle,
    told_early,
)
from cloister.services.market.tables import CATEGORIES, DEALS, ORDERS
from cloister.services.reading import readable_events

WATCHED = tuple(
    TOPICS[name]
    for name in (
        "OrdersMatched",
        "ClosedAppOrder",
        "ClosedDatasetOrder",
        "ClosedWorkerpoolOrder",
        "ClosedRequestOrder",
        "CreateCategory",
        "Transfer",
    )
)
"""Topics that the market reads; ``Transfer`` is stake on the hub and ownership on a registry."""


class Watcher:
    """Takes in batches of blocks for the market: the sink of a ``Follower``."""

    def __init__(
        self,
        *,
        store: MarketStore,
        ledger: MarketLedger,
        hub: Address,
        registries: Mapping[Address, OrderKind],
        chain_id: int,
        recency: Recency,
        audience: Audience,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._hub = hub
        self._registries = dict(registries)
        self._chain_id = chain_id
        self._recency = recency
        self._audience = audience

    def load_cursor(self) -> Cursor | None:
        """Where reading stopped."""
        return self._store.cursor()

    def take(self, batch: Batch) -> None:
        """Write what a batch says."""
        said = _Said.read(batch, self._hub, self._registries)
        for _, _, moved in said.moved:
            self._ledger.forget_owner(moved.entry)
        # From here on no order is written that was judged by older facts.
        self._recency.note(said.names())
        if batch.rolled_back_to is not None:
            self._recency.note_everything()
        deals = self._read_deals(batch, said)
        accounts = _staked(self._store, set(said.spenders))
        stakes = {account: self._ledger.stake(account, block=batch.head.number) for account in accounts}

        def job(connection: Connection) -> list[Event]:
            changed = self._apply(connection, batch, said, stakes)
            for mined in deals:
                _write_deal(connection, mined, self._chain_id)
            save_cursor(connection, batch.cursor)
            events: list[Event] = []
            if self._audience.has_listeners(ORDERS_TOPIC):
                events += updated(connection, changed, self._chain_id)
            if self._audience.has_listeners(DEALS_TOPIC):
                events += [dealt(deal_columns(mined, self._chain_id)["body"]) for mined in deals]
            return events

        self._store.writer.write(job, afterwards=self._audience.tell)

    def _apply(
        self, connection: Connection, batch: Batch, said: _Said, stakes: Mapping[Address, int]
    ) -> dict[str, int]:
        """Write what became of orders; returns those that changed, each with the block that did it."""
        changed: dict[str, int] = {}
        if batch.rolled_back_to is not None:
            changed |= dict.fromkeys(roll_back(connection, batch.rolled_back_to), batch.rolled_back_to)
        touched: set[str] = set()
        for log, matched in said.matched:
            touched |= _write_match(connection, log, matched)
        for log, closed in said.closed:
            add_consumption(connection, log.block_number, log.log_index, closed.order_hash, None)
            touched.add(str(closed.order_hash))
        times = batch.timestamps()
        for log, category in said.categories:
            _write_category(connection, log, category, times[log.block_number], self._chain_id)
        for log, kind, moved in said.moved:
            changed |= dict.fromkeys(_bury_former_owner(connection, log.block_number, kind, moved), log.block_number)
        touched.update(told_early(connection, batch.through))
        changed |= settle(connection, touched, watched_to=batch.through)
        for account, stake in stakes.items():
            block = said.spenders[account]
            changed |= dict.fromkeys(_bury_uncovered(connection, account, stake, block), block)
        for kind, gone in _gone_offers(connection, changed).items():
            changed |= dict.fromkeys(bury_stranded(connection, kind, gone), batch.through)
        return changed

    def _read_deals(self, batch: Batch, said: _Said) -> list[MinedDeal]:
        if not said.matched:
            return []
        # Read at the newest block: nodes forget the state of old ones, and a deal never changes.
        deals = self._ledger.deals([matched.deal_id for _, matched in said.matched], block=batch.head.number)
        times = batch.timestamps()
        found = []
        for (log, matched), deal in zip(said.matched, deals, strict=True):
            if deal is None:
                continue
            found.append(
                MinedDeal(
                    deal_id=matched.deal_id,
                    deal=deal,
                    app_hash=matched.app_hash,
                    dataset_hash=matched.dataset_hash,
                    workerpool_hash=matched.workerpool_hash,
                    request_hash=matched.request_hash,
                    volume=matched.volume,
                    block=log.block_number,
                    block_timestamp=times[log.block_number],
                    transaction_hash=log.transaction_hash,
                )
            )
        return found


@dataclass(slots=True)
class _Said:
    """The events of one batch, sorted by what they mean to the market."""

    matched: list[tuple[Log, OrdersMatched]] = field(default_factory=list)
    closed: list[tuple[Log, OrderClosed]] = field(default_factory=list)
    categories: list[tuple[Log, CategoryCreated]] = field(default_factory=list)
    moved: list[tuple[Log, OrderKind, EntryTransfer]] = field(default_factory=list)
    spenders: dict[Address, int] = field(default_factory=dict)
    """Who gave away stake, and the last block in which they did."""

    @classmethod
    def read(cls, batch: Batch, hub: Address, registries: Mapping[Address, OrderKind]) -> _Said:
        """Sort a batch. Only the hub and the registries are believed: any contract can emit any event."""
        said = cls()
        for log, event in readable_events(batch.logs):
            kind = registries.get(log.address)
            if kind is not None:
                if isinstance(event, EntryTransfer):
                    said.moved.append((log, kind, event))
            elif log.address == hub:
                said._add(log, event)
        return said

    def names(self) -> set[str]:
        """Entries, accounts and orders that something happened to."""
        found = {str(moved.entry) for _, _, moved in self.moved} | {str(account) for account in self.spenders}
        found |= {str(closed.order_hash) for _, closed in self.closed}
        for _, matched in self.matched:
            found |= set(map(str, (matched.app_hash, matched.dataset_hash, matched.workerpool_hash)))
            found.add(str(matched.request_hash))
        return found

    def _add(self, log: Log, event: ChainEvent) -> None:
        match event:
            case OrdersMatched():
                self.matched.append((log, event))
            case OrderClosed():
                self.closed.append((log, event))
            case CategoryCreated():
                self.categories.append((log, event))
            case TokenTransfer():
                self.spenders[event.sender] = log.block_number
            case _:
                pass


def _staked(store: MarketStore, accounts: set[Address]) -> list[Address]:
    """Those of ``accounts`` whose open orders need stake."""
    if not accounts:
        return []
    query = select(ORDERS.c.signer).where(
        ORDERS.c.signer.in_([str(account) for account in accounts]),
        ORDERS.c.stake_per_unit > 0,
        ORDERS.c.status == "open",
    )
    return [Address(text) for text in store.scalars(query.distinct())]


def _write_match(connection: Connection, log: Log, matched: OrdersMatched) -> set[str]:
    hashes = (matched.app_hash, matched.dataset_hash, matched.workerpool_hash, matched.request_hash)
    used: set[Bytes32] = {order_hash for order_hash in hashes if not order_hash.is_zero}
    for order_hash in used:
        add_consumption(connection, log.block_number, log.log_index, order_hash, matched.volume)
    return {str(order_hash) for order_hash in used}


def _write_deal(connection: Connection, mined: MinedDeal, chain_id: int) -> None:
    known = select(DEALS.c.deal_id).where(DEALS.c.deal_id == str(mined.deal_id))
    if connection.execute(known).first() is None:
        connection.execute(insert(DEALS).values(**deal_columns(mined, chain_id)))


def _write_category(connection: Connection, log: Log, said: CategoryCreated, timestamp: int, chain_id: int) -> None:
    if (
        said.category > BIGINT_MAX
        or connection.execute(select(CATEGORIES.c.catid).where(CATEGORIES.c.catid == said.category)).first()
    ):
        return
    body: dict[str, Any] = {
        "catid": said.category,
        "chainId": chain_id,
        "name": said.name,
        "description": said.description,
        "workClockTimeRef": said.clock,
        "transactionHash": str(log.transaction_hash),
        "blockNumber": log.block_number,
        "blockTimestamp": iso_time(timestamp * 1000),
    }
    row = {
        "catid": said.category,
        "block": log.block_number,
        "clock": min(said.clock, BIGINT_MAX),
        "body": json.dumps(body, separators=(",", ":")),
    }
    connection.execute(insert(CATEGORIES).values(**row))


def _gone_offers(connection: Connection, changed: Mapping[str, int]) -> dict[OrderKind, dict[str, int]]:
    """Apps and datasets that lost an offer, by kind, each with the last block in which it did."""
    found: dict[OrderKind, dict[str, int]] = {OrderKind.APP: {}, OrderKind.DATASET: {}}
    hashes = list(changed)
    for start in range(0, len(hashes), 500):
        query = select(ORDERS.c.order_hash, ORDERS.c.kind, ORDERS.c.resource).where(
            ORDERS.c.order_hash.in_(hashes[start : start + 500]),
            ORDERS.c.kind.in_([kind.value for kind in found]),
            ORDERS.c.status != "open",
        )
        for order_hash, kind, resource in connection.execute(query):
            of_kind = found[OrderKind(kind)]
            of_kind[resource] = max(changed[order_hash], of_kind.get(resource, 0))
    return found


def _bury_former_owner(connection: Connection, block: int, kind: OrderKind, moved: EntryTransfer) -> list[str]:
    """Mark dead what anybody but the new owner offers of an entry."""
    former = [
        ORDERS.c.kind == kind.value,
        ORDERS.c.resource == str(moved.entry),
        ORDERS.c.signer != str(moved.receiver),
    ]
    return mark_dead(connection, former, block)


def _bury_uncovered(connection: Connection, account: Address, stake: int, block: int) -> list[str]:
    """Mark dead the orders whose signer can no longer stake what one more match of all that remains would lock."""
    conditions: Sequence[Any] = [
        ORDERS.c.signer == str(account),
        ORDERS.c.stake_per_unit > 0,
        # Divided, not multiplied: the product may be larger than a database integer.
        ORDERS.c.remaining > literal(min(stake, BIGINT_MAX)) // ORDERS.c.stake_per_unit,
    ]
    return mark_dead(connection, conditions, block)
