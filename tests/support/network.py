"""A whole local network for tests: real chain, real services, real worker with real enclaves, fresh wallets with money.

``live_network`` starts one in this process, as ``cloister up`` does, and looks after its worker until the end. Wallets are
made anew for every test, so that balances can be asserted to the last nRLC while other tasks run.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from cloister import DataProtector
from cloister.chain.rpc import JsonRpc
from cloister.network.local import LocalNetwork, LocalOptions
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.units import Nrlc, parse_nrlc
from cloister.sdk.account import Balances
from cloister.sdk.processing import Run
from cloister.sdk.tasks import TaskView
from cloister.sdk.wallet import Wallet

T = TypeVar("T")
ETHER = 10**18
RUN_PRICE = parse_nrlc("0.02 RLC")
"""What the workerpool of a local network asks for one task of category 0."""

BANK = "alice"
"""The demo account that pays new wallets."""


@dataclass
class LiveNetwork:
    """A network that is up. ``home`` is its ``CLOISTER_HOME``."""

    home: Path
    network: LocalNetwork
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """Its name."""
        return self.network.description.name

    @property
    def rpc(self) -> JsonRpc:
        """Its chain."""
        return JsonRpc(self.network.description.rpc_url)

    def connect(self, wallet: Wallet | str | Path | None) -> DataProtector:
        """The SDK as ``wallet`` (or a demo account's role)."""
        return DataProtector.connect(self.name, wallet=wallet)

    def newcomer(self, *, wallet: str = "0", stake: str = "0") -> DataProtector:
        """Somebody new with ether for gas, ``wallet`` in the wallet and ``stake`` in the hub."""
        key = PrivateKey(secrets.token_bytes(32))
        self.give(key.address, ether=ETHER, rlc=parse_nrlc(wallet) + parse_nrlc(stake))
        protector = self.connect(Wallet(key))
        if parse_nrlc(stake):
            protector.account.deposit(stake)
        return protector

    def give(self, account: Address, *, ether: int, rlc: int) -> None:
        """Set an account's ether (wei) and send it ``rlc`` (nRLC)."""
        self.rpc.call("anvil_setBalance", str(account), hex(ether))
        if rlc:
            with self._lock:
                bank = self.connect(BANK).connection
                gift = bank.rlc.transfer(account, Nrlc(rlc))
                bank.sender.send(gift, intent=bank.sender.fresh_intent(f"gift:{account}"))

    def key_file(self, protector: DataProtector) -> Path:
        """A key file of somebody's wallet, for the command line."""
        path = self.home / "keys" / f"{protector.connection.address.lower()}.key"
        path.parent.mkdir(exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.write_text("0x" + protector.connection.signer.unprotected_raw().hex())
        return path

    def short_category(self, seconds: int) -> int:
        """A category whose tasks time out after ``10 * seconds``, offered free of charge; returns its number."""
        deployer, scheduler = self.connect("deployer").connection, self.connect("scheduler")
        call = deployer.hub.create_category("XXS", "for tests that wait for the end", seconds)
        receipt = deployer.sender.send(call, intent=deployer.sender.fresh_intent("category"))
        category = deployer.hub.created_category(receipt)
        scheduler.orders.publish_workerpool(
            self.network.description.workerpool, price=RUN_PRICE, category=category, volume=1000
        )
        return category

    def balances(self, *people: DataProtector | str) -> list[Balances]:
        """Money of people or roles, in that order."""
        return [(self.connect(person) if isinstance(person, str) else person).account.balances() for person in people]


@contextmanager
def live_network(home: Path, name: str = "local", **options: object) -> Iterator[LiveNetwork]:
    """Start a network under ``home`` and stop it at the end. ``CLOISTER_HOME`` is set meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOISTER_HOME", str(home))
        settings = {"port": 0, "chain_port": 0, **options}
        network = LocalNetwork(LocalOptions(name=name, **settings))  # type: ignore[arg-type]
        network.start()
        ended = threading.Event()
        keeper = threading.Thread(target=_look_after, args=(network, ended), daemon=True)
        keeper.start()
        try:
            yield LiveNetwork(home, network)
        finally:
            ended.set()
            keeper.join()
            network.stop()


def _look_after(network: LocalNetwork, ended: threading.Event) -> None:
    while not ended.wait(0.25):
        network.check()


def wait_for(what: str, look: Callable[[], T | None], *, seconds: float = 30.0) -> T:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.05)
    pytest.fail(f"{what}: not seen in {seconds:g} s")


def wait_for_stage(protector: DataProtector, run: Run, stage: str, *, seconds: float = 40.0) -> TaskView:
    """Wait until the scheduler says ``stage`` of a task."""

    def look() -> TaskView | None:
        view = protector.tasks.status(run.task_id, deal_id=run.deal_id)
        return view if view.stage == stage else None

    return wait_for(f"task {run.task_id} at {stage}", look, seconds=seconds)


def changes(before: list[Balances], after: list[Balances]) -> list[int]:
    """What each has more in the hub's account (free and locked together), nRLC."""
    return [
        (late.stake + late.locked) - (early.stake + early.locked) for early, late in zip(before, after, strict=True)
    ]


# --- iApps ---

PROBE = '''
"""An iApp for tests. The first argument says what to do."""
import hashlib, json, os, signal, socket, subprocess, sys, time
from pathlib import Path

from cloister.datasets.reader import ProtectedDataReader
from cloister.errors import NotFound

out, action, rest = Path(os.environ["IEXEC_OUT"]), (sys.argv[1] if len(sys.argv) > 1 else "look"), sys.argv[2:]


def look():
    """Says what the app was given."""
    data = {}
    try:
        with ProtectedDataReader() as reader:
            for entry in reader.entries():
                content = reader.read(entry.path)
                if isinstance(content, bytes):
                    content = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "head": content[:8].hex()}
                data[entry.path] = content
    except NotFound:
        data = None
    secrets = {k: v for k, v in os.environ.items() if "SECRET" in k}
    return {"args": rest, "data": data, "secrets": secrets, "task": os.environ["IEXEC_TASK_ID"]}


def eat_memory():
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 16) * 128))


def fill_disk():
    with (out / "big").open("wb") as file:
        for _ in range(10 * 1024):
            file.write(bytes(1 << 20))


def many_files():
    for number in range(60_000):
        (out / str(number)).touch()


def stubborn():
    for number in set(range(1, 32)) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(3600)


def pry():
    """Tries what it may not, and says what was allowed."""
    doors = {
        "write outside": lambda: open("/app/x", "w"),
        "write above the results": lambda: open("/iexec_out/../x", "w"),
        "read the agent's memory": lambda: open(f"/proc/{os.getppid()}/mem", "rb").read(1),
        "open a socket": lambda: socket.create_connection(("1.1.1.1", 53), 1),
        "a socket's name": lambda: socket.getaddrinfo("example.org", 443),
    }
    allowed = []
    for name, door in doors.items():
        try:
            door()
            allowed.append(name)
        except OSError:
            pass
    print("the data:", look()["data"], flush=True)
    return allowed


def fork():
    children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(500)]
    [child.wait() for child in children]


print("the app says", action, *rest, flush=True)
print("and complains", file=sys.stderr, flush=True)
if action == "crash":
    raise SystemExit(3)
if action == "hang":
    time.sleep(3600)
if action == "memory":
    eat_memory()
if action == "disk":
    fill_disk()
if action == "fork":
    fork()
if action == "files":
    many_files()
if action == "stubborn":
    stubborn()
if action == "nothing":
    raise SystemExit(0)
if action == "sleep":
    time.sleep(float(rest[0]))
name = "answer.json"
(out / name).write_text(json.dumps(pry() if action == "pry" else look(), sort_keys=True))
computed = {"deterministic-output-path": str(out / name)}
if action == "escape":
    computed = {"deterministic-output-path": str(out / "../x")}
if action == "callback":
    computed = {"callback-data": "0x" + rest[0]}
(out / "computed.json").write_text(json.dumps(computed))
'''

MANIFEST = """
name = "{name}"
version = "1.0.0"
entrypoint = "{entrypoint}"
runtime = "python3"
network = []
purposes = ["research"]

[resources]
memory_mib = 192
disk_mib = 16
seconds = {seconds}
processes = 32
"""


def write_app(
    folder: Path, *, name: str = "probe", code: str = PROBE, seconds: int = 20, entrypoint: str = "main.py"
) -> Path:
    """The source folder of a small iApp."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "iapp.toml").write_text(MANIFEST.format(name=name, seconds=seconds, entrypoint=entrypoint))
    (folder / "main.py").write_text(code)
    return folder


def process_exists(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def result_digest(live: LiveNetwork, task_id: Bytes32) -> Bytes32:
    """The result digest that the chain has."""
    task = live.connect(None).connection.hub.task(task_id, block="latest")
    assert task is not None
    return task.result_digest


def environment(home: Path) -> dict[str, str]:
    """What a child process of the command line gets."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "CLOISTER_ANVIL")
    return {name: value for name, value in os.environ.items() if name in kept} | {"CLOISTER_HOME": str(home)}
