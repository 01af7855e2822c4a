"""What the scheduler owes the chain, on a real chain, with the scheduler killed before every step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.services.scheduler.steps import Steps
from tests.support.anvil import running_anvil
from tests.support.deployed import DeployedChain
from tests.support.scheduler_world import RESULTS

from cloister.chain.calls import Call
from cloister.clients.scheduler import Outcome
from cloister.clients.scheduler import ReplicateStatus as R
from cloister.errors import CloisterError, DecodeError
from cloister.protocol.codec import Bytes32
from cloister.protocol.orders import Operation
from cloister.protocol.tasks import TaskStatus

CLOCK = 300
PRICE = 1000


@pytest.fixture(scope="module")
def own_chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeployedChain]:
    """A chain whose time these tests may move."""
    with running_anvil() as node:
        yield DeployedChain(node, tmp_path_factory.mktemp("chain"))


@pytest.fixture
def steps(
    own_chain: DeployedChain, tmp_path: Path, database_url: str, request: pytest.FixtureRequest
) -> Iterator[Steps]:
    made = Steps(own_chain, f"duties {request.node.name}", tmp_path, database_url)
    yield made
    made.close()


def tasks_of(steps: Steps, deal_id: Bytes32) -> list[Bytes32]:
    return list(steps.world.chain.hub.deal(deal_id, block="latest").task_ids(deal_id))  # type: ignore[union-attr]


def test_three_fates_of_replicated_tasks(steps: Steps) -> None:
    """One is revealed by all, one by half of them, one by nobody: finalized, finalized late, reopened and claimed."""
    world, chain, hub = steps.world, steps.world.chain, steps.world.chain.hub
    requester, owner = world.bazaar.requester, world.bazaar.pool_owner
    chain.stake(requester, 3 * PRICE)
    for key in (owner, *world.workers):
        chain.stake(key, PRICE)
    deal_id = world.match(trust=3, volume=3, price=PRICE, dataset=False)
    whole, half, nobody = tasks_of(steps, deal_id)
    locked = hub.account(owner.address, block="latest").locked
    assert locked == 3 * PRICE * 30 // 100
    before = chain.rpc.transaction_count(owner.address, block="latest")
    steps.round()
    assert [world.status(task) for task in (whole, half, nobody)] == [TaskStatus.ACTIVE] * 3
    steps.round()
    assert chain.rpc.transaction_count(owner.address, block="latest") == before + 1, "one transaction begins all, once"

    leases = {(n, lease.task_id): lease for n in (0, 1) for lease in steps.take(n, capacity=3)}
    assert len(leases) == 6
    assert steps.take(2, capacity=3) == []
    for (n, _), lease in leases.items():
        digest = steps.contribute(n, lease)
        steps.die()
    assert [world.status(task) for task in (whole, half, nobody)] == [TaskStatus.REVEALING] * 3
    for n, task in ((0, whole), (1, whole), (1, half)):
        chain.send(hub.reveal(task, digest), world.workers[n])
    steps.round()
    assert world.status(whole) is TaskStatus.REVEALING, "nobody has told the results"
    for n, task in ((0, whole), (1, half)):
        lease = leases[n, task]
        outcome = Outcome(R.REVEALED, results=RESULTS.decode())
        steps.service.report(lease.lease_id, world.workers[n].address, outcome, exit_code=None)
    steps.round()
    assert world.status(whole) is TaskStatus.COMPLETED
    assert world.status(half) is TaskStatus.REVEALING, "the other may still reveal"

    chain.node.advance(2 * CLOCK + 5)
    steps.round()
    assert world.status(half) is TaskStatus.COMPLETED
    assert world.status(nobody) is TaskStatus.ACTIVE, "reopened"
    steps.round()
    (again,) = steps.take(2)
    assert again.task_id == nobody
    assert steps.take(0) == [], "who was rejected has no second voice"
    assert "REOPENED" in steps.words(nobody)

    chain.node.advance(8 * CLOCK)
    steps.round()
    assert world.status(nobody) is TaskStatus.FAILED
    steps.round()
    assert [steps.words(task)[-1] for task in (whole, half, nobody)] == ["COMPLETED", "COMPLETED", "FAILED"]
    account, pool = hub.account(requester.address, block="latest"), hub.account(owner.address, block="latest")
    assert (account.stake, account.locked) == (PRICE, 0), "the task that failed is refunded, the others are paid"
    assert pool.locked == 0
    assert steps.service.beat(
        again.lease_id, world.workers[2].address, R.COMPUTING, detail=None, results=None, results_callback=b""
    ).abort


def test_one_bad_task_does_not_spoil_a_batch(steps: Steps) -> None:
    world, hub = steps.world, steps.world.chain.hub
    deal_id = world.match(volume=4, dataset=False)
    steps.look()
    # Somebody else begins one, and we have not seen it.
    world.chain.send(hub.initialize_array([deal_id], [2]), world.chain.account("a stranger in a hurry"))
    steps.duties.tend()
    assert [world.status(task) for task in tasks_of(steps, deal_id)] == [TaskStatus.ACTIVE] * 4
    steps.round()
    assert {steps.words(task)[-1] for task in tasks_of(steps, deal_id)} == {"INITIALIZED"}
    sent = world.chain.rpc.transaction_count(world.bazaar.pool_owner.address, block="latest")
    steps.round()
    assert world.chain.rpc.transaction_count(world.bazaar.pool_owner.address, block="latest") == sent


def test_claims_of_begun_and_unborn_tasks(steps: Steps) -> None:
    world, hub = steps.world, steps.world.chain.hub
    world.chain.stake(world.bazaar.requester, 3 * PRICE)
    world.chain.stake(world.bazaar.pool_owner, PRICE)
    begun = world.match(volume=2, price=PRICE, dataset=False)
    steps.round()
    unborn = world.match(volume=1, price=PRICE, dataset=False)
    pool_before = hub.account(world.bazaar.pool_owner.address, block="latest")
    world.chain.node.advance(10 * CLOCK + 5)
    steps.round()
    assert {world.status(task) for deal in (begun, unborn) for task in tasks_of(steps, deal)} == {TaskStatus.FAILED}
    account = hub.account(world.bazaar.requester.address, block="latest")
    assert (account.stake, account.locked) == (3 * PRICE, 0)
    pool = hub.account(world.bazaar.pool_owner.address, block="latest")
    assert (pool.stake, pool.locked) == (pool_before.stake, 0), "what was locked for the deals is seized"
    steps.round()
    assert {steps.words(task)[-1] for deal in (begun, unborn) for task in tasks_of(steps, deal)} == {"FAILED"}


def test_a_worker_that_lies_about_results_does_not_spoil_a_task(steps: Steps) -> None:
    """Callback data that does not hash to what was revealed is refused by the hub: the other worker's is tried."""
    world, hub = steps.world, steps.world.chain.hub
    deal_id = world.match(trust=3, dataset=False)
    (task,) = tasks_of(steps, deal_id)
    steps.round()
    leases = [steps.take(n)[0] for n in (0, 1)]
    for n, lease in enumerate(leases):
        digest = steps.contribute(n, lease)
    for n, lie in ((0, b"no callback was asked for"), (1, b"")):
        world.chain.send(hub.reveal(task, digest), world.workers[n])
        outcome = Outcome(R.REVEALED, results=RESULTS.decode(), results_callback=lie)
        steps.service.report(leases[n].lease_id, world.workers[n].address, outcome, exit_code=None)
    for _ in range(3):
        steps.round()
    assert world.status(task) is TaskStatus.COMPLETED
    assert "FINALIZE_FAILED" in steps.words(task)


def test_a_deal_that_cannot_be_read_holds_up_nobody(steps: Steps) -> None:
    """Parameters that are no text: the hub takes any bytes."""
    world, hub = steps.world, steps.world.chain.hub
    app, _, pool, request = world.bazaar.orders(dataset=False, params="{bad}")
    request = replace(request, sign=b"")

    def spoil(call: Call) -> Call:
        assert b"{bad}" in call.data
        return replace(call, data=call.data.replace(b"{bad}", b"{\xff\xfe\xff}"))

    world.chain.send(spoil(hub.manage_order(request, Operation.SIGN)), world.bazaar.requester)
    world.chain.send(spoil(hub.match_orders(app, None, pool, request)), world.bazaar.requester)
    nul, _ = world.bazaar.match(world.bazaar.orders(dataset=False, params="a\0b"))
    good = world.match(dataset=False)
    refusals = 0
    while refusals < 10:
        try:
            steps.look()
            break
        except DecodeError:
            refusals += 1
    assert 0 < refusals < 5
    steps.duties.tend()
    assert {lease.deal_id for lease in steps.take(0, capacity=5)} == {nul, good}


def test_a_new_database_leases_nothing_that_is_done(steps: Steps, tmp_path: Path) -> None:
    world = steps.world
    done = world.match(trust=3, dataset=False)
    (task,) = tasks_of(steps, done)
    steps.round()
    leases = [steps.take(n)[0] for n in (0, 1)]
    for n, lease in enumerate(leases):
        digest = steps.contribute(n, lease)
    for n in (0, 1):
        world.chain.send(world.chain.hub.reveal(task, digest), world.workers[n])
    world.chain.send(world.chain.hub.finalize(task, RESULTS, b""), world.bazaar.pool_owner)
    late = world.match(dataset=False)
    steps._url = f"sqlite:///{tmp_path / 'new.db'}"
    steps.die()
    assert steps.take(2) == [], "nothing is known yet"
    steps.look()
    assert steps.words(task)[-1] == "COMPLETED"
    assert {lease.deal_id for lease in steps.take(2, capacity=5)} == {late}


def test_a_batch_that_the_chain_has_left_behind(tmp_path: Path) -> None:
    """Read, then undone before it could be written: the look goes on with what the chain has."""
    with running_anvil() as node:
        chain = DeployedChain(node, tmp_path)
        steps = Steps(chain, "left behind", tmp_path, f"sqlite:///{tmp_path / 'left.db'}")
        steps.look()
        snapshot = node.rpc.call("evm_snapshot")
        deal_id = steps.world.match(dataset=False)
        chain.send(chain.hub.initialize_array([deal_id], [0]), steps.world.bazaar.app_owner)
        reader = steps.watcher._reader
        assert reader is not None
        steps.watcher._unread.append(reader.poll())
        node.rpc.call("evm_revert", snapshot)
        with contextlib.suppress(CloisterError):
            steps.watcher.look()
        for _ in range(3):
            steps.watcher.look()
        node.mine()
        steps.look()
        assert steps.take(0) == []
        again = steps.world.match(dataset=False)
        steps.look()
        # The requester's sender brought the lost match again, too.
        assert {lease.deal_id for lease in steps.take(0, capacity=5)} == {again, deal_id}
        steps.close()
