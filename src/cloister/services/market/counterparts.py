"""A request needs an app offer, and a dataset offer if it names a dataset, that it can use and pay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, func, select

from cloister.errors import Denied
from cloister.protocol.codec import ZERO_ADDRESS, Address
from cloister.protocol.orders import OrderKind, RequestOrder, parse_order
from cloister.protocol.tags import TEE
from cloister.services.market.store import mark_dead
from cloister.services.market.tables import ORDERS

_Prices = dict[tuple[object, ...], int | None]


def check_counterparts(connection: Connection, order: RequestOrder, known: _Prices | None = None) -> None:
    """Return when the offers are there. ``known`` keeps prices for further requests of one transaction.

    Raises: Denied in iExec's words.
    """
    known = {} if known is None else known
    tee = order.tag.has(TEE)
    restrictions = {"workerpool": order.workerpool, "requester": order.requester}
    best = _best_price(connection, OrderKind.APP, order.app, {**restrictions, "dataset": order.dataset}, tee, known)
    if best is None:
        raise Denied(f"No {'tee enabled ' if tee else ''}apporder published for app {order.app}")
    if best > order.appmaxprice:
        raise Denied(f"appmaxprice for app {order.app} is too low, actual best price is {best} nRLC")
    if order.dataset == ZERO_ADDRESS:
        return
    best = _best_price(connection, OrderKind.DATASET, order.dataset, {**restrictions, "app": order.app}, False, known)
    if best is None:
        raise Denied(f"No datasetorder published for dataset {order.dataset}")
    if best > order.datasetmaxprice:
        raise Denied(f"datasetmaxprice for dataset {order.dataset} is too low, actual best price is {best} nRLC")


def bury_stranded(connection: Connection, kind: OrderKind, resources: Mapping[str, int]) -> list[str]:
    """Mark open requests dead that no offer of these apps or datasets serves any more; returns their hashes.

    ``resources`` gives the block of each one's death: that in which the last offer went.
    """
    waiting = ORDERS.c.dataset if kind is OrderKind.DATASET else ORDERS.c.app
    known: _Prices = {}
    dead: list[str] = []
    for resource, block in resources.items():
        query = select(ORDERS.c.order_hash, ORDERS.c.body).where(
            ORDERS.c.kind == OrderKind.REQUEST.value, ORDERS.c.status == "open", waiting == resource
        )
        for order_hash, body in connection.execute(query).all():
            order = parse_order(OrderKind.REQUEST, json.loads(body))
            assert isinstance(order, RequestOrder)  # noqa: S101 - the kind says so
            try:
                check_counterparts(connection, order, known)
            except Denied:
                dead += mark_dead(connection, [ORDERS.c.order_hash == order_hash], block)
    return dead


def _best_price(
    connection: Connection,
    kind: OrderKind,
    resource: Address,
    parties: Mapping[str, Address],
    tee: bool,
    known: _Prices,
) -> int | None:
    key = (kind, resource, tee, *sorted(parties.items()))
    if key in known:
        return known[key]
    conditions: list[Any] = [ORDERS.c.kind == kind.value, ORDERS.c.status == "open", ORDERS.c.resource == str(resource)]
    conditions += [ORDERS.c[name].in_((str(ZERO_ADDRESS), str(party))) for name, party in parties.items()]
    if tee:
        conditions.append(ORDERS.c.tag_low.op("&")(TEE.bits) == TEE.bits)
    best: int | None = connection.execute(select(func.min(ORDERS.c.price)).where(*conditions)).scalar()
    known[key] = best
    return best
