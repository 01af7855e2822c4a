"""A scheduler that is killed -9 again and again while tasks flow brings every one of them to its end."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.support.anvil import free_port
from tests.support.deployed import DeployedChain, deployed  # noqa: F401
from tests.support.scheduler_world import World, until
from tests.worker.test_killed import worker_process

from cloister.clients.scheduler import SchedulerClient
from cloister.protocol.tasks import TaskStatus

ROOT = Path(__file__).parents[3]


def test_killed_while_tasks_flow(deployed: DeployedChain, tmp_path: Path) -> None:  # noqa: F811
    world, port = World(deployed, "scheduler killed", tmp_path), free_port()
    world.url = f"http://127.0.0.1:{port}"
    told = {
        "folder": str(tmp_path),
        "key": world.bazaar.pool_owner.unprotected_raw().hex(),
        "rpc": deployed.rpc.url,
        "hub": deployed.deployment.hub,
        "workerpool": world.bazaar.pool,
        "workers": [worker.address for worker in world.workers],
        "port": port,
    }
    settings = tmp_path / "scheduler.json"
    settings.write_text(json.dumps(told))

    def launch() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "tests.services.scheduler.driver", str(settings)], cwd=ROOT)

    dice = random.Random(7)
    scheduler = launch()
    try:
        with worker_process(world, 0), worker_process(world, 1):
            wanted = []
            for _ in range(4):
                deal_id = world.match(dataset=False, volume=2)
                wanted += list(deployed.hub.deal(deal_id, block="latest").task_ids(deal_id))
                time.sleep(dice.uniform(1.2, 2.5))
                scheduler.kill()
                scheduler.wait()
                scheduler = launch()
            until(lambda: {world.status(task) for task in wanted} == {TaskStatus.COMPLETED}, seconds=60)
            client = SchedulerClient(world.url, chain_id=421614, hub=deployed.deployment.hub)
            until(lambda: {client.task(task).status for task in wanted} == {"COMPLETED"}, seconds=20)
    finally:
        scheduler.kill()
        scheduler.wait()
