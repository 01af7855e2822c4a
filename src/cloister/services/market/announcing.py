"""Builds what live clients are told (reference 3.1, socket.io): who listens decides whether anything is read for it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, select

from cloister.protocol.orders import OrderKind
from cloister.services.market.records import render_order
from cloister.services.market.tables import ORDERS

ORDERS_TOPIC = "orders"
DEALS_TOPIC = "deals"
TOPICS = (ORDERS_TOPIC, DEALS_TOPIC)
_PART = 500

Event = tuple[str, str, Any]
"""Topic, name and payload."""


class Audience(Protocol):
    """Who hears events. Safe to call from any thread; neither method waits or raises."""

    def has_listeners(self, topic: str) -> bool:
        """Whether anybody joined a topic."""
        ...

    def tell(self, events: Sequence[Event]) -> None:
        """Hand events to everybody who joined their topics."""
        ...


def published(kind: OrderKind, record: dict[str, Any]) -> Event:
    """An order came into the books."""
    return ORDERS_TOPIC, f"{kind.value}_published", record


def unpublished(kind: OrderKind, order_hash: str) -> Event:
    """An order's signer took it out of the books."""
    return ORDERS_TOPIC, f"{kind.value}_unpublished", order_hash


def dealt(body: str) -> Event:
    """A deal was made; ``body`` is its record as stored."""
    return DEALS_TOPIC, "deal_created", json.loads(body)


def updated(connection: Connection, order_hashes: Iterable[str], chain_id: int) -> list[Event]:
    """These orders changed what remains of them or their status: their records as they are now."""
    hashes = list(dict.fromkeys(order_hashes))
    events: list[Event] = []
    for start in range(0, len(hashes), _PART):
        rows = connection.execute(select(ORDERS).where(ORDERS.c.order_hash.in_(hashes[start : start + _PART])))
        events += [(ORDERS_TOPIC, f"{row.kind}_updated", render_order(row, chain_id)) for row in rows]
    return events
