"""``cloister serve``: one service of a network by itself, in the foreground."""

from __future__ import annotations

import click

PARTS = ("market", "sms", "scheduler", "indexer", "gateway", "compass", "resultproxy", "collateral", "worker")


@click.command()
@click.argument("service", type=click.Choice(PARTS))
@click.option(
    "--network",
    "-n",
    "name",
    default="local",
    show_default=True,
    help="Name of a network of this machine.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=7310, show_default=True, help="Port to listen on.")
@click.option("--slots", default=2, show_default=True, help="worker: tasks at once.")
def serve(service: str, name: str, host: str, port: int, slots: int) -> None:
    """Run SERVICE with the state of a network on this machine. Logs go to stderr."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if service == "worker":
        from cloister.network.worker import run_worker

        run_worker(name, slots=slots)
        return
    from cloister.network.composition import load_backends, serve_part

    serve_part(service, load_backends(name), host=host, port=port)
