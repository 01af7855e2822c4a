"""``cloister network``: what a network consists of."""

from __future__ import annotations

import click

from cloister.cli.session import Session, options


@click.group()
def network() -> None:
    """Addresses and URLs of a network."""


@network.command()
@options
def describe(session: Session) -> None:
    """Print every URL and address of the network."""
    from cloister.sdk.home import load_description

    description = load_description(session.network)

    def draw() -> None:
        from cloister.cli.render import facts

        facts(list(description.to_json().items()))

    session.show(description.to_json(), draw)
