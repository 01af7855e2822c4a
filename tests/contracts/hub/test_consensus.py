"""Tasks that several workers do: weights, consensus, reveal, reopen, finalize, scores, and who is paid what."""

from __future__ import annotations

from typing import Any

import boa
import pytest
from eth_hash.auto import keccak
from tests.contracts.hub.actors import ZERO, ZERO_32, Actor, authorization_hash, result_hash, result_seal
from tests.contracts.hub.chain import CATEGORY_SECONDS, Chain, Receipt, refused
from tests.contracts.hub.deployment import double
from tests.contracts.hub.interface import CONTRIBUTION
from tests.contracts.hub.test_tasks import FINALIZE, RESULTS, arguments, start, view_task

CONTRIBUTE = "contribute(bytes32,bytes32,bytes32,address,bytes,bytes)"
GOOD, BAD = keccak(b"good"), keccak(b"bad")
WORKERS = [Actor.named(f"worker {i}") for i in range(5)]


def contribute(chain: Chain, task: bytes, worker: Actor, digest: bytes = GOOD) -> Receipt:
    address = worker.address
    authorization = chain.pool_owner.sign_message(authorization_hash(address, task))
    return chain.send(
        worker,
        CONTRIBUTE,
        task,
        result_hash(task, digest),
        result_seal(address, task, digest),
        ZERO,
        b"",
        authorization,
    )


def reveal(chain: Chain, task: bytes, worker: Actor, digest: bytes = GOOD) -> Receipt:
    return chain.send(worker, "reveal(bytes32,bytes32)", task, digest)


def finalize(chain: Chain, task: bytes, sender: Actor | None = None, callback: bytes = b"") -> Receipt:
    return chain.send(sender or chain.pool_owner, "finalize(bytes32,bytes,bytes)", task, RESULTS, callback)


def funded(chain: Chain, **terms: Any) -> bytes:
    for actor in (chain.requester, chain.pool_owner, *WORKERS):
        chain.fund(actor, 1000)
    return start(chain, tag=ZERO_32, **terms)


def score(chain: Chain, worker: Actor) -> int:
    value: int = chain.view("viewScore(address)", "uint256", worker.address)
    return value


def test_one_contribution_is_enough_for_trust_one(chain: Chain) -> None:
    task = funded(chain, workerpool_price=100)
    worker = WORKERS[0]
    events = chain.events(contribute(chain, task, worker))
    address, hashed = worker.address.lower(), result_hash(task, GOOD)
    assert events == [
        ("Transfer", address, chain.hub.lower(), 30),
        ("Lock", address, 30),
        ("TaskContribute", task, address, hashed),
        ("TaskConsensus", task, hashed),
    ]
    assert chain.account(worker) == (970, 30)
    assert refused(lambda: contribute(chain, task, WORKERS[1])) is None
    assert refused(lambda: finalize(chain, task)) is None
    assert chain.events(reveal(chain, task, worker)) == [("TaskReveal", task, address, GOOD)]
    assert refused(lambda: reveal(chain, task, worker)) is None
    assert refused(lambda: finalize(chain, task, worker)) is None
    assert refused(lambda: finalize(chain, task, callback=b"unasked")) is None
    finalize(chain, task)
    assert chain.account(worker) == (1099, 0)
    assert chain.account(chain.pool_owner) == (1001, 0)
    assert score(chain, worker) == 0
    seen = view_task(chain, task)
    assert (seen["status"], seen["results"], seen["resultDigest"]) == (3, RESULTS, GOOD)
    contribution = chain.view("viewContribution(bytes32,address)", CONTRIBUTION, task, address)
    assert contribution == (2, hashed, result_seal(address, task, GOOD), ZERO, 1)


def test_winners_share_and_losers_pay(chain: Chain) -> None:
    """Against one dissenter, trust 4 takes four votes of weight 2: 16 * 4 > (1 + 18) * 3."""
    task = funded(chain, workerpool_price=100, trust=4, app_price=7)
    contribute(chain, task, WORKERS[0], BAD)
    for worker in WORKERS[1:]:
        assert view_task(chain, task)["status"] == 1
        contribute(chain, task, worker)
    assert view_task(chain, task)["winnerCounter"] == 4
    assert refused(lambda: reveal(chain, task, WORKERS[0], BAD)) is None
    assert refused(lambda: reveal(chain, task, WORKERS[1], BAD)) is None
    for worker in WORKERS[1:]:
        reveal(chain, task, worker)
    events = chain.events(finalize(chain, task))
    share = (130 * 99 // 100) // 4
    rest = 130 - 4 * share
    hub = chain.hub.lower()
    loser, *winners = (worker.address.lower() for worker in WORKERS)
    expected: list[tuple[Any, ...]] = [("Seize", loser, 30, task), ("FaultyContribution", loser, task)]
    for winner in winners:
        expected += [
            ("Transfer", hub, winner, 30),
            ("Unlock", winner, 30),
            ("Transfer", hub, winner, share),
            ("Reward", winner, share, task),
            ("AccurateContribution", winner, task),
        ]
    pool = chain.pool_owner.address.lower()
    expected += [("Transfer", hub, pool, rest), ("Reward", pool, rest, task), ("TaskFinalize", task, RESULTS)]
    assert events[-len(expected) :] == expected
    assert [chain.account(worker) for worker in WORKERS] == [(970, 0)] + [(1000 + share, 0)] * 4
    assert chain.account(chain.pool_owner) == (1000 + rest, 0)
    assert chain.account(chain.hub) == (0, 0)
    assert [score(chain, worker) for worker in WORKERS] == [0, 1, 1, 1, 1]


def test_reopen_and_partial_reveal(chain: Chain) -> None:
    task = funded(chain, workerpool_price=100)
    contribute(chain, task, WORKERS[0])
    reopen = lambda sender: chain.send(sender, "reopen(bytes32)", task)  # noqa: E731
    assert refused(lambda: reopen(chain.pool_owner)) is None
    boa.env.time_travel(seconds=2 * CATEGORY_SECONDS)
    assert refused(lambda: reveal(chain, task, WORKERS[0])) is None
    assert refused(lambda: finalize(chain, task)) is None
    assert refused(lambda: reopen(chain.attacker)) is None
    assert chain.events(reopen(chain.pool_owner)) == [("TaskReopen", task)]
    seen = view_task(chain, task)
    assert (seen["status"], seen["consensusValue"], seen["winnerCounter"], seen["revealDeadline"]) == (1, ZERO_32, 0, 0)
    assert refused(lambda: contribute(chain, task, WORKERS[0])) is None
    assert refused(lambda: chain.send(chain.worker, FINALIZE, *arguments(chain, task).values())) is None
    contribute(chain, task, WORKERS[1])
    assert view_task(chain, task)["winnerCounter"] == 1
    reveal(chain, task, WORKERS[1])
    finalize(chain, task)
    assert chain.account(WORKERS[0]) == (970, 0)
    assert chain.account(WORKERS[1]) == (1000 + 130 * 99 // 100, 0)


def test_winners_who_do_not_reveal_lose(chain: Chain) -> None:
    task = funded(chain, workerpool_price=100, trust=4)
    contribute(chain, task, WORKERS[0])
    contribute(chain, task, WORKERS[1])
    reveal(chain, task, WORKERS[1])
    assert refused(lambda: finalize(chain, task)) is None
    boa.env.time_travel(seconds=2 * CATEGORY_SECONDS)
    assert refused(lambda: chain.send(chain.pool_owner, "reopen(bytes32)", task)) is None
    finalize(chain, task)
    assert chain.account(WORKERS[0]) == (970, 0)
    assert chain.account(WORKERS[1]) == (1000 + 130 * 99 // 100, 0)


def test_claim_gives_stakes_back(chain: Chain) -> None:
    task = funded(chain, workerpool_price=100, trust=4)
    contribute(chain, task, WORKERS[0])
    contribute(chain, task, WORKERS[1], BAD)
    boa.env.time_travel(seconds=7 * CATEGORY_SECONDS)
    assert refused(lambda: contribute(chain, task, WORKERS[2])) is None
    boa.env.time_travel(seconds=3 * CATEGORY_SECONDS)
    chain.send(chain.attacker, "claim(bytes32)", task)
    assert [chain.account(worker) for worker in WORKERS[:2]] == [(1000, 0)] * 2
    assert chain.account(chain.requester) == (1000, 0)


def test_finalize_after_the_final_deadline(chain: Chain) -> None:
    task = funded(chain)
    contribute(chain, task, WORKERS[0])
    reveal(chain, task, WORKERS[0])
    boa.env.time_travel(seconds=10 * CATEGORY_SECONDS)
    assert refused(lambda: finalize(chain, task)) is None


def test_a_worker_without_stake(chain: Chain) -> None:
    task = funded(chain, workerpool_price=100)
    assert refused(lambda: contribute(chain, task, chain.attacker)) == "IexecEscrow: Transfer amount exceeds balance"


@pytest.mark.parametrize("data", [b"data", b""])
def test_callback_of_a_replicated_task(chain: Chain, data: bytes) -> None:
    consumer = double("Consumer").deploy()
    task = funded(chain, callback=consumer.address)
    digest = keccak(data)
    contribute(chain, task, WORKERS[0], digest)
    reveal(chain, task, WORKERS[0], digest)
    assert refused(lambda: finalize(chain, task, callback=b"other")) is None
    finalize(chain, task, callback=data)
    assert consumer.received(task) == data
    assert chain.view("resultFor(bytes32)", "bytes", task) == data


def test_scores_weigh(chain: Chain) -> None:
    """An imported score of 12 makes weight 3; the better score stays; importing twice is refused."""
    chain.send(chain.attacker, "importScore(address)", WORKERS[0].address)
    assert score(chain, WORKERS[0]) == 12
    again = refused(lambda: chain.send(chain.attacker, "importScore(address)", WORKERS[0].address))
    assert again == "score-already-imported"
    task = funded(chain, trust=4)
    contribute(chain, task, WORKERS[0], BAD)
    contribute(chain, task, WORKERS[1])
    contribute(chain, task, WORKERS[2])
    contribute(chain, task, WORKERS[3])
    contribute(chain, task, WORKERS[4])
    assert view_task(chain, task)["status"] == 2
    for worker in WORKERS[1:]:
        reveal(chain, task, worker)
    finalize(chain, task)
    assert [score(chain, worker) for worker in WORKERS] == [8, 1, 1, 1, 1]
