"""The tables of the collateral service; ``migrations/`` makes them. Times are Unix seconds.

A floor is never taken down and stands apart from its piece: it lasts whatever happens to the piece.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, String, Table

METADATA = MetaData()

PIECES = Table(
    "collateral_pieces",
    METADATA,
    Column("root", LargeBinary, primary_key=True),
    Column("family", String(16), primary_key=True),
    Column("name", String(16), primary_key=True),
    Column("key", String(256), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("evaluation", BigInteger, nullable=True),
    Column("number", BigInteger, nullable=True),
    Column("next_update", BigInteger, nullable=False),
    Column("source", String(64), nullable=False),
    Column("came_at", BigInteger, nullable=False),
)
FLOORS = Table(
    "collateral_floors",
    METADATA,
    Column("root", LargeBinary, primary_key=True),
    Column("family", String(16), primary_key=True),
    Column("name", String(16), primary_key=True),
    Column("key", String(256), primary_key=True),
    Column("issued", BigInteger, nullable=False),
    Column("evaluation", BigInteger, nullable=True),
    Column("number", BigInteger, nullable=True),
)
