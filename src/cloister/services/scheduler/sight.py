"""What the scheduler reads of the chain, and how a deal on chain becomes a record. Every read names a block."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from cloister.chain.contracts import Registry
from cloister.errors import CloisterError, DecodeError
from cloister.protocol.codec import ZERO_BYTES32, parse_hex
from cloister.protocol.deals import deadlines
from cloister.protocol.eip712 import hub_domain
from cloister.protocol.tasks import Contribution, Task, TaskStatus
from cloister.services.scheduler.calldata import find_dataset_order
from cloister.services.scheduler.reconciliation import Observed
from cloister.services.scheduler.store import DealRecord
from cloister.storage.multiaddr import parse_multiaddr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloister.chain.contracts import Hub
    from cloister.chain.logs import Log, OrdersMatched
    from cloister.chain.rpc import JsonRpc
    from cloister.protocol.codec import Address, Bytes32
    from cloister.protocol.deals import Deal
    from cloister.protocol.orders import DatasetOrder

log = logging.getLogger("cloister.scheduler")

_TRUST_CAP = 10**6
_CLOCK_CAP = 10**9
_NUMBER_CAP = 2**62
_CALLDATA_READ = 4 * 1024 * 1024

UNSET = Task(
    status=TaskStatus.UNSET,
    deal_id=ZERO_BYTES32,
    index=0,
    clock=0,
    contribution_deadline=0,
    reveal_deadline=0,
    final_deadline=0,
    consensus_value=ZERO_BYTES32,
    reveal_counter=0,
    winner_counter=0,
    contributors=(),
    result_digest=ZERO_BYTES32,
    results=b"",
    results_timestamp=0,
    results_callback=b"",
)
"""A task that the chain does not have (yet, or any more)."""


class DatasetOrders(Protocol):
    """Where a dataset order is found when the matching transaction does not hold it in the open: the market."""

    def find(self, order_hash: Bytes32) -> DatasetOrder | None:
        """The signed order with that hash, ``None`` when it is not known. Raises UnavailableError."""
        ...


class NoDatasetOrders:
    """Knows no orders: what is not in the call data stays unknown."""

    def find(self, order_hash: Bytes32) -> DatasetOrder | None:
        """Nothing."""
        return None


class Sight:
    """Reads of one hub. For one thread."""

    def __init__(self, hub: Hub, *, owner: Address, orders: DatasetOrders) -> None:
        self._hub = hub
        self._owner = owner
        self._rpc: JsonRpc = hub.rpc
        self._orders = orders
        self._domain = hub_domain(self._rpc.chain_id, hub.address)

    def observe(self, identifiers: Sequence[Bytes32], *, block: int) -> list[Observed]:
        """Tasks of ours with their contributions, all at one block.

        Raises:
            UnavailableError: the node does not answer.
        """
        found: list[Observed] = []
        for identifier, task in zip(identifiers, self._hub.tasks(identifiers, block=block), strict=True):
            contributions: dict[Address, Contribution] = {}
            if task is None:
                found.append(Observed(identifier, block, UNSET, contributions))
                continue
            for worker in task.contributors:
                contributions[worker] = self._hub.contribution(identifier, worker, block=block)
            found.append(Observed(identifier, block, task, contributions))
        return found

    def head_number(self) -> int:
        """The newest block's number."""
        return self._rpc.block_number()

    def deal_exists(self, deal_id: Bytes32, *, block: int) -> bool:
        """Whether the hub knows the deal at that block."""
        return self._hub.deal(deal_id, block=block) is not None

    def deal(self, matched: OrdersMatched, entry: Log) -> DealRecord | None:
        """What the scheduler keeps of a deal; ``None`` when the chain no longer has it or it cannot be scheduled.

        Raises:
            UnavailableError: the node does not answer; ask again.
        """
        # Deals never change, and a node may keep no old states: the newest block is as good as the deal's own.
        block = self._rpc.block_number()
        deal = self._hub.deal(matched.deal_id, block=block)
        if deal is None:
            return None
        if deal.workerpool.owner != self._owner:
            # The hub asks for the signature of whoever owned the pool at the match: ours would not count.
            log.warning(
                "deal %s is of a workerpool that %s owns: not scheduled", matched.deal_id, deal.workerpool.owner
            )
            return None
        clock = self._hub.category(deal.category, block=block).clock
        end = deal.bot_first + deal.bot_size
        if deal.trust > _TRUST_CAP or clock > _CLOCK_CAP or max(deal.start_time, end) > _NUMBER_CAP:
            log.warning(
                "deal %s asks for trust %s, category time %s and tasks up to %s: not scheduled",
                matched.deal_id,
                deal.trust,
                clock,
                end,
            )
            return None
        limits = deadlines(deal.start_time, clock)
        return DealRecord(
            deal_id=matched.deal_id,
            workerpool=deal.workerpool.pointer,
            block_number=entry.block_number,
            match_transaction=entry.transaction_hash,
            requester=deal.requester,
            trust=deal.trust,
            start_time=deal.start_time,
            category_seconds=clock,
            contribution_deadline=limits.contribution,
            final_deadline=limits.final,
            bot_first=deal.bot_first,
            bot_size=deal.bot_size,
            app=self._app(deal, block),
            dataset=self._dataset(deal, block),
            dataset_order=self._dataset_order(deal, matched, entry),
            params=deal.params.replace("\0", "\ufffd"),  # PostgreSQL's text holds no NUL, and JSON none either
            callback=deal.callback,
        )

    def _app(self, deal: Deal, block: int) -> dict[str, str]:
        apps, _, _ = self._registries(block)
        entry = apps.app(deal.app.pointer, block=block)
        if entry is None:
            raise DecodeError(f"the app {deal.app.pointer} of a deal is not registered")
        return {"address": entry.address, "multiaddr": _location(entry.multiaddr), "checksum": entry.checksum}

    def _dataset(self, deal: Deal, block: int) -> dict[str, str] | None:
        if not deal.has_dataset:
            return None
        _, datasets, _ = self._registries(block)
        entry = datasets.dataset(deal.dataset.pointer, block=block)
        if entry is None:
            raise DecodeError(f"the dataset {deal.dataset.pointer} of a deal is not registered")
        return {"address": entry.address, "multiaddr": _location(entry.multiaddr), "checksum": entry.checksum}

    def _registries(self, block: int) -> tuple[Registry, Registry, Registry]:
        apps, datasets, pools = self._hub.registries(block=block)
        return Registry(self._rpc, apps), Registry(self._rpc, datasets), Registry(self._rpc, pools)

    def _dataset_order(self, deal: Deal, matched: OrdersMatched, entry: Log) -> dict[str, Any] | None:
        """The signed order, from the transaction that matched it or from the market."""
        if not deal.has_dataset:
            return None
        transaction = self._rpc.call("eth_getTransactionByHash", str(entry.transaction_hash))
        calldata = transaction.get("input") if isinstance(transaction, dict) else None
        order = None
        if isinstance(calldata, str):
            order = find_dataset_order(parse_hex(calldata, cap=_CALLDATA_READ), matched.dataset_hash, self._domain)
        if order is None:
            order = self._orders.find(matched.dataset_hash)
        return None if order is None else order.to_json()


def _location(multiaddr: bytes) -> str:
    """Where content lies; empty when the entry's bytes name nothing, which fails the task by name, not the scheduler."""
    try:
        return parse_multiaddr(multiaddr)
    except CloisterError:
        return ""
