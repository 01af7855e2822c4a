"""A real chain for benches, without the local network around it: anvil that mines each transaction at once."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from cloister.chain.journal import Journal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import TransactionSender
from cloister.network.anvil import find_anvil
from cloister.network.children import die_with_parent
from cloister.network.deployment import Deployment, Settings, deploy
from cloister.protocol.codec import keccak256
from cloister.protocol.signatures import PrivateKey

CHAIN_ID = 421614
FUNDS = 10**21
"""Wei of every account."""
START_SECONDS = 30


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    """Wait until something listens.

    Raises:
        RuntimeError: nothing did in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing answers on port {port}")


@contextlib.contextmanager
def running_chain() -> Iterator[str]:
    """The URL of a new chain, with the rules that the local network runs under."""
    port = free_port()
    command = [str(find_anvil()), "--host", "127.0.0.1", "--port", str(port), "--chain-id", str(CHAIN_ID)]
    process = subprocess.Popen(
        [*command, "--hardfork", "cancun", "--gas-limit", "60000000", "--silent"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509  (the child only calls prctl)
    )
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def account(rpc: JsonRpc, name: str) -> PrivateKey:
    """A funded account, the same for a name each time."""
    key = PrivateKey(keccak256(f"bench {name}".encode()))
    rpc.call("anvil_setBalance", key.address, hex(FUNDS))
    return key


def deploy_contracts(rpc: JsonRpc, folder: Path, settings: Settings | None = None) -> Deployment:
    """All contracts, deployed and verified as the network does it."""
    journal = Journal(folder / "deployer.sqlite")
    return deploy(rpc, TransactionSender(rpc, account(rpc, "deployer"), journal), settings)
