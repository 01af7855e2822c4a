"""A workerpool with its scheduler over HTTP, on a real chain."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.deployed import Bazaar, DeployedChain

from cloister.clients.scheduler import Lease, SchedulerClient, WorkerCalls
from cloister.protocol.codec import Address, Bytes32, keccak256
from cloister.protocol.results import build_results_location, enclave_message, result_hash, result_seal
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tasks import TaskStatus
from cloister.services.application import BackgroundServer, build_application
from cloister.services.database import open_database
from cloister.services.scheduler.part import build_scheduler_part
from cloister.services.scheduler.settings import SchedulerSettings

CHAIN_ID = 421614
RESULTS = build_results_location("ipfs", "/ipfs/QmResult")


class World:
    """One pool with its scheduler and workers."""

    def __init__(self, chain: DeployedChain, label: str, folder: Path, **settings: Any) -> None:
        self.chain, self.bazaar = chain, Bazaar(chain, label)
        self.workers = [chain.account(f"{label} worker {n}") for n in range(3)]
        self.folder = folder
        self.settings = SchedulerSettings(
            chain_id=CHAIN_ID,
            hub=chain.deployment.hub,
            workerpools=(self.bazaar.pool,),
            workers=frozenset(worker.address for worker in self.workers),
            **settings,
        )
        self.url = ""

    @contextmanager
    def scheduler(self) -> Iterator[SchedulerClient]:
        """A running scheduler; the next one goes on with the same database and journal."""
        database = open_database(self.folder / "scheduler.db")
        part = build_scheduler_part(
            self.settings,
            database=database,
            key=self.bazaar.pool_owner,
            hub=self.chain.hub,
            sender=self.chain.sender(self.bazaar.pool_owner),
        )
        with BackgroundServer(build_application([part])) as server:
            self.url = server.url
            yield SchedulerClient(server.url, chain_id=CHAIN_ID, hub=self.chain.deployment.hub)
        database.close()

    def match(self, *, trust: int = 1, volume: int = 1, dataset: bool = True, price: int = 0) -> Bytes32:
        app, data, pool, request = self.bazaar.orders(volume=volume, dataset=dataset)
        pool = self.chain.workerpool_order(
            self.bazaar.pool_owner, self.bazaar.pool, trust=trust, volume=volume, workerpoolprice=price
        )
        request = self.chain.request_order(
            self.bazaar.requester,
            self.bazaar.app,
            dataset=request.dataset,
            workerpool=self.bazaar.pool,
            volume=volume,
            trust=trust,
            workerpoolmaxprice=price,
        )
        deal_id, _ = self.bazaar.match((app, data, pool, request))
        return deal_id

    def calls(self, client: SchedulerClient, n: int = 0) -> WorkerCalls:
        return client.worker(self.workers[n])

    def take(self, client: SchedulerClient, n: int = 0, *, capacity: int = 1, wait: int = 8) -> tuple[Lease, ...]:
        return self.calls(client, n).take_leases(self.bazaar.pool, capacity=capacity, wait_seconds=wait)

    def proof(self, client: SchedulerClient, lease: Lease, n: int, digest: Bytes32) -> tuple[Address, bytes, bytes]:
        """Challenge, enclave signature and authorization for a result, as an enclave would bring them."""
        enclave = PrivateKey(keccak256(b"enclave" + lease.task_id.raw + bytes([n])))
        hashed = result_hash(lease.task_id, digest)
        seal = result_seal(self.workers[n].address, lease.task_id, digest)
        authorization = self.calls(client, n).authorize(lease.lease_id, enclave.address)
        return enclave.address, enclave.sign_message(enclave_message(hashed, seal)), authorization

    def status(self, task_id: Bytes32) -> TaskStatus | None:
        task = self.chain.hub.task(task_id, block="latest")
        return None if task is None else task.status


def until(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.05)
