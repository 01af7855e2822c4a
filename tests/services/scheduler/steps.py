"""A scheduler taken apart, so that a test may look, act and die between any two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.deployed import DeployedChain
from tests.support.scheduler_world import World

from cloister.chain.events import EventReader
from cloister.chain.logs import TOPICS
from cloister.clients.scheduler import Lease
from cloister.protocol.codec import Bytes32, keccak256
from cloister.protocol.results import enclave_message, result_hash, result_seal
from cloister.protocol.signatures import PrivateKey
from cloister.services.database import Database, open_database
from cloister.services.scheduler.bell import Bell
from cloister.services.scheduler.duties import Duties
from cloister.services.scheduler.service import ChainClock, SchedulerService
from cloister.services.scheduler.sight import NoDatasetOrders, Sight
from cloister.services.scheduler.store import Store
from cloister.services.scheduler.watcher import WATCHED, Watcher


class Steps:
    """One pool's scheduler without its threads. ``die`` forgets everything that is not in database, journal or chain."""

    def __init__(self, chain: DeployedChain, label: str, folder: Path, database_url: str, **settings: Any) -> None:
        self.world = World(chain, label, folder, backoff_seconds=0.01, **settings)
        self._url = database_url
        self._database: Database | None = None
        self.die()

    def die(self) -> None:
        """Be killed and start again."""
        if self._database is not None:
            self._database.close()
        world, hub, settings = self.world, self.world.chain.hub, self.world.settings
        self._database = database = open_database(self._url)
        database.upgrade("scheduler")
        clock, bell = ChainClock(), Bell()
        self.store = Store(database, window=settings.deal_window)
        self.service = SchedulerService(database, world.bazaar.pool_owner, settings, bell=bell, chain_clock=clock)
        self.watcher = Watcher(
            database,
            self.store,
            Sight(hub, owner=world.bazaar.pool_owner.address, orders=NoDatasetOrders()),
            settings,
            open_reader=lambda block: EventReader(hub.rpc, [hub.address], [TOPICS[name] for name in WATCHED], block),
            bell=bell,
            chain_clock=clock,
        )
        self.duties = Duties(
            self.store,
            self.service.leasing,
            hub,
            world.chain.sender(world.bazaar.pool_owner),
            settings,
            chain_clock=clock,
            news=bell.ring,
        )

    def close(self) -> None:
        """Let go of the database."""
        if self._database is not None:
            self._database.close()

    def look(self) -> None:
        """Read the chain until nothing is new."""
        while self.watcher.look():
            pass

    def round(self) -> None:
        """Die, see what the chain shows, do what is due."""
        self.die()
        self.look()
        self.duties.sweep(silence_counts=False)
        self.duties.tend()

    def take(self, worker: int, capacity: int = 1) -> list[Lease]:
        """Lease tasks now."""
        pool = self.world.bazaar.pool
        return self.service.take(self.world.workers[worker].address, pool, capacity=capacity, holding=None)

    def contribute(self, worker: int, lease: Lease, word: str = "same") -> Bytes32:
        """Contribute what an enclave would have computed; returns the digest."""
        world, key = self.world, self.world.workers[worker]
        digest = Bytes32.from_raw(keccak256(word.encode()))
        enclave = PrivateKey(keccak256(b"enclave" + lease.task_id.raw + bytes([worker])))
        hashed, seal = result_hash(lease.task_id, digest), result_seal(key.address, lease.task_id, digest)
        authorization = self.service.authorize(lease.lease_id, key.address, enclave.address)
        sign = enclave.sign_message(enclave_message(hashed, seal))
        call = world.chain.hub.contribute(lease.task_id, hashed, seal, enclave.address, sign, authorization)
        world.chain.send(call, key)
        return digest

    def words(self, task_id: str) -> list[str]:
        """The task's public history."""
        return [line["status"] for line in self.service.task(task_id)["dateStatusList"]]
