"""Two schedulers on one database: one leads; killed, the other goes on. Workers may ask either."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.support.anvil import free_port
from tests.support.deployed import DeployedChain, deployed  # noqa: F401
from tests.support.scheduler_world import World, until
from tests.worker.test_killed import worker_process

from cloister.errors import CloisterError
from cloister.protocol.tasks import TaskStatus
from cloister.services.database import open_database
from cloister.services.scheduler.tables import leaders
from cloister.transport import Http

ROOT = Path(__file__).parents[3]


def launch(world: World, folder: Path, database_url: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start one scheduler; returns it and its URL once it answers."""
    port = free_port()
    settings = folder / f"scheduler{port}.json"
    told = {
        "folder": str(folder),
        "database": database_url,
        "key": world.bazaar.pool_owner.unprotected_raw().hex(),
        "rpc": world.chain.rpc.url,
        "hub": world.chain.deployment.hub,
        "workerpool": world.bazaar.pool,
        "workers": [worker.address for worker in world.workers],
        "port": port,
    }
    settings.write_text(json.dumps(told))
    process = subprocess.Popen([sys.executable, "-m", "tests.services.scheduler.driver", str(settings)], cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    until(lambda: answers(url))
    return process, url


def answers(url: str) -> bool:
    try:
        Http(url).json("GET", "/-/ready")
    except CloisterError:
        return False
    return True


@pytest.mark.parametrize("victim", ["leader", pytest.param("follower", marks=pytest.mark.nightly)])
def test_the_other_goes_on(
    deployed: DeployedChain,  # noqa: F811
    tmp_path: Path,
    database_url: str,
    victim: str,
    request: pytest.FixtureRequest,
) -> None:
    world = World(deployed, f"replicas {request.node.name}", tmp_path)
    database = open_database(database_url)

    def holder() -> str | None:
        with database.read_scope() as session:
            return session.execute(select(leaders.c.holder)).scalar_one_or_none()

    def done(tasks: list[str]) -> Callable[[], bool]:
        return lambda: {world.status(task) for task in tasks} == {TaskStatus.COMPLETED}  # type: ignore[arg-type]

    first, first_url = launch(world, tmp_path, database_url)
    second, second_url = launch(world, tmp_path, database_url)
    try:
        leader = holder()
        assert leader is not None
        world.url = second_url if victim == "leader" else first_url
        with worker_process(world, 0):
            before = world.match(dataset=False, volume=2)
            until(done(list(deployed.hub.deal(before, block="latest").task_ids(before))), seconds=40)  # type: ignore[union-attr]
            assert holder() == leader, "nobody took the lead from one who keeps it"
            (first if victim == "leader" else second).kill()
            after = world.match(dataset=False, volume=2)
            until(done(list(deployed.hub.deal(after, block="latest").task_ids(after))), seconds=40)  # type: ignore[union-attr]
            assert (holder() == leader) == (victim == "follower")
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
        database.close()
