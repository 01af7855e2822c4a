"""The ledger over a JSON-RPC node: each question is one round trip, at the block that the caller names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cloister.chain.abi import Function
from cloister.chain.calls import parse_receipt
from cloister.chain.hub_reads import HubReads
from cloister.chain.logs import OrdersMatched, decode_log
from cloister.chain.registries import ENTRY_FUNCTIONS
from cloister.chain.rpc import JsonRpc, TransactionReverted, block_parameter
from cloister.errors import DecodeError, RemoteError
from cloister.protocol.codec import Address, Bytes32, parse_hex, to_hex
from cloister.protocol.deals import Deal
from cloister.protocol.orders import DatasetOrder
from cloister.protocol.tasks import Task
from cloister.services.sms.ledger import AppEntry, DatasetEntry, Head, Matched, Offer, OfferStanding
from cloister.services.sms.slice_reads import SliceReader
from cloister.storage.multiaddr import parse_multiaddr

_APP = (ENTRY_FUNCTIONS["owner"], ENTRY_FUNCTIONS["m_appMultiaddr"], ENTRY_FUNCTIONS["m_appChecksum"])
_DATASET = (ENTRY_FUNCTIONS["owner"], ENTRY_FUNCTIONS["m_datasetMultiaddr"], ENTRY_FUNCTIONS["m_datasetChecksum"])


class ChainLedger:
    """Answers of one hub. Safe to use from several threads."""

    def __init__(self, rpc: JsonRpc, hub: Address) -> None:
        self._rpc = rpc
        self._hub = hub
        self._reads = HubReads(hub)
        self._slices = SliceReader(rpc, hub)

    def head(self) -> Head:
        head = self._rpc.head()
        return Head(head.number, head.timestamp)

    def owner_of(self, entry: Address, *, block: int) -> Address | None:
        try:
            return self._rpc.read(self._reads.owner_of(entry), block=block)
        except (TransactionReverted, DecodeError):
            # No contract there, or one without an owner.
            return None

    def task(self, task_id: Bytes32, *, block: int) -> tuple[Task, Deal] | None:
        task = self._rpc.read(self._reads.task(task_id), block=block)
        if task is None:
            return None
        deal = self._rpc.read(self._reads.deal(task.deal_id), block=block)
        if deal is None:
            raise DecodeError(f"the hub knows task {task_id} but not its deal")
        return task, deal

    def grounds(
        self, deal_id: Bytes32, deal: Deal, match_transaction: Bytes32, *, block: int
    ) -> tuple[AppEntry, DatasetEntry | None, Matched | None]:
        entries = [*(_entry_call(deal.app.pointer, item, block) for item in _APP)]
        if deal.has_dataset:
            entries += [_entry_call(deal.dataset.pointer, item, block) for item in _DATASET]
        answers = self._rpc.batch([*entries, ("eth_getTransactionReceipt", [str(match_transaction)])])
        app = AppEntry(*_entry(_APP, answers[:3]))
        dataset = DatasetEntry(*_entry(_DATASET, answers[3:6])) if deal.has_dataset else None
        return app, dataset, self._matched(answers[-1], deal_id, block)

    def grant_standing(
        self, order: DatasetOrder, order_hash: Bytes32, owner: Address, *, block: int
    ) -> tuple[bool, bool]:
        try:
            signed, closed = self._rpc.read_all(
                [
                    self._reads.is_presigned_or_signed(owner, order_hash, order.sign),
                    self._reads.is_closed(order_hash),
                ],
                block=block,
            )
        except TransactionReverted:
            # The hub reverts on a signature of an impossible length; then only a presignature can stand.
            signed = self._rpc.read(self._reads.presigned(order_hash), block=block) == owner
            closed = self._rpc.read(self._reads.is_closed(order_hash), block=block)
        return signed, closed

    def signed_by(self, owner: Address, digest: Bytes32, signature: bytes, *, block: int) -> bool:
        try:
            return self._rpc.read(self._reads.is_presigned_or_signed(owner, digest, signature), block=block)
        except (TransactionReverted, DecodeError):
            # A signature of an impossible length, or a contract that says no by reverting.
            return False

    def offer_standings(
        self, offers: Sequence[Offer], deal_id: Bytes32, deal: Deal, *, block: int
    ) -> list[OfferStanding]:
        return self._slices.standings(offers, deal_id, deal, block=block)

    def in_group(self, group: Address, member: Address, *, block: int) -> bool:
        try:
            return self._rpc.read(self._reads.group_has(group, member), block=block)
        except (TransactionReverted, DecodeError):
            return False

    def _matched(self, receipt: object, deal_id: Bytes32, block: int) -> Matched | None:
        """Find the OrdersMatched event of a deal in a receipt; the hub must be who said it."""
        if receipt is None:
            return None
        mined = parse_receipt(receipt)
        if not mined.succeeded or mined.block_number > block:
            return None
        for log in mined.logs:
            said = decode_log(log) if log.address == self._hub else None
            if isinstance(said, OrdersMatched) and said.deal_id == deal_id:
                return Matched(said.deal_id, said.dataset_hash, said.request_hash, mined.block_number)
        return None


def _entry_call(entry: Address, item: Function, block: int) -> tuple[str, Sequence[Any]]:
    return "eth_call", [{"to": str(entry), "data": to_hex(item.encode())}, block_parameter(block)]


def _entry(items: tuple[Function, Function, Function], answers: Sequence[object]) -> tuple[Address, str, Bytes32]:
    """Read owner, location and checksum of a registry's entry."""
    owner, multiaddr, checksum = (
        item.decode_one(parse_hex(answer)) for item, answer in zip(items, answers, strict=True)
    )
    try:
        location = parse_multiaddr(multiaddr)
    except RemoteError:
        location = ""
    return Address(owner), location, Bytes32.from_raw(checksum)
