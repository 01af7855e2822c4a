"""Secrets, spent authorizations, result keys, nonces, policies and the record of releases."""

import sqlalchemy as sa
from alembic import op

revision = "sms_0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "sms_secrets",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("owner", sa.String(42), primary_key=True),
        sa.Column("name", sa.String(256), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("key_id", sa.String(128), nullable=False),
        sa.Column("wrapped_key", sa.LargeBinary),
        sa.Column("nonce", sa.LargeBinary),
        sa.Column("ciphertext", sa.LargeBinary),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("erased_at", sa.BigInteger),
    )
    op.create_table(
        "sms_authorizations",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("used_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sms_keyring",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "sms_result_keys",
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(42), primary_key=True),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sms_nonces",
        sa.Column("nonce", sa.String(66), primary_key=True),
        sa.Column("task_id", sa.String(66), nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
    )
    op.create_index("sms_nonces_by_task", "sms_nonces", ["task_id"])
    op.create_index("sms_nonces_by_expiry", "sms_nonces", ["expires_at"])
    op.create_table(
        "sms_policies",
        sa.Column("hash", sa.String(66), primary_key=True),
        sa.Column("prefix", sa.String(56), nullable=False, unique=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sms_releases",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(64)),
        sa.Column("task_id", sa.String(66), nullable=False),
        sa.Column("deal_id", sa.String(66)),
        sa.Column("worker", sa.String(42)),
        sa.Column("requester", sa.String(42)),
        sa.Column("app", sa.String(42)),
        sa.Column("dataset", sa.String(42)),
        sa.Column("order_hash", sa.String(66)),
        sa.Column("policy_hash", sa.String(66)),
        sa.Column("block", sa.BigInteger),
        sa.Column("enclave_challenge", sa.String(42)),
        sa.Column("hpke_key_id", sa.String(64)),
        sa.Column("evidence_kind", sa.String(32)),
        sa.Column("evidence_digest", sa.String(64)),
        sa.Column("simulated", sa.Integer),
    )
    op.create_index("sms_releases_by_dataset", "sms_releases", ["dataset", "id"])
    op.create_index("sms_releases_by_task", "sms_releases", ["task_id"])
    op.create_table(
        "sms_heads",
        sa.Column("chain_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    _make_append_only("sms_releases")


def _make_append_only(table: str) -> None:
    """Let the database itself refuse to change or drop a line of the record."""
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} is append-only'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()"
    )


def downgrade() -> None:
    op.drop_table("sms_releases")
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION sms_releases_refuse()")
    for table in ("heads", "policies", "nonces", "result_keys", "keyring", "authorizations", "secrets"):
        op.drop_table(f"sms_{table}")
