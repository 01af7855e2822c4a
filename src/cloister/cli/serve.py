"""``cloister serve``: one service of a network by itself, in the foreground."""

from __future__ import annotations

import click

from cloister.cli.connections import app_network_option, connect_to_option

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
@click.option(
    "--enclave",
    type=click.Choice(["bubblewrap", "oci", "vm"]),
    help="worker: what tasks run in; by default what the network's description stands for.",
)
@connect_to_option("worker: lead connections of apps to HOST:PORT elsewhere.")
@app_network_option("worker: run apps that name hosts to connect to, or refuse them.")
def serve(
    service: str,
    name: str,
    host: str,
    port: int,
    slots: int,
    enclave: str | None,
    connect_to: dict[str, str],
    app_network: bool,
) -> None:
    """Run SERVICE with the state of a network on this machine. Logs go to stderr."""
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if service == "worker":
        from cloister.network.enclaves import EnclaveChoice
        from cloister.network.worker import run_worker

        choice = None if enclave is None else EnclaveChoice(enclave)
        run_worker(name, slots=slots, connect_to=connect_to, app_network=app_network, enclave=choice)
        return
    from cloister.network.composition import load_backends, serve_part

    serve_part(service, load_backends(name), host=host, port=port)
