"""Protecting what is larger than memory, and protecting that is cut short: nothing is paid or stored twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.network import LiveNetwork, environment

from cloister import DataProtector
from cloister.protocol.codec import Address
from cloister.protocol.signatures import PrivateKey
from cloister.sdk.apps import App
from cloister.sdk.wallet import Wallet

SIZE = 300 << 20
MEMORY = 128 << 20

PROTECT = """
import json, os, signal, sys
from pathlib import Path

from cloister import DataProtector

path, wallet, step, finished = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "True"


def listen(progress):
    if progress.step == step and progress.finished == finished:
        os.kill(os.getpid(), signal.SIGKILL)


data = DataProtector.connect(wallet=wallet, on_status=listen).protect_data(path, name=path.name)
# Not getrusage: its maximum survives exec, so it would be that of the process that runs the tests.
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
print(json.dumps({"address": data.address, "multiaddr": data.multiaddr, "peak": peak}))
"""


def protect(
    live: LiveNetwork, owner: DataProtector, path: Path, *, step: str = "", finished: bool = False
) -> subprocess.CompletedProcess[str]:
    """Protect ``path`` in a process of its own, which kills itself at ``step``."""
    return subprocess.run(
        [sys.executable, "-c", PROTECT, str(path), str(live.key_file(owner)), step, str(finished)],
        env=environment(live.home),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_large_file_is_protected_in_little_memory(live: LiveNetwork, tmp_path: Path) -> None:
    owner = live.newcomer()
    path = tmp_path / "large.bin"
    piece = os.urandom(1 << 20)
    with path.open("wb") as file:
        for number in range(SIZE >> 20):
            file.write(number.to_bytes(8, "big") + piece[8:])
    done = protect(live, owner, path)
    path.unlink()
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["peak"] < MEMORY, f"{told['peak'] >> 20} MiB"
    stored = owner.connection.store.stat(told["multiaddr"])
    assert SIZE < stored.size < SIZE * 1.001
    assert (
        owner.connection.datasets.owner_of_entry(Address(told["address"]), block="latest") == owner.connection.address
    )


@pytest.mark.parametrize(
    ("step", "finished"),
    [
        ("UPLOAD_ENCRYPTED_FILE", True),
        ("DEPLOY_PROTECTED_DATA", False),
        ("DEPLOY_PROTECTED_DATA", True),
        ("PUSH_SECRET_TO_SMS", False),
        ("PUSH_SECRET_TO_SMS", True),
    ],
)
def test_a_protection_that_was_killed_is_resumed(
    step: str, finished: bool, live: LiveNetwork, app: App, requester: DataProtector, tmp_path: Path
) -> None:
    owner = live.newcomer()
    path = tmp_path / "data.txt"
    path.write_text("resumed")
    killed = protect(live, owner, path, step=step, finished=finished)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = protect(live, owner, path)
    assert again.returncode == 0, again.stderr
    address = json.loads(again.stdout)["address"]
    connection = owner.connection
    assert connection.datasets.balance_of(connection.address, block="latest") == 1, "minted once"
    sent = int(str(live.rpc.call("eth_getTransactionCount", str(connection.address), "latest")), 16)
    assert sent == 1, "paid once"
    left = live.home / "wallets" / connection.address.lower() / "protections"
    assert not list(left.rglob("*.json")), "the key is forgotten once the SMS has it"

    me = live.connect(Wallet(PrivateKey(connection.signer.unprotected_raw())))
    me.grant_access(address, app=app, user=requester.connection.address)
    run = requester.process_protected_data(address, app=app, workerpool_max_price="0.02 RLC", timeout=60)
    (content,) = json.loads(run.result.read("answer.json"))["data"].values()
    assert content in ("resumed", {"head": b"resumed".hex(), "sha256": content["sha256"], "size": 7})
