"""The typed clients against the real contracts, from registration to a paid task."""

from __future__ import annotations

import dataclasses

import pytest
from tests.support.marketplace import CHECKSUM, Marketplace

from cloister.chain.logs import (
    EntryTransfer,
    OrderClosed,
    OrdersMatched,
    Rewarded,
    SchedulerNotice,
    TaskFinalize,
    TaskInitialize,
    TokenTransfer,
    decode_log,
)
from cloister.chain.rpc import TransactionReverted
from cloister.errors import NotFound
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32
from cloister.protocol.consensus import settle_at_once
from cloister.protocol.deals import deadlines, deal_id
from cloister.protocol.matching import MatchRefused, match_orders
from cloister.protocol.orders import NO_DATASET_ORDER, Operation, OrderKind, operation_digest, sign_order
from cloister.protocol.results import build_results_location, parse_results_location
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tasks import ContributionStatus, TaskStatus, task_id

NOWHERE = Address("0x" + "77" * 20)
NO_WORD = Bytes32("0x" + "77" * 32)
RESULTS = build_results_location("ipfs", "/ipfs/QmResult")


def test_entries_are_read_back(market: Marketplace) -> None:
    app = market.apps.app(market.app, block="latest")
    assert app is not None
    assert (app.owner, app.name, app.type, app.multiaddr) == (
        market.app_owner.address,
        "sum",
        "DOCKER",
        b"/ipfs/QmApp",
    )
    assert (app.checksum, app.mrenclave, app.registry) == (CHECKSUM, b"", market.apps.address)
    dataset = market.datasets.dataset(market.dataset, block="latest")
    assert dataset is not None
    assert (dataset.owner, dataset.name, dataset.multiaddr) == (
        market.data_owner.address,
        "numbers",
        b"\xa5\x03multiaddr",
    )
    pool = market.workerpools.workerpool(market.workerpool, block="latest")
    assert pool is not None
    assert (pool.description, pool.worker_stake_ratio, pool.scheduler_reward_ratio) == ("two machines", 30, 1)
    assert market.hub.registries(block="latest") == (
        market.apps.address,
        market.datasets.address,
        market.workerpools.address,
    )


def test_what_is_not_there_is_none(market: Marketplace) -> None:
    assert market.apps.app(NOWHERE, block="latest") is None
    assert market.apps.app(market.dataset, block="latest") is None
    assert market.apps.owner_of_entry(NOWHERE, block="latest") is None
    assert market.hub.owner_of(NOWHERE, block="latest") is None
    assert market.hub.deal(NO_WORD, block="latest") is None
    assert market.hub.task(NO_WORD, block="latest") is None
    assert market.hub.group_has(NOWHERE, market.app, block="latest") is False
    with pytest.raises(NotFound):
        market.hub.category(99, block="latest")


def test_reads_are_of_the_named_block(market: Marketplace) -> None:
    before = market.hub.rpc.block_number()
    owner = PrivateKey(b"\x31" * 32).address
    market.send(market.deployer, market.datasets.create_dataset(owner, "later", b"", CHECKSUM))
    assert market.datasets.balance_of(owner, block="latest") == 1
    assert market.datasets.balance_of(owner, block=before) == 0


def test_predicted_addresses_are_the_ones_made(market: Marketplace) -> None:
    owner = market.app_owner.address
    arguments = (owner, "twice", "DOCKER", b"/ipfs/QmTwice", CHECKSUM, b"")
    predicted = market.apps.predict_app(*arguments, block="latest")
    assert not market.apps.is_registered(predicted, block="latest")
    receipt = market.send(market.deployer, market.apps.create_app(*arguments))
    assert market.apps.created_entry(receipt) == predicted
    with pytest.raises(TransactionReverted, match="Create2"):
        market.send(market.deployer, market.apps.create_app(*arguments))
    data = (owner, "d", b"/p2p/x", CHECKSUM)
    predicted = market.datasets.predict_dataset(*data, block="latest")
    receipt = market.send(market.deployer, market.datasets.create_dataset(*data))
    assert market.datasets.created_entry(receipt) == predicted
    predicted = market.workerpools.predict_workerpool(owner, "p", block="latest")
    receipt = market.send(market.deployer, market.workerpools.create_workerpool(owner, "p"))
    assert market.workerpools.created_entry(receipt) == predicted


def test_entries_change_hands(market: Marketplace) -> None:
    old, new = market.app_owner, PrivateKey(b"\x32" * 32).address
    arguments = (old.address, "sold", "DOCKER", b"/ipfs/QmSold", CHECKSUM, b"")
    entry = market.apps.created_entry(market.send(market.deployer, market.apps.create_app(*arguments)))
    receipt = market.send(old, market.apps.transfer(old.address, new, entry))
    assert EntryTransfer(old.address, new, entry) in [decode_log(log) for log in receipt.logs]
    assert market.apps.owner_of_entry(entry, block="latest") == market.hub.owner_of(entry, block="latest") == new
    assert market.apps.entries_of_owner(new, block=receipt.block_number) == [entry]


def test_stake_comes_and_goes(market: Marketplace) -> None:
    key = market.node.account("saver")
    market.stake(key, 500)
    assert market.rlc.balance_of(key.address, block="latest") == 0
    assert market.hub.account(key.address, block="latest").stake == 500
    receipt = market.send(key, market.hub.withdraw(200))
    assert TokenTransfer(key.address, ZERO_ADDRESS, 200) in [decode_log(log) for log in receipt.logs]
    account = market.hub.account(key.address, block="latest")
    assert (account.stake, account.locked) == (300, 0)
    assert market.rlc.balance_of(key.address, block="latest") == 200


def test_a_task_from_match_to_payment(market: Marketplace) -> None:
    prices = (1_000, 200, 30_000)
    market.stake(market.requester, 2 * sum(prices))
    market.stake(market.pool_owner, 2 * 9_000)
    orders = market.orders(prices=prices, volume=2, params='{"iexec_args":"é"}')
    facts = market.hub.matching_facts(*orders, block="latest")
    match = match_orders(*orders, facts)
    assert (match.volume, match.task_price, match.total_price, match.pool_stake) == (2, 31_200, 62_400, 18_000)

    receipt = market.send(market.requester, market.hub.match_orders(*orders))
    deal_name = market.hub.matched_deal(receipt)
    assert deal_name == deal_id(match.request_hash, match.bot_first)
    events = [decode_log(log) for log in receipt.logs]
    hashes = (match.app_hash, match.dataset_hash, match.workerpool_hash, match.request_hash)
    assert OrdersMatched(deal_name, *hashes, 2) in events
    assert SchedulerNotice(market.workerpool, deal_name) in events

    deal = market.hub.deal(deal_name, block=receipt.block_number)
    assert deal is not None
    assert (deal.app.pointer, deal.dataset.owner, deal.workerpool.price) == (
        market.app,
        market.data_owner.address,
        30_000,
    )
    assert (deal.params, deal.bot_first, deal.bot_size, deal.trust) == ('{"iexec_args":"é"}', 0, 2, 1)
    assert (deal.sponsor, deal.tag, deal.task_price) == (market.requester.address, match.tag, match.task_price)
    assert deal.is_tee
    assert market.hub.account(market.requester.address, block="latest").locked == 62_400
    assert market.hub.consumed_volumes(hashes, block="latest") == [2, 2, 2, 2]

    names = list(deal.task_ids(deal_name))
    begun = market.send(market.deployer, market.hub.initialize_array([deal_name, deal_name], [0, 1]))
    assert TaskInitialize(names[1], market.workerpool) in [decode_log(log) for log in begun.logs]
    task = market.hub.task(names[0], block="latest")
    assert task is not None
    category = market.hub.category(0, block="latest")
    limits = deadlines(deal.start_time, category.clock)
    assert (task.contribution_deadline, task.final_deadline) == (limits.contribution, limits.final)
    assert (task.status, task.deal_id, task.index) == (TaskStatus.ACTIVE, deal_name, 0)

    before = market.hub.account(market.worker.address, block="latest").stake
    done = market.send(
        market.worker, market.hub.contribute_and_finalize(market.contribution(names[0], results=RESULTS))
    )
    paid = [event for event in map(decode_log, done.logs) if isinstance(event, Rewarded)]
    split = settle_at_once(
        app_price=1_000,
        dataset_price=200,
        workerpool_price=30_000,
        scheduler_reward_percent=1,
        worker=market.worker.address,
        kitty=0,
    )
    assert {event.account: event.amount for event in paid} == {
        market.app_owner.address: split.app_owner,
        market.data_owner.address: split.dataset_owner,
        market.worker.address: split.workers[market.worker.address],
        market.pool_owner.address: split.pool_owner,
    }
    gained = market.hub.account(market.worker.address, block="latest").stake - before
    assert gained == split.workers[market.worker.address] == 29_700

    market.send(
        market.worker, market.hub.contribute_and_finalize_array([market.contribution(names[1], results=RESULTS)])
    )
    tasks = market.hub.tasks(names, block="latest")
    assert [item.status for item in tasks if item is not None] == [TaskStatus.COMPLETED] * 2
    finished = tasks[0]
    assert finished is not None
    assert parse_results_location(finished.results).location == "/ipfs/QmResult"
    assert finished.result_digest == CHECKSUM
    assert TaskFinalize(names[0], RESULTS) in [decode_log(log) for log in done.logs]
    contribution = market.hub.contribution(names[0], market.worker.address, block="latest")
    assert contribution.status is ContributionStatus.PROVED


def test_the_same_contribution_is_not_accepted_from_another_enclave_key(market: Marketplace) -> None:
    """Abuse 41: a result without a signature by the authorized key."""
    orders = market.orders()
    deal = market.hub.matched_deal(market.send(market.requester, market.hub.match_orders(*orders)))
    market.send(market.deployer, market.hub.initialize(deal, 0))
    good = market.contribution(task_id(deal, 0))
    forged = dataclasses.replace(good, enclave_sign=PrivateKey(b"\x33" * 32).sign_message(b"\x00" * 32))
    with pytest.raises(TransactionReverted):
        market.send(market.worker, market.hub.contribute_and_finalize(forged))


def test_late_tasks_are_refunded(market: Marketplace) -> None:
    market.stake(market.requester, 1_000)
    market.stake(market.pool_owner, 300)
    orders = market.orders(prices=(0, 0, 1_000))
    stake = market.hub.account(market.requester.address, block="latest").stake
    deal = market.hub.matched_deal(market.send(market.requester, market.hub.match_orders(*orders)))
    with pytest.raises(TransactionReverted):
        market.send(market.deployer, market.hub.initialize_and_claim_array([deal], [0]))
    market.node.advance(3_001)
    market.send(market.deployer, market.hub.initialize_and_claim_array([deal], [0]))
    task = market.hub.task(task_id(deal, 0), block="latest")
    assert task is not None
    assert task.status is TaskStatus.FAILED
    assert market.hub.account(market.requester.address, block="latest").stake == stake


def test_a_closed_order_is_not_a_used_one(market: Marketplace) -> None:
    used, closed = market.orders(), market.orders()
    market.send(market.requester, market.hub.match_orders(*used))
    receipt = market.send(market.data_owner, market.hub.manage_order(closed[1], Operation.CLOSE))
    domain = market.hub.domain
    used_hash, closed_hash = used[1].hash(domain), closed[1].hash(domain)
    assert OrderClosed(OrderKind.DATASET, closed_hash) in [decode_log(log) for log in receipt.logs]
    assert market.hub.consumed(used_hash, block="latest") == market.hub.consumed(closed_hash, block="latest") == 1
    assert not market.hub.is_closed(used_hash, block="latest")
    assert market.hub.is_closed(closed_hash, block="latest")
    with pytest.raises(MatchRefused) as caught:
        match_orders(*closed, market.hub.matching_facts(*closed, block="latest"))
    assert caught.value.match_code == 0x60


def test_an_operation_signed_by_the_owner_may_be_sent_by_anybody(market: Marketplace) -> None:
    order = market.orders()[0].signed(b"")
    domain = market.hub.domain
    sign = market.app_owner.sign_digest(operation_digest(order, Operation.SIGN, domain))
    market.send(market.requester, market.hub.manage_order(order, Operation.SIGN, sign))
    assert market.hub.presigned(order.hash(domain), block="latest") == market.app_owner.address
    with pytest.raises(TransactionReverted, match="invalid-sender-or-signature"):
        market.send(market.requester, market.hub.manage_order(order, Operation.CLOSE, sign))


def test_presigned_orders_need_no_signature(market: Marketplace) -> None:
    orders = list(market.orders())
    orders[0] = orders[0].signed(b"")
    facts = market.hub.matching_facts(*orders, block="latest")  # type: ignore[arg-type]
    with pytest.raises(MatchRefused) as caught:
        match_orders(*orders, facts)  # type: ignore[arg-type]
    assert caught.value.match_code == 0x21
    market.send(market.app_owner, market.hub.manage_order(orders[0], Operation.SIGN))
    facts = market.hub.matching_facts(*orders, block="latest")  # type: ignore[arg-type]
    assert match_orders(*orders, facts).volume == 1  # type: ignore[arg-type]
    market.send(market.requester, market.hub.match_orders(*orders))  # type: ignore[arg-type]


STRANGER = Address("0x" + "99" * 20)
REFUSALS = [
    (0x00, "request", {"category": 1}),
    (0x01, "both", {"category": 9}),
    (0x02, "request", {"trust": 5}),
    (0x03, "app", {"appprice": 1}),
    (0x04, "dataset", {"datasetprice": 1}),
    (0x05, "workerpool", {"workerpoolprice": 1}),
    (0x06, "workerpool", {"tag": "0x" + "00" * 32}),
    (0x07, "app", {"tag": "0x" + "00" * 32}),
    (0x10, "request", {"app": STRANGER}),
    (0x11, "request", {"dataset": STRANGER}),
    (0x12, "request", {"workerpool": STRANGER}),
    (0x13, "app", {"datasetrestrict": STRANGER}),
    (0x14, "app", {"workerpoolrestrict": STRANGER}),
    (0x15, "app", {"requesterrestrict": STRANGER}),
    (0x16, "dataset", {"apprestrict": STRANGER}),
    (0x17, "dataset", {"workerpoolrestrict": STRANGER}),
    (0x18, "dataset", {"requesterrestrict": STRANGER}),
    (0x19, "workerpool", {"apprestrict": STRANGER}),
    (0x1A, "workerpool", {"datasetrestrict": STRANGER}),
    (0x1B, "workerpool", {"requesterrestrict": STRANGER}),
    (0x20, "app and request", {"app": STRANGER}),
    (0x21, "app unsigned", {"volume": 2}),
    (0x30, "dataset and request", {"dataset": STRANGER}),
    (0x31, "dataset unsigned", {"volume": 2}),
    (0x40, "workerpool and request", {"workerpool": STRANGER}),
    (0x41, "workerpool unsigned", {"volume": 2}),
    (0x50, "request unsigned", {"volume": 2}),
    (0x60, "app", {"volume": 0}),
    (0x60, "request", {"volume": 0}),
]


@pytest.mark.parametrize(
    ("code", "which", "changes"), REFUSALS, ids=lambda value: hex(value) if isinstance(value, int) else None
)
def test_the_twin_refuses_with_the_hubs_code(
    market: Marketplace, code: int, which: str, changes: dict[str, object]
) -> None:
    orders = dict(zip(("app", "dataset", "workerpool", "request"), market.orders(), strict=True))
    keys = dict(zip(orders, (market.app_owner, market.data_owner, market.pool_owner, market.requester), strict=True))
    targets = ("workerpool", "request") if which == "both" else which.removesuffix(" unsigned").split(" and ")
    for name in targets:
        changed = dataclasses.replace(orders[name], **changes)  # type: ignore[arg-type]
        orders[name] = changed if which.endswith("unsigned") else sign_order(changed, keys[name], market.hub.domain)
    four = tuple(orders.values())
    with pytest.raises(MatchRefused) as ours:
        match_orders(*four, market.hub.matching_facts(*four, block="latest"))  # type: ignore[arg-type]
    assert ours.value.match_code == code
    with pytest.raises(TransactionReverted) as theirs:
        market.send(market.requester, market.hub.match_orders(*four))  # type: ignore[arg-type]
    assert theirs.value.reason == ours.value.reason


def test_a_deal_without_dataset(market: Marketplace) -> None:
    app, _, workerpool, request = market.orders()
    request = sign_order(dataclasses.replace(request, dataset=ZERO_ADDRESS), market.requester, market.hub.domain)
    facts = market.hub.matching_facts(app, None, workerpool, request, block="latest")
    match = match_orders(app, None, workerpool, request, facts)
    assert match.dataset_hash == NO_DATASET_ORDER.hash(market.hub.domain)
    receipt = market.send(market.requester, market.hub.match_orders(app, None, workerpool, request))
    deal = market.hub.deal(market.hub.matched_deal(receipt), block="latest")
    assert deal is not None
    assert not deal.has_dataset
    bulk = market.orders()[1]
    deal_name = market.hub.matched_deal(receipt)
    market.hub.check_dataset_compatibility(bulk, deal_name, block="latest")
    market.send(market.data_owner, market.hub.manage_order(bulk, Operation.CLOSE))
    with pytest.raises(TransactionReverted, match="revoked or fully consumed"):
        market.hub.check_dataset_compatibility(bulk, deal_name, block="latest")
