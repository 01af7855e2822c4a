"""A worker that is killed -9 at every step of a task goes on where it was: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.deployed import DeployedChain, deployed  # noqa: F401
from tests.support.enclaves import RESULT
from tests.support.scheduler_world import World, until

from cloister.protocol.results import parse_results_location
from cloister.protocol.tasks import TaskStatus
from cloister.storage.local import LocalStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(deployed: DeployedChain, tmp_path: Path, request: pytest.FixtureRequest) -> World:  # noqa: F811
    return World(deployed, f"worker {request.node.name}", tmp_path)


@contextmanager
def worker_process(world: World, n: int = 0, moment: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    folder = folder_of(world, n)
    folder.mkdir(exist_ok=True)
    told = {
        "folder": str(folder),
        "moment": moment,
        "key": world.workers[n].unprotected_raw().hex(),
        "hub": world.chain.deployment.hub,
        "rpc": world.chain.rpc.url,
        "scheduler": world.url,
        "workerpool": world.bazaar.pool,
        "pool_owner": world.bazaar.pool_owner.address,
    }
    settings = folder / "settings.json"
    settings.write_text(json.dumps(told))
    process = subprocess.Popen([sys.executable, "-m", "tests.worker.driver", str(settings)], cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


def folder_of(world: World, n: int = 0) -> Path:
    return world.folder / f"worker{n}"


def moments(world: World, n: int = 0) -> Counter[str]:
    return Counter((folder_of(world, n) / "moments").read_text().split())


MOMENTS = {
    # the moment of death -> how often the app is run in all
    "before:leased": 1,
    "after:leased": 1,
    "started": 2,
    "session": 2,
    "before:sealed": 2,
    "after:sealed": 1,
    "before:uploaded": 1,
    "after:uploaded": 1,
    "before:reporting": 1,  # the contribution is mined, and not yet in the worker's journal
    "after:reporting": 1,
    "before:drop": 1,
}


@pytest.mark.parametrize("moment", list(MOMENTS))
def test_killed_at(world: World, moment: str) -> None:
    with world.scheduler() as client:
        deal_id = world.match(dataset=False)
        with worker_process(world, moment=moment) as process:
            assert process.wait(40) == -signal.SIGKILL
        with worker_process(world) as process:
            until(lambda: moments(world)["after:drop"] == 1, seconds=40)
            task_id = next(iter(world.chain.hub.deal(deal_id, block="latest").task_ids(deal_id)))
            assert world.status(task_id) is TaskStatus.COMPLETED
            process.terminate()
            assert process.wait(20) == 0, "a worker that is told to stop ends well"
        assert moments(world)["started"] == MOMENTS[moment]
        assert world.chain.rpc.transaction_count(world.workers[0].address, block="latest") == 1
        task = world.chain.hub.task(task_id, block="latest")
        location = parse_results_location(task.results).location or ""
        assert b"".join(LocalStore(folder_of(world) / "content").open(location)) == RESULT
        assert list((folder_of(world) / "tasks").iterdir()) == []
        until(lambda: client.task(task_id).status == "COMPLETED")
        (entry,) = client.logs(task_id, world.bazaar.requester)
        assert entry.stdout == "hello"


def test_replicas_by_three_daemons(world: World) -> None:
    with world.scheduler() as client:
        deal_id = world.match(dataset=False, trust=3)
        with worker_process(world, 0), worker_process(world, 1), worker_process(world, 2):
            task_id = next(iter(world.chain.hub.deal(deal_id, block="latest").task_ids(deal_id)))
            until(lambda: world.status(task_id) is TaskStatus.COMPLETED, seconds=60)
        task = world.chain.hub.task(task_id, block="latest")
        assert len(task.contributors) == 2
        assert task.reveal_counter == 2
        assert b"ipfs" in task.results
        until(lambda: client.task(task_id).status == "COMPLETED")


def test_a_dead_workers_task_goes_to_another(deployed: DeployedChain, tmp_path: Path) -> None:  # noqa: F811
    world = World(deployed, "worker dead", tmp_path, lease_seconds=3.0)
    with world.scheduler() as client:
        deal_id = world.match(dataset=False)
        with worker_process(world, 0, moment="session") as process:
            process.wait(40)
        with worker_process(world, 1):
            task_id = next(iter(world.chain.hub.deal(deal_id, block="latest").task_ids(deal_id)))
            until(lambda: world.status(task_id) is TaskStatus.COMPLETED, seconds=60)
        until(lambda: client.task(task_id).status == "COMPLETED")
        statuses = {r.worker: r.status for r in client.task(task_id).replicates}
        assert statuses[world.workers[0].address] == "WORKER_LOST"


def test_a_worker_told_to_stop_gives_its_task_back(world: World) -> None:
    with world.scheduler() as client:
        deal_id = world.match(dataset=False)
        task_id = next(iter(world.chain.hub.deal(deal_id, block="latest").task_ids(deal_id)))
        with worker_process(world, 0, moment="hang:session") as process:
            until(lambda: (folder_of(world) / "moments").exists() and moments(world)["session"] == 1)
            process.terminate()
            assert process.wait(20) == 0
        assert moments(world)["after:drop"] == 1
        assert client.task(task_id).cause == "WORKER_STOPPED: the worker was told to stop"
        with worker_process(world, 1):
            until(lambda: world.status(task_id) is TaskStatus.COMPLETED, seconds=10)
