"""Publishing orders: login, every rule, the row on disk; one market process on one core, SQLite, a real chain
beside it.

The market runs in a process of its own, pinned to one core; clients and chain share the rest. Each publication is
what iExec's client sends: ask for a challenge, sign it, post the order. Orders are signed beforehand, by wallets
that each stay below the limit of 50.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.chain import CHAIN_ID, account, deploy_contracts, free_port, running_chain, wait_for_port
from bench.rows import Row
from cloister.chain.calls import Call
from cloister.chain.contracts import Registry
from cloister.chain.events import EventReader
from cloister.chain.journal import Journal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import TransactionSender
from cloister.network.children import die_with_parent
from cloister.protocol import authorization
from cloister.protocol.codec import Address, Bytes32, keccak256
from cloister.protocol.eip712 import hub_domain
from cloister.protocol.orders import AppOrder, sign_order
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import TEE_TDX
from cloister.services.application import build_application, serve
from cloister.services.database import open_database
from cloister.services.market.chain_ledger import ChainMarketLedger
from cloister.services.market.part import MarketSettings, build_market_part
from cloister.services.market.watcher import WATCHED

WALLETS = 40
ORDERS_EACH = 40
CLIENTS = 16
BUDGET = 300.0


def measure() -> list[Row]:
    """Publish ``WALLETS`` x ``ORDERS_EACH`` orders from ``CLIENTS`` connections, then list and page them."""
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as folder, running_chain() as url:
        return _measure(Path(folder), url)


def _measure(folder: Path, rpc_url: str) -> list[Row]:
    rpc = JsonRpc(rpc_url)
    deployment = deploy_contracts(rpc, folder)
    domain = hub_domain(CHAIN_ID, deployment.hub)
    wallets = [account(rpc, f"wallet {n}") for n in range(WALLETS)]
    registry = Registry(rpc, deployment.app_registry)
    apps = _make_apps(rpc, registry, wallets, folder)
    orders = [
        (wallet, sign_order(AppOrder(app=app, tag=TEE_TDX, salt=_word(f"{app} {n}")), wallet, domain))
        for wallet, app in zip(wallets, apps, strict=True)
        for n in range(ORDERS_EACH)
    ]
    settings = {
        "hub": deployment.hub,
        "app_registry": deployment.app_registry,
        "dataset_registry": deployment.dataset_registry,
        "workerpool_registry": deployment.workerpool_registry,
    }
    arguments = json.dumps({"settings": settings, "rpc": rpc_url, "block": deployment.block, "folder": str(folder)})
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.market", str(port), arguments],
        stdout=subprocess.PIPE,
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509  (the child only calls prctl)
    )
    try:
        wait_for_port(port)
        seconds = _publish_all(port, orders)
        listing = _list_all(port, apps)
    finally:
        server.terminate()
        server.wait(30)
    said = json.loads(server.stdout.read()) if server.stdout is not None else {}
    count = len(orders)
    return [
        Row("market: orders published, one process, SQLite, one core", count / seconds, "/s", BUDGET, "more"),
        Row("market: processor time of the market per publication", 1000 * said["cpu"] / count, "ms"),
        Row("market: page of 40 orders", 1000 * listing, "ms"),
        Row("market: peak memory of the process", said["peak_mib"], "MiB"),
    ]


def _publish_all(port: int, orders: list[tuple[PrivateKey, AppOrder]]) -> float:
    """Publish everything; a wallet's orders go through one connection, since its logins are single."""
    # Made before the clock runs: the client's own work is not what is measured.
    bodies = [(key, json.dumps({"order": order.to_json()}).encode()) for key, order in orders]
    failures: list[str] = []
    gate = threading.Barrier(CLIENTS + 1)

    def client(part: list[tuple[PrivateKey, bytes]]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        gate.wait()
        for key, body in part:
            status, answer = _publish(connection, key, body)
            if status != 200:
                failures.append(str(answer))
                return

    lanes: list[list[tuple[PrivateKey, bytes]]] = [[] for _ in range(CLIENTS)]
    for number, item in enumerate(bodies):
        lanes[number // ORDERS_EACH % CLIENTS].append(item)
    threads = [threading.Thread(target=client, args=(lane,)) for lane in lanes]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if failures:
        raise RuntimeError(f"{len(failures)} publications failed: {failures[0]}")
    return seconds


def _publish(connection: http.client.HTTPConnection, key: PrivateKey, body: bytes) -> tuple[int, Any]:
    connection.request("GET", f"/challenge?chainId={CHAIN_ID}&address={key.address}")
    text = json.loads(connection.getresponse().read())["data"]["message"]["challenge"]
    digest = authorization.challenge_digest(authorization.MARKET_CHALLENGE, CHAIN_ID, text)
    header = authorization.build_challenge_header(digest, key.sign_digest(digest), key.address)
    headers = {"authorization": header, "content-type": "application/json"}
    connection.request("POST", f"/apporders?chainId={CHAIN_ID}", body=body, headers=headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def _list_all(port: int, apps: list[Address]) -> float:
    """Median time of one orderbook page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    times = []
    for app in apps:
        started = time.perf_counter()
        connection.request("GET", f"/apporders?chainId={CHAIN_ID}&app={app}&pageSize=100")
        found = json.loads(connection.getresponse().read())
        times.append(time.perf_counter() - started)
        if found["count"] != ORDERS_EACH:
            raise RuntimeError(f"{found['count']} orders are listed for {app}")
    return sorted(times)[len(times) // 2]


def _make_apps(rpc: JsonRpc, registry: Registry, wallets: list[PrivateKey], folder: Path) -> list[Address]:
    made = []
    for number, wallet in enumerate(wallets):
        call: Call = registry.create_app(wallet.address, f"app {number}", "DOCKER", b"https://x", _word("bundle"))
        sender = TransactionSender(rpc, wallet, Journal(folder / f"wallet{number}.sqlite"))
        made.append(registry.created_entry(sender.send(call, intent=f"app {number}")))
    return made


def _word(text: str) -> Bytes32:
    return Bytes32.from_raw(keccak256(text.encode()))


def serve_market(port: int, given: dict[str, Any]) -> None:
    """Serve a market until told to stop, on one core; then tell what it cost."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    contracts: dict[str, Any] = {name: Address(text) for name, text in given["settings"].items()}
    settings = MarketSettings(CHAIN_ID, **contracts)
    addresses = (settings.hub, settings.app_registry, settings.dataset_registry, settings.workerpool_registry)
    part = build_market_part(
        settings,
        database=open_database(Path(given["folder"]) / "market.db"),
        ledger=ChainMarketLedger(JsonRpc(given["rpc"]), settings.hub),
        source=lambda cursor: EventReader(JsonRpc(given["rpc"]), addresses, WATCHED, given["block"], cursor=cursor),
    )
    serve(build_application([part]), "127.0.0.1", port)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"cpu": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}))


if __name__ == "__main__":
    serve_market(int(sys.argv[1]), json.loads(sys.argv[2]))
