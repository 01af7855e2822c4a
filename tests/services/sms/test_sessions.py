"""The enclave session over HTTP: who gets keys, and every way of not getting them."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from tests.support.sms_world import (
    APP,
    APP_DIGEST,
    DATASET,
    DATASET_KEY,
    MATCH_TRANSACTION,
    NO_COLLATERAL,
    START,
    Enclave,
    Platform,
    World,
)

from cloister.errors import Conflict
from cloister.protocol import authorization, policies
from cloister.protocol.authentication import sign_request
from cloister.protocol.authorization import scheduler_authorization, verify_personal_signature
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, canonical_json
from cloister.protocol.deals import Resource
from cloister.protocol.orders import DatasetOrder
from cloister.protocol.policies import AccessPolicy, policy_salt
from cloister.protocol.releases import ResultFormat
from cloister.protocol.sessions import FINAL_REFUSALS, SessionEvidence, parse_session_answer
from cloister.protocol.tags import TEE_TDX
from cloister.protocol.tasks import TaskStatus
from cloister.sealing.envelope import HpkePrivateKey
from cloister.services import sms
from cloister.services.sms.ledger import Head


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    with World(tmp_path, database_url=database_url).serving() as running:
        push_key(running)
        yield running


def push_key(world: World) -> None:
    challenge = authorization.sms_web3_challenge(DATASET, DATASET_KEY)
    status, _ = world.set_secret("POST", f"/secrets/web3?secretAddress={DATASET}", DATASET_KEY, challenge, world.owner)
    assert status == 204


def signed(world: World, key: Any, method: str, target: str, body: bytes = b"", nonce: int = 1) -> tuple[int, bytes]:
    header = sign_request(
        key,
        audience=world.settings.audience,
        method=method,
        target=target,
        body=body,
        issued_at=int(world.clock.now),
        nonce=nonce.to_bytes(16, "big"),
    )
    return world.ask(method, target, body=body, headers={"authorization": header, "content-type": "application/json"})


def record(world: World) -> list[dict[str, Any]]:
    target = f"/data/{DATASET}/releases"
    status, body = signed(world, world.owner, "GET", target, nonce=int.from_bytes(os.urandom(8)))
    assert status == 200, body
    return list(json.loads(body)["releases"])


def test_release_holds_what_the_deal_may_have(world: World) -> None:
    status, body, enclave, request = world.run()
    assert status == 200
    answer = parse_session_answer(body)
    release = world.unseal(answer, enclave, request)
    assert release.dataset is not None
    assert release.dataset.key == DATASET_KEY
    assert release.dataset.multiaddr == "/ipfs/QmData"
    assert release.dataset.order_hash == world.order.hash(world.domain)
    assert release.app.checksum == APP_DIGEST
    assert (release.task_id, release.index, release.bot_size) == (world.task_id, 0, 1)
    assert release.result_format is ResultFormat.PLAIN
    assert release.deadline == START + 2100
    message = scheduler_authorization(world.worker.address, world.task_id, enclave.challenge.address)
    assert verify_personal_signature(message, answer.authorization, world.teebroker.address)
    assert set(world.ledger.blocks_read) == {100}
    (line,) = record(world)
    assert line["outcome"] == "released"
    assert line["simulated"] is True
    assert line["worker"] == world.worker.address


def test_nonce_is_single_use_even_after_a_refusal(world: World) -> None:
    enclave, nonce = Enclave(), world.nonce()
    request = world.request(enclave, nonce)
    assert world.open(world.call(request, signer=world.stranger))[1]["code"] == "authorization-refused"
    status, body = world.open(world.call(request))
    assert (status, body["code"]) == (403, "nonce-refused")


def test_nonce_expires(world: World) -> None:
    nonce = world.nonce()
    world.clock.now += 300
    world.ledger.block = Head(101, int(world.clock.now))
    assert world.open(world.call(world.request(Enclave(), nonce)))[1]["code"] == "nonce-refused"


def test_nonce_of_another_task_is_refused(world: World) -> None:
    nonce = world.nonce(Bytes32("0x" + "12" * 32))
    assert world.open(world.call(world.request(Enclave(), nonce)))[1]["code"] == "nonce-refused"


def test_nonce_survives_a_restart_used_and_unused(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.serving():
        push_key(world)
        used, unused = world.nonce(), world.nonce()
        enclave = Enclave()
        assert world.open(world.call(world.request(enclave, used)))[0] == 200
    with world.serving():
        assert world.open(world.call(world.request(enclave, used)))[1]["code"] == "nonce-refused"
        assert world.open(world.call(world.request(enclave, unused)))[0] == 200


def test_of_racing_uses_one_wins(world: World) -> None:
    request = world.request(Enclave(), world.nonce())
    call = world.call(request)
    gate, results = threading.Barrier(6), []

    def use() -> None:
        gate.wait()
        results.append(world.open(call)[0])

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [200, 403, 403, 403, 403, 403]


def test_relayed_evidence_with_another_key_is_refused(world: World) -> None:
    honest, attacker, nonce = Enclave(), Enclave(), world.nonce()
    stolen = world.request(honest, nonce).evidence
    request = world.request(attacker, nonce, evidence={})
    request = dataclasses.replace(request, evidence=stolen).signed_by(attacker.challenge)
    assert world.open(world.call(request))[1]["code"] == "report-data-mismatch"


@pytest.mark.parametrize(
    "binding",
    [
        {"chain_id": 1},
        {"hub": bytes(20)},
        {"sms": bytes(20)},
        {"task_id": bytes(32)},
        {"nonce": bytes(32)},
        {"app_digest": bytes(32)},
        {"challenge": bytes(20)},
        {"hpke_key_hash": bytes(32)},
    ],
    ids=lambda binding: next(iter(binding)),
)
def test_evidence_bound_to_anything_else_is_refused(world: World, binding: dict[str, Any]) -> None:
    assert world.refusal(binding=binding) == "report-data-mismatch"


def test_debug_enclave_is_refused(world: World) -> None:
    assert world.refusal(evidence={"debug": True}) == "debug-enabled"


def test_unknown_measurement_is_refused(world: World) -> None:
    assert world.refusal(evidence={"measurement": bytes(32)}) == "measurement-unknown"


def test_evidence_of_another_root_is_refused(world: World) -> None:
    world.platform = Platform()
    assert world.refusal() == "untrusted-root"


def test_simulated_evidence_needs_a_named_root(tmp_path: Path) -> None:
    with World(tmp_path, settings={"collateral": NO_COLLATERAL}).serving() as world:
        push_key(world)
        assert world.refusal() == "no-trusted-root"


@pytest.mark.parametrize("payload", [b"\x80", b"\xff" * 60_000, b"\x84\x01" + b"\x9b" + b"\xff" * 8])
def test_broken_evidence_is_refused(world: World, payload: bytes) -> None:
    enclave = Enclave()
    request = world.request(enclave, world.nonce())
    request = dataclasses.replace(request, evidence=SessionEvidence("simulated", payload)).signed_by(enclave.challenge)
    assert world.open(world.call(request))[0] in (400, 403)


def test_oversized_call_is_refused(world: World) -> None:
    assert world.ask("POST", "/enclave/v1/sessions", body=b"{" + b" " * 2_000_000)[0] == 413


def test_request_signed_by_another_key_is_refused(world: World) -> None:
    request = dataclasses.replace(world.request(Enclave(), world.nonce()), signature=bytes(64) + b"\x1b")
    assert world.open(world.call(request))[1]["code"] == "signature-refused"


def test_unknown_task_and_foreign_authorization_read_the_same(world: World) -> None:
    enclave = Enclave()
    foreign = world.open(world.call(world.request(enclave, world.nonce()), signer=world.stranger))
    del world.ledger.tasks[world.task_id]
    unknown = world.open(world.call(world.request(enclave, world.nonce())))
    assert foreign == unknown
    assert foreign[1]["code"] == "authorization-refused"


def test_finished_or_late_task_is_refused(world: World) -> None:
    for status in (TaskStatus.REVEALING, TaskStatus.COMPLETED, TaskStatus.FAILED):
        world.task = dataclasses.replace(world.task, status=status)
        world.put_on_chain()
        assert world.refusal() == "task-not-active"
    world.task = dataclasses.replace(world.task, status=TaskStatus.ACTIVE, contribution_deadline=START)
    world.put_on_chain()
    assert world.refusal() == "task-not-active"


def test_another_app_than_the_deals_is_refused(world: World) -> None:
    other = Bytes32("0x" + "0b" * 32)
    assert world.refusal(app_digest=other, binding={"app_digest": other.raw}) == "app-digest-refused"


def test_foreign_match_transaction_is_refused(world: World) -> None:
    request = world.request(Enclave(), world.nonce())
    call = world.call(request, match_transaction=Bytes32("0x" + "01" * 32))
    assert world.open(call)[1]["code"] == "match-refused"


def test_missing_or_other_order_is_refused(world: World) -> None:
    request = world.request(Enclave(), world.nonce())
    assert world.open(world.call(request, dataset_order=None))[1]["code"] == "order-missing"
    other = world.sign(dataclasses.replace(world.order, volume=11))
    request = world.request(Enclave(), world.nonce())
    assert world.open(world.call(request, dataset_order=other))[1]["code"] == "order-mismatch"


def test_grant_of_a_non_owner_is_refused(world: World) -> None:
    world.use_order(world.sign(world.order, world.stranger))
    assert world.refusal() == "order-signature"


def test_grant_of_the_previous_owner_is_refused(world: World) -> None:
    entry = world.ledger.datasets[DATASET]
    world.ledger.datasets[DATASET] = dataclasses.replace(entry, owner=world.stranger.address)
    assert world.refusal() == "order-signature"


def test_presigned_grant_is_honoured(world: World) -> None:
    world.use_order(dataclasses.replace(world.order, sign=b""))
    assert world.refusal() == "order-signature"
    world.ledger.presigned[world.order.hash(world.domain)] = world.owner.address
    assert world.released().dataset is not None


def test_grant_revoked_between_match_and_release_is_refused(world: World) -> None:
    world.ledger.closed.add(world.order.hash(world.domain))
    assert world.refusal() == "order-closed"
    assert record(world)[-1]["reason"] == "order-closed"


def test_member_who_left_the_group_is_refused(world: World) -> None:
    group = Address("0x" + "99" * 20)
    world.use_order(world.sign(dataclasses.replace(world.order, apprestrict=group)))
    world.ledger.groups[group] = {APP}
    assert world.released().dataset is not None
    world.ledger.groups[group] = set()
    assert world.refusal() == "restriction"


def grant_with(world: World, policy: AccessPolicy, *, store: bool = True, nonce: int = 50) -> None:
    if store:
        target, body = f"/policies/{policy.hash()}", canonical_json(policy.to_json())
        assert signed(world, world.owner, "PUT", target, body, nonce)[0] == 204
    order = DatasetOrder(dataset=DATASET, volume=10, tag=TEE_TDX, salt=policy_salt(policy))
    world.use_order(world.sign(order))


def test_grant_expired_at_release_is_refused(world: World) -> None:
    grant_with(world, AccessPolicy(bytes(16), valid_until=START + 60))
    assert world.released().dataset is not None
    world.clock.now += 60
    assert world.refusal() == "no-longer-valid"


def test_slow_blocks_do_not_stretch_a_grant(world: World) -> None:
    grant_with(world, AccessPolicy(bytes(16), valid_until=START + 60))
    world.clock.now += 90
    world.ledger.block = Head(100, START)
    assert world.refusal() == "no-longer-valid"


def test_policy_nobody_stored_is_refused(world: World) -> None:
    grant_with(world, AccessPolicy(bytes(16)), store=False)
    assert world.refusal() == "policy-missing"


def test_purposes_and_enclaves_of_a_policy_hold(world: World) -> None:
    grant_with(world, AccessPolicy(bytes(16), purposes=("research",), max_result_bytes=1000))
    assert world.refusal() == "purpose-missing"
    world.deal = dataclasses.replace(world.deal, params='{"cloister_purpose":"research"}')
    world.put_on_chain()
    assert world.refusal() == "app-purpose-refused"
    assert world.released(purposes=("research",)).max_result_bytes == 1000
    grant_with(world, AccessPolicy(bytes(16), enclaves=("tdx",)), nonce=51)
    assert world.refusal() == "enclave-refused"


def keep_app_secret(world: World) -> None:
    challenge = authorization.sms_app_challenge(APP, "the developer's")
    status, _ = world.set_secret("POST", f"/apps/{APP}/secrets", "the developer's", challenge, world.app_owner)
    assert status == 204


def test_logs_need_the_word_of_the_data_owner(world: World) -> None:
    """Abuse 64: what an app prints may be the data."""
    assert not world.released().logs, "a grant without a policy"
    grant_with(world, AccessPolicy(bytes(16)))
    assert not world.released().logs
    grant_with(world, AccessPolicy(bytes(16), logs=True), nonce=51)
    assert world.released().logs


def test_an_app_secret_is_read_by_its_owner_alone(world: World) -> None:
    """Abuse 64: the data's owner allows logs, but the secret is another's."""
    grant_with(world, AccessPolicy(bytes(16), logs=True))
    keep_app_secret(world)
    release = world.released()
    assert (release.app_secret, release.logs) == ("the developer's", False)
    # The developer runs the app on data whose owner allows it: then nothing of others is in it.
    world.deal = dataclasses.replace(world.deal, requester=world.app_owner.address)
    world.put_on_chain()
    assert world.released().logs
    # Without the owner's word the developer's own secret opens nothing.
    grant_with(world, AccessPolicy(b"n" * 16), nonce=52)
    assert not world.released().logs


def test_without_data_a_secret_of_the_app_decides_alone(world: World) -> None:
    world.deal = dataclasses.replace(world.deal, dataset=Resource())
    world.put_on_chain()
    assert not world.released().logs, "nothing of others is there, so there is nothing to allow"
    keep_app_secret(world)
    assert not world.released().logs
    world.deal = dataclasses.replace(world.deal, requester=world.app_owner.address)
    world.put_on_chain()
    assert world.released().logs


def test_policy_is_stored_under_its_own_hash_only(world: World) -> None:
    policy = AccessPolicy(bytes(16), valid_until=START + 60)
    body = canonical_json(policy.to_json())
    assert signed(world, world.owner, "PUT", "/policies/0x" + "00" * 32, body)[0] == 403
    assert world.ask("PUT", f"/policies/{policy.hash()}", body=body)[0] == 401
    assert world.ask("GET", f"/policies/{policy.hash()}")[0] == 404
    assert signed(world, world.owner, "PUT", f"/policies/{policy.hash()}", body, nonce=2)[0] == 204
    assert signed(world, world.owner, "PUT", f"/policies/{policy.hash()}", body, nonce=3)[0] == 204
    assert world.ask("GET", f"/policies/{policy.hash()}") == (200, body)


def test_missing_key_is_named(tmp_path: Path) -> None:
    with World(tmp_path).serving() as world:
        assert world.refusal() == "dataset-key-missing"


def test_erased_key_is_never_released_again(world: World) -> None:
    target = f"/secrets/web3?secretAddress={DATASET}"
    assert signed(world, world.stranger, "DELETE", target)[0] == 403
    assert signed(world, world.owner, "DELETE", target, nonce=2)[0] == 204
    assert world.refusal() == "dataset-key-missing"
    challenge = authorization.sms_web3_challenge(DATASET, DATASET_KEY)
    assert world.set_secret("POST", target, DATASET_KEY, challenge, world.owner)[0] == 401
    assert world.refusal() == "dataset-key-missing"


def test_stale_future_or_rolled_back_chain_is_refused(world: World) -> None:
    def outcome() -> tuple[int, str]:
        status, body, _, _ = world.run()
        return status, body.get("code", "")

    world.ledger.block = Head(125, START)
    assert outcome()[0] == 200
    world.ledger.block = Head(126, START - 121)
    assert outcome() == (503, "chain-behind")
    world.ledger.block = Head(126, START + 121)
    assert outcome() == (503, "chain-ahead")
    world.ledger.block = Head(92, START)
    assert outcome() == (503, "chain-went-back")
    world.ledger.block = Head(93, START)
    assert outcome()[0] == 200
    world.ledger.down = True
    assert world.run()[0] == 503


def test_highest_block_is_remembered_over_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.serving():
        push_key(world)
        world.released()
    world.ledger.block = Head(10, START)
    with world.serving():
        assert world.run()[0] == 503


def test_secrets_of_app_and_requester_reach_their_own_deal(world: World) -> None:
    app_challenge = authorization.sms_app_challenge(APP, "from the developer")
    assert (
        world.set_secret("POST", f"/apps/{APP}/secrets", "from the developer", app_challenge, world.app_owner)[0] == 204
    )
    who = world.requester.address
    challenge = authorization.requester_secret_challenge(who, "token", "s3cret")
    assert world.set_secret("POST", f"/requesters/{who}/secrets/token", "s3cret", challenge, world.requester)[0] == 204
    world.deal = dataclasses.replace(world.deal, params='{"iexec_secrets":{"1":"token"}}')
    world.put_on_chain()
    release = world.released()
    assert release.app_secret == "from the developer"
    assert release.requester_secrets == {"1": "s3cret"}
    world.deal = dataclasses.replace(world.deal, requester=world.stranger.address)
    world.put_on_chain()
    assert world.refusal() == "requester-secret-missing"


def test_result_is_sealed_to_the_key_that_the_request_names(world: World) -> None:
    keys = [HpkePrivateKey(bytes([n]) * 32).public for n in (1, 2)]
    who, name = world.requester.address, "cloister-result-encryption-public-key"
    target = f"/secrets/web2?ownerAddress={who}&secretName={name}"
    for method, key in zip(("POST", "PUT"), keys, strict=True):
        value = base64.b64encode(key.raw).decode()
        challenge = authorization.sms_web2_challenge(who, name, value)
        assert world.set_secret(method, target, value, challenge, world.requester)[0] == 204
    for key in keys:
        world.deal = dataclasses.replace(world.deal, params=json.dumps({"cloister_result_key": key.key_id}))
        world.put_on_chain()
        release = world.released()
        assert (release.result_format, release.result_public_key) == (ResultFormat.HPKE, key.raw)
    world.deal = dataclasses.replace(world.deal, params=json.dumps({"cloister_result_key": "0" * 64}))
    world.put_on_chain()
    assert world.refusal() == "result-key-missing"


def test_asked_encryption_without_a_key_is_refused(world: World) -> None:
    world.deal = dataclasses.replace(world.deal, params='{"iexec_result_encryption":true}')
    world.put_on_chain()
    assert world.refusal() == "result-key-missing"


def test_deal_without_a_dataset_needs_no_grant(world: World) -> None:
    world.make_deal(dataset=ZERO_ADDRESS)
    assert world.released().dataset is None


def test_deal_without_the_tee_tag_is_refused(world: World) -> None:
    world.make_deal(tag=type(TEE_TDX).from_bits(0))
    assert world.refusal() == "deal-not-tee"


def test_record_is_for_the_owner_only_and_append_only(world: World) -> None:
    world.released()
    target = f"/data/{DATASET}/releases"
    assert world.ask("GET", target)[0] == 401
    assert signed(world, world.stranger, "GET", target)[0] == 403
    assert len(record(world)) == 1
    with pytest.raises((Conflict, DBAPIError)), world.database.session_scope() as session:
        session.connection().exec_driver_sql("DELETE FROM sms_releases")


def test_refusal_before_the_nonce_leaves_no_line(world: World) -> None:
    request = world.request(Enclave(), Bytes32("0x" + "ab" * 32))
    assert world.open(world.call(request))[1]["code"] == "nonce-refused"
    assert record(world) == []


def finality(world: World, **changes: Any) -> tuple[int, str, object]:
    """Status, code and finality of a refused session."""
    status, body, _, _ = world.run(**changes)
    return status, body["code"], body["final"]


def test_refusals_say_whether_they_are_final(world: World) -> None:
    refused = world.request(Enclave(), Bytes32("0x" + "ab" * 32))
    assert world.open(world.call(refused))[1]["final"] is False
    assert finality(world, evidence={"debug": True}) == (403, "debug-enabled", False)
    grant_with(world, AccessPolicy(bytes(16), valid_from=START + 60))
    assert finality(world) == (403, "not-yet-valid", False)
    grant_with(world, AccessPolicy(bytes(16), valid_until=START), nonce=51)
    assert finality(world) == (403, "no-longer-valid", True)
    grant_with(world, AccessPolicy(b"x" * 16), store=False)
    assert finality(world) == (404, "policy-missing", True)
    world.use_order(world.sign(DatasetOrder(dataset=DATASET, volume=10, tag=TEE_TDX)))
    world.ledger.closed.add(world.order.hash(world.domain))
    assert finality(world) == (403, "order-closed", True)
    world.deal = dataclasses.replace(world.deal, dataset=Resource(ZERO_ADDRESS, ZERO_ADDRESS, 0), params="{")
    world.put_on_chain()
    world.ledger.block = Head(100, START - 1000)
    assert finality(world) == (503, "chain-behind", False)


def test_a_key_that_is_not_there_is_final(tmp_path: Path) -> None:
    with World(tmp_path).serving() as world:
        assert finality(world) == (404, "dataset-key-missing", True)


def test_every_final_code_is_one_that_is_raised() -> None:
    room = Path(sms.__file__).parent
    text = "".join(file.read_text() for file in (*room.glob("*.py"), Path(policies.__file__)))
    assert {code for code in FINAL_REFUSALS if f'"{code}"' not in text} == set()


def test_secrets_that_fit_no_envelope_are_refused_by_name(tmp_path: Path) -> None:
    with World(tmp_path).serving() as world:
        push_key(world)
        who = world.requester.address
        value = "\x01" * 4096  # six characters of JSON each
        for number in range(1, 25):
            challenge = authorization.requester_secret_challenge(who, f"s{number}", value)
            target = f"/requesters/{who}/secrets/s{number}"
            assert world.set_secret("POST", target, value, challenge, world.requester)[0] == 204
        named = {str(number): f"s{number}" for number in range(1, 25)}
        world.deal = dataclasses.replace(world.deal, params=json.dumps({"iexec_secrets": named}))
        world.put_on_chain()
        assert finality(world) == (403, "release-too-large", True)


def test_identity(world: World) -> None:
    status, body = world.ask("GET", "/enclave/v1/identity")
    assert status == 200
    assert json.loads(body)["sms"] == world.teebroker.address
    assert MATCH_TRANSACTION in world.ledger.matches
