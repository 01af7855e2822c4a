"""``cloister account``: balances, deposits, withdrawals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cloister.cli.session import Session, options, party

if TYPE_CHECKING:
    from cloister.sdk.account import Balances


@click.group()
def account() -> None:
    """Balances, deposits, withdrawals."""


@account.command()
@click.argument("address", required=False)
@options
def balances(session: Session, address: str | None) -> None:
    """Show the money of ADDRESS (default: the wallet's)."""
    shown = session.protector(needs_wallet=address is None).account.balances(party(session, address))
    session.show(shown.to_json(), lambda: _draw(shown))


@account.command()
@click.argument("amount")
@options
def deposit(session: Session, amount: str) -> None:
    """Move AMOUNT (such as "5 RLC") from the wallet into the hub's account, where deals are paid from."""
    shown = session.protector().account.deposit(amount)
    session.show(shown.to_json(), lambda: _draw(shown))


@account.command()
@click.argument("amount")
@options
def withdraw(session: Session, amount: str) -> None:
    """Move AMOUNT of free stake back to the wallet."""
    shown = session.protector().account.withdraw(amount)
    session.show(shown.to_json(), lambda: _draw(shown))


def _draw(shown: Balances) -> None:
    from cloister.cli.render import facts, rlc

    facts(
        [
            ("account", shown.address),
            ("gas", f"{shown.wei / 10**18:.6f} ETH"),
            ("wallet", rlc(shown.wallet)),
            ("stake", rlc(shown.stake)),
            ("locked", rlc(shown.locked)),
        ]
    )
