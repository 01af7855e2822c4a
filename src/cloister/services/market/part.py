"""Puts the market together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cloister.chain.events import Cursor
from cloister.errors import ConfigurationError
from cloister.protocol.codec import Address
from cloister.protocol.eip712 import hub_domain
from cloister.protocol.orders import OrderKind
from cloister.services.database import Database
from cloister.services.following import BatchSource, Follower
from cloister.services.market.challenges import Challenges
from cloister.services.market.http import MarketPart
from cloister.services.market.ledger import MarketLedger
from cloister.services.market.live import LiveFeed
from cloister.services.market.rates import LIMIT, RateLimiter
from cloister.services.market.recency import Recency
from cloister.services.market.service import PublishingService
from cloister.services.market.store import MarketStore
from cloister.services.market.watcher import Watcher


@dataclass(frozen=True, slots=True)
class MarketSettings:
    """What an operator decides. ``rate_limit`` is requests per minute and address; loopback is exempt.

    ``stand_ins`` says which workerpool a list is about when it is asked for another: iExec's clients have their own
    networks' default workerpools built in, where no setting reaches. Only the filter changes, records keep the true
    address, so that what a client signs is for the workerpool that it gets.
    """

    chain_id: int
    hub: Address
    app_registry: Address
    dataset_registry: Address
    workerpool_registry: Address
    max_open_orders: int = 50
    rate_limit: int = LIMIT
    stand_ins: Mapping[Address, Address] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("chain_id", "max_open_orders", "rate_limit"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"the market setting {name} must be positive")


def build_market_part(
    settings: MarketSettings,
    *,
    database: Database,
    ledger: MarketLedger,
    source: Callable[[Cursor | None], BatchSource],
    clock: Callable[[], float] = time.time,
) -> MarketPart:
    """Build the market over a database and a chain.

    ``source`` is called once the tables are there; it makes the reader of blocks that begins after the store's
    checkpoint.
    """
    store = MarketStore(database)
    challenges = Challenges(store, settings.chain_id, clock)
    rates = RateLimiter(time.monotonic, limit=settings.rate_limit)
    feed = LiveFeed(settings.chain_id, allows=rates.allows)
    recency = Recency()
    publishing = PublishingService(
        recency=recency,
        audience=feed,
        store=store,
        challenges=challenges,
        ledger=ledger,
        domain=hub_domain(settings.chain_id, settings.hub),
        max_open_orders=settings.max_open_orders,
        clock=clock,
    )
    watcher = Watcher(
        store=store,
        ledger=ledger,
        hub=settings.hub,
        registries={
            settings.app_registry: OrderKind.APP,
            settings.dataset_registry: OrderKind.DATASET,
            settings.workerpool_registry: OrderKind.WORKERPOOL,
        },
        chain_id=settings.chain_id,
        recency=recency,
        audience=feed,
    )
    return MarketPart(
        chain_id=settings.chain_id,
        database=database,
        store=store,
        challenges=challenges,
        ledger=ledger,
        publishing=publishing,
        follower=Follower("market", sink=watcher, source=source),
        rates=rates,
        feed=feed,
        stand_ins=dict(settings.stand_ins),
    )
