"""The market's tables.

``remaining`` and ``status`` of an order are derived: volume minus what the chain's events consumed, see
``store.settle``. The events keep their block, so that a reorganised chain is undone by deleting the blocks that
fell away.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text, text

METADATA = MetaData()

ORDERS = Table(
    "market_orders",
    METADATA,
    Column("order_hash", String(66), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("signer", String(42), nullable=False),
    # The app, dataset or workerpool that is offered; the requester for request orders.
    Column("resource", String(42), nullable=False),
    # What buyers compare: the price offered; for requests the most that a workerpool gets.
    Column("price", BigInteger, nullable=False),
    Column("volume", BigInteger, nullable=False),
    Column("remaining", BigInteger, nullable=False),
    Column("status", String(10), nullable=False),
    # Consumption that the chain told at publication, until the watcher's events say the same or more.
    Column("consumed_at_publication", BigInteger, nullable=False),
    Column("published_block", BigInteger, nullable=False),
    Column("dead_at_block", BigInteger, nullable=True),
    Column("tag_low", BigInteger, nullable=False),
    Column("category", BigInteger, nullable=True),
    Column("trust", BigInteger, nullable=True),
    # Restrictions of an offer; for requests the app, dataset and workerpool that are asked for.
    Column("app", String(42), nullable=True),
    Column("dataset", String(42), nullable=True),
    Column("workerpool", String(42), nullable=True),
    Column("requester", String(42), nullable=True),
    Column("beneficiary", String(42), nullable=True),
    Column("bulk", Boolean, nullable=False),
    # Stake in nRLC that one unit of volume needs.
    Column("stake_per_unit", BigInteger, nullable=False),
    Column("published_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("market_orders_by_resource", "kind", "status", "resource", "price"),
    Index("market_orders_by_signer", "kind", "signer", "status"),
    Index("market_orders_by_category", "kind", "status", "category", "price"),
    Index("market_orders_by_stake", "signer", "stake_per_unit"),
    Index(
        "market_orders_told_early",
        "published_block",
        sqlite_where=text("consumed_at_publication > 0"),
        postgresql_where=text("consumed_at_publication > 0"),
    ),
)
CONSUMPTIONS = Table(
    "market_consumptions",
    METADATA,
    Column("block", BigInteger, primary_key=True, autoincrement=False),
    Column("log_index", Integer, primary_key=True, autoincrement=False),
    Column("order_hash", String(66), primary_key=True),
    # Volume that a match used; NULL when the order was closed.
    Column("volume", BigInteger, nullable=True),
    Index("market_consumptions_by_order", "order_hash"),
)
DEALS = Table(
    "market_deals",
    METADATA,
    Column("deal_id", String(66), primary_key=True),
    Column("block", BigInteger, nullable=False),
    Column("category", BigInteger, nullable=False),
    *(
        Column(name, String(42), nullable=False)
        for name in (
            "app",
            "dataset",
            "workerpool",
            "app_owner",
            "dataset_owner",
            "workerpool_owner",
            "requester",
            "beneficiary",
        )
    ),
    *(
        Column(name, String(66), nullable=False)
        for name in ("app_hash", "dataset_hash", "workerpool_hash", "request_hash")
    ),
    Column("workerpool_price", BigInteger, nullable=False),
    Column("volume", BigInteger, nullable=False),
    Column("block_timestamp", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("market_deals_by_block", "block", "deal_id"),
    Index("market_deals_by_requester", "requester", "block"),
    Index("market_deals_by_app", "app", "block"),
    Index("market_deals_by_dataset", "dataset", "block"),
    Index("market_deals_by_request", "request_hash"),
)
CATEGORIES = Table(
    "market_categories",
    METADATA,
    Column("catid", BigInteger, primary_key=True, autoincrement=False),
    Column("block", BigInteger, nullable=False),
    Column("clock", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)
CHALLENGES = Table(
    "market_challenges",
    METADATA,
    Column("address", String(42), primary_key=True),
    # Counts the challenges that this address used up.
    Column("generation", BigInteger, nullable=False),
)
KEYS = Table(
    "market_keys",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", String(64), nullable=False),
)
CHECKPOINTS = Table(
    "market_checkpoints",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("cursor", Text, nullable=False),
)
