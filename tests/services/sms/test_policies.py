"""Owners' hardware rules over HTTP: in a grant, standing for the data, and across the workers of one task."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.sms_bulk import BulkWorld
from tests.support.sms_world import DATASET, DATASET_KEY, MEASUREMENT, START, Enclave, Platform, World

from cloister.attestation.rules import parse_rules
from cloister.protocol import authorization
from cloister.protocol.authentication import sign_request
from cloister.protocol.codec import ZERO_BYTES32, Address, Bytes32, canonical_json, keccak256, to_hex
from cloister.protocol.data_policies import DataPolicy, SignedDataPolicy, sign_data_policy
from cloister.protocol.orders import DatasetOrder
from cloister.protocol.policies import AccessPolicy, policy_salt
from cloister.protocol.releases import RefusedDataset, ReleasedDataset
from cloister.protocol.sessions import FINAL_REFUSALS
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import TEE_TDX

GOOD: dict[str, Any] = {"kind": "simulated", "measurements": [MEASUREMENT.hex()]}
OTHER: dict[str, Any] = {"kind": "simulated", "measurements": ["ab" * 32]}
OPEN: dict[str, Any] = {"kind": "simulated", "measurements": "any"}
HARDWARE_ONLY: dict[str, Any] = {
    "any_of": [
        {"kind": "snp", "measurements": "any"},
        {"kind": "tdx", "measurements": "any", "registers": {"rtmr1": "any", "rtmr2": "any"}},
    ]
}
POLICY_PATH = f"/policies/data/{DATASET}"


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    with World(tmp_path, database_url=database_url).serving() as running:
        push_key(running)
        yield running


@pytest.fixture
def file_world(tmp_path: Path) -> Iterator[World]:
    """On SQLite, for tests that no database can decide differently."""
    with World(tmp_path).serving() as running:
        push_key(running)
        yield running


def push_key(world: World) -> None:
    challenge = authorization.sms_web3_challenge(DATASET, DATASET_KEY)
    status, _ = world.set_secret("POST", f"/secrets/web3?secretAddress={DATASET}", DATASET_KEY, challenge, world.owner)
    assert status == 204


def statement(rules: dict[str, Any] | None, version: int = 1, issued_at: int = START) -> DataPolicy:
    digest = ZERO_BYTES32 if rules is None else Bytes32.from_raw(parse_rules(rules).digest)
    return DataPolicy(DATASET, digest, version, issued_at)


def signed(world: World, rules: dict[str, Any] | None, version: int = 1, **other: Any) -> SignedDataPolicy:
    key: PrivateKey = other.pop("key", world.owner)
    return sign_data_policy(statement(rules, version, **other), rules, key, world.domain)


def put(world: World, policy: SignedDataPolicy, dataset: Address = DATASET) -> tuple[int, str | None]:
    """Set a standing policy; returns status and code."""
    status, body = world.ask("PUT", f"/policies/data/{dataset}", body=policy.to_json())
    return status, json.loads(body)["code"] if body else None


def stand(world: World, rules: dict[str, Any] | None, version: int = 1) -> None:
    assert put(world, signed(world, rules, version)) == (204, None)


def put_access_policy(world: World, policy: AccessPolicy) -> tuple[int, bytes]:
    target, body = f"/policies/{policy.hash()}", canonical_json(policy.to_json())
    header = sign_request(
        world.owner,
        audience=world.settings.audience,
        method="PUT",
        target=target,
        body=body,
        issued_at=int(world.clock.now),
        nonce=os.urandom(16),
    )
    return world.ask("PUT", target, body=body, headers={"authorization": header, "content-type": "application/json"})


def grant_with(world: World, rules: dict[str, Any]) -> AccessPolicy:
    policy = AccessPolicy(os.urandom(16), hardware=parse_rules(rules).canonical)
    assert put_access_policy(world, policy)[0] == 204
    world.use_order(world.sign(DatasetOrder(dataset=DATASET, volume=10, tag=TEE_TDX, salt=policy_salt(policy))))
    return policy


# --- the grant's own rules ---


def test_a_grants_rules_hold_at_release(world: World) -> None:
    policy = grant_with(world, {"any_of": [HARDWARE_ONLY, GOOD]})
    dataset = world.released().dataset
    assert dataset is not None
    assert dataset.policy_hash == policy.hash()
    for rules, code in (
        (OTHER, "measurement-unknown"),
        (HARDWARE_ONLY, "kind-not-allowed"),
        ({**OPEN, "platforms": ["00" * 32]}, "platform-not-allowed"),
        ({**OPEN, "min_svn": 2}, "svn-too-low"),
        ({**OPEN, "tcb": {}}, "tcb-unknown"),
        ({**OPEN, "attributes": {"vmpl": 0}}, "attribute-missing"),
        ({"kind": "simulated"}, "no-reference-values"),
        ({"all_of": [GOOD, OTHER]}, "measurement-unknown"),
    ):
        grant_with(world, rules)
        assert world.refusal() == code
        assert code not in FINAL_REFUSALS


def test_the_refusal_says_whose_rule_it_was_and_what_would_pass(file_world: World) -> None:
    grant_with(file_world, {**GOOD, "min_svn": 9})
    _, body, _, _ = file_world.run()
    assert body["error"] == "the grant's hardware rules: security version 1 is below 9"
    stand(file_world, HARDWARE_ONLY)
    _, body, _, _ = file_world.run()
    assert body["error"].startswith("the data's standing policy: simulated evidence where snp is required")


def test_an_owner_cannot_loosen_what_the_sms_demands(file_world: World) -> None:
    grant_with(file_world, OPEN)
    assert file_world.refusal(evidence={"measurement": bytes(32)}) == "measurement-unknown"
    assert file_world.refusal(evidence={"debug": True}) == "debug-enabled"
    file_world.platform = Platform()
    assert file_world.refusal() == "untrusted-root"


@pytest.mark.parametrize(
    ("rules", "status"),
    [
        ({"kind": "simulated", "measurements": ["AB" * 32], "version": 1}, 400),
        ({"kind": "simulated", "measurements": "any"}, 400),
        ({"kind": "simulated", "measurements": "any", "version": 1, "debug": True}, 400),
        ({"kind": "simulated", "measurements": ["ab"], "version": 1}, 400),
        ({"kind": "simulated", "measurements": "any", "version": 1}, 204),
    ],
)
def test_rules_are_read_before_they_are_kept(file_world: World, rules: dict[str, Any], status: int) -> None:
    policy = AccessPolicy(bytes(16), hardware=canonical_json(rules).decode())
    assert put_access_policy(file_world, policy)[0] == status


# --- the standing policy of the data ---


def test_a_standing_policy_binds_every_release(world: World) -> None:
    assert world.ask("GET", POLICY_PATH)[0] == 404
    world.released()
    stand(world, OTHER)
    assert world.refusal() == "measurement-unknown"
    stand(world, GOOD, version=2)
    world.released()
    grant_with(world, OTHER)  # both must hold
    assert world.refusal() == "measurement-unknown"
    stand(world, None, version=3)
    assert world.refusal() == "measurement-unknown"
    grant_with(world, GOOD)
    world.released()


def test_it_is_shown_with_its_signature(file_world: World) -> None:
    policy = signed(file_world, GOOD, 4)
    assert put(file_world, policy) == (204, None)
    status, body = file_world.ask("GET", POLICY_PATH.lower())
    assert status == 200
    assert json.loads(body) == {
        "dataset": DATASET,
        "owner": file_world.owner.address,
        "hash": policy.statement.policy,
        "policy": parse_rules(GOOD).to_json(),
        "version": 4,
        "issued_at": START,
        "signature": to_hex(policy.signature),
    }


def test_it_survives_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.serving():
        push_key(world)
        stand(world, OTHER, version=5)
    with world.serving():
        assert world.refusal() == "measurement-unknown"
        assert put(world, signed(world, GOOD, 5)) == (409, "policy-rollback")


def test_versions_only_grow(world: World) -> None:
    first, second = signed(world, GOOD, 1), signed(world, OTHER, 2)
    assert put(world, first) == (204, None)
    assert put(world, first) == (204, None)
    assert put(world, second) == (204, None)
    assert put(world, first) == (409, "policy-rollback")
    assert put(world, signed(world, GOOD, 2)) == (409, "policy-rollback")
    assert put(world, signed(world, OTHER, 2, issued_at=START + 1)) == (409, "policy-rollback")
    assert put(world, signed(world, None, 0)) == (409, "policy-rollback")
    assert world.refusal() == "measurement-unknown"


def test_of_racing_versions_the_highest_stays(world: World) -> None:
    policies = [signed(world, GOOD if version % 2 else OTHER, version) for version in range(1, 9)]
    gate, results = threading.Barrier(len(policies)), []

    def send(policy: SignedDataPolicy) -> None:
        gate.wait()
        results.append(put(world, policy))

    threads = [threading.Thread(target=send, args=[policy]) for policy in policies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) <= {(204, None), (409, "policy-rollback")}
    assert json.loads(world.ask("GET", POLICY_PATH)[1])["version"] == 8


def test_nobody_else_sets_or_replaces_it(world: World) -> None:
    """Abuse 49: one tenant's policy never takes the place of another's."""
    stand(world, OTHER)
    mine = signed(world, GOOD, 9)
    other = Address.from_raw(keccak256(b"another dataset")[:20])
    world.ledger.owners[other] = world.stranger.address
    theirs = sign_data_policy(dataclasses.replace(mine.statement, dataset=other), GOOD, world.stranger, world.domain)
    elsewhere = dataclasses.replace(world.domain, chain_id=1)
    for policy, code in (
        (signed(world, GOOD, 9, key=world.stranger), "wrong-signer"),
        (theirs, "wrong-signer"),
        (dataclasses.replace(mine, rules=OPEN), "wrong-signer"),
        (dataclasses.replace(mine, rules=None), "wrong-signer"),
        (dataclasses.replace(mine, statement=statement(GOOD, 10)), "wrong-signer"),
        (dataclasses.replace(mine, signature=bytes(65)), "wrong-signer"),
        (dataclasses.replace(mine, signature=b""), "wrong-signer"),
        (sign_data_policy(mine.statement, GOOD, world.owner, elsewhere), "wrong-signer"),
    ):
        assert put(world, policy) == (403, code)
    assert put(world, theirs, other) == (204, None)
    assert world.refusal() == "measurement-unknown"
    assert json.loads(world.ask("GET", POLICY_PATH)[1])["version"] == 1


def test_a_transfer_leaves_it_without_force(world: World) -> None:
    stand(world, OTHER, version=7)
    entry = world.ledger.datasets[DATASET]

    def transfer(to: PrivateKey) -> None:
        world.ledger.owners[DATASET] = to.address
        world.ledger.datasets[DATASET] = dataclasses.replace(entry, owner=to.address)
        world.use_order(world.sign(DatasetOrder(dataset=DATASET, volume=10, tag=TEE_TDX), to))

    transfer(world.stranger)
    assert world.ask("GET", POLICY_PATH)[0] == 404
    world.released()
    assert put(world, signed(world, GOOD, 8)) == (403, "wrong-signer")
    assert put(world, signed(world, HARDWARE_ONLY, 1, key=world.stranger)) == (204, None)
    assert world.refusal() == "kind-not-allowed"
    transfer(world.owner)  # what the first owner last said holds again, and nothing older
    assert put(world, signed(world, GOOD, 6)) == (409, "policy-rollback")
    assert world.refusal() == "measurement-unknown"


def test_a_contract_that_owns_data_says_what_it_signed(file_world: World) -> None:
    wallet = Address("0x" + "c0" * 20)
    file_world.ledger.owners[DATASET] = wallet
    file_world.ledger.wallets[wallet] = b"\x01" * 96
    policy = dataclasses.replace(signed(file_world, GOOD), signature=b"\x01" * 96)
    assert put(file_world, policy) == (204, None)
    assert put(file_world, dataclasses.replace(policy, signature=b"\x02" * 96)) == (403, "wrong-signer")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"policy": []}, 400),
        ({"policy": {"kind": "none"}}, 400),
        ({"policy": {"kind": "tpm", "measurements": ["ab"]}}, 400),
        ({"policy": {"kind": "tpm", "measurements": ["ab" * 32] * 9000}}, 413),
        ({"version": -1}, 400),
        ({"version": 2**53}, 400),
        ({"issued_at": "soon"}, 400),
        ({"signature": "0x" + "00" * 3000}, 413),
        ({"more": 1}, 400),
    ],
)
def test_malformed_bodies(file_world: World, change: dict[str, Any], status: int) -> None:
    body = {**signed(file_world, GOOD).to_json(), **change}
    assert file_world.ask("PUT", POLICY_PATH, body=body)[0] == status


def test_a_policy_of_tomorrow_or_of_no_data_is_refused(file_world: World) -> None:
    assert put(file_world, signed(file_world, GOOD, issued_at=START + 61)) == (403, "issued-in-the-future")
    assert put(file_world, signed(file_world, GOOD), Address("0x" + "99" * 20)) == (404, "dataset-unknown")
    file_world.ledger.down = True
    assert put(file_world, signed(file_world, GOOD))[0] == 503


def test_in_a_slice_an_item_fails_alone(tmp_path: Path) -> None:
    with BulkWorld(tmp_path).serving() as running:
        assert isinstance(running, BulkWorld)
        running.push_keys()
        strict, plain, granted = running.contributors
        rules = Bytes32.from_raw(parse_rules(OTHER).digest)
        policy = sign_data_policy(DataPolicy(strict.dataset, rules, 1, START), OTHER, strict.owner, running.domain)
        assert put(running, policy, strict.dataset) == (204, None)
        access = AccessPolicy(bytes(16), hardware=parse_rules(HARDWARE_ONLY).canonical)
        assert put_access_policy(running, access)[0] == 204
        running.offer([[strict.order, plain.order, running.regrant(2, salt=policy_salt(access))]])
        release = running.released()
    assert release.bulk is not None
    causes = [item.cause if isinstance(item, RefusedDataset) else None for item in release.bulk]
    assert causes == ["measurement-unknown", None, "kind-not-allowed"]
    assert isinstance(release.bulk[1], ReleasedDataset)
    assert [item.address for item in release.bulk] == [strict.dataset, plain.dataset, granted.dataset]


# --- the workers of one replicated task ---


def machines(world: World, count: int) -> list[Platform]:
    """The world's own machine and others that its root vouches for."""
    return [world.platform, *(Platform(root_key=world.platform.root_key) for _ in range(count - 1))]


def run_on(world: World, machine: Platform, worker: PrivateKey) -> str:
    """A session of a worker on a machine: ``released``, or the code of its refusal."""
    world.platform = machine
    status, body, _, _ = world.run(worker=worker.address)
    return "released" if status == 200 else str(body["code"])


def test_no_two_workers_of_a_task_share_a_platform(world: World) -> None:
    """Abuse 26: two quotes of one platform are not two operators."""
    world.make_deal(trust=3)
    stand(world, {**GOOD, "distinct": "platform"})
    first, second = machines(world, 2)
    assert run_on(world, first, world.worker) == "released"
    assert run_on(world, first, world.worker) == "released"  # the same worker again: its lease was lost on the way
    assert run_on(world, first, world.stranger) == "platform-repeated"
    assert run_on(world, second, world.stranger) == "released"
    assert run_on(world, second, world.worker) == "platform-repeated"
    assert "platform-repeated" not in FINAL_REFUSALS


def test_no_two_workers_of_a_task_share_a_vendor(file_world: World) -> None:
    file_world.make_deal(trust=2)
    grant_with(file_world, {**GOOD, "distinct": "vendor"})
    first, second = machines(file_world, 2)
    assert run_on(file_world, first, file_world.worker) == "released"
    assert run_on(file_world, second, file_world.stranger) == "vendor-repeated"


def test_releases_before_the_rule_count_too(file_world: World) -> None:
    file_world.make_deal(trust=3)
    machine = file_world.platform
    assert run_on(file_world, machine, file_world.worker) == "released"
    stand(file_world, {**GOOD, "distinct": "platform"})
    assert run_on(file_world, machine, file_world.stranger) == "platform-repeated"


def test_a_refused_session_takes_no_platform(file_world: World) -> None:
    file_world.make_deal(trust=3)
    machine = file_world.platform
    grant_with(file_world, {**OTHER, "distinct": "platform"})
    assert run_on(file_world, machine, file_world.worker) == "measurement-unknown"
    grant_with(file_world, {**GOOD, "distinct": "platform"})
    assert run_on(file_world, machine, file_world.stranger) == "released"
    assert run_on(file_world, machine, file_world.worker) == "platform-repeated"


def test_a_task_of_one_worker_may_be_run_again_by_another(file_world: World) -> None:
    stand(file_world, {**GOOD, "distinct": "platform"})
    assert run_on(file_world, file_world.platform, file_world.worker) == "released"
    assert run_on(file_world, file_world.platform, file_world.stranger) == "released"


def test_of_racing_workers_on_one_platform_one_wins(world: World) -> None:
    world.make_deal(trust=5)
    stand(world, {**GOOD, "distinct": "platform"})
    workers = [PrivateKey(bytes([number]) * 32) for number in range(1, 6)]
    calls = [world.call(world.request(Enclave(), world.nonce(), worker=worker.address)) for worker in workers]
    gate, results = threading.Barrier(len(calls)), []

    def use(index: int) -> None:
        gate.wait()
        status, body = world.open(calls[index])
        results.append("released" if status == 200 else body["code"])

    threads = [threading.Thread(target=use, args=[index]) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [*["platform-repeated"] * 4, "released"]
