"""What the result proxy asks the chain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cloister.chain.hub_reads import HubReads
from cloister.chain.rpc import JsonRpc, TransactionReverted
from cloister.errors import DecodeError, UnavailableError
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.deals import Deal
from cloister.protocol.tasks import Task


@dataclass(frozen=True, slots=True)
class TaskSight:
    """A task as the chain shows it at one block; ``time`` is the later of the block's clock and ours.

    ``teebroker`` is zero when the hub has none.
    """

    block: int
    time: int
    task: Task
    deal: Deal
    teebroker: Address


class ResultLedger(Protocol):
    """Reads of the chain. Safe to call from several threads.

    Both methods raise ``UnavailableError`` when no node answers or it is far behind; a node that answers garbage is a
    ``RemoteError``.
    """

    def task(self, task_id: Bytes32) -> TaskSight | None:
        """The task at the newest block; None for one that was never initialized."""
        ...

    def is_signed(self, signer: Address, digest: bytes, signature: bytes, *, block: int) -> bool:
        """Whether ``signer``, an account or a contract by ERC-1271, signed the digest."""
        ...


class ChainResultLedger:
    """The ledger over a JSON-RPC node."""

    def __init__(self, rpc: JsonRpc, hub: Address, *, max_head_age: int, clock: Callable[[], float]) -> None:
        self._rpc = rpc
        self._reads = HubReads(hub)
        self._max_head_age = max_head_age
        self._clock = clock

    def task(self, task_id: Bytes32) -> TaskSight | None:
        head, now = self._rpc.head(), int(self._clock())
        if now - head.timestamp > self._max_head_age:
            raise UnavailableError(
                f"the newest block is {now - head.timestamp} s old",
                hint="wait until the node has caught up",
                code="chain-behind",
            )
        task = self._rpc.read(self._reads.task(task_id), block=head.number)
        if task is None:
            return None
        deal = self._rpc.read(self._reads.deal(task.deal_id), block=head.number)
        if deal is None:
            raise DecodeError(f"the hub knows task {task_id} but not its deal")
        teebroker = self._rpc.read(self._reads.contract("teebroker"), block=head.number)
        return TaskSight(head.number, max(head.timestamp, now), task, deal, teebroker)

    def is_signed(self, signer: Address, digest: bytes, signature: bytes, *, block: int) -> bool:
        if signer == ZERO_ADDRESS:
            return False
        try:
            return self._rpc.read(self._reads.is_signed(signer, Bytes32.from_raw(digest), signature), block=block)
        except (TransactionReverted, DecodeError):
            return False
