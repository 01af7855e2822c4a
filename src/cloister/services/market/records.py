"""Orders and deals as the market's clients read them: JSON numbers, EIP-55 addresses, times in ISO 8601."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cloister.errors import InputError
from cloister.protocol.codec import SAFE_INTEGER_MAX, Bytes32
from cloister.protocol.deals import Deal, Resource
from cloister.protocol.orders import AppOrder, DatasetOrder, Order, OrderKind, RequestOrder, WorkerpoolOrder

BULK_MIN_VOLUME = SAFE_INTEGER_MAX - 1
MAX_TAG_BITS = 62
BIGINT_MAX = 2**63 - 1
WORKERPOOL_STAKE_PERCENT = 30
RESOURCE_FIELD = {
    OrderKind.APP: "app",
    OrderKind.DATASET: "dataset",
    OrderKind.WORKERPOOL: "workerpool",
    OrderKind.REQUEST: "requester",
}
"""The member that names whose orders are unpublished."""
TARGETS = ("unpublish_orderHash", "unpublish_last", "unpublish_all")


def iso_time(milliseconds: int) -> str:
    """Write a Unix time in milliseconds as ``2026-01-01T00:00:00.000Z``."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def is_bulk(order: Order) -> bool:
    """Tell whether an order is a dataset order that bulk requests may use: free and practically endless."""
    return isinstance(order, DatasetOrder) and order.datasetprice == 0 and order.volume >= BULK_MIN_VOLUME


def stake_per_unit(order: Order) -> int:
    """The stake in nRLC that its signer must hold for each unit of the order's volume."""
    match order:
        case WorkerpoolOrder():
            return order.workerpoolprice * WORKERPOOL_STAKE_PERCENT // 100
        case RequestOrder():
            return order.appmaxprice + order.datasetmaxprice + order.workerpoolmaxprice
        case AppOrder() | DatasetOrder():
            return 0


def order_columns(order: Order, order_hash: Bytes32) -> dict[str, Any]:
    """Build the columns of an order's row that follow from the order alone.

    Raises: InputError for numbers beyond 2^53-1 and for tag bits that no client knows.
    """
    if order.tag.bits >> MAX_TAG_BITS:
        raise InputError(f"tag: bits above {MAX_TAG_BITS - 1} are not supported")
    body = order.to_json(numbers=True)
    row: dict[str, Any] = {
        "order_hash": str(order_hash),
        "kind": order.kind.value,
        "resource": str(order.resource),
        "volume": order.volume,
        "tag_low": order.tag.bits,
        "bulk": is_bulk(order),
        "stake_per_unit": stake_per_unit(order),
        "category": None,
        "trust": None,
        "beneficiary": None,
        "body": json.dumps(body, separators=(",", ":")),
    }
    row |= dict.fromkeys(("app", "dataset", "workerpool", "requester"))
    match order:
        case AppOrder():
            row |= {"price": order.appprice, **_restrictions(order, "dataset", "workerpool", "requester")}
        case DatasetOrder():
            row |= {"price": order.datasetprice, **_restrictions(order, "app", "workerpool", "requester")}
        case WorkerpoolOrder():
            row |= {"price": order.workerpoolprice, "category": order.category, "trust": order.trust}
            row |= _restrictions(order, "app", "dataset", "requester")
        case RequestOrder():
            row |= {"price": order.workerpoolmaxprice, "category": order.category, "trust": order.trust}
            for name in ("app", "dataset", "workerpool", "requester", "beneficiary"):
                row[name] = str(getattr(order, name))
    return row


def _restrictions(order: Order, *names: str) -> dict[str, str]:
    return {name: str(getattr(order, f"{name}restrict")) for name in names}


def render_order(row: Any, chain_id: int) -> dict[str, Any]:
    """Render an order's row as the record that clients read."""
    record = {
        "orderHash": row.order_hash,
        "order": json.loads(row.body),
        "chainId": chain_id,
        "remaining": row.remaining,
        "status": row.status,
        "signer": row.signer,
        "publicationTimestamp": iso_time(row.published_at),
    }
    if row.kind == OrderKind.DATASET:
        record["bulk"] = bool(row.bulk)
    return record


@dataclass(frozen=True, slots=True)
class MinedDeal:
    """A deal and the place on chain where it was made."""

    deal_id: Bytes32
    deal: Deal
    app_hash: Bytes32
    dataset_hash: Bytes32
    workerpool_hash: Bytes32
    request_hash: Bytes32
    volume: int
    block: int
    block_timestamp: int
    transaction_hash: Bytes32


def deal_columns(mined: MinedDeal, chain_id: int) -> dict[str, Any]:
    """Build a deal's row; its body is the record that clients read."""
    deal = mined.deal
    body = {
        "dealid": str(mined.deal_id),
        "chainId": chain_id,
        "app": _resource(deal.app),
        "dataset": _resource(deal.dataset),
        "workerpool": _resource(deal.workerpool),
        "requester": str(deal.requester),
        "beneficiary": str(deal.beneficiary),
        "callback": str(deal.callback),
        "appHash": str(mined.app_hash),
        "datasetHash": str(mined.dataset_hash),
        "workerpoolHash": str(mined.workerpool_hash),
        "requestHash": str(mined.request_hash),
        "params": deal.params,
        "volume": mined.volume,
        "category": deal.category,
        "tag": str(deal.tag),
        "trust": deal.trust,
        "startTime": deal.start_time,
        "botFirst": deal.bot_first,
        "botSize": deal.bot_size,
        "schedulerRewardRatio": deal.scheduler_reward_ratio,
        "workerStake": deal.worker_stake,
        "blockNumber": mined.block,
        "blockTimestamp": iso_time(mined.block_timestamp * 1000),
        "transactionHash": str(mined.transaction_hash),
    }
    return {
        "deal_id": str(mined.deal_id),
        "block": mined.block,
        "category": deal.category,
        "app": str(deal.app.pointer),
        "dataset": str(deal.dataset.pointer),
        "workerpool": str(deal.workerpool.pointer),
        "app_owner": str(deal.app.owner),
        "dataset_owner": str(deal.dataset.owner),
        "workerpool_owner": str(deal.workerpool.owner),
        "requester": str(deal.requester),
        "beneficiary": str(deal.beneficiary),
        "app_hash": str(mined.app_hash),
        "dataset_hash": str(mined.dataset_hash),
        "workerpool_hash": str(mined.workerpool_hash),
        "request_hash": str(mined.request_hash),
        # The columns serve charts; what a contract allows may be more than a database integer holds.
        "workerpool_price": min(deal.workerpool.price, BIGINT_MAX),
        "volume": min(mined.volume, BIGINT_MAX),
        "block_timestamp": mined.block_timestamp,
        "body": json.dumps(body, separators=(",", ":")),
    }


def _resource(resource: Resource) -> dict[str, Any]:
    return {"pointer": str(resource.pointer), "price": resource.price, "owner": str(resource.owner)}
