"""A chain in memory for tests of the SMS: the interface ``services.sms.ledger.Ledger`` without a node."""

from __future__ import annotations

from dataclasses import dataclass, field

from cloister.errors import UnavailableError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.deals import Deal
from cloister.protocol.eip712 import Domain
from cloister.protocol.orders import DatasetOrder, verify_order_signature
from cloister.protocol.tasks import Task
from cloister.services.sms.ledger import AppEntry, DatasetEntry, Head, Matched


@dataclass
class MemoryLedger:
    """Tests write the attributes; the SMS reads them as if they were the chain."""

    domain: Domain
    block: Head
    owners: dict[Address, Address] = field(default_factory=dict)
    apps: dict[Address, AppEntry] = field(default_factory=dict)
    datasets: dict[Address, DatasetEntry] = field(default_factory=dict)
    deals: dict[Bytes32, Deal] = field(default_factory=dict)
    tasks: dict[Bytes32, Task] = field(default_factory=dict)
    matches: dict[Bytes32, Matched] = field(default_factory=dict)
    closed: set[Bytes32] = field(default_factory=set)
    presigned: dict[Bytes32, Address] = field(default_factory=dict)
    groups: dict[Address, set[Address]] = field(default_factory=dict)
    down: bool = False
    blocks_read: list[int] = field(default_factory=list)

    def head(self) -> Head:
        if self.down:
            raise UnavailableError("the node does not answer")
        return self.block

    def owner_of(self, entry: Address, *, block: int) -> Address | None:
        self._read(block)
        return self.owners.get(entry)

    def task(self, task_id: Bytes32, *, block: int) -> tuple[Task, Deal] | None:
        self._read(block)
        task = self.tasks.get(task_id)
        return None if task is None else (task, self.deals[task.deal_id])

    def grounds(
        self, deal_id: Bytes32, deal: Deal, match_transaction: Bytes32, *, block: int
    ) -> tuple[AppEntry, DatasetEntry | None, Matched | None]:
        self._read(block)
        matched = self.matches.get(match_transaction)
        if matched is not None and matched.deal_id != deal_id:
            matched = None
        return self.apps[deal.app.pointer], self.datasets.get(deal.dataset.pointer), matched

    def grant_standing(
        self, order: DatasetOrder, order_hash: Bytes32, owner: Address, *, block: int
    ) -> tuple[bool, bool]:
        self._read(block)
        signed = self.presigned.get(order_hash) == owner
        if not signed:
            try:
                verify_order_signature(order, owner, self.domain)
                signed = True
            except Exception:  # noqa: BLE001 - any failure means unsigned, as on the hub
                signed = False
        return signed, order_hash in self.closed

    def in_group(self, group: Address, member: Address, *, block: int) -> bool:
        self._read(block)
        return member in self.groups.get(group, set())

    def _read(self, block: int) -> None:
        if self.down:
            raise UnavailableError("the node does not answer")
        self.blocks_read.append(block)
