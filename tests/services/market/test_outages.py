"""A chain that goes away or hangs: lists are answered from what is known, in bounded time, and all is well when it is
back.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from tests.support.anvil import Anvil
from tests.support.deployed import DeployedChain
from tests.support.market_world import MarketWorld


def test_lists_are_answered_while_the_chain_is_away(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    node = Anvil(("--state", str(state))).start()
    try:
        chain = DeployedChain(node, tmp_path)
        with MarketWorld(chain, tmp_path, label="outage").serving() as world:
            bazaar = world.bazaar
            first, _ = bazaar.match(bazaar.orders())
            world.synced()
            order = chain.app_order(bazaar.app_owner, bazaar.app)
            assert node.process is not None
            pid = node.process.pid

            # It hangs: a question waits for it for a bounded time, each for itself, and none for the others.
            os.kill(pid, signal.SIGSTOP)
            answers: list[int] = []

            def read() -> None:
                answers.append(world.ask("GET", f"/deals?app={bazaar.app}")[1]["count"])

            readers = [threading.Thread(target=read) for _ in range(8)]
            for reader in readers:
                reader.start()
            assert world.ask("GET", f"/apporders?app={bazaar.app}")[0] == 200
            assert world.ask("GET", f"/deals/{first}")[0] == 200
            for reader in readers:
                reader.join(20)
            assert answers == [1] * 8
            os.kill(pid, signal.SIGCONT)
            world.synced()

            # It is away: reading goes on, publishing says that it may be tried again.
            node.process.send_signal(signal.SIGINT)
            node.process.wait(20)
            header = world.login(bazaar.app_owner)
            status, body = world.ask("POST", "/apporders", body={"order": order.to_json()}, header=header)
            assert (status, body["ok"], body["code"]) == (503, False, "unavailable")
            assert world.ask("GET", f"/deals?app={bazaar.app}")[1]["count"] == 1
            assert world.ask("GET", f"/deals/{'0x' + '00' * 32}")[0] == 404

            node.start()
            assert world.publish(order, bazaar.app_owner)[0] == 200
            second, _ = bazaar.match(bazaar.orders())
            _, body = world.ask("GET", f"/deals?app={bazaar.app}")
            assert [record["dealid"] for record in body["deals"]] == [second, first]
    finally:
        node.kill()
