"""Tasks with one worker: initialization, contributeAndFinalize, callbacks, claims, and the money of each."""

from __future__ import annotations

from typing import Any

import boa
import pytest
from eth_hash.auto import keccak
from tests.contracts.hub.actors import (
    ZERO,
    ZERO_32,
    Actor,
    authorization_hash,
    compact,
    deal_id,
    enclave_hash,
    malleated,
    message_digest,
    result_hash,
    result_seal,
    task_id,
)
from tests.contracts.hub.chain import CATEGORY_SECONDS, MATCH, Chain, Receipt, Reverted, calldata, now, refused
from tests.contracts.hub.deployment import double
from tests.contracts.hub.interface import CONTRIBUTION, DEAL, TASK

FINALIZE = "contributeAndFinalize(bytes32,bytes32,bytes,bytes,address,bytes,bytes)"
FINALIZE_ARRAY = "contributeAndFinalizeArray(bytes32[],bytes32[],bytes[],bytes[],address[],bytes[],bytes[])"
INITIALIZE = "initialize(bytes32,uint256)"
RESULTS = b'{ "storage": "ipfs", "location": "/ipfs/QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG" }'
DIGEST = keccak(b"result")
KITTY = "0x99c2268479b93fDe36232351229815DF80837e23"
TEE = (9).to_bytes(32, "big")


def arguments(
    chain: Chain, task: bytes, *, digest: bytes = DIGEST, callback: bytes = b"", **changes: Any
) -> dict[str, Any]:
    """Arguments of a contribution by the worker in an enclave, all in order; `changes` replaces some."""
    worker, enclave = chain.worker.address, changes.get("enclave", chain.enclave.address)
    made = {
        "task": task,
        "digest": digest,
        "results": RESULTS,
        "callback": callback,
        "enclave": enclave,
        "enclave_sign": chain.enclave.sign_message(enclave_hash(worker, task, digest)),
        "authorization": chain.pool_owner.sign_message(authorization_hash(worker, task, enclave)),
    }
    return made | changes


def contribute(chain: Chain, task: bytes, sender: Actor | None = None, **changes: Any) -> Receipt:
    return chain.send(sender or chain.worker, FINALIZE, *arguments(chain, task, **changes).values())


def start(chain: Chain, **terms: Any) -> bytes:
    """Match a deal and open its first task."""
    deal = chain.match(chain.signed(chain.orders(**terms)))
    task: bytes = chain.send(chain.attacker, INITIALIZE, deal, 0).output
    assert task == task_id(deal)
    return task


def view_task(chain: Chain, task: bytes) -> dict[str, Any]:
    names = (
        "status dealid idx timeref contributionDeadline revealDeadline finalDeadline consensusValue "
        "revealCounter winnerCounter contributors resultDigest results resultsTimestamp resultsCallback"
    )
    return dict(zip(names.split(), chain.view("viewTask(bytes32)", TASK, task), strict=True))


def test_initialize(chain: Chain) -> None:
    deal = chain.match(chain.signed(chain.orders(volume=2)))
    start_time = now()
    assert view_task(chain, task_id(deal, 1))["dealid"] == ZERO_32
    boa.env.time_travel(seconds=7)
    receipt = chain.send(chain.attacker, INITIALIZE, deal, 1)
    task = task_id(deal, 1)
    assert receipt.output == task
    assert chain.events(receipt) == [("TaskInitialize", task, chain.workerpool.lower())]
    assert view_task(chain, task) == {
        "status": 1, "dealid": deal, "idx": 1, "timeref": CATEGORY_SECONDS,
        "contributionDeadline": start_time + 7 * CATEGORY_SECONDS, "revealDeadline": 0,
        "finalDeadline": start_time + 10 * CATEGORY_SECONDS, "consensusValue": ZERO_32, "revealCounter": 0,
        "winnerCounter": 0, "contributors": (), "resultDigest": ZERO_32, "results": b"", "resultsTimestamp": 0,
        "resultsCallback": b"",
    }  # fmt: skip
    for index in (1, 2, 2**40, 2**255):
        assert refused(lambda index=index: chain.send(chain.attacker, INITIALIZE, deal, index)) is None
    assert refused(lambda: chain.send(chain.attacker, INITIALIZE, b"\x01" * 32, 0)) is None


def test_initialize_array(chain: Chain) -> None:
    deal = chain.match(chain.signed(chain.orders(volume=3)))
    signature = "initializeArray(bytes32[],uint256[])"
    assert refused(lambda: chain.send(chain.attacker, signature, [deal], [0, 1])) is None
    assert refused(lambda: chain.send(chain.attacker, signature, [deal, deal], [0, 0])) is None
    assert chain.send(chain.attacker, signature, [deal] * 3, [0, 2, 1]).value("bool") is True
    assert [view_task(chain, task_id(deal, i))["idx"] for i in range(3)] == [0, 1, 2]


def test_success(chain: Chain) -> None:
    chain.fund(chain.requester, 1000)
    chain.fund(chain.pool_owner, 1000)
    chain.workerpools_policy(35, 5)
    task = start(chain, app_price=3, dataset_price=5, workerpool_price=107)
    started = now()
    boa.env.time_travel(seconds=7 * CATEGORY_SECONDS - 1)
    receipt = contribute(chain, task)
    worker, hub, pool = chain.worker.address.lower(), chain.hub.lower(), chain.pool_owner.address.lower()
    app, data = chain.app_owner.address.lower(), chain.data_owner.address.lower()
    share = 107 * 95 // 100
    hashed = result_hash(task, DIGEST)
    assert chain.events(receipt) == [
        ("Seize", chain.requester.address.lower(), 115, task),
        ("Transfer", hub, app, 3),
        ("Reward", app, 3, task),
        ("Transfer", hub, data, 5),
        ("Reward", data, 5, task),
        ("Transfer", hub, pool, 32),
        ("Unlock", pool, 32),
        ("Transfer", hub, worker, share),
        ("Reward", worker, share, task),
        ("Transfer", hub, pool, 107 - share),
        ("Reward", pool, 107 - share, task),
        ("TaskContribute", task, worker, hashed),
        ("TaskConsensus", task, hashed),
        ("TaskReveal", task, worker, DIGEST),
        ("TaskFinalize", task, RESULTS),
    ]
    assert chain.account(chain.requester) == (885, 0)
    assert chain.account(chain.app_owner) == (3, 0)
    assert chain.account(chain.data_owner) == (5, 0)
    assert chain.account(chain.worker) == (share, 0)
    assert chain.account(chain.pool_owner) == (1000 + 107 - share, 0)
    assert chain.account(chain.hub) == (0, 0)
    seen = view_task(chain, task)
    assert seen == seen | {
        "status": 3, "consensusValue": hashed, "revealCounter": 1, "winnerCounter": 1, "contributors": (worker,),
        "resultDigest": DIGEST, "results": RESULTS, "resultsTimestamp": now(), "resultsCallback": b"",
        "revealDeadline": now() + 2 * CATEGORY_SECONDS, "contributionDeadline": started + 7 * CATEGORY_SECONDS,
    }  # fmt: skip
    assert chain.view("viewContribution(bytes32,address)", CONTRIBUTION, task, worker) == (
        2, hashed, result_seal(worker, task, DIGEST), chain.enclave.address.lower(), 0,
    )  # fmt: skip
    assert chain.view("viewContribution(bytes32,address)", CONTRIBUTION, task, pool) == (0, ZERO_32, ZERO_32, ZERO, 0)
    assert chain.view("viewScore(address)", "uint256", worker) == 0
    assert chain.view("resultFor(bytes32)", "bytes", task) == b""
    assert refused(lambda: contribute(chain, task)) is None
    boa.env.time_travel(seconds=10 * CATEGORY_SECONDS)
    assert refused(lambda: chain.send(chain.requester, "claim(bytes32)", task)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": ZERO_32, "enclave_sign": None},
        {"authorization": "attacker"},
        {"authorization": "worker"},
        {"authorization": "other worker"},
        {"authorization": "other task"},
        {"authorization": "malleated"},
        {"enclave_sign": "attacker"},
        {"enclave_sign": "other digest"},
        {"enclave_sign": "malleated"},
        {"enclave": ZERO},
        {"callback": b"unasked"},
        {"task": b"\x01" * 32},
        {"results": bytes(4097)},
    ],
    ids=str,
)
def test_refused_contributions(chain: Chain, changes: dict[str, Any]) -> None:
    task = start(chain)
    good = arguments(chain, task)
    worker, enclave = chain.worker.address, chain.enclave.address
    made = {
        ("authorization", "attacker"): chain.attacker.sign_message(authorization_hash(worker, task, enclave)),
        ("authorization", "worker"): chain.worker.sign_message(authorization_hash(worker, task, enclave)),
        ("authorization", "other worker"): chain.pool_owner.sign_message(authorization_hash(enclave, task, enclave)),
        ("authorization", "other task"): chain.pool_owner.sign_message(authorization_hash(worker, ZERO_32, enclave)),
        ("authorization", "malleated"): malleated(good["authorization"]),
        ("enclave_sign", "attacker"): chain.attacker.sign_message(enclave_hash(worker, task, DIGEST)),
        ("enclave_sign", "other digest"): chain.enclave.sign_message(enclave_hash(worker, task, ZERO_32)),
        ("enclave_sign", "malleated"): malleated(good["enclave_sign"]),
        ("enclave_sign", None): good["enclave_sign"],
    }
    replaced = {
        name: made.get((name, value), value) if name.startswith(("auth", "enclave_")) else value
        for name, value in changes.items()
    }
    if changes.get("enclave") == ZERO:
        replaced["authorization"] = chain.pool_owner.sign_message(authorization_hash(worker, task, ZERO))
    assert refused(lambda: chain.send(chain.worker, FINALIZE, *(good | replaced).values())) is None
    assert refused(lambda: contribute(chain, task, sender=chain.attacker)) is None
    contribute(chain, task)


def test_refused_by_time_and_trust(chain: Chain) -> None:
    trusted = start(chain, trust=2)
    assert refused(lambda: contribute(chain, trusted)) is None
    task = start(chain, salt=b"\x01" * 32)
    boa.env.time_travel(seconds=7 * CATEGORY_SECONDS)
    assert refused(lambda: contribute(chain, task)) is None


def test_signature_lengths(chain: Chain) -> None:
    task = start(chain)
    good = arguments(chain, task)
    for name in ("enclave_sign", "authorization"):
        bad = good | {name: bytes(10)}
        assert refused(lambda bad=bad: chain.send(chain.worker, FINALIZE, *bad.values())) == "invalid-signature-format"
    short = good | {name: compact(good[name]) for name in ("enclave_sign", "authorization")}
    chain.send(chain.worker, FINALIZE, *short.values())


def test_published_signature_vectors() -> None:
    """Reference 5.4."""
    worker = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
    task = bytes.fromhex("d1caed5ce6b3486d4392d5954c394462123ccb9ffa06912b44b1944ebf4342e1")
    digest = bytes.fromhex("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824")
    assert result_hash(task, digest).hex() == "acceb6cb1a61e3a836f1a88405ff0a02434654f93aea21e8159633be2ff6a6ea"
    assert result_seal(worker, task, digest).hex() == "9279ea4aa5a91228afb4b3a5ba242aa09ea9fab518599c1d9e2d24c067c6817d"
    assert (
        enclave_hash(worker, task, digest).hex() == "34b52f03e09399b5ffdd6781025d968cc3b4b08770b4b4c44fe0b124aa6ff39d"
    )
    assert authorization_hash(worker, task).hex() == "0449e1265e4b874f3c03e5fcf336d838e97ad7bc092f9b97b7758f76d4a444bb"


def test_without_an_enclave(chain: Chain) -> None:
    task = start(chain, tag=ZERO_32)
    contribute(chain, task, enclave=ZERO, enclave_sign=b"")
    seen = view_task(chain, task)
    assert (seen["results"], seen["resultDigest"]) == (RESULTS, DIGEST)
    seen = chain.view("viewContribution(bytes32,address)", CONTRIBUTION, task, chain.worker.address)
    assert seen[3] == ZERO


def test_teebroker_speaks_for_enclaves(chain: Chain) -> None:
    broker = Actor.named("broker")
    chain.send(chain.deployer, "setTeeBroker(address)", broker.address)
    task = start(chain)
    assert refused(lambda: contribute(chain, task)) is None
    hashed = authorization_hash(chain.worker.address, task, chain.enclave.address)
    contribute(chain, task, authorization=broker.sign_message(hashed))
    plain = start(chain, tag=ZERO_32, salt=b"\x01" * 32)
    hashed = authorization_hash(chain.worker.address, plain, ZERO)
    by_broker = broker.sign_message(hashed)
    assert refused(lambda: contribute(chain, plain, enclave=ZERO, authorization=by_broker)) is None
    contribute(chain, plain, enclave=ZERO)


def test_teebroker_contract(chain: Chain) -> None:
    wallet = double("Wallet").deploy()
    chain.send(chain.deployer, "setTeeBroker(address)", wallet.address)
    task = start(chain)
    assert refused(lambda: contribute(chain, task, authorization=b"")) is None
    wallet.approve_hash(message_digest(authorization_hash(chain.worker.address, task, chain.enclave.address)))
    contribute(chain, task, authorization=b"")


@pytest.mark.parametrize("data", [b"", b"\x01", b"x" * 31, b"y" * 33, b"z" * 4096])
@pytest.mark.parametrize("results", [b"", b"r", b"s" * 4096])
def test_callback(chain: Chain, data: bytes, results: bytes) -> None:
    consumer = double("Consumer").deploy()
    chain.send(chain.deployer, "setCallbackGas(uint256)", 4_000_000)
    task = start(chain, callback=consumer.address)
    assert refused(lambda: chain.view("resultFor(bytes32)", "bytes", task)) == "task-pending"
    assert refused(lambda: contribute(chain, task, callback=data + b"!", digest=keccak(data))) is None
    contribute(chain, task, callback=data, digest=keccak(data), results=results)
    assert consumer.calls() == 1
    assert consumer.received(task) == data
    assert chain.view("resultFor(bytes32)", "bytes", task) == data
    assert view_task(chain, task)["results"] == results
    assert view_task(chain, task)["resultsCallback"] == data


@pytest.mark.parametrize("mood", [1, 2, 3])
def test_payment_stands_whatever_a_callback_does(chain: Chain, mood: int) -> None:
    """It reverts, burns its gas, or re-enters to be paid again."""
    consumer = double("Consumer").deploy()
    chain.fund(chain.requester, 100)
    task = start(chain, app_price=10, callback=consumer.address)
    again = calldata(FINALIZE, *arguments(chain, task, callback=b"data", digest=keccak(b"data")).values())
    payload = calldata("claim(bytes32)", task) if mood == 3 else again
    consumer.set_mood(mood, chain.hub, payload)
    contribute(chain, task, callback=b"data", digest=keccak(b"data"))
    assert view_task(chain, task)["status"] == 3
    assert consumer.reentered() is False
    assert chain.account(chain.app_owner) == (10, 0)
    assert chain.account(chain.requester) == (90, 0)


@pytest.mark.parametrize("call", ["initialize", "withdraw", "transfer", "deposit", "match"])
def test_nothing_is_entered_from_a_callback(chain: Chain, call: str) -> None:
    consumer = double("Consumer").deploy()
    chain.fund(consumer.address, 50)
    offers = chain.signed(chain.orders(callback=consumer.address, volume=2))
    deal = chain.match(offers)
    task = chain.send(chain.attacker, INITIALIZE, deal, 0).output
    other = chain.signed(chain.orders(salt=b"\x09" * 32, params=""))
    payload = {
        "initialize": calldata(INITIALIZE, deal, 1),
        "withdraw": calldata("withdraw(uint256)", 50),
        "transfer": calldata("transfer(address,uint256)", chain.attacker.address, 50),
        "deposit": calldata("deposit(uint256)", 0),
        "match": calldata("matchOrders" + MATCH, *other.as_tuples()),
    }[call]
    consumer.set_mood(3, chain.hub, payload)
    chain.send(chain.deployer, "setCallbackGas(uint256)", 4_000_000)
    contribute(chain, task, callback=b"data", digest=keccak(b"data"))
    assert (consumer.calls(), consumer.reentered()) == (1, False)
    assert chain.account(consumer.address) == (50, 0)


def test_a_starved_callback_fails_the_whole_call(chain: Chain) -> None:
    """Whatever gas there is, either the callback got what it was promised or nothing happened."""
    consumer = double("Consumer").deploy()
    task = start(chain, callback=consumer.address)
    data = calldata(FINALIZE, *arguments(chain, task, callback=b"data", digest=keccak(b"data")).values())
    outcomes = []
    for gas in range(100_000, 700_000, 20_000):
        with boa.env.anchor():
            outcomes.append((works(chain, chain.worker, data, gas), consumer.calls() == 1))
    assert set(outcomes) == {(True, True), (False, False)}


def works(chain: Chain, sender: Actor, data: bytes, gas: int) -> bool:
    try:
        chain.raw(sender, data, gas=gas)
    except Reverted:
        return False
    return True


def test_every_gas_limit_writes_a_whole_page_or_nothing(chain: Chain) -> None:
    """A page whose bytes could not be fetched for want of gas must not stay behind empty."""
    params = "p" * 16000
    offers = chain.signed(chain.orders(params=params))
    data = calldata("matchOrders" + MATCH, *offers.as_tuples())
    needed = chain.raw_gas(chain.requester, data)
    outcomes = set()
    for gas in range(needed - 60_000, needed + 60_000, 3_001):
        with boa.env.anchor():
            done = works(chain, chain.requester, data, gas)
            deal = deal_id(offers.request.hash(chain.domain))
            outcomes.add((done, chain.view("viewDeal(bytes32)", DEAL, deal)[9] == params))
    assert outcomes == {(True, True), (False, False)}


def test_claim(chain: Chain) -> None:
    chain.fund(chain.requester, 1000)
    chain.fund(chain.pool_owner, 1000)
    task = start(chain, app_price=3, workerpool_price=100)
    boa.env.time_travel(seconds=10 * CATEGORY_SECONDS - 1)
    assert refused(lambda: chain.send(chain.requester, "claim(bytes32)", task)) is None
    boa.env.time_travel(seconds=1)
    receipt = chain.send(chain.attacker, "claim(bytes32)", task)
    requester, pool = chain.requester.address.lower(), chain.pool_owner.address.lower()
    assert chain.events(receipt) == [
        ("Transfer", chain.hub.lower(), requester, 103),
        ("Unlock", requester, 103),
        ("Seize", pool, 30, task),
        ("Reward", KITTY.lower(), 30, task),
        ("Lock", KITTY.lower(), 30),
        ("TaskClaimed", task),
    ]
    assert chain.account(chain.requester) == (1000, 0)
    assert chain.account(chain.pool_owner) == (970, 0)
    assert chain.account(KITTY) == (0, 30)
    assert chain.view("frozenOf(address)", "uint256", KITTY) == 30
    assert chain.account(chain.hub) == (30, 0)
    assert view_task(chain, task)["status"] == 4
    assert refused(lambda: chain.send(chain.attacker, "claim(bytes32)", task)) is None
    assert refused(lambda: contribute(chain, task)) is None
    assert refused(lambda: chain.view("resultFor(bytes32)", "bytes", task)) == "task-pending"


@pytest.mark.parametrize(("lost", "bonus"), [(10**9 // 2, 10**9 // 2), (4 * 10**9, 10**9), (30 * 10**9, 3 * 10**9)])
def test_kitty_bonus(chain: Chain, lost: int, bonus: int) -> None:
    """A tenth of the kitty, at least 1 RLC, at most all of it."""
    chain.fund(chain.requester, 10**13)
    chain.fund(chain.pool_owner, 10**13)
    task = start(chain, workerpool_price=lost * 100 // 30 + 1)
    boa.env.time_travel(seconds=10 * CATEGORY_SECONDS)
    chain.send(chain.attacker, "claim(bytes32)", task)
    kitty = chain.account(KITTY)[1]
    assert kitty == lost
    before = chain.account(chain.pool_owner)[0]
    task = start(chain, salt=b"\x01" * 32)
    events = chain.events(contribute(chain, task))
    assert ("Seize", KITTY.lower(), bonus, task) in events
    assert chain.account(KITTY) == (0, lost - bonus)
    assert chain.account(chain.pool_owner) == (before + bonus, 0)
    assert chain.account(chain.hub) == (lost - bonus, 0)


def test_claim_arrays(chain: Chain) -> None:
    chain.fund(chain.requester, 30)
    deal = chain.match(chain.signed(chain.orders(app_price=10, volume=3)))
    chain.send(chain.attacker, INITIALIZE, deal, 0)
    boa.env.time_travel(seconds=10 * CATEGORY_SECONDS)
    both = "initializeAndClaimArray(bytes32[],uint256[])"
    assert refused(lambda: chain.send(chain.attacker, both, [deal], [1, 2])) is None
    assert refused(lambda: chain.send(chain.attacker, both, [deal, deal], [0, 1])) is None
    assert chain.send(chain.attacker, both, [deal, deal], [1, 2]).value("bool") is True
    assert (
        refused(lambda: chain.send(chain.attacker, "claimArray(bytes32[])", [task_id(deal, 0), task_id(deal, 1)]))
        is None
    )
    assert chain.send(chain.attacker, "claimArray(bytes32[])", [task_id(deal, 0)]).value("bool") is True
    assert chain.account(chain.requester) == (30, 0)


def test_finalize_array(chain: Chain) -> None:
    chain.fund(chain.requester, 1000)
    chain.fund(chain.pool_owner, 1000)
    deal = chain.match(chain.signed(chain.orders(workerpool_price=10, volume=3)))
    chain.send(chain.attacker, "initializeArray(bytes32[],uint256[])", [deal] * 3, [0, 1, 2])
    columns = [
        list(column) for column in zip(*(arguments(chain, task_id(deal, i)).values() for i in range(3)), strict=True)
    ]
    for i in range(7):
        short = [column[:2] if i == j else column for j, column in enumerate(columns)]
        assert refused(lambda short=short: chain.send(chain.worker, FINALIZE_ARRAY, *short)) is None
    twice = [[*column, column[0]] for column in columns]
    assert refused(lambda: chain.send(chain.worker, FINALIZE_ARRAY, *twice)) is None
    assert chain.send(chain.worker, FINALIZE_ARRAY, *columns).value("bool") is True
    assert [view_task(chain, task_id(deal, i))["results"] for i in range(3)] == [RESULTS] * 3
    assert chain.account(chain.worker) == (27, 0)
    assert chain.account(chain.pool_owner) == (1003, 0)


def test_a_category_of_no_time_at_all(chain: Chain) -> None:
    category = chain.send(chain.deployer, "createCategory(string,string,uint256)", "none", "", 0).value("uint256")
    offers = chain.signed(chain.orders().with_(request_category=category, workerpool_category=category))
    deal = chain.match(offers)
    task = chain.send(chain.attacker, INITIALIZE, deal, 0).output
    assert refused(lambda: contribute(chain, task)) is None
    chain.send(chain.attacker, "claim(bytes32)", task)
