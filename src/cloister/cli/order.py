"""``cloister order``: look into the order books, cancel orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloister.cli.session import Session, options
from cloister.protocol.orders import AppOrder, DatasetOrder, Order, RequestOrder, WorkerpoolOrder

if TYPE_CHECKING:
    from cloister.clients.market import OrderRecord

KINDS = click.Choice(["app", "dataset", "workerpool", "request"])


def _price(order: Order) -> int:
    """What the order asks, or for a request the most it pays in all, in nRLC."""
    match order:
        case AppOrder():
            return order.appprice
        case DatasetOrder():
            return order.datasetprice
        case WorkerpoolOrder():
            return order.workerpoolprice
        case RequestOrder():
            return order.appmaxprice + order.datasetmaxprice + order.workerpoolmaxprice


def _json(record: OrderRecord) -> dict[str, object]:
    return {
        "order_hash": record.order_hash,
        "status": record.status,
        "remaining": record.remaining,
        "signer": record.signer,
        "published_at": record.published_at,
        "order": record.order.to_json(),
    }


@click.group()
def order() -> None:
    """Look into the order books, cancel orders."""


@order.command("list")
@click.argument("kind", type=KINDS)
@click.option("--app", help="App, or any.")
@click.option("--dataset", help="Dataset, or any.")
@click.option("--workerpool", help="Workerpool, or any.")
@click.option("--requester", help="Requester, or any.")
@options
def list_(
    session: Session, kind: str, app: str | None, dataset: str | None, workerpool: str | None, requester: str | None
) -> None:
    """List open orders of KIND, cheapest first."""
    from cloister.protocol.orders import OrderKind

    filters = {
        "app": app or "any",
        "dataset": dataset or "any",
        "workerpool": workerpool or "any",
        "requester": requester or "any",
    }
    records = list(session.protector(needs_wallet=False).orders.list(OrderKind(f"{kind}order"), **filters))

    def draw() -> None:
        from cloister.cli.render import rlc, table

        table(
            f"open {kind} orders",
            ("order", "resource", "price", "left", "signer"),
            [(r.order_hash, r.order.resource, rlc(_price(r.order)), r.remaining, r.signer) for r in records],
        )

    session.show([_json(record) for record in records], draw)


@order.command()
@click.argument("kind", type=KINDS)
@click.argument("order_hash")
@options
def show(session: Session, kind: str, order_hash: str) -> None:
    """Show one order, whatever its state."""
    from cloister.protocol.orders import OrderKind

    record = session.protector(needs_wallet=False).orders.show(OrderKind(f"{kind}order"), order_hash)

    def draw() -> None:
        from cloister.cli.render import facts

        facts(
            [
                ("order", record.order_hash),
                ("status", record.status),
                ("left", record.remaining),
                ("signer", record.signer),
                *record.order.to_json().items(),
            ]
        )

    session.show(_json(record), draw)


@order.command()
@click.argument("kind", type=KINDS)
@click.argument("order_hash")
@options
def cancel(session: Session, kind: str, order_hash: str) -> None:
    """Close an order of the wallet on chain, for good."""
    from cloister.protocol.orders import OrderKind

    transaction = session.protector().orders.cancel(OrderKind(f"{kind}order"), order_hash)
    session.show({"order_hash": order_hash, "transaction": transaction}, lambda: click.echo(f"closed {order_hash}"))
