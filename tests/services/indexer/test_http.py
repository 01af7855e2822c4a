"""The endpoint: POST and GET, errors in GraphQL's form, CORS, OpenAPI; what ``_meta`` says; replicas and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from sqlalchemy import select
from tests.support.deployed import Bazaar, DeployedChain
from tests.support.indexer_world import IndexerWorld

import cloister.services.indexer.migrations as migrations
from cloister.services.database import Database, open_database
from cloister.services.indexer.tables import CURSORS, TABLES

PATH = "/subgraphs/name/arbitrum-sepolia/dataprotector-v2"


def ask(world: IndexerWorld, method: str, path: str = PATH, **given: Any) -> tuple[int, dict[str, str], Any]:
    answer = urllib3.request(method, world.url + path, retries=False, **given)
    body = json.loads(answer.data) if answer.data else None
    return answer.status, dict(answer.headers), body


def test_get(world: IndexerWorld) -> None:
    query = "query q($n: Int) { _meta { hasIndexingErrors } protectedDatas(first: $n) { id } }"
    text = urlencode({"query": query, "variables": '{"n":1}', "operationName": "q"})
    status, headers, body = ask(world, "GET", f"{PATH}?{text}")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert body["data"]["_meta"] == {"hasIndexingErrors": False}
    status, _, body = ask(world, "GET", f"{PATH}?query=%7B_meta%7Bdeployment%7D%7D")
    assert (status, body) == (200, {"data": {"_meta": {"deployment": "cloister/dataprotector-v2"}}})


GETS = {
    "": 400,
    "?query=": 200,
    "?variables=%7B%7D": 400,
    "?query=%7Ba%7D&variables=%5B%5D": 400,
    "?query=%7Ba%7D&variables=%7B": 400,
}
BODIES = {
    b"": 400,
    b"{": 400,
    b"[]": 400,
    b'[{"query":"{a}"}]': 400,
    b"{}": 400,
    b'{"query": 5}': 400,
    b'{"query": "{a}", "variables": []}': 400,
    b'{"query": "{a}", "operationName": 5}': 400,
    b'{"query": "{a}", "query": "{b}"}': 400,
    b"[" * 100_000: 400,
    b'{"query": "{a}", "variables": {"a": NaN}}': 400,
    b"\xff": 400,
    b'{"query":"' + b" " * 300_000 + b'"}': 413,
    b'{"query": "{ a }"}': 200,
    b'{"query": "{ \\ud800 }"}': 200,
}


def test_requests_without_a_good_query(world: IndexerWorld) -> None:
    for text, status in GETS.items():
        answered, headers, answer = ask(world, "GET", PATH + text)
        assert (answered, headers["content-type"]) == (status, "application/json"), text
        assert answer["errors"][0]["message"]
    for body, status in BODIES.items():
        answered, headers, answer = ask(world, "POST", body=body)
        assert (answered, headers["content-type"]) == (status, "application/json"), body[:40]
        assert answer["errors"][0]["message"]


def test_unknown_subgraphs_and_methods(world: IndexerWorld) -> None:
    for path, status in (
        ("/subgraphs/name/x/nothing", 404),
        ("/subgraphs/name/dataprotector-v2", 404),
        ("/subgraphs/name/x/dataprotector-v2/y", 404),
    ):
        answered, _, body = ask(world, "POST", path, body=b'{"query":"{a}"}')
        assert answered == status
        assert body["errors"]
    assert ask(world, "PUT", body=b"{}")[0] == 405


def test_browsers_may_ask(world: IndexerWorld) -> None:
    origin = {"origin": "https://app.example.org"}
    preflight = {
        **origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-graphql-client",
    }
    answer = urllib3.request("OPTIONS", world.url + PATH, headers=preflight, retries=False)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    for body in (b'{"query":"{_meta{deployment}}"}', b"no json"):
        assert ask(world, "POST", body=body, headers=origin)[1]["access-control-allow-origin"] == "*"


def test_openapi_tells_of_the_endpoints(world: IndexerWorld) -> None:
    _, _, document = ask(world, "GET", "/-/openapi.json")
    path = document["paths"]["/subgraphs/name/{network}/{subgraph}"]
    body = path["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["required"] == ["query"]
    assert {each["name"] for each in path["get"]["parameters"]} >= {"query", "variables", "operationName"}
    for method in ("get", "post"):
        assert set(path[method]["responses"]) >= {"200", "400", "404"}


def test_meta_names_the_newest_block(world: IndexerWorld, deployed: DeployedChain) -> None:
    """Also blocks without anything of interest: clients wait for a block to be indexed."""
    query = "{ _meta { block { number hash timestamp } deployment hasIndexingErrors } }"
    for count in (1, 3):
        deployed.node.mine(count)
        head = deployed.rpc.head()
        for subgraph in ("dataprotector-v2", "poco-v5"):
            meta = world.data(query, subgraph=subgraph)["_meta"]
            assert meta["block"] == {"number": head.number, "hash": head.hash, "timestamp": head.timestamp}
    by_hash = f'{{ _meta(block: {{hash: "{head.hash}"}}) {{ block {{ number }} }} }}'
    assert world.data(by_hash)["_meta"] == {"block": {"number": head.number}}
    waiting = "{ _meta(block: {number_gte: NUMBER}) { block { number } } }"
    assert world.data(waiting.replace("NUMBER", str(head.number)))["_meta"]["block"]["number"] == head.number
    assert "is not indexed yet" in world.refusal(waiting.replace("NUMBER", str(head.number + 1)))


def test_a_task_to_its_end(world: IndexerWorld, deployed: DeployedChain) -> None:
    """Categories, entries, tasks that time out, as they were at each block, though read in one go."""
    bazaar = Bazaar(deployed, f"indexer history {world.database.dialect}")
    orders = bazaar.orders(volume=1)
    deal, _ = bazaar.match(orders)
    matched = deployed.rpc.block_number()
    deployed.send(deployed.hub.initialize(deal, 0), bazaar.worker)
    initialised = deployed.rpc.block_number()
    query = """query ($deal: Bytes) { tasks(where: {deal: $deal}, block: {number: BLOCK}) {
      status requester { id } deal { id startTime category { id workClockTimeRef usages(where: {id: $deal}) { id } }
        app { name type checksum multiaddr mrenclave } dataset { name usages { id } } workerpool { description } }
      contributions { id worker { id } status } results resultsCallback } }"""

    def tasks(block: int) -> Any:
        return world.data(query.replace("BLOCK", str(block)), {"deal": deal}, subgraph="poco-v5")["tasks"]

    assert tasks(matched) == []
    (task,) = tasks(initialised)
    assert (task["status"], task["results"], task["contributions"]) == ("ACTIVE", None, [])
    entry = deployed.apps.app(bazaar.app, block="latest")
    assert entry is not None
    assert task["deal"]["app"] == {
        "name": entry.name,
        "type": "DOCKER",
        "checksum": entry.checksum,
        "multiaddr": "0x" + entry.multiaddr.hex(),
        "mrenclave": "0x",
    }
    assert task["deal"]["category"]["usages"] == [{"id": deal}]
    assert int(task["deal"]["category"]["workClockTimeRef"]) > 0
    assert task["deal"]["dataset"] == {"name": "contact", "usages": [{"id": deal}]}
    assert task["deal"]["workerpool"]["description"].startswith("pool ")
    assert world.data("{ categories { id name description } }", subgraph="poco-v5")["categories"]


def rows_of(database: Database) -> dict[str, list[Any]]:
    """Everything that an index holds, but the cursor."""
    found = {}
    with database.read_scope() as session:
        for tables in TABLES.values():
            for each in tables.values():
                for table in (each.table, *each.lists.values()):
                    found[table.name] = sorted(map(repr, session.execute(select(table)).all()))
    return found


def test_replicas_take_each_block_in_once(world: IndexerWorld, deployed: DeployedChain, tmp_path: Path) -> None:
    """Two processes on one database, and what they made is what one alone makes of the chain."""
    second = IndexerWorld(deployed, tmp_path / "second", database_url=str(world.database.engine.url))
    owner = world.account("replicas")
    with second.serving():
        for n in range(4):
            dataset = deployed.make_dataset(owner, name=f"n{n}").lower()
            query = f'{{ protectedData(id: "{dataset}") {{ name }} }}'
            for each in (world, second):
                found = each.eventually(partial(each.data, query), lambda data: data["protectedData"] is not None)
                assert found == {"protectedData": {"name": f"n{n}"}}
    alone = IndexerWorld(deployed, tmp_path / "alone", database_url=f"sqlite:///{tmp_path / 'alone.db'}")
    with alone.serving():
        assert alone.client.block() >= deployed.rpc.block_number()
    assert rows_of(world.database) == rows_of(alone.database)


CHILD = """
import sys, threading
from pathlib import Path
from cloister.chain.rpc import JsonRpc
from cloister.protocol.codec import Address
from cloister.services.application import BackgroundServer, build_application
from cloister.services.database import open_database
from cloister.services.indexer.part import build_indexer_part
from cloister.services.indexer.watcher import Contracts
from cloister.storage.local import LocalStore

database, content, url, block, *contracts = sys.argv[1:]
part = build_indexer_part(
    Contracts(*map(Address, contracts)),
    database=open_database(Path(database)),
    rpc=JsonRpc(url),
    from_block=int(block),
    content=LocalStore(Path(content)),
)
with BackgroundServer(build_application([part])):
    print("serving", flush=True)
    threading.Event().wait()
"""


def test_killed_anywhere(deployed: DeployedChain, tmp_path: Path) -> None:
    """An indexer killed again and again while the chain goes on holds in the end what one that never died holds."""
    world = IndexerWorld(deployed, tmp_path)
    contracts = deployed.deployment
    arguments = [
        *(str(tmp_path / "indexer.db"), str(tmp_path / "content"), deployed.node.url, str(contracts.block)),
        *(contracts.hub, contracts.dataprotector, contracts.app_registry),
        *(contracts.dataset_registry, contracts.workerpool_registry),
    ]
    owner = deployed.account("killed")
    for n in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE)
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"serving\n"
            for _ in range(n + 1):
                deployed.make_dataset(owner)
        finally:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            child.stdout.close()
        deployed.make_dataset(owner)
    with world.serving():
        assert len(world.client.protected_data(owner=owner.address)) == 9
    alone = IndexerWorld(deployed, tmp_path / "alone", database_url=f"sqlite:///{tmp_path / 'alone.db'}")
    with alone.serving():
        assert len(alone.client.protected_data(owner=owner.address)) == 9
    assert rows_of(world.database) == rows_of(alone.database)


def test_an_older_index_is_made_anew(tmp_path: Path) -> None:
    """What an older release stored is dropped, and its cursor with it, so that the chain is read again."""
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    source = Path(migrations.__path__[0]) / "versions" / "v0001_entities.py"
    (versions / source.name).write_bytes(source.read_bytes())
    database = open_database(tmp_path / "indexer.db")
    database.upgrade("indexer", folder=versions.parent)
    with database.session_scope() as session:
        session.connection().exec_driver_sql("INSERT INTO indexer_cursors VALUES ('indexer', '{}', 5)")
        session.connection().exec_driver_sql("INSERT INTO indexer_dp_account VALUES ('0x', 1, NULL)")
    database.upgrade("indexer")
    with database.read_scope() as session:
        assert session.execute(select(CURSORS)).all() == []
    assert all(rows == [] for rows in rows_of(database).values())
    database.close()
