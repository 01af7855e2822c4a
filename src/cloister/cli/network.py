"""``cloister network``: what a network consists of."""

from __future__ import annotations

import click

from cloister.cli.session import Session, options


@click.group()
def network() -> None:
    """Addresses and URLs of a network."""


@network.command()
@click.option("--js", is_flag=True, help="Print an ES module with the options of each of iExec's JavaScript packages.")
@options
def describe(session: Session, js: bool) -> None:
    """Print every URL and address of the network.

    With --js, ready configuration for iExec's packages; with --js --json, the same as JSON.
    """
    from cloister.sdk.home import load_description
    from cloister.sdk.javascript import build_configuration, list_urls, write_module

    description = load_description(session.network)
    if js:
        session.show(build_configuration(description), lambda: click.echo(write_module(description), nl=False))
        return
    urls = list_urls(description)

    def draw() -> None:
        from cloister.cli.render import facts

        facts(
            [("network", description.name), ("chain id", description.chain_id), ("enclaves", description.enclave_kind)]
        )
        facts(list(urls.items()))
        contracts = description.to_json()["contracts"]
        facts([*(contracts.items() if isinstance(contracts, dict) else ()), ("workerpool", description.workerpool)])
        facts([("teebroker (SMS)", description.teebroker)])

    session.show(description.to_json() | {"urls": urls}, draw)
