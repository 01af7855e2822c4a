"""The scheduler over HTTP, on a real chain with the real contracts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.anvil import running_anvil
from tests.support.deployed import DeployedChain, deployed  # noqa: F401
from tests.support.scheduler_world import RESULTS, World, until

from cloister.chain.contracts import ContributionAndResult
from cloister.clients.scheduler import Lease, Outcome, WorkerCalls
from cloister.clients.scheduler import ReplicateStatus as R
from cloister.errors import Denied, InputError, NotFound, Unauthenticated
from cloister.protocol.codec import Bytes32, keccak256
from cloister.protocol.results import result_hash, result_seal
from cloister.protocol.tasks import TaskStatus
from cloister.transport import Http


@pytest.fixture
def world(deployed: DeployedChain, tmp_path: Path, request: pytest.FixtureRequest) -> World:  # noqa: F811
    return World(deployed, f"scheduler {request.node.name}", tmp_path)


def digest_of(word: str) -> Bytes32:
    return Bytes32.from_raw(keccak256(word.encode()))


def test_from_match_to_completed(world: World) -> None:
    with world.scheduler() as client:
        deal_id = world.match()
        (lease,) = world.take(client)
        assert lease.deal_id == deal_id
        assert lease.dataset_order is not None
        assert lease.dataset_order["dataset"] == world.bazaar.dataset
        assert lease.app.multiaddr == "https://example.org/app"
        calls = world.calls(client)
        assert not calls.beat(lease.lease_id, R.COMPUTING).abort
        calls.give_logs(lease.lease_id, stdout="out\0" + "x" * 120_000, stderr="err", exit_code=3)
        until(lambda: world.status(lease.task_id) is TaskStatus.ACTIVE)
        challenge, sign, authorization = world.proof(client, lease, 0, digest_of("a"))
        call = world.chain.hub.contribute_and_finalize(
            ContributionAndResult(lease.task_id, digest_of("a"), RESULTS, b"", challenge, sign, authorization)
        )
        receipt = world.chain.send(call, world.workers[0])
        outcome = Outcome(R.CONTRIBUTE_AND_FINALIZE_DONE, transaction=receipt.transaction, results=RESULTS.decode())
        calls.report(lease.lease_id, outcome)
        until(lambda: client.task(lease.task_id).status == "COMPLETED")
        view = client.task(lease.task_id)
        words = [line.status for line in view.history]
        assert [words[0], *words[-2:]] == ["RECEIVED", "FINALIZED", "COMPLETED"]
        assert {"INITIALIZED", "RUNNING"} <= set(words)
        (replicate,) = view.replicates
        assert replicate.worker == world.workers[0].address
        assert replicate.exit_code == 3
        # The chain may show the contribution before its worker reports it.
        assert replicate.status in ("CONTRIBUTE_AND_FINALIZE_DONE", "COMPLETED")

        (entry,) = client.logs(lease.task_id, world.bazaar.requester)
        assert (len(entry.stdout), entry.stderr) == (100_000, "err")
        with pytest.raises(Denied, match="only task requester"):
            client.logs(lease.task_id, world.workers[0])
        with pytest.raises(NotFound):
            client.task(digest_of("unknown"))


def test_who_may_do_what(world: World) -> None:
    stranger = world.chain.account("a stranger")
    with world.scheduler() as client:
        with pytest.raises(Denied, match="is not of this workerpool"):
            client.worker(stranger).take_leases(world.bazaar.pool, capacity=1, wait_seconds=0)
        with pytest.raises(InputError, match="is not scheduled here"):
            world.calls(client).take_leases(stranger.address, capacity=1, wait_seconds=0)
        elsewhere = WorkerCalls(Http(world.url), world.workers[0], chain_id=1, hub=world.chain.deployment.hub)
        with pytest.raises(Unauthenticated):
            elsewhere.take_leases(world.bazaar.pool, capacity=1, wait_seconds=0)
        http = Http(world.url)
        with pytest.raises(Unauthenticated):
            http.json("POST", "/scheduler/v1/leases", body={"workerpool": world.bazaar.pool, "capacity": 1})
        with pytest.raises(Unauthenticated, match="carries no login"):
            http.json("GET", f"/tasks/{digest_of('x')}/logs")
        with pytest.raises(InputError, match="chainId 5 is not supported"):
            http.json("GET", "/tasks/logs/challenge", query={"chainId": "5", "address": stranger.address})


def test_three_workers_agree_and_the_pool_finalizes(world: World) -> None:
    with world.scheduler() as client:
        world.match(trust=3, dataset=False)
        taken = [(n, world.take(client, n, wait=8 if n < 2 else 0)) for n in range(3)]
        leases = {n: found[0] for n, found in taken if found}
        assert set(leases) == {0, 1}, "two workers of least weight reach trust 3"
        task_id = leases[0].task_id
        until(lambda: world.status(task_id) is TaskStatus.ACTIVE)
        digest = digest_of("agreed")
        for n, lease in leases.items():
            challenge, sign, authorization = world.proof(client, lease, n, digest)
            hashed, seal = result_hash(task_id, digest), result_seal(world.workers[n].address, task_id, digest)
            call = world.chain.hub.contribute(task_id, hashed, seal, challenge, sign, authorization)
            world.chain.send(call, world.workers[n])
        assert world.status(task_id) is TaskStatus.REVEALING
        for n, lease in leases.items():
            world.chain.send(world.chain.hub.reveal(task_id, digest), world.workers[n])
            world.calls(client, n).report(lease.lease_id, Outcome(R.REVEALED, results=RESULTS.decode()))
        until(lambda: world.status(task_id) is TaskStatus.COMPLETED)
        task = world.chain.hub.task(task_id, block="latest")
        assert task is not None
        assert task.results == RESULTS
        until(lambda: client.task(task_id).status == "COMPLETED")


def test_a_task_nobody_did_is_claimed_and_refunded(world: World) -> None:
    """Abuse case 40."""
    chain, requester = world.chain, world.bazaar.requester
    price = 1000
    chain.stake(requester, price * 2)
    chain.stake(world.bazaar.pool_owner, price)
    with world.scheduler() as client:
        deal_id = world.match(volume=2, price=price, dataset=False)
        before = chain.hub.account(requester.address, block="latest")
        assert (before.stake, before.locked) == (0, 2 * price)
        (lease,) = world.take(client)
        assert lease.deal_id == deal_id
        until(lambda: world.status(lease.task_id) is TaskStatus.ACTIVE)
        chain.node.advance(10 * 300 + 5)
        until(lambda: world.status(lease.task_id) is TaskStatus.FAILED)
        until(lambda: chain.hub.account(requester.address, block="latest").locked == 0)
        assert chain.hub.account(requester.address, block="latest").stake == 2 * price
        until(lambda: client.task(lease.task_id).status == "FAILED")
        assert world.calls(client).beat(lease.lease_id, R.COMPUTING).abort


def test_a_scheduler_that_was_away_catches_up(world: World) -> None:
    with world.scheduler() as client:
        first = world.match()
        (lease,) = world.take(client)
        assert lease.deal_id == first
    second = world.match(volume=3)
    with world.scheduler() as client:
        assert not world.calls(client).beat(lease.lease_id, R.COMPUTING).abort
        found: list[Lease] = []
        until(lambda: found.extend(world.take(client, 1, capacity=5, wait=1)) or len(found) == 3)
        assert {item.deal_id for item in found} == {second}


def test_a_chain_that_goes_back_takes_its_deals_along(tmp_path: Path) -> None:
    with running_anvil() as node:
        world = World(DeployedChain(node, tmp_path), "rolled back", tmp_path)
        with world.scheduler() as client:
            snapshot = node.rpc.call("evm_snapshot")
            world.match(dataset=False)
            (lease,) = world.take(client)
            until(lambda: world.status(lease.task_id) is TaskStatus.ACTIVE)
            node.rpc.call("evm_revert", snapshot)
            node.mine()
            until(lambda: client.task(lease.task_id).status == "FAILED")
            assert "no longer on the chain" in (client.task(lease.task_id).cause or "")
            assert world.calls(client).beat(lease.lease_id, R.COMPUTING).abort
