"""How the orders of a bulk slice stand on chain: two rounds of batched reads at one block, whatever the slice's length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from cloister.chain.hub_reads import HubReads
from cloister.chain.registries import ENTRY_FUNCTIONS, RegistryReads
from cloister.chain.rpc import JsonRpc, Read, RpcError, TransactionReverted, block_parameter
from cloister.errors import DecodeError, RemoteError, UnavailableError
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, parse_hex, to_hex
from cloister.protocol.deals import Deal
from cloister.services.sms.ledger import DatasetEntry, Offer, OfferStanding
from cloister.storage.multiaddr import parse_multiaddr

FOREIGN_GAS: Final = 3_000_000
"""Most gas for a call that runs code of a stranger: a group, a contract that signs. An order whose contracts burn more
does not stand; the other orders of its slice are not to wait for it."""
_ENTRY: Final = ("owner", "m_datasetMultiaddr", "m_datasetChecksum")
_UNEVALUATED: Final = "the hub could not evaluate the order"


class SliceReader:
    """Reads standings from one hub and its dataset registry. Safe to use from several threads."""

    def __init__(self, rpc: JsonRpc, hub: Address) -> None:
        self._rpc = rpc
        self._reads = HubReads(hub)
        self._registry: RegistryReads | None = None

    def standings(self, offers: Sequence[Offer], deal_id: Bytes32, deal: Deal, *, block: int) -> list[OfferStanding]:
        """See ``Ledger.offer_standings``.

        Raises:
            UnavailableError, RemoteError: the node does not answer what no contract of a stranger has a part in.
        """
        if not offers:
            return []
        marks = self._marks(offers, block)
        entries = self._entries(offers, block)
        judged = self._judgements(offers, entries, deal_id, deal, block)
        result = []
        for (registered, closed, presigner), entry, (objection, signed, admitted) in zip(
            marks, entries, judged, strict=True
        ):
            if registered and entry is None:
                # The registry made this contract, so its silence is the node's fault.
                raise UnavailableError("the node does not tell what a registered dataset says")
            known = entry if registered else None
            authentic = known is not None and not known.owner.is_zero and (presigner == known.owner or signed)
            result.append(OfferStanding(known, authentic, closed, admitted, objection))
        return result

    def _marks(self, offers: Sequence[Offer], block: int) -> list[tuple[bool, bool, Address]]:
        """Registered, closed, presigned by: what hub and registry know themselves. No answer here fails the whole."""
        registry = self._registry
        if registry is None:
            # The hub is configured once, so its registry is asked once.
            address = self._rpc.read(self._reads.contract("datasetregistry"), block=block)
            registry = self._registry = RegistryReads(address)
        reads: list[Read[Any]] = []
        for offer in offers:
            reads.append(registry.is_registered(offer.order.dataset))
            reads.append(self._reads.is_closed(offer.order_hash))
            reads.append(self._reads.presigned(offer.order_hash))
        answers = self._rpc.read_all(reads, block=block)
        return [(answers[at], answers[at + 1], answers[at + 2]) for at in range(0, len(answers), 3)]

    def _entries(self, offers: Sequence[Offer], block: int) -> list[DatasetEntry | None]:
        reads = [
            Read(offer.order.dataset, ENTRY_FUNCTIONS[name].encode(), ENTRY_FUNCTIONS[name].decode_one)
            for offer in offers
            for name in _ENTRY
        ]
        answers = self._foreign(reads, block)
        return [_entry(answers[at : at + len(_ENTRY)]) for at in range(0, len(answers), len(_ENTRY))]

    def _judgements(
        self,
        offers: Sequence[Offer],
        entries: Sequence[DatasetEntry | None],
        deal_id: Bytes32,
        deal: Deal,
        block: int,
    ) -> list[tuple[str | None, bool, bool]]:
        """The hub's objection, whether the owner signed, whether every restriction admits the deal."""
        reads: list[Read[Any]] = []
        spans = []
        for offer, entry in zip(offers, entries, strict=True):
            order, first = offer.order, len(reads)
            reads.append(self._reads.dataset_compatibility(order, deal_id))
            owner = ZERO_ADDRESS if entry is None else entry.owner
            reads.append(self._reads.is_signed(owner, offer.order_hash, order.sign))
            for restriction, subject in (
                (order.apprestrict, deal.app.pointer),
                (order.workerpoolrestrict, deal.workerpool.pointer),
                (order.requesterrestrict, deal.requester),
            ):
                if not restriction.is_zero and restriction != subject:
                    reads.append(self._reads.group_has(restriction, subject))
            spans.append((first, len(reads)))
        answers = self._foreign(reads, block)
        result = []
        for first, end in spans:
            compatible, signed, *admissions = answers[first:end]
            result.append((_objection(compatible), signed is True, all(answer is True for answer in admissions)))
        return result

    def _foreign(self, reads: Sequence[Read[Any]], block: int) -> list[Any]:
        """Make calls in which a stranger's contract may have a part: its failure is an answer, an outage is not."""
        requests = [_request(read, block) for read in reads]
        answers = self._rpc.try_batch(requests)
        result: list[Any] = []
        for read, request, answer in zip(reads, requests, answers, strict=True):
            # A refusal of the node is asked once more and alone: its passing trouble must not pass for the contract's
            # fault.
            final = self._rpc.try_batch([request])[0] if isinstance(answer, RpcError) else answer
            if isinstance(final, TransactionReverted | RpcError):
                result.append(final)
                continue
            if isinstance(final, RemoteError):
                raise final
            try:
                result.append(read.decode(parse_hex(final)))
            except DecodeError as error:
                result.append(error)
        return result


def _request(read: Read[Any], block: int) -> tuple[str, list[object]]:
    call = {"to": str(read.to), "data": to_hex(read.data), "gas": hex(FOREIGN_GAS)}
    return "eth_call", [call, block_parameter(block)]


def _objection(answer: object) -> str | None:
    if answer is None:
        return None
    if isinstance(answer, TransactionReverted) and answer.reason:
        return answer.reason
    return _UNEVALUATED


def _entry(answers: Sequence[Any]) -> DatasetEntry | None:
    """Read an entry; None when one of its fields did not come, as of an address without a contract."""
    if any(isinstance(answer, RemoteError) for answer in answers):
        return None
    owner, multiaddr, checksum = answers
    try:
        location = parse_multiaddr(multiaddr)
    except RemoteError:
        location = ""
    return DatasetEntry(Address(owner), location, Bytes32.from_raw(checksum))


__all__ = ["FOREIGN_GAS", "SliceReader"]
