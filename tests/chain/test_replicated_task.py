"""A task of trust 2 with three workers on the real hub: who is believed and paid is what ``protocol.consensus`` says."""

from __future__ import annotations

from tests.support.marketplace import Marketplace

from cloister.chain.logs import Rewarded, Seized, decode_log
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import Bytes32
from cloister.protocol.consensus import NO_TALLY, Share, log_weight, score_after, settle, weight, worker_stake
from cloister.protocol.results import enclave_message, result_hash, result_seal
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tasks import ContributionStatus, TaskStatus, task_id

RIGHT, WRONG = Bytes32("0x" + "01" * 32), Bytes32("0x" + "02" * 32)
PRICE = 100_003


def contribute(market: Marketplace, task: Bytes32, worker: PrivateKey, digest: Bytes32) -> None:
    enclave = PrivateKey(digest.raw)
    hashed, seal = result_hash(task, digest), result_seal(worker.address, task, digest)
    authorization = scheduler_authorization(worker.address, task, enclave.address)
    call = market.hub.contribute(
        task,
        hashed,
        seal,
        enclave.address,
        enclave.sign_message(enclave_message(hashed, seal)),
        market.pool_owner.sign_message(authorization),
    )
    market.send(worker, call)


def test_a_single_vote_can_be_enough(market: Marketplace) -> None:
    stake = worker_stake(PRICE, 30)
    workers = [market.node.account(f"replica {number}") for number in range(3)]
    for worker in workers:
        market.stake(worker, stake)
    market.stake(market.requester, PRICE)
    market.stake(market.pool_owner, 30_001)
    market.send(market.pool_owner, market.workerpools.change_policy(market.workerpool, 30, 7))
    orders = market.orders(prices=(0, 0, PRICE), trust=2)
    deal_name = market.hub.matched_deal(market.send(market.requester, market.hub.match_orders(*orders)))
    market.send(market.pool_owner, market.workerpools.change_policy(market.workerpool, 30, 1))
    deal = market.hub.deal(deal_name, block="latest")
    assert deal is not None
    assert (deal.worker_stake, deal.scheduler_reward_ratio, deal.trust) == (stake, 7, 2)
    task = task_id(deal_name, 0)
    market.send(market.pool_owner, market.hub.initialize(deal_name, 0))

    tally = NO_TALLY
    for worker, digest in zip(workers, (WRONG, RIGHT, RIGHT), strict=True):
        state = market.hub.task(task, block="latest")
        assert state is not None
        if state.status is not TaskStatus.ACTIVE:
            break
        contribute(market, task, worker, digest)
        tally = tally.add(digest, weight(0))
        state = market.hub.task(task, block="latest")
        assert state is not None
        assert (state.status is TaskStatus.REVEALING) == tally.reaches(digest, 2)
    # The lone first vote already weighs enough for trust 2: the others are not heard.
    state = market.hub.task(task, block="latest")
    assert state is not None
    assert state.consensus_value == result_hash(task, WRONG)
    assert state.winner_counter == 1
    market.send(workers[0], market.hub.reveal(task, WRONG))
    receipt = market.send(market.pool_owner, market.hub.finalize(task, b"results"))
    split = settle(
        app_price=0,
        dataset_price=0,
        workerpool_price=PRICE,
        scheduler_reward_percent=7,
        worker_stake=stake,
        shares=[Share(workers[0].address, log_weight(0), is_winner=True)],
        kitty=0,
    )
    rewards = {event.account: event.amount for log in receipt.logs if isinstance(event := decode_log(log), Rewarded)}
    assert rewards == {
        workers[0].address: split.workers[workers[0].address],
        market.pool_owner.address: split.pool_owner,
    }
    assert market.hub.account(workers[0].address, block="latest").stake == stake + split.workers[workers[0].address]


def test_losers_pay_the_winners(market: Marketplace) -> None:
    stake = worker_stake(PRICE, 30)
    workers = [market.node.account(f"voter {number}") for number in range(4)]
    for worker in workers:
        market.stake(worker, stake)
    market.stake(market.requester, PRICE)
    market.stake(market.pool_owner, 30_001)
    orders = market.orders(prices=(0, 0, PRICE), trust=5)
    deal_name = market.hub.matched_deal(market.send(market.requester, market.hub.match_orders(*orders)))
    task = task_id(deal_name, 0)
    market.send(market.pool_owner, market.hub.initialize(deal_name, 0))
    tally = NO_TALLY
    shares: list[Share] = []
    votes = (WRONG, *[RIGHT] * 8)
    pool = [*workers, *(market.node.account(f"voter {number}") for number in range(4, 9))]
    for worker in pool[4:]:
        market.stake(worker, stake)
    for worker, digest in zip(pool, votes, strict=True):
        contribute(market, task, worker, digest)
        tally = tally.add(digest, weight(0))
        shares.append(Share(worker.address, log_weight(0), is_winner=digest == RIGHT))
        state = market.hub.task(task, block="latest")
        assert state is not None
        assert (state.status is TaskStatus.REVEALING) == tally.reaches(digest, 5)
        if state.status is TaskStatus.REVEALING:
            break
    winners = [worker for worker in pool if any(share.worker == worker.address and share.is_winner for share in shares)]
    assert len(winners) >= 2
    for worker in winners:
        market.send(worker, market.hub.reveal(task, RIGHT))
    receipt = market.send(market.pool_owner, market.hub.finalize(task, b"results"))
    split = settle(
        app_price=0,
        dataset_price=0,
        workerpool_price=PRICE,
        scheduler_reward_percent=1,
        worker_stake=stake,
        shares=shares,
        kitty=0,
    )
    events = [decode_log(log) for log in receipt.logs]
    rewards = {event.account: event.amount for event in events if isinstance(event, Rewarded)}
    assert rewards == {**split.workers, market.pool_owner.address: split.pool_owner}
    seized = {event.account: event.amount for event in events if isinstance(event, Seized)}
    assert {name: seized[name] for name in split.seized} == split.seized
    count = len(shares)
    assert market.hub.score(winners[0].address, block="latest") == score_after(0, accurate=True, contributors=count)
    loser = market.hub.contribution(task, pool[0].address, block="latest")
    assert loser.status is not ContributionStatus.PROVED
