"""An index for the few orders whose consumption was told at publication and not yet by events."""

import sqlalchemy as sa
from alembic import op

revision = "market_0002"
down_revision = "market_0001"
branch_labels = None
depends_on = None

NAME = "market_orders_told_early"


def upgrade() -> None:
    few = sa.text("consumed_at_publication > 0")
    op.create_index(NAME, "market_orders", ["published_block"], sqlite_where=few, postgresql_where=few)


def downgrade() -> None:
    op.drop_index(NAME, "market_orders")
