"""The entities of both subgraphs and the cursor of the reader."""

import sqlalchemy as sa
from alembic import op

revision = "indexer_0001"
down_revision = None
branch_labels = None
depends_on = None

_ENTITIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "indexer_dp_account": (
        (),
        (),
    ),
    "indexer_dp_add_only_app_whitelist": (
        ("owner text required",),
        ("owner",),
    ),
    "indexer_dp_app": (
        ("owner text",),
        ("owner",),
    ),
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
    "indexer_dp_rental_param": (
        ("duration text required", "price text required"),
        (),
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
    "indexer_dp_sale_param": (
        ("price text required",),
        (),
    ),
    "indexer_dp_schema_entry": (
        ("path text required", "type text required"),
        (),
    ),
    "indexer_dp_subscription_param": (
        ("duration text required", "price text required"),
        (),
    ),
    "indexer_poco_account": (
        (),
        (),
    ),
    "indexer_poco_app": (
        (
            "owner text required",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
        ),
        ("owner",),
    ),
    "indexer_poco_bulk": (
        ("hash text required",),
        (),
    ),
    "indexer_poco_bulk_slice": (
        ("hash text required", "bulk text required", "task text", "index text required"),
        ("bulk", "task"),
    ),
    "indexer_poco_dataset": (
        (
            "owner text required",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
        ),
        ("owner",),
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
            "dataset",
            "dataset_owner",
            "requester",
            "requestorder",
            "sponsor",
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
            "bulk_slice text",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
        ),
        ("bulk_slice", "deal", "requester"),
    ),
    "indexer_poco_workerpool": (
        (
            "owner text required",
            "timestamp text required",
            "block_number text required",
            "transaction_hash text required",
        ),
        ("owner",),
    ),
}
"""Table to its columns and its indexed columns."""
_LISTS = (
    "indexer_dp_add_only_app_whitelist_apps",
    "indexer_dp_protected_data_schema",
    "indexer_poco_bulk_slice_datasets",
)
_TYPES = {"text": sa.Text, "integer": sa.Integer, "boolean": sa.Boolean}


def upgrade() -> None:
    for name, (columns, indexed) in _ENTITIES.items():
        op.create_table(name, sa.Column("id", sa.Text, primary_key=True), *map(_column, columns), *_range())
        for column in indexed:
            op.create_index(f"{name}_by_{column}", name, [column])
    for name in _LISTS:
        op.create_table(
            name,
            sa.Column("id", sa.Text, primary_key=True),
            sa.Column("position", sa.Integer, primary_key=True),
            sa.Column("target", sa.Text, nullable=False),
            *_range(),
        )
        op.create_index(f"{name}_by_target", name, ["target", "id"])
    op.create_table(
        "indexer_cursors",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("cursor", sa.Text, nullable=False),
        sa.Column("block", sa.BigInteger, nullable=False),
    )


def _column(text: str) -> sa.Column[object]:
    name, kind, *required = text.split()
    return sa.Column(name, _TYPES[kind], nullable=not required)


def _range() -> tuple[sa.Column[int], sa.Column[int]]:
    return (
        sa.Column("block_from", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("block_to", sa.BigInteger),
    )


def downgrade() -> None:
    for name in ("indexer_cursors", *_LISTS, *_ENTITIES):
        op.drop_table(name)
