"""A chain in memory for tests of the SMS: the interface ``services.sms.ledger.Ledger`` without a node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from cloister.errors import UnavailableError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.deals import Deal
from cloister.protocol.eip712 import Domain
from cloister.protocol.orders import DatasetOrder, verify_order_signature
from cloister.protocol.tags import FRAMEWORKS
from cloister.protocol.tasks import Task
from cloister.services.sms.ledger import AppEntry, DatasetEntry, Head, Matched, Offer, OfferStanding


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
    objections: dict[Address, str] = field(default_factory=dict)
    """What the hub holds against bulk orders of a dataset beside its usual reasons."""
    wallets: dict[Address, bytes] = field(default_factory=dict)
    """Contracts that own data, each with the one signature that it accepts for anything."""
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

    def signed_by(self, owner: Address, digest: Bytes32, signature: bytes, *, block: int) -> bool:
        self._read(block)
        return self.wallets.get(owner) == signature

    def offer_standings(
        self, offers: Sequence[Offer], deal_id: Bytes32, deal: Deal, *, block: int
    ) -> list[OfferStanding]:
        self._read(block)
        return [self._standing(offer, deal_id, deal, block) for offer in offers]

    def _standing(self, offer: Offer, deal_id: Bytes32, deal: Deal, block: int) -> OfferStanding:
        order, entry = offer.order, self.datasets.get(offer.order.dataset)
        signed, closed = False, offer.order_hash in self.closed
        if entry is not None:
            signed, _ = self.grant_standing(order, offer.order_hash, entry.owner, block=block)
        admissions = [
            restriction.is_zero or restriction == subject or self.in_group(restriction, subject, block=block)
            for restriction, subject in (
                (order.apprestrict, deal.app.pointer),
                (order.workerpoolrestrict, deal.workerpool.pointer),
                (order.requesterrestrict, deal.requester),
            )
        ]
        reasons = (
            (closed or order.volume == 0, "Dataset order is revoked or fully consumed"),
            (not signed, "Invalid dataset order signature"),
            (deal_id not in self.deals, "Deal not found"),
            (deal.has_dataset, "Deal already has a dataset"),
            (not admissions[0], "App restriction not satisfied"),
            (not admissions[1], "Workerpool restriction not satisfied"),
            (not admissions[2], "Requester restriction not satisfied"),
            (not deal.tag.has(order.tag.without(FRAMEWORKS)), "Tag compatibility not satisfied"),
            (order.dataset in self.objections, self.objections.get(order.dataset, "")),
        )
        objection = next((f"IncompatibleDatasetOrder({text})" for holds, text in reasons if holds), None)
        if not signed and len(order.sign) not in (64, 65) and not (closed or order.volume == 0):
            objection = "invalid-signature-format"
        return OfferStanding(entry, signed, closed, all(admissions), objection)

    def in_group(self, group: Address, member: Address, *, block: int) -> bool:
        self._read(block)
        return member in self.groups.get(group, set())

    def _read(self, block: int) -> None:
        if self.down:
            raise UnavailableError("the node does not answer")
        self.blocks_read.append(block)
