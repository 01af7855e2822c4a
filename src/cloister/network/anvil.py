"""The local chain: anvil under supervision, with blocks on demand and durable checkpoints.

Facts this file is built on (measured on anvil 1.7.1):

* ``--state`` loses everything on kill -9 and ``--state-interval`` may leave truncated JSON, so we checkpoint ourselves:
  ``anvil_dumpState``, temporary file, fsync, rename. A chain that was killed goes back by at most one checkpoint interval;
  readers see that as a reorganisation and senders send again what is missing.
* Automine livelocks past about a thousand queued transactions, and empty blocks make every later request slower, so we mine
  on a fixed grid of ``block_time`` but only when something is pending, plus a slow heartbeat block that keeps the clock moving.
* ethers keeps an account's transaction count for 250 ms. A transaction that is mined sooner lets its sender's next one go out
  with the old count (``nonce too low``), which no public chain ever does. So a block waits until every transaction in it is
  ``COUNT_SECONDS`` old. Those of ``operators`` come from our own senders, which count for themselves, and wait only
  ``SETTLE_SECONDS``, so that what is sent together is mined together.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.chain.rpc import JsonRpc, parse_quantity
from cloister.errors import CloisterError, ConfigurationError, UnavailableError
from cloister.files import write_durably
from cloister.network.children import die_with_parent
from cloister.protocol.codec import Address

logger = logging.getLogger(__name__)

ANVIL_VERSION = "1.7.1"
"""The pinned npm package version; package.json at the repository root names the same."""

CHAIN_ID = 421614
"""iExec's DataProtector clients accept no other id on a private chain."""

HEARTBEAT_SECONDS = 12.0
CHECKPOINT_SECONDS = 0.5
COUNT_SECONDS = 0.26
"""How old a transaction must be before it is mined."""
SETTLE_SECONDS = 0.06
"""The same for an operator's."""
COUNT_MOST = 0.8
"""A pool in which some transaction is always younger is mined after this many seconds all the same."""
CROWD = 200
"""A pool with more transactions than this is mined without a look at each."""
LOOK_SECONDS = 0.02
IDLE_SECONDS = 0.1
"""Longest pause between looks at an empty pool."""
GAS_LIMIT = 60_000_000


def find_anvil() -> Path:
    """Path of the anvil binary: ``CLOISTER_ANVIL``, then the npm package near us, then ``PATH``.

    Raises:
        ConfigurationError: there is none; the hint holds the command that installs it.
    """
    named = os.environ.get("CLOISTER_ANVIL")
    if named:
        if not os.access(named, os.X_OK):
            raise ConfigurationError(f"CLOISTER_ANVIL names no executable: {named}")
        return Path(named)
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower(), ""
    )
    package = f"anvil-{sys.platform}-{machine}"
    for root in (Path(__file__).parents[3], Path.cwd(), _tools_folder()):
        binary = root / "node_modules" / "@foundry-rs" / package / "bin" / "anvil"
        if os.access(binary, os.X_OK):
            return binary
    on_path = shutil.which("anvil")
    if on_path:
        return Path(on_path)
    raise ConfigurationError(
        "the local chain's program anvil is not installed",
        hint=f"npm install --ignore-scripts --prefix {_tools_folder()} @foundry-rs/anvil@{ANVIL_VERSION}",
    )


def _tools_folder() -> Path:
    home = os.environ.get("CLOISTER_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share" / "cloister") / "tools"


@dataclass(frozen=True, slots=True)
class ChainOptions:
    """How the local chain runs. ``block_time`` and ``heartbeat`` in seconds; ``port`` on loopback.

    ``operators``: accounts whose transactions are mined without a wait.
    """

    state_folder: Path
    port: int
    chain_id: int = CHAIN_ID
    block_time: float = 0.2
    heartbeat: float = HEARTBEAT_SECONDS
    operators: frozenset[Address] = frozenset()


class LocalChain:
    """Anvil, supervised. ``start`` returns when it answers; it is started again from its checkpoint when it dies."""

    def __init__(self, options: ChainOptions) -> None:
        self._options = options
        self._binary = find_anvil()
        self._checkpoint = options.state_folder / "chain.json.gz"
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._dirty = threading.Event()
        self._checkpoint_lock = threading.Lock()
        self._operators = frozenset(address.lower() for address in options.operators)
        self._seen: dict[str, float] = {}
        self.url = f"http://127.0.0.1:{options.port}"
        self._rpc = JsonRpc(self.url)

    def start(self) -> None:
        """Start the chain and its block producer.

        Raises:
            ConfigurationError: the port is taken.
            UnavailableError: anvil did not come up.
        """
        self._options.state_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._options.state_folder.glob(f".{self._checkpoint.name}.*.tmp"):
            left.unlink(missing_ok=True)  # of a checkpoint that a kill cut short
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self._options.port))
            except OSError as error:
                raise ConfigurationError(
                    f"port {self._options.port} for the chain is taken", hint="stop what uses it, or give --chain-port"
                ) from error
        self._launch()
        for target in (self._produce_blocks, self._keep_checkpoints):
            thread = threading.Thread(target=target, name=f"chain-{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Checkpoint, then stop the chain. Safe to call twice."""
        if self._stop.is_set():
            return
        # The checkpoint comes first: the kernel ties the child to the thread that launched it, which may be the producer's.
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(CloisterError):
                self.checkpoint()
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        if process.poll() is None:
            process.kill()

    def checkpoint(self) -> None:
        """Write the whole state durably; the old checkpoint stays until the new one is complete on disk."""
        with self._checkpoint_lock:
            dump = self._rpc.call("anvil_dumpState")
            data = bytes.fromhex(str(dump).removeprefix("0x"))
            write_durably(self._checkpoint, data)

    def _launch(self) -> None:
        command = [
            str(self._binary),
            *("--host", "127.0.0.1", "--port", str(self._options.port), "--chain-id", str(self._options.chain_id)),
            *("--no-mining", "--order", "fifo", "--silent", "--gas-limit", str(GAS_LIMIT), "--hardfork", "cancun"),
        ]
        if self._checkpoint.exists():
            state = self._options.state_folder / "chain.load.json"
            state.write_bytes(_unpacked(self._checkpoint))
            command += ["--load-state", str(state)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self._options.state_folder / "anvil.log").open("ab"),
            preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509  (the child only calls prctl)
        )
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(CloisterError):
                if int(str(self._rpc.call("eth_chainId")), 16) == self._options.chain_id:
                    return
            time.sleep(0.02)
        raise UnavailableError(
            f"the local chain did not come up on port {self._options.port}",
            hint=f"read {self._options.state_folder / 'anvil.log'}",
        )

    def _produce_blocks(self) -> None:
        """Mine when something is pending, at most once in ``block_time``; bring the chain back when it died."""
        last_block = time.monotonic()
        while not self._stop.is_set():
            rest = last_block + self._options.block_time - time.monotonic()
            if self._stop.wait(rest if rest > 0 else min(self._options.block_time, IDLE_SECONDS)):
                return
            try:
                pending = self._old_enough()
                if pending or time.monotonic() - last_block >= self._options.heartbeat:
                    self._rpc.call("evm_mine")
                    last_block = time.monotonic()
                    if pending:
                        self._dirty.set()
            except CloisterError as error:
                if self._stop.is_set():
                    return
                if self._process is not None and self._process.poll() is not None:
                    logger.warning(
                        "the local chain died (exit %s); starting it from its checkpoint", self._process.returncode
                    )
                    with contextlib.suppress(CloisterError):
                        self._launch()
                else:
                    logger.warning("the local chain did not answer: %s", error)

    def _old_enough(self) -> int:
        """How many transactions wait, once each may be mined."""
        started = time.monotonic()
        while (pending := self._pending()) and pending <= CROWD:
            now = time.monotonic()
            waits = self._waits()
            self._seen = {name: self._seen.get(name, now) for name in waits}
            young = any(now - self._seen[name] < wait for name, wait in waits.items())
            if not young or now - started >= COUNT_MOST or self._stop.wait(LOOK_SECONDS):
                break
        return pending

    def _waits(self) -> dict[str, float]:
        """Hash of each transaction that could be mined now, and how old it must be."""
        content = self._rpc.call("txpool_content")
        senders = content.get("pending") if isinstance(content, Mapping) else None
        if not isinstance(senders, Mapping):
            raise UnavailableError("the local chain does not tell its pending transactions")
        return {
            str(item["hash"]): SETTLE_SECONDS if str(sender).lower() in self._operators else COUNT_SECONDS
            for sender, waiting in senders.items()
            for item in waiting.values()
        }

    def _pending(self) -> int:
        """How many transactions could be mined now."""
        status = self._rpc.call("txpool_status")
        if not isinstance(status, Mapping):
            raise UnavailableError("the local chain does not tell its pending transactions")
        return parse_quantity(status["pending"])

    def _keep_checkpoints(self) -> None:
        """Checkpoint soon after blocks with transactions, using at most a fifth of the time."""
        pause = CHECKPOINT_SECONDS
        while not self._stop.is_set():
            if not self._dirty.wait(timeout=0.2):
                continue
            self._dirty.clear()
            started = time.monotonic()
            try:
                self.checkpoint()
            except CloisterError as error:
                logger.warning("checkpoint of the local chain failed: %s", error)
                self._dirty.set()
            pause = max(CHECKPOINT_SECONDS, 4 * (time.monotonic() - started))
            self._stop.wait(pause)


def _unpacked(checkpoint: Path) -> bytes:
    try:
        data = gzip.decompress(checkpoint.read_bytes())
        json.loads(data)
    except (OSError, EOFError, ValueError) as error:
        raise ConfigurationError(
            f"the chain's checkpoint cannot be read: {checkpoint}", hint="remove the network's folder to begin anew"
        ) from error
    return data
