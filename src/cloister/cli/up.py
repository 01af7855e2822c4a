"""``cloister up``, ``down``, ``status``: a whole network on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloister.cli.connections import app_network_option, connect_to_option
from cloister.errors import Conflict, NotFound, UnavailableError

if TYPE_CHECKING:
    from cloister.network.local import LocalNetwork

STOP_SECONDS = 30
LOG_BYTES = 16 << 20


@click.command()
@click.option(
    "--name", default="local", show_default=True, help="Name of the network; its state is kept under this name."
)
@click.option("--rpc", "rpc_url", metavar="URL", help="Use the chain that runs at URL instead of starting one.")
@click.option("--port", default=7300, show_default=True, help="Port of all services on loopback.")
@click.option("--chain-port", default=8545, show_default=True, help="Port of the local chain.")
@click.option("--block-time", default=0.2, show_default=True, help="Seconds between blocks of the local chain.")
@click.option("--deployer-key", type=click.Path(path_type=Path), help="With --rpc: key file of an account with ether.")
@click.option("--slots", default=2, show_default=True, help="Tasks that the worker runs at once.")
@click.option("--run-price", default="0.02 RLC", show_default=True, help="What the workerpool asks for one task.")
@click.option(
    "--enclave",
    type=click.Choice(["bubblewrap", "oci", "vm"]),
    default="bubblewrap",
    show_default=True,
    help="What tasks run in: a sandbox, or a container (podman or docker, with gVisor when installed), both with "
    "SIMULATED evidence; or a measured virtual machine.",
)
@click.option("--detach", is_flag=True, help="Return when it is ready; it goes on without a terminal.")
@connect_to_option("Lead connections of apps to HOST:PORT elsewhere, as curl --connect-to.")
@app_network_option("Run apps that name hosts to connect to, or refuse them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line when ready.")
def up(
    name: str,
    rpc_url: str | None,
    port: int,
    chain_port: int,
    block_time: float,
    deployer_key: Path | None,
    slots: int,
    run_price: str,
    enclave: str,
    detach: bool,
    connect_to: dict[str, str],
    app_network: bool,
    as_json: bool,
) -> None:
    """Start chain, contracts, market, SMS, scheduler, indexer, storage and one worker; stop with Ctrl-C (or cloister down).

    State is kept: the next start goes on where this one stopped.
    """
    from cloister.network.enclaves import EnclaveChoice
    from cloister.network.local import LocalNetwork, LocalOptions
    from cloister.network.state import is_up
    from cloister.protocol.units import parse_nrlc

    price = parse_nrlc(run_price)
    if is_up(name):
        raise Conflict(f"the network {name} is up already", hint=f"cloister down --name {name}")
    if detach:
        _detach(name, as_json=as_json)
        return
    _log_to_file(name)
    network = LocalNetwork(
        LocalOptions(
            name=name,
            port=port,
            chain_port=chain_port,
            block_time=block_time,
            rpc_url=rpc_url,
            deployer_key=deployer_key,
            slots=slots,
            run_price=price,
            enclave=EnclaveChoice(enclave),
            connect_to=connect_to,
            app_network=app_network,
        )
    )
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        network.start(announce=(lambda text: None) if as_json else lambda text: click.secho(text, dim=True, err=True))
        _announce(network, as_json=as_json)
        while not stop.wait(0.5):
            network.check()
    finally:
        if not as_json:
            click.secho("stopping", dim=True, err=True)
        network.stop()


def _detach(name: str, *, as_json: bool) -> None:
    """Start the same command in the background and say what it announces."""
    from cloister.network.background import start_in_background
    from cloister.network.state import NetworkState
    from cloister.protocol.networks import parse_network

    options = [word for word in sys.argv[2:] if word not in ("--detach", "--json")]
    announced = start_in_background(name, options)
    if as_json:
        click.echo(json.dumps(announced))
        return
    from cloister.cli.render import enclave_notice, facts, table

    description = parse_network(announced["network"])
    click.secho(f"network {description.name} is up ({announced['ready_seconds']:.1f} s)", bold=True)
    facts([("services", description.origin), ("chain", description.rpc_url), ("log", NetworkState(name).path("logs"))])
    table("demo accounts (use with --as)", ("role", "address"), announced["accounts"].items())
    enclave_notice(description.enclave_kind)
    click.echo("stop: cloister down")


def _log_to_file(name: str) -> None:
    """Keep what the services log in the network's folder: the terminal is for the user."""
    import logging
    from logging.handlers import RotatingFileHandler

    from cloister.network.state import NetworkState

    path = NetworkState(name).path("logs", "services.log")
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        handlers=[RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)],
    )


def _announce(network: LocalNetwork, *, as_json: bool) -> None:
    description = network.description
    accounts = network.demo_addresses()
    if as_json:
        click.echo(
            json.dumps(
                {
                    "ready_seconds": round(network.ready_seconds, 2),
                    "network": description.to_json(),
                    "accounts": accounts,
                }
            )
        )
        sys.stdout.flush()
        return
    from cloister.cli.render import enclave_notice, facts, table

    click.secho(f"\nnetwork {description.name} is up ({network.ready_seconds:.1f} s)", bold=True)
    facts(
        [
            ("services", description.origin),
            ("chain", f"{description.rpc_url}  (chain id {description.chain_id})"),
            ("hub", description.contracts.hub),
            ("workerpool", description.workerpool),
        ]
    )
    table("\ndemo accounts (use with --as)", ("role", "address", "wallet", "stake"), network.demo_rows())
    enclave_notice(description.enclave_kind)
    click.echo("\nnext: cloister demo          stop: Ctrl-C")


@click.command()
@click.option("--name", default="local", show_default=True, help="Name of the network.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def down(name: str, as_json: bool) -> None:
    """Stop the network that runs under this name, cleanly."""
    from cloister.network.state import running_process

    process = running_process(name)
    if process is None:
        raise NotFound(f"no network named {name} runs here", hint="cloister up")
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running_process(name) is not None:
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"the network {name} (process {process}) did not stop in {STOP_SECONDS} s", hint=f"kill -9 {process}"
            )
        time.sleep(0.1)
    click.echo(json.dumps({"stopped": name}) if as_json else f"stopped {name}")


@click.command()
@click.option("--name", default="local", show_default=True, help="Name of the network.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def status(name: str, as_json: bool) -> None:
    """Ask every service whether it is ready."""
    from cloister.network.enclaves import noted_runtime
    from cloister.network.state import NetworkState, readiness
    from cloister.sdk.home import load_description

    description = load_description(name)
    parts = readiness(description.origin)
    enclaves = noted_runtime(NetworkState(name))
    if as_json:
        click.echo(json.dumps({"origin": description.origin, "parts": parts, "enclaves": enclaves}))
    else:
        from cloister.cli.render import table

        table(f"network {name} at {description.origin}", ("service", "state"), parts.items())
        click.echo(f"enclaves: {enclaves or 'the worker has not started yet'}; {description.enclave_kind} evidence")
    if any(state != "ok" for state in parts.values()):
        raise UnavailableError("not every service is ready", hint="read the log in the network's folder")
