"""Orders, what the chain consumed of them, deals, categories, logins and the watcher's checkpoint."""

import sqlalchemy as sa
from alembic import op

revision = "market_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "market_orders",
        sa.Column("order_hash", sa.String(66), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("signer", sa.String(42), nullable=False),
        sa.Column("resource", sa.String(42), nullable=False),
        sa.Column("price", sa.BigInteger, nullable=False),
        sa.Column("volume", sa.BigInteger, nullable=False),
        sa.Column("remaining", sa.BigInteger, nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("consumed_at_publication", sa.BigInteger, nullable=False),
        sa.Column("published_block", sa.BigInteger, nullable=False),
        sa.Column("dead_at_block", sa.BigInteger),
        sa.Column("tag_low", sa.BigInteger, nullable=False),
        sa.Column("category", sa.BigInteger),
        sa.Column("trust", sa.BigInteger),
        sa.Column("app", sa.String(42)),
        sa.Column("dataset", sa.String(42)),
        sa.Column("workerpool", sa.String(42)),
        sa.Column("requester", sa.String(42)),
        sa.Column("beneficiary", sa.String(42)),
        sa.Column("bulk", sa.Boolean, nullable=False),
        sa.Column("stake_per_unit", sa.BigInteger, nullable=False),
        sa.Column("published_at", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("market_orders_by_resource", "market_orders", ["kind", "status", "resource", "price"])
    op.create_index("market_orders_by_signer", "market_orders", ["kind", "signer", "status"])
    op.create_index("market_orders_by_category", "market_orders", ["kind", "status", "category", "price"])
    op.create_index("market_orders_by_stake", "market_orders", ["signer", "stake_per_unit"])
    op.create_table(
        "market_consumptions",
        sa.Column("block", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("log_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("order_hash", sa.String(66), primary_key=True),
        sa.Column("volume", sa.BigInteger),
    )
    op.create_index("market_consumptions_by_order", "market_consumptions", ["order_hash"])
    names = (
        "app",
        "dataset",
        "workerpool",
        "app_owner",
        "dataset_owner",
        "workerpool_owner",
        "requester",
        "beneficiary",
    )
    hashes = ("app_hash", "dataset_hash", "workerpool_hash", "request_hash")
    op.create_table(
        "market_deals",
        sa.Column("deal_id", sa.String(66), primary_key=True),
        sa.Column("block", sa.BigInteger, nullable=False),
        sa.Column("category", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.String(42), nullable=False) for name in names),
        *(sa.Column(name, sa.String(66), nullable=False) for name in hashes),
        sa.Column("workerpool_price", sa.BigInteger, nullable=False),
        sa.Column("volume", sa.BigInteger, nullable=False),
        sa.Column("block_timestamp", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("market_deals_by_block", "market_deals", ["block", "deal_id"])
    op.create_index("market_deals_by_requester", "market_deals", ["requester", "block"])
    op.create_index("market_deals_by_app", "market_deals", ["app", "block"])
    op.create_index("market_deals_by_dataset", "market_deals", ["dataset", "block"])
    op.create_index("market_deals_by_request", "market_deals", ["request_hash"])
    op.create_table(
        "market_categories",
        sa.Column("catid", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("block", sa.BigInteger, nullable=False),
        sa.Column("clock", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "market_challenges",
        sa.Column("address", sa.String(42), primary_key=True),
        sa.Column("generation", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "market_keys",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
    )
    op.create_table(
        "market_checkpoints",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("cursor", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for table in ("checkpoints", "keys", "challenges", "categories", "deals", "consumptions", "orders"):
        op.drop_table(f"market_{table}")
