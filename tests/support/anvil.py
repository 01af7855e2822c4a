"""A real chain for tests: anvil on an ephemeral port of the loopback interface.

The binary is that of ``CLOISTER_ANVIL``, of ``node_modules`` at the root of the repository or of ``PATH``. Without one
the tests that need a chain are skipped and say so. Use it from a ``conftest.py``::

    from tests.support.anvil import anvil, still_anvil  # noqa: F401
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloister.chain.rpc import JsonRpc
from cloister.errors import CloisterError
from cloister.protocol.codec import keccak256
from cloister.protocol.signatures import PrivateKey

CHAIN_ID = 421614
ROOT = Path(__file__).parents[2]
FUNDS = 10**21
"""Wei given to an account by ``fund``."""


def find_anvil() -> Path | None:
    """Find the binary; None when there is none."""
    named = os.environ.get("CLOISTER_ANVIL")
    if named:
        return Path(named)
    # The package's own launcher is a script that needs node and survives its parent's death; prefer the binary itself.
    for binary in sorted((ROOT / "node_modules" / "@foundry-rs").glob("anvil-*/bin/anvil*")):
        return binary
    found = shutil.which("anvil")
    return Path(found) if found else None


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Anvil:
    """A running anvil. ``start``, ``kill`` and ``start`` again give the same chain only with ``--load-state``."""

    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the node answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def rpc(self) -> JsonRpc:
        """A new client of the node."""
        return JsonRpc(self.url)

    def start(self, *more: str) -> Anvil:
        """Start the node and wait until it answers."""
        binary = find_anvil()
        if binary is None:
            pytest.skip("no anvil: run npm ci at the root of the repository, or set CLOISTER_ANVIL")
        command = [str(binary), "--host", "127.0.0.1", "--port", str(self.port), "--chain-id", str(CHAIN_ID)]
        command += ["--silent", "--hardfork", "cancun", *self.arguments, *more]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                pytest.fail(f"anvil stopped with exit code {self.process.returncode}")
            with contextlib.suppress(CloisterError):
                self.rpc.block_number()
                return self
            time.sleep(0.02)
        self.kill()
        pytest.fail("anvil did not come up")

    def kill(self) -> None:
        """Kill the node at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def fund(self, key: PrivateKey) -> PrivateKey:
        """Give an account wei for gas."""
        self.rpc.call("anvil_setBalance", key.address, hex(FUNDS))
        return key

    def account(self, name: str) -> PrivateKey:
        """A funded account, the same for a name each time."""
        return self.fund(PrivateKey(keccak256(f"test account {name}".encode())))

    def mine(self, blocks: int = 1) -> None:
        """Mine blocks now."""
        for _ in range(blocks):
            self.rpc.call("evm_mine")

    def advance(self, seconds: int) -> None:
        """Move the chain's clock forward and mine a block."""
        self.rpc.call("evm_increaseTime", seconds)
        self.mine()


@contextlib.contextmanager
def running_anvil(*arguments: str) -> Iterator[Anvil]:
    """A node for the length of a ``with``."""
    node = Anvil(arguments).start()
    try:
        yield node
    finally:
        node.kill()


@pytest.fixture(scope="session")
def anvil() -> Iterator[Anvil]:
    """One node for the whole session that mines every transaction at once. Tests share it: use accounts of your own."""
    with running_anvil() as node:
        yield node


@pytest.fixture
def still_anvil() -> Iterator[Anvil]:
    """A node of this test's own that mines only when told to (``mine``)."""
    with running_anvil("--no-mining") as node:
        yield node
