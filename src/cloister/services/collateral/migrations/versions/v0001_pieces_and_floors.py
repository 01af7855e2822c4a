"""Pieces of collateral, and the floors that none may go below."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "collateral_0001"
down_revision = None
branch_labels = None
depends_on = None


def _id() -> list[sa.Column[Any]]:
    return [
        sa.Column("root", sa.LargeBinary, primary_key=True),
        sa.Column("family", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(16), primary_key=True),
        sa.Column("key", sa.String(256), primary_key=True),
    ]


def _numbers() -> list[sa.Column[Any]]:
    return [
        sa.Column("issued", sa.BigInteger, nullable=False),
        sa.Column("evaluation", sa.BigInteger),
        sa.Column("number", sa.BigInteger),
    ]


def upgrade() -> None:
    op.create_table(
        "collateral_pieces",
        *_id(),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("chain", sa.LargeBinary, nullable=False),
        *_numbers(),
        sa.Column("next_update", sa.BigInteger, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("came_at", sa.BigInteger, nullable=False),
    )
    op.create_table("collateral_floors", *_id(), *_numbers())


def downgrade() -> None:
    op.drop_table("collateral_floors")
    op.drop_table("collateral_pieces")
