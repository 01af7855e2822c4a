"""The tables of the SMS; ``migrations/`` makes them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()
_ID = BigInteger().with_variant(Integer, "sqlite")

SECRETS = Table(
    "sms_secrets",
    METADATA,
    Column("kind", String(16), primary_key=True),
    Column("owner", String(42), primary_key=True),
    Column("name", String(256), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("key_id", String(128), nullable=False),
    Column("wrapped_key", LargeBinary, nullable=True),
    Column("nonce", LargeBinary, nullable=True),
    Column("ciphertext", LargeBinary, nullable=True),
    Column("created_at", BigInteger, nullable=False),
    Column("erased_at", BigInteger, nullable=True),
)
AUTHORIZATIONS = Table(
    "sms_authorizations",
    METADATA,
    Column("digest", LargeBinary, primary_key=True),
    Column("used_at", BigInteger, nullable=False),
)
KEYRING = Table(
    "sms_keyring",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
)
RESULT_KEYS = Table(
    "sms_result_keys",
    METADATA,
    Column("key_id", String(64), primary_key=True),
    Column("owner", String(42), primary_key=True),
    Column("public_key", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
NONCES = Table(
    "sms_nonces",
    METADATA,
    Column("nonce", String(66), primary_key=True),
    Column("task_id", String(66), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger, nullable=True),
    Index("sms_nonces_by_task", "task_id"),
    Index("sms_nonces_by_expiry", "expires_at"),
)
POLICIES = Table(
    "sms_policies",
    METADATA,
    Column("hash", String(66), primary_key=True),
    # What an order's salt repeats of the hash: its first 28 bytes, hex.
    Column("prefix", String(56), nullable=False, unique=True),
    Column("body", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
RELEASES = Table(
    "sms_releases",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", String(64), nullable=True),
    Column("task_id", String(66), nullable=False),
    Column("deal_id", String(66), nullable=True),
    Column("worker", String(42), nullable=True),
    Column("requester", String(42), nullable=True),
    Column("app", String(42), nullable=True),
    Column("dataset", String(42), nullable=True),
    Column("order_hash", String(66), nullable=True),
    Column("policy_hash", String(66), nullable=True),
    Column("block", BigInteger, nullable=True),
    Column("enclave_challenge", String(42), nullable=True),
    Column("hpke_key_id", String(64), nullable=True),
    Column("evidence_kind", String(32), nullable=True),
    Column("evidence_digest", String(64), nullable=True),
    Column("simulated", Integer, nullable=True),
    Index("sms_releases_by_dataset", "dataset", "id"),
    Index("sms_releases_by_task", "task_id"),
)
HEADS = Table(
    "sms_heads",
    METADATA,
    Column("chain_id", BigInteger, primary_key=True),
    Column("number", BigInteger, nullable=False),
)
CHALLENGES = Table(
    "sms_challenges",
    METADATA,
    Column("task_id", String(66), primary_key=True),
    Column("address", String(42), nullable=False),
    Column("key_id", String(128), nullable=False),
    Column("wrapped_key", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
LOG_ENTRIES = Table(
    "sms_log_entries",
    METADATA,
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("release_id", BigInteger, nullable=False, unique=True),
    # Canonical JSON, kept as it was hashed: proofs outlive changes of the record's columns.
    Column("entry", Text, nullable=False),
)
LOG_NODES = Table(
    "sms_log_nodes",
    METADATA,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
)
LOG_HEAD = Table(
    "sms_log_head",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, nullable=False),
)
COLLATERAL = Table(
    "sms_collateral",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
SESSIONS = Table(
    "sms_sessions",
    METADATA,
    Column("task_id", String(66), primary_key=True),
    Column("enclave_challenge", String(42), primary_key=True),
    Column("opened_at", BigInteger, nullable=False),
    Column("log_index", BigInteger, nullable=False),
    Column("statement", LargeBinary, nullable=False),
    Column("collateral", String(64), nullable=False),
    Column("receipt_digest", String(66), nullable=True),
    Column("countersignature", LargeBinary, nullable=True),
)
