"""The order books: list, show, sign, publish, cancel."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

from cloister.clients.market import OrderRecord
from cloister.errors import Denied, NotFound
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.orders import Operation, Order, OrderKind, RequestOrder, WorkerpoolOrder, sign_order
from cloister.protocol.tags import TEE_TDX, Tag
from cloister.protocol.units import parse_nrlc
from cloister.sdk.connection import Connection


class Orders:
    """Orders on the market and on chain."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, kind: OrderKind, **filters: Any) -> Iterator[OrderRecord]:
        """Open orders of a kind; filters are the market's (``app=``, ``dataset=``, ``requester=``, …)."""
        return self._connection.market.orders(kind, **filters)

    def show(self, kind: OrderKind, order_hash: str) -> OrderRecord:
        """One order, whatever its state.

        Raises:
            NotFound: the market never saw it.
        """
        return self._connection.market.order(kind, order_hash)

    def publish_workerpool(
        self,
        workerpool: str,
        *,
        price: str | int = 0,
        category: int = 0,
        volume: int = 1000,
        trust: int = 0,
        tag: Tag = TEE_TDX,
    ) -> Bytes32:
        """Offer a workerpool's service; its owner must have staked 30 % of the price for each task."""
        connection = self._connection
        order = sign_order(
            WorkerpoolOrder(
                workerpool=Address(workerpool),
                workerpoolprice=parse_nrlc(price),
                volume=volume,
                tag=tag,
                category=category,
                trust=trust,
                apprestrict=ZERO_ADDRESS,
                datasetrestrict=ZERO_ADDRESS,
                requesterrestrict=ZERO_ADDRESS,
                salt=Bytes32.from_raw(secrets.token_bytes(32)),
            ),
            connection.signer,
            connection.domain,
        )
        return connection.market.publish(order, connection.signer)

    def cancel(self, kind: OrderKind, order: Order | str) -> str:
        """Close an order on chain, for good. Returns the transaction's hash.

        Raises:
            NotFound: the market never saw the order of that hash.
            Denied: the wallet may not close it.
        """
        connection = self._connection
        closing = self.show(kind, order).order if isinstance(order, str) else order
        owner = self._owner(closing)
        if owner != connection.address:
            raise Denied(f"the order is {owner}'s, not {connection.address}'s", hint="use its signer's wallet")
        order_hash = closing.hash(connection.domain)
        call = connection.hub.manage_order(closing, Operation.CLOSE)
        return connection.sender.send(call, intent=f"close:{order_hash}").transaction

    def _owner(self, order: Order) -> Address:
        if isinstance(order, RequestOrder):
            return order.requester
        owner = self._connection.hub.owner_of(order.resource, block="latest")
        if owner is None:
            raise NotFound(f"nothing deployed at {order.resource}")
        return owner
