"""The market's reads of the chain over JSON-RPC: one round trip per publication."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

from cloister.chain.hub_reads import HubReads
from cloister.chain.registries import RegistryReads
from cloister.chain.rpc import JsonRpc, Read, block_parameter, parse_quantity
from cloister.errors import RemoteError, UnavailableError, VerificationError
from cloister.protocol.codec import Address, Bytes32, parse_hex, to_hex
from cloister.protocol.deals import Deal
from cloister.protocol.orders import Order, OrderKind
from cloister.protocol.signatures import recover_address
from cloister.services.market.coalescing import Coalescer, Request
from cloister.services.market.ledger import REGISTERED, PublicationFacts
from cloister.services.reading import read_each

OWNER_SECONDS = 1.0
"""How long an owner that was read stands: publications of one wallet come in bursts."""
_MAX_OWNERS = 10_000


class ChainMarketLedger:
    """Reads of one hub and its registries. Safe to use from several threads."""

    def __init__(self, rpc: JsonRpc, hub: Address) -> None:
        self._rpc = rpc
        self._reads = HubReads(hub)
        self._together = Coalescer(rpc.try_batch)
        self._registries: dict[OrderKind, RegistryReads] = {}
        self._owners: OrderedDict[Address, tuple[float, Address, bool]] = OrderedDict()
        self._lock = threading.Lock()

    def publication_facts(self, order: Order, order_hash: Bytes32) -> PublicationFacts:
        signer, is_contract = self._signer(order)
        if signer is None:
            return PublicationFacts(None, signed=False, consumed=0, stake=0, block=0)
        needs_stake = order.kind in (OrderKind.WORKERPOOL, OrderKind.REQUEST)
        calls: list[Request] = [("eth_blockNumber", []), self._call(self._reads.consumed(order_hash))]
        if needs_stake:
            calls.append(self._call(self._reads.account(signer)))
        # An account's own signature is checked here, for nothing; contracts and presignatures are the hub's to judge.
        signed = not is_contract and _is_signed_by(order, order_hash, signer)
        if not signed:
            calls.append(self._call(self._reads.is_presigned_or_signed(signer, order_hash, order.sign)))
        answers = self._together.ask(calls)
        number, consumed, *rest = answers
        stake = self._reads.account(signer).decode(_result(rest.pop(0))).stake if needs_stake else 0
        if not signed:
            verdict = rest.pop(0)
            signed = not isinstance(verdict, RemoteError) and self._reads.is_presigned_or_signed(
                signer, order_hash, order.sign
            ).decode(parse_hex(verdict))
        return PublicationFacts(
            signer=signer,
            signed=signed,
            consumed=self._reads.consumed(order_hash).decode(_result(consumed)),
            stake=stake,
            block=parse_quantity(_checked(number)),
        )

    def forget_owner(self, resource: Address) -> None:
        with self._lock:
            self._owners.pop(resource, None)

    def head_number(self) -> int:
        return self._rpc.block_number()

    def deals(self, deal_ids: list[Bytes32], *, block: int) -> list[Deal | None]:
        found = read_each(self._rpc, [self._reads.deal(deal_id) for deal_id in deal_ids], block=block)
        if None in found:
            # The node's answers are of two chains: the next poll sees the reorganisation.
            raise UnavailableError("the node does not know a deal that it told of", code="chain-changed")
        return [deal if isinstance(deal, Deal) else None for deal in found]

    def stake(self, account: Address, *, block: int) -> int:
        return self._rpc.read(self._reads.account(account), block=block).stake

    def _signer(self, order: Order) -> tuple[Address | None, bool]:
        """Who must have signed, and whether that is a contract; None when the resource is not registered."""
        resource = order.resource
        now = time.monotonic()
        with self._lock:
            known = self._owners.get(resource)
        if known is not None and now - known[0] < OWNER_SECONDS:
            return known[1], known[2]
        if order.kind is OrderKind.REQUEST:
            owner = resource
        else:
            registry = self._registry(order.kind)
            registered, answer = self._rpc.try_batch(
                [self._call(registry.is_registered(resource)), self._call(self._reads.owner_of(resource))]
            )
            if not registry.is_registered(resource).decode(_result(registered)):
                return None, False
            owner = self._reads.owner_of(resource).decode(_result(answer))
        is_contract = bool(self._rpc.code(owner, block="latest"))
        with self._lock:
            self._owners[resource] = (now, owner, is_contract)
            self._owners.move_to_end(resource)
            while len(self._owners) > _MAX_OWNERS:
                self._owners.popitem(last=False)
        return owner, is_contract

    def _registry(self, kind: OrderKind) -> RegistryReads:
        found = self._registries.get(kind)
        if found is None:
            address = self._rpc.read(self._reads.contract(REGISTERED[kind]), block="latest")
            found = self._registries[kind] = RegistryReads(address)
        return found

    @staticmethod
    def _call(read: Read[Any]) -> Request:
        return "eth_call", [{"to": str(read.to), "data": to_hex(read.data)}, block_parameter("latest")]


def _is_signed_by(order: Order, order_hash: Bytes32, signer: Address) -> bool:
    try:
        return recover_address(order_hash.raw, order.sign) == signer
    except VerificationError:
        return False


def _checked(answer: object) -> object:
    if isinstance(answer, RemoteError):
        raise answer
    return answer


def _result(answer: object) -> bytes:
    return parse_hex(_checked(answer))
