"""A sending process that is killed again and again does each of its intents exactly once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.anvil import ROOT, Anvil

from cloister.errors import CloisterError
from cloister.protocol.codec import Address
from cloister.protocol.signatures import PrivateKey

COUNTER = Address("0x" + "c0" * 20)
COUNTING_RUNTIME = "0x5f546001015f5500"
INTENTS = 30
SECRET = "5a" * 32


def keep_mining(node: Anvil, stop: threading.Event) -> None:
    while not stop.wait(0.05):
        try:
            node.mine()
        except CloisterError:
            return


def test_killed_anywhere_each_intent_is_done_once(still_anvil: Anvil, tmp_path: Path) -> None:
    rpc = still_anvil.rpc
    still_anvil.fund(PrivateKey.parse(SECRET))
    rpc.call("anvil_setCode", COUNTER, COUNTING_RUNTIME)
    stop = threading.Event()
    miner = threading.Thread(target=keep_mining, args=(still_anvil, stop), daemon=True)
    miner.start()
    script = Path(__file__).with_name("sending_process.py")
    command = [sys.executable, str(script), still_anvil.url, str(tmp_path / "j.sqlite"), SECRET, COUNTER, str(INTENTS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    chance = random.Random(7)
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(command, env=environment)
        try:
            assert process.wait(timeout=0.3 + chance.random() * 0.5 if kills < 12 else 60) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    stop.set()
    miner.join()
    still_anvil.mine()
    assert kills > 0, "nothing was killed: give the process more to do"
    assert int(str(rpc.call("eth_getStorageAt", COUNTER, "0x0", "latest")), 16) == INTENTS
