"""Money and results on chain, cases 40 and 41: a real chain whose hub has the SMS's key as its ``teebroker``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from tests.support.anvil import running_anvil
from tests.support.marketplace import Marketplace, build_marketplace

from cloister.chain.contracts import ContributionAndResult
from cloister.chain.rpc import TransactionReverted
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import ZERO_ADDRESS, Bytes32
from cloister.protocol.results import enclave_message, result_hash, result_seal
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tasks import TaskStatus, task_id

SMS = PrivateKey(b"\x5a" * 32)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marketplace]:
    with running_anvil() as node:
        market = build_marketplace(node, tmp_path_factory.mktemp("market"))
        market.send(market.deployer, market.hub.set_teebroker(SMS.address))
        yield market


def started(market: Marketplace, price: int = 0) -> Bytes32:
    """A deal's one task, initialized."""
    orders = market.orders(prices=(0, 0, price))
    deal = market.hub.matched_deal(market.send(market.requester, market.hub.match_orders(*orders)))
    market.send(market.deployer, market.hub.initialize(deal, 0))
    return task_id(deal, 0)


def appraised(market: Marketplace, task: Bytes32) -> ContributionAndResult:
    """A contribution whose enclave the SMS has authorized, as it does after appraisal alone."""
    made = market.contribution(task)
    message = scheduler_authorization(market.worker.address, task, made.enclave_challenge)
    return dataclasses.replace(made, authorization_sign=SMS.sign_message(message))


def test_case_40_a_worker_that_never_reports(market: Marketplace) -> None:
    market.stake(market.requester, 1_000)
    market.stake(market.pool_owner, 300)
    requester = market.hub.account(market.requester.address, block="latest")
    pool = market.hub.account(market.pool_owner.address, block="latest")
    task = started(market, price=1_000)
    assert market.hub.account(market.requester.address, block="latest").locked == requester.locked + 1_000
    with pytest.raises(TransactionReverted):
        market.send(market.requester, market.hub.claim(task))
    market.node.advance(3_001)
    market.send(market.requester, market.hub.claim(task))
    ended = market.hub.task(task, block="latest")
    assert ended is not None
    assert ended.status is TaskStatus.FAILED
    assert market.hub.account(market.requester.address, block="latest") == requester
    assert market.hub.account(market.pool_owner.address, block="latest").stake == pool.stake - 300
    with pytest.raises(TransactionReverted):
        market.send(market.worker, market.hub.contribute_and_finalize(appraised(market, task)))


def test_case_41_a_result_without_the_attested_key(market: Marketplace) -> None:
    task = started(market)
    good = appraised(market, task)
    other = PrivateKey(b"\x66" * 32)
    seal = enclave_message(result_hash(task, good.digest), result_seal(market.worker.address, task, good.digest))
    scheduler = scheduler_authorization(market.worker.address, task, other.address)
    forgeries = {
        "no appraisal: the scheduler's word alone": market.contribution(task),
        "no enclave at all": dataclasses.replace(good, enclave_challenge=ZERO_ADDRESS, enclave_sign=b""),
        "signed by another key": dataclasses.replace(good, enclave_sign=other.sign_message(seal)),
        "another key, which the scheduler vouches for": dataclasses.replace(
            good,
            enclave_challenge=other.address,
            enclave_sign=other.sign_message(seal),
            authorization_sign=market.pool_owner.sign_message(scheduler),
        ),
        "another digest under the same signature": dataclasses.replace(good, digest=Bytes32("0x" + "dd" * 32)),
    }
    for name, forged in forgeries.items():
        with pytest.raises(TransactionReverted):
            market.send(market.worker, market.hub.contribute_and_finalize(forged))
        open_task = market.hub.task(task, block="latest")
        assert open_task is not None
        assert open_task.status is TaskStatus.ACTIVE, name
    market.send(market.worker, market.hub.contribute_and_finalize(good))
    ended = market.hub.task(task, block="latest")
    assert ended is not None
    assert ended.status is TaskStatus.COMPLETED
