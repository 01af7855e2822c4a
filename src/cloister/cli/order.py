"""``cloister order``: look into the order books, cancel orders."""

from __future__ import annotations

import click

from cloister.cli.session import Session, options

KINDS = click.Choice(["app", "dataset", "workerpool", "request"])


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
def list_(session: Session, kind: str, app: str | None, dataset: str | None, workerpool: str | None, requester: str | None) -> None:
    """List open orders of KIND, cheapest first."""
    from cloister.protocol.orders import OrderKind

    filters = {"app": app or "any", "dataset": dataset or "any", "workerpool": workerpool or "any", "requester": requester or "any"}
    records = list(session.protector(needs_wallet=False).orders.list(OrderKind(f"{kind}order"), **filters))

    def draw() -> None:
        from cloister.cli.render import rlc, table

        table(
            f"open {kind} orders",
            ("order", "resource", "price", "left", "signer"),
            [(r.order_hash, r.order.resource, rlc(r.price), r.remaining, r.signer) for r in records],
        )

    session.show([record.to_json() for record in records], draw)


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

    session.show(record.to_json(), draw)


@order.command()
@click.argument("kind", type=KINDS)
@click.argument("order_hash")
@options
def cancel(session: Session, kind: str, order_hash: str) -> None:
    """Close an order of the wallet on chain, for good."""
    from cloister.protocol.orders import OrderKind

    transaction = session.protector().orders.cancel(OrderKind(f"{kind}order"), order_hash)
    session.show({"order_hash": order_hash, "transaction": transaction}, lambda: click.echo(f"closed {order_hash}"))
