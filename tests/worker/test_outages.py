"""Parts of the platform go away in the middle of a task: for a while, it completes; for good, it is given up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.support.anvil import running_anvil
from tests.support.deployed import DeployedChain, deployed  # noqa: F401
from tests.support.enclaves import RESULT, PaperRuntime, PaperSms
from tests.support.scheduler_world import CHAIN_ID, World, until
from tests.support.valve import Valve

from cloister.chain.contracts import Hub
from cloister.chain.journal import Journal as TransactionJournal
from cloister.chain.rpc import JsonRpc
from cloister.chain.sender import SenderOptions, TransactionSender
from cloister.clients.scheduler import Outcome, SchedulerClient
from cloister.clients.scheduler import ReplicateStatus as R
from cloister.errors import RemoteError, UnavailableError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.networks import ContractAddresses, NetworkDescription, ServiceUrls
from cloister.protocol.results import parse_results_location
from cloister.protocol.sessions import NonceGrant
from cloister.protocol.tasks import TaskStatus
from cloister.sdk.connection import Connection
from cloister.sdk.tasks import Tasks
from cloister.services.application import BackgroundServer, build_application
from cloister.services.gateway.http import GatewayPart
from cloister.services.gateway.settings import GatewaySettings
from cloister.storage.content import ContentStore
from cloister.storage.kubo import KuboStore
from cloister.storage.local import LocalStore
from cloister.worker.clock import ChainClock
from cloister.worker.daemon import Worker
from cloister.worker.enclaves import Enclaves
from cloister.worker.execution import Platform
from cloister.worker.fetching import ContentFetcher
from cloister.worker.journal import Journal
from cloister.worker.runtimes.runtime import EnclaveSpec
from cloister.worker.runtimes.runtime import Platform as EnclavePlatform
from cloister.worker.settings import WorkerSettings


@dataclass(frozen=True)
class ShySms(PaperSms):
    """An SMS that does not answer while ``away`` is set."""

    away: threading.Event = field(default_factory=threading.Event)

    def identity(self) -> Address:
        self._check()
        return super().identity()

    def nonce(self, task_id: Bytes32) -> NonceGrant:
        self._check()
        return super().nonce(task_id)

    def _check(self) -> None:
        if self.away.is_set():
            raise UnavailableError("the sms does not answer")


@dataclass
class Bench:
    """Workers of one pool in this process. ``moments`` counts what their enclaves went through."""

    world: World
    rpc_url: str
    scheduler_url: str
    store: ContentStore
    sms: PaperSms
    moments: Counter[str] = field(default_factory=Counter)
    on: Callable[[str], None] = field(default=lambda _: None)

    @contextmanager
    def worker(self, n: int = 0, *, word: bytes = b"", **settings: Any) -> Iterator[Worker]:
        folder = self.world.folder / f"bench{n}"
        key = self.world.workers[n]
        rpc, hub = JsonRpc(self.rpc_url), self.world.chain.deployment.hub
        sender = TransactionSender(
            rpc, key, TransactionJournal(folder / "transactions.sqlite"), options=SenderOptions(check=0.2)
        )
        values = {"wait_seconds": 1, "retry_seconds": 0.1, "retry_cap": 0.5, **settings}
        daemon = Worker(
            Platform(
                settings=WorkerSettings(self.world.bazaar.pool, folder, **values),
                journal=Journal(folder / "journal.sqlite"),
                scheduler=SchedulerClient(self.scheduler_url, chain_id=CHAIN_ID, hub=hub).worker(key),
                sms=self.sms,  # type: ignore[arg-type]  # the part of the client that is used
                store=self.store,
                fetcher=ContentFetcher(self.store),
                hub=Hub(rpc, hub),
                sender=sender,
                enclaves=Enclaves(PaperRuntime(self._heard, word), EnclaveSpec(EnclavePlatform("paper"))),
            )
        )
        thread = threading.Thread(target=daemon.run)
        thread.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            thread.join(30)
            assert not thread.is_alive()

    def _heard(self, moment: str) -> None:
        self.moments[moment] += 1
        self.on(moment)


def port_of(url: str) -> int:
    return urlsplit(url).port or 0


def only_task(world: World, deal_id: Bytes32) -> Bytes32:
    (task,) = world.chain.hub.deal(deal_id, block="latest").task_ids(deal_id)  # type: ignore[union-attr]
    return task


@pytest.fixture
def world(deployed: DeployedChain, tmp_path: Path, request: pytest.FixtureRequest) -> World:  # noqa: F811
    return World(deployed, f"outage {request.node.name}", tmp_path)


AWAY_SECONDS = 1.5
AWAY = [("sms", "started"), ("storage", "session"), ("chain", "session"), ("scheduler", "started")]
AWAY_ELSEWHERE = [("storage", "started"), ("chain", "started"), ("scheduler", "session")]


@pytest.mark.parametrize(
    ("part", "moment"), [*AWAY, *(pytest.param(*case, marks=pytest.mark.nightly) for case in AWAY_ELSEWHERE)]
)
def test_away_for_a_while(world: World, tmp_path: Path, part: str, moment: str) -> None:
    gateway = BackgroundServer(build_application([GatewayPart(GatewaySettings(root=tmp_path / "content"))]))
    with world.scheduler() as client, gateway:
        valves = {
            "storage": Valve(port_of(gateway.url)),
            "chain": Valve(port_of(world.chain.rpc.url)),
            "scheduler": Valve(port_of(world.url)),
        }
        sms = ShySms(world.bazaar.pool_owner.address)
        store = KuboStore(valves["storage"].url)
        bench = Bench(world, valves["chain"].url, valves["scheduler"].url, store, sms)
        went = threading.Event()

        def leave(now: str) -> None:
            if now == moment and not went.is_set():
                sms.away.set() if part == "sms" else valves[part].shut()
                went.set()

        bench.on = leave
        task = only_task(world, world.match(dataset=False))
        with bench.worker():
            assert went.wait(20)
            time.sleep(AWAY_SECONDS)
            if part != "scheduler" or moment == "started":
                assert world.status(task) is not TaskStatus.COMPLETED, "the part was needed"
            sms.away.clear() if part == "sms" else valves[part].open()
            until(lambda: world.status(task) is TaskStatus.COMPLETED)
        assert bench.moments["started"] == 1, "the app ran once"
        results = world.chain.hub.task(task, block="latest").results  # type: ignore[union-attr]
        location = parse_results_location(results).location or ""
        assert b"".join(LocalStore(tmp_path / "content").open(location)) == RESULT
        until(lambda: client.task(task).status == "COMPLETED")
        (replicate,) = client.task(task).replicates
        assert replicate.status in ("CONTRIBUTE_AND_FINALIZE_DONE", "COMPLETED"), "one lease was enough"
        for valve in valves.values():
            valve.close()


def test_away_for_good(tmp_path: Path) -> None:
    """The requester learns why and when the money comes back; then it does."""
    with running_anvil() as node:
        chain, price = DeployedChain(node, tmp_path), 1000
        world = World(chain, "gone", tmp_path, max_attempts=2, backoff_seconds=0.05)
        chain.stake(world.bazaar.requester, price)
        chain.stake(world.bazaar.pool_owner, price)
        sms = ShySms(world.bazaar.pool_owner.address)
        sms.away.set()
        with world.scheduler():
            bench = Bench(world, chain.rpc.url, world.url, LocalStore(tmp_path / "content"), sms)
            deal_id = world.match(dataset=False, price=price)
            task, tasks = only_task(world, deal_id), Tasks(requester_connection(world), lambda _: None)
            with bench.worker(outage_seconds=0.2, platform_retries=0):
                with pytest.raises(RemoteError) as given_up:
                    tasks.wait(task, deal_id=deal_id, timeout=30)
                assert given_up.value.code == "task-given-up"
                assert "UNAVAILABLE: the sms does not answer" in given_up.value.message
                view = tasks.status(task, deal_id=deal_id)
                assert time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(view.final_deadline)) in (
                    given_up.value.hint or ""
                )
                node.advance(10 * 300 + 5)
                until(lambda: world.status(task) is TaskStatus.FAILED)
            account = chain.hub.account(world.bazaar.requester.address, block="latest")
            assert (account.stake, account.locked) == (price, 0)
            with pytest.raises(RemoteError, match="ended as FAILED"):
                tasks.wait(task, deal_id=deal_id, timeout=30)


def requester_connection(world: World) -> Connection:
    deployment = world.chain.deployment
    names = ("hub", "rlc", "app_registry", "dataset_registry", "workerpool_registry", "dataprotector")
    return Connection(
        NetworkDescription(
            name="test",
            chain_id=CHAIN_ID,
            rpc_url=world.chain.rpc.url,
            origin=world.url,
            services=ServiceUrls.at(world.url),
            contracts=ContractAddresses(**{name: getattr(deployment, name) for name in names}),
            workerpool=world.bazaar.pool,
            enclave_kind="simulated",
            teebroker=world.bazaar.pool_owner.address,
        )
    )


def told_it_lost(client: SchedulerClient, world: World, task: Bytes32) -> bool:
    (own,) = [entry for entry in client.task(task).replicates if entry.worker == world.workers[0].address]
    causes = {line.cause for line in own.history if line.status == "ABORTED"}
    return any("ANOTHER_RESULT_WON" in (cause or "") or cause == "TASK_COMPLETED_BY_OTHERS" for cause in causes)


def test_dissent_is_outvoted(world: World, tmp_path: Path) -> None:
    """One worker of four computes something else: the three others agree, and it is told that it lost."""
    world.workers.append(world.chain.account("the fourth"))
    world.settings = replace(world.settings, workers=frozenset(key.address for key in world.workers))
    with world.scheduler() as client:
        sms = PaperSms(world.bazaar.pool_owner.address)
        bench = Bench(world, world.chain.rpc.url, world.url, LocalStore(tmp_path / "content"), sms)
        task = only_task(world, world.match(dataset=False, trust=3))
        with bench.worker(0, word=b"another"):
            until(lambda: world.status(task) is TaskStatus.ACTIVE)
            until(lambda: len(world.chain.hub.task(task, block="latest").contributors) == 1)  # type: ignore[union-attr]
            with bench.worker(1), bench.worker(2), bench.worker(3):
                until(lambda: world.status(task) is TaskStatus.COMPLETED, seconds=30)
                # Worker and chain say so in words of their own; whichever is heard first.
                until(lambda: told_it_lost(client, world, task))
        until(lambda: client.task(task).status == "COMPLETED")
        task_now = world.chain.hub.task(task, block="latest")
        assert task_now is not None
        assert (len(task_now.contributors), task_now.reveal_counter) == (4, 3)
        assert bench.moments["started"] == 4


def test_waiting_for_others_takes_no_slot(world: World, tmp_path: Path) -> None:
    """Two workers of one slot and two tasks that each need both: with a slot taken by waiting they would wait for ever."""
    with world.scheduler():
        sms = PaperSms(world.bazaar.pool_owner.address)
        bench = Bench(world, world.chain.rpc.url, world.url, LocalStore(tmp_path / "content"), sms)
        deal_id = world.match(dataset=False, trust=3, volume=2)
        tasks = list(world.chain.hub.deal(deal_id, block="latest").task_ids(deal_id))  # type: ignore[union-attr]
        with bench.worker(0, slots=1), bench.worker(1, slots=1):
            until(lambda: {world.status(task) for task in tasks} == {TaskStatus.COMPLETED}, seconds=40)


def test_a_stop_does_not_wait_for_a_long_poll(world: World, tmp_path: Path) -> None:
    with world.scheduler():
        sms = PaperSms(world.bazaar.pool_owner.address)
        bench = Bench(world, world.chain.rpc.url, world.url, LocalStore(tmp_path / "content"), sms)
        with bench.worker(0, wait_seconds=8):
            time.sleep(1.0)
            started = time.monotonic()
        assert time.monotonic() - started < 5


def test_a_lease_that_comes_again_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    """A lease that ran out while its result was on its way is given again: the app is not run a second time."""
    with world.scheduler() as client:
        sms = PaperSms(world.bazaar.pool_owner.address)
        valve = Valve(port_of(world.chain.rpc.url))
        bench = Bench(world, valve.url, world.url, LocalStore(tmp_path / "content"), sms)
        bench.on = lambda moment: valve.shut() if moment == "session" else None
        task = only_task(world, world.match(dataset=False))
        with bench.worker():
            until(lambda: bench.moments["session"] == 1)
            calls = world.calls(client)
            (folder,) = (tmp_path / "bench0" / "tasks").iterdir()
            until((folder / "result.sealed").exists)
            # The pool takes the lease back; the worker is given the task anew under another.
            calls.report(folder.name, Outcome(R.FAILED, cause="TEST", message="taken back"))
            time.sleep(3)
            valve.open()
            until(lambda: world.status(task) is TaskStatus.COMPLETED)
            assert bench.moments["started"] == 1
        until(lambda: client.task(task).status == "COMPLETED")
        valve.close()


def test_the_chains_clock() -> None:
    """Ahead of the wall it counts on by itself; behind, the wall's time is as late as the next block can be."""
    block, wall, ticks = [5_000], [1_000.0], [10.0]
    clock = ChainClock(lambda: block[0], wall=lambda: wall[0], monotonic=lambda: ticks[0])
    assert clock.now() == 1_000.0, "no block was seen"
    clock.look()
    ticks[0] += 7
    assert clock.now() == 5_007.0
    block[0] = 900
    clock.look()
    assert clock.now() == 1_000.0

    def gone() -> int:
        raise UnavailableError("the node does not answer")

    lonely = ChainClock(gone, wall=lambda: wall[0], monotonic=lambda: ticks[0])
    lonely.look()
    assert lonely.now() == 1_000.0
