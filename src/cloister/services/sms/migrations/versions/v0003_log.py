"""The transparency log over the record of releases, and the sessions whose receipts are countersigned."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "sms_0003"
down_revision = "sms_0002"
branch_labels = None
depends_on = None

_COLUMNS = (
    "at",
    "outcome",
    "reason",
    "task_id",
    "deal_id",
    "worker",
    "requester",
    "app",
    "dataset",
    "order_hash",
    "policy_hash",
    "block",
    "enclave_challenge",
    "hpke_key_id",
    "evidence_kind",
    "evidence_digest",
    "simulated",
)
_BATCH = 1000


def upgrade() -> None:
    op.create_table(
        "sms_log_entries",
        sa.Column("index", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("release_id", sa.BigInteger, nullable=False, unique=True),
        sa.Column("entry", sa.Text, nullable=False),
    )
    op.create_table(
        "sms_log_nodes",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("index", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "sms_log_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("size", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sms_collateral",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "sms_sessions",
        sa.Column("task_id", sa.String(66), primary_key=True),
        sa.Column("enclave_challenge", sa.String(42), primary_key=True),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("log_index", sa.BigInteger, nullable=False),
        sa.Column("statement", sa.LargeBinary, nullable=False),
        sa.Column("collateral", sa.String(64), nullable=False),
        sa.Column("receipt_digest", sa.String(66)),
        sa.Column("countersignature", sa.LargeBinary),
    )
    _take_over()
    for table in ("sms_log_entries", "sms_log_nodes"):
        _make_append_only(table)


def _take_over() -> None:
    """Put every line of the record into the log, in the order in which they were written."""
    bind = op.get_bind()
    releases = sa.table("sms_releases", sa.column("id"), *(sa.column(name) for name in _COLUMNS))
    entries = sa.table("sms_log_entries", sa.column("index"), sa.column("release_id"), sa.column("entry"))
    nodes = sa.table("sms_log_nodes", sa.column("level"), sa.column("index"), sa.column("hash"))
    left: dict[int, bytes] = {}  # the newest node of each level
    size = after = 0
    while True:
        rows = bind.execute(
            sa.select(releases).where(releases.c.id > after).order_by(releases.c.id).limit(_BATCH)
        ).all()
        if not rows:
            break
        new_entries, new_nodes = [], []
        for row in rows:
            line = {name: getattr(row, name) for name in _COLUMNS}
            line |= {"simulated": None if row.simulated is None else bool(row.simulated), "index": size, "version": 1}
            text = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            level, index, value = 0, size, hashlib.sha256(b"\x00" + text.encode()).digest()
            new_entries.append({"index": size, "release_id": row.id, "entry": text})
            new_nodes.append({"level": 0, "index": index, "hash": value})
            while index & 1:
                value = hashlib.sha256(b"\x01" + left[level] + value).digest()
                level, index = level + 1, index >> 1
                new_nodes.append({"level": level, "index": index, "hash": value})
            left[level] = value
            size, after = size + 1, row.id
        bind.execute(sa.insert(entries), new_entries)
        bind.execute(sa.insert(nodes), new_nodes)
    head = sa.table("sms_log_head", sa.column("id"), sa.column("size"))
    bind.execute(sa.insert(head), [{"id": 1, "size": size}])


def _make_append_only(table: str) -> None:
    """Let the database itself refuse to change or drop a line of the log."""
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
    for table in ("sessions", "collateral", "log_head"):
        op.drop_table(f"sms_{table}")
    for table in ("log_nodes", "log_entries"):
        op.drop_table(f"sms_{table}")
        if op.get_bind().dialect.name != "sqlite":
            op.execute(f"DROP FUNCTION sms_{table}_refuse()")
