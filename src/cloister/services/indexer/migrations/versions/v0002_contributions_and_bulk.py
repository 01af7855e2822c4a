"""Categories, contributions, what entries hold, bulk slices; sortable amounts; text in the order of its bytes.

Everything here is told by the chain, so the tables are made anew and filled by reading it again.
"""

import sqlalchemy as sa
from alembic import op

revision = "indexer_0002"
down_revision = "indexer_0001"
branch_labels = None
depends_on = None

_ENTITIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "indexer_dp_protected_data": (
        (
            "owner text required",
            "name text required",
            "json_schema text required",
            "collection text",
            "is_included_in_subscription boolean required",
            "is_rentable boolean required",
            "is_for_sale boolean required",
            "rental_params text",
            "sale_params text",
            "multiaddr text required",
            "checksum text required",
            "creation_timestamp text required",
            "transaction_hash text required",
            "block_number text required",
        ),
        ("collection", "creation_timestamp", "owner", "rental_params", "sale_params"),
    ),
    "indexer_dp_schema_entry": (("path text required", "type text required"), ()),
    "indexer_dp_account": ((), ()),
    "indexer_dp_collection": (
        (
            "owner text required",
            "subscription_params text",
            "creation_timestamp text required",
            "transaction_hash text required",
            "block_number text required",
        ),
        ("creation_timestamp", "owner", "subscription_params"),
    ),
    "indexer_dp_subscription_param": (("duration text required", "price text required"), ()),
    "indexer_dp_rental_param": (("duration text required", "price text required"), ()),
    "indexer_dp_sale_param": (("price text required",), ()),
    "indexer_dp_collection_subscription": (
        (
            "collection text required",
            "subscriber text required",
            "end_date text required",
            "subscription_params text",
            "creation_timestamp text required",
            "transaction_hash text required",
            "block_number text required",
        ),
        ("collection", "creation_timestamp", "subscriber", "subscription_params"),
    ),
    "indexer_dp_rental": (
        (
            "renter text required",
            "protected_data text required",
            "end_date text required",
            "collection text",
            "rental_params text",
            "creation_timestamp text required",
            "transaction_hash text required",
            "block_number text required",
        ),
        ("collection", "creation_timestamp", "protected_data", "rental_params"),
    ),
    "indexer_dp_sale": (
        (
            "buyer text required",
            "protected_data text required",
            "collection text",
            "sale_params text",
            "creation_timestamp text required",
            "transaction_hash text required",
            "block_number text required",
        ),
        ("buyer", "collection", "creation_timestamp", "protected_data", "sale_params"),
    ),
    "indexer_dp_consumption": (
        (
            "deal_id text required",
            "protected_data text required",
            "mode text required",
            "creation_timestamp text required",
            "transaction_hash text required",
            "block_number text required",
        ),
        ("creation_timestamp", "protected_data"),
    ),
    "indexer_dp_add_only_app_whitelist": (("owner text required",), ("owner",)),
    "indexer_dp_app": (("owner text",), ("owner",)),
    "indexer_poco_account": ((), ()),
    "indexer_poco_app": (
        (
            "owner text required",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
            "name text",
            "type text",
            "multiaddr text",
            "checksum text",
            "mrenclave text",
        ),
        ("owner", "timestamp"),
    ),
    "indexer_poco_dataset": (
        (
            "owner text required",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
            "name text",
            "multiaddr text",
            "checksum text",
        ),
        ("owner", "timestamp"),
    ),
    "indexer_poco_workerpool": (
        (
            "owner text required",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
            "description text",
        ),
        ("owner", "timestamp"),
    ),
    "indexer_poco_category": (
        (
            "name text required",
            "description text required",
            "work_clock_time_ref text required",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
        ),
        ("timestamp",),
    ),
    "indexer_poco_deal": (
        (
            "requester text required",
            "beneficiary text required",
            "callback text required",
            "app text required",
            "app_owner text required",
            "app_price text required",
            "dataset text",
            "dataset_owner text",
            "dataset_price text required",
            "workerpool text required",
            "workerpool_owner text required",
            "workerpool_price text required",
            "trust text required",
            "category text required",
            "tag text required",
            "params text required",
            "start_time text required",
            "bot_first text required",
            "bot_size text required",
            "worker_stake text required",
            "scheduler_reward_ratio text required",
            "sponsor text required",
            "apporder text required",
            "datasetorder text required",
            "workerpoolorder text required",
            "requestorder text required",
            "bulk text",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
        ),
        (
            "app",
            "app_owner",
            "beneficiary",
            "bulk",
            "category",
            "dataset",
            "dataset_owner",
            "requester",
            "requestorder",
            "sponsor",
            "timestamp",
            "workerpool",
            "workerpool_owner",
        ),
    ),
    "indexer_poco_task": (
        (
            "status text required",
            "deal text required",
            "requester text required",
            "index text required",
            "contribution_deadline text required",
            "final_deadline text required",
            "consensus text",
            "result_digest text",
            "results text",
            "results_callback text",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
        ),
        ("deal", "requester", "timestamp"),
    ),
    "indexer_poco_contribution": (
        (
            "task text required",
            "worker text required",
            "status text required",
            "hash text required",
            "seal text required",
            "challenge text required",
            "weight text required",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
        ),
        ("task", "timestamp", "worker"),
    ),
    "indexer_poco_dataset_order": (
        (
            "dataset text required",
            "datasetprice text required",
            "volume text required",
            "tag text required",
            "apprestrict text required",
            "workerpoolrestrict text required",
            "requesterrestrict text required",
            "salt text required",
            "sign text required",
        ),
        ("dataset",),
    ),
    "indexer_poco_bulk": (("hash text required", "deal text required"), ("deal",)),
    "indexer_poco_bulk_slice": (
        ("hash text required", "bulk text required", "task text required", "index text required"),
        ("bulk", "task"),
    ),
}
"""Table to its columns and its indexed columns."""
_LISTS = (
    "indexer_dp_add_only_app_whitelist_apps",
    "indexer_dp_protected_data_schema",
    "indexer_poco_bulk_slice_dataset_orders",
    "indexer_poco_bulk_slice_datasets",
)
"""The tables of several references."""
_MADE_BEFORE = tuple(
    name
    for name in (*_LISTS, *_ENTITIES)
    if name
    not in (
        "indexer_poco_category",
        "indexer_poco_contribution",
        "indexer_poco_dataset_order",
        "indexer_poco_bulk_slice_dataset_orders",
    )
)
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    for name in (*_MADE_BEFORE, "indexer_cursors"):
        op.drop_table(name)
    for name, (columns, indexed) in _ENTITIES.items():
        op.create_table(name, sa.Column("id", _TEXT, primary_key=True), *map(_column, columns), *_range())
        for column in indexed:
            op.create_index(f"{name}_by_{column}", name, [column])
    for name in _LISTS:
        op.create_table(
            name,
            sa.Column("id", _TEXT, primary_key=True),
            sa.Column("position", sa.Integer, primary_key=True),
            sa.Column("target", _TEXT, nullable=False),
            *_range(),
        )
        op.create_index(f"{name}_by_target", name, ["target", "id"])
    op.create_table(
        "indexer_cursors",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("block", sa.BigInteger, nullable=False),
        sa.Column("block_hash", sa.Text),
        sa.Column("block_time", sa.BigInteger),
    )
    op.create_table(
        "indexer_bulk_pending",
        sa.Column("deal", _TEXT, primary_key=True),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("cid", sa.Text, nullable=False),
        sa.Column("block", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
    )
    op.create_index("indexer_bulk_pending_by_due", "indexer_bulk_pending", ["due_at"])


def _column(text: str) -> sa.Column[object]:
    name, kind, *required = text.split()
    return sa.Column(name, sa.Boolean() if kind == "boolean" else _TEXT, nullable=not required)


def _range() -> tuple[sa.Column[int], sa.Column[int]]:
    return (
        sa.Column("block_from", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("block_to", sa.BigInteger),
    )


def downgrade() -> None:
    raise NotImplementedError("an older release rebuilds its tables from the chain in a database of its own")
