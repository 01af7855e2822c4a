"""What the market asks the chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.deals import Deal
from cloister.protocol.orders import Order, OrderKind


@dataclass(frozen=True, slots=True)
class PublicationFacts:
    """What the rules of publication need to know, at one block.

    ``signer`` is the owner of the resource (the requester for requests), None when the resource is not registered.
    ``consumed`` counts uses of the order; a closed order is wholly consumed. ``stake`` is the signer's free stake
    in nRLC.
    """

    signer: Address | None
    signed: bool
    consumed: int
    stake: int
    block: int


class MarketLedger(Protocol):
    """Reads of the chain. Safe to call from several threads; raises ``UnavailableError`` when no node answers."""

    def publication_facts(self, order: Order, order_hash: Bytes32) -> PublicationFacts:
        """Everything about an order that publishing asks for, in one round trip."""
        ...

    def forget_owner(self, resource: Address) -> None:
        """Ask anew who owns a resource: it changed hands."""
        ...

    def head_number(self) -> int:
        """The newest block's number."""
        ...

    def deals(self, deal_ids: list[Bytes32], *, block: int) -> list[Deal | None]:
        """Several deals that the hub told of; None for one whose params are no text.

        Raises: UnavailableError when the node does not know one of them.
        """
        ...

    def stake(self, account: Address, *, block: int) -> int:
        """An account's free stake at a recent block, in nRLC."""
        ...


REGISTERED = {
    OrderKind.APP: "appregistry",
    OrderKind.DATASET: "datasetregistry",
    OrderKind.WORKERPOOL: "workerpoolregistry",
}
"""The hub's getter of the registry that an order's resource must stand in."""
