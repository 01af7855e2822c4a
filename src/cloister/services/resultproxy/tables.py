"""The result proxy's tables. Ids are lower-case hex text, addresses EIP-55 text, times Unix seconds."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, MetaData, String, Table

metadata = MetaData()

results = Table(
    "resultproxy_results",
    metadata,
    Column("task_id", String(66), primary_key=True),
    Column("worker", String(42), primary_key=True),
    Column("enclave_challenge", String(42), primary_key=True),
    Column("digest", String(66)),
    Column("cid", String(128), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("uploaded_at", Float, nullable=False),
    Index("resultproxy_results_by_time", "task_id", "uploaded_at"),
)

logins = Table(
    "resultproxy_logins",
    metadata,
    Column("address", String(42), primary_key=True),
    Column("used", BigInteger, nullable=False),
)
