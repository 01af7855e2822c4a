"""The indexer as JavaScript asks it: graphql-request 6, the library inside iExec's clients, in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.services.indexer.test_bulk import BulkBazaar, wait_for_slices
from tests.support.deployed import DeployedChain
from tests.support.indexer_world import IndexerWorld

from cloister.protocol.tasks import task_id

PACKAGES = Path(__file__).parents[2] / "interop" / "package.json"
SCRIPT = Path(__file__).with_name("graphql_request.mjs")


@pytest.fixture
def node() -> str:
    found = shutil.which("node")
    if found is None or not (PACKAGES.parent / "node_modules" / "graphql-request").is_dir():
        pytest.skip("no node, or the packages of tests/interop are not installed")
    return found


def test_graphql_request(node: str, deployed: DeployedChain, tmp_path: Path) -> None:
    world = IndexerWorld(deployed, tmp_path)
    with world.serving():
        bazaar = BulkBazaar(deployed, "graphql-request")
        (order,) = bazaar.data(1, "graphql-request")
        deal, request = bazaar.bulk(world.put_bulk([[order]]), 1)
        deployed.send(deployed.hub.initialize(deal, 0), bazaar.worker)
        wait_for_slices(world, deal, 1)
        owner = deployed.account("graphql-request owner").address.lower()
        arguments = [node, str(SCRIPT), str(PACKAGES), world.url, owner, request.hash(deployed.domain)]
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    answers = {line["name"]: line["answer"] for line in map(json.loads, ended.stdout.splitlines())}
    dataset = order.dataset.lower()
    assert dataset in [each["id"] for each in answers["all"]["protectedDatas"]]
    (mine,) = answers["mine"]["protectedDatas"]
    assert (mine["id"], mine["owner"], mine["schema"]) == (dataset, {"id": owner}, [{"id": "email:string"}])
    tasks = [{"taskId": task_id(deal, 0), "bulkSlice": {"datasets": [{"id": dataset}]}}]
    assert answers["deals"] == {"deals": [{"tasks": tasks}]}
    assert answers["sharing"] == {"collections": [], "accounts": [], "inCollections": []}
    assert len(answers["byUrl"]["protectedDatas"]) == 1
    assert answers["batch"]["status"] == 200
    assert answers["batch"]["found"]["_meta"]["block"]["hash"].startswith("0x")
    assert answers["refused"] == {
        "known": True,
        "status": 200,
        "message": "The value of the argument `first` must be between 0 and 1000, but is 1001",
    }
    assert answers["missing"] == {"known": True, "status": 404}
