"""iExec's ``/tee`` calls: a challenge per task for schedulers, a session's address for workers, nothing secret for either."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.sms_bulk import BulkWorld
from tests.support.sms_world import DATASET, DATASET_KEY, START, World

from cloister.errors import LocalError
from cloister.protocol import authorization
from cloister.protocol.authorization import scheduler_authorization, tee_challenge_authorization
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, keccak256, to_hex
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import NO_TAG
from cloister.protocol.tasks import TaskStatus
from cloister.services.sms.challenges import challenge_context
from cloister.services.sms.kek import load_local_kek
from cloister.services.sms.ledger import Head


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    with World(tmp_path, database_url=database_url).serving() as running:
        yield running


@pytest.fixture
def file_world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path).serving() as running:
        yield running


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all tests that leave it as it is."""
    with World(tmp_path_factory.mktemp("steady")).serving() as running:
        yield running


def ask_challenge(world: World, key: PrivateKey, task: str | None = None) -> tuple[int, bytes]:
    message = keccak256(Bytes32(task or world.task_id).raw)
    return world.ask(
        "POST", f"/tee/challenges/{task or world.task_id}", headers={"authorization": to_hex(key.sign_message(message))}
    )


def challenge(world: World) -> Address:
    status, body = ask_challenge(world, world.pool_owner)
    assert status == 200, body
    return Address(body.decode())


def test_the_scheduler_signs_the_task_alone(steady: World) -> None:
    assert tee_challenge_authorization(steady.task_id) == keccak256(steady.task_id.raw)


def test_one_challenge_per_task_for_the_pools_owner(world: World) -> None:
    for stranger in (world.stranger, world.worker, world.requester, world.teebroker):
        assert ask_challenge(world, stranger)[0] == 401
    first = ask_challenge(world, world.pool_owner)
    assert first[0] == 200
    assert first[1].decode() == first[1].decode().lower()
    assert ask_challenge(world, world.pool_owner) == first
    assert ask_challenge(world, world.pool_owner, str(world.task_id).upper().replace("0X", "0x")) == first
    answer = world.ask("POST", f"/tee/challenges/{world.task_id}", headers={"authorization": "0x"})
    assert answer[0] == 401


def test_unknown_and_malformed_tasks_read_like_foreign_ones(steady: World) -> None:
    foreign = ask_challenge(steady, steady.stranger)
    assert ask_challenge(steady, steady.pool_owner, "0x" + "12" * 32) == foreign
    for task in ("0x12", "x", "0x" + "zz" * 32):
        header = {"authorization": to_hex(steady.pool_owner.sign_message(bytes(32)))}
        assert steady.ask("POST", f"/tee/challenges/{task}", headers=header) == foreign


def test_a_challenge_survives_a_restart(tmp_path: Path) -> None:
    world = World(tmp_path)
    with world.serving():
        first = challenge(world)
    with world.serving():
        assert challenge(world) == first


def test_of_racing_first_calls_one_makes_the_key(world: World) -> None:
    gate, found = threading.Barrier(5), []

    def ask() -> None:
        gate.wait()
        found.append(ask_challenge(world, world.pool_owner))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert found[0][0] == 200


def test_the_key_is_sealed_and_bound_to_its_task(file_world: World) -> None:
    address = challenge(file_world)
    with file_world.database.read_scope() as session:
        (wrapped,) = session.connection().exec_driver_sql("SELECT wrapped_key FROM sms_challenges").one()
    kek = load_local_kek(file_world.kek_path)
    raw = kek.unwrap(wrapped, challenge_context(file_world.task_id, address))
    assert PrivateKey(raw).address == address
    for file in file_world.folder.iterdir():
        assert raw not in file.read_bytes()
    with pytest.raises(LocalError):
        kek.unwrap(wrapped, challenge_context(Bytes32("0x" + "12" * 32), address))


def test_a_challenge_needs_a_recent_chain(file_world: World) -> None:
    file_world.ledger.block = Head(100, START - 1000)
    assert ask_challenge(file_world, file_world.pool_owner)[0] == 503


# --- sessions ---


def ask_session(
    world: World, enclave: Address, *, key: PrivateKey | None = None, signer: PrivateKey | None = None, **changes: Any
) -> tuple[int, dict[str, Any]]:
    """Ask as iExec's worker does; ``changes`` replace members after signing, None drops one."""
    message = scheduler_authorization(world.worker.address, world.task_id, enclave)
    body = {
        "chainTaskId": str(world.task_id),
        "dealId": str(world.deal_id),
        "taskIndex": 0,
        "workerWallet": str(world.worker.address),
        "enclaveChallenge": str(enclave),
        "signature": {"value": to_hex((signer or world.pool_owner).sign_message(message))},
        **changes,
    }
    given = {name: value for name, value in body.items() if value is not None}
    header = {"authorization": to_hex((key or world.worker).sign_message(message))}
    status, raw = world.ask("POST", "/tee/sessions", body=given, headers=header)
    return status, json.loads(raw)


def push_dataset_key(world: World) -> None:
    wanted = authorization.sms_web3_challenge(DATASET, DATASET_KEY)
    assert (
        world.set_secret("POST", f"/secrets/web3?secretAddress={DATASET}", DATASET_KEY, wanted, world.owner)[0] == 204
    )


def test_a_worker_is_told_where_its_enclave_is_attested(world: World) -> None:
    push_dataset_key(world)
    enclave = challenge(world)
    status, body = ask_session(world, enclave)
    assert (status, body["error"]) == (200, None)
    assert set(body["data"]) == {"sessionId", "secretProvisioningUrl"}
    name = body["data"]["sessionId"]
    assert (len(name), name[10:]) == (10 + 4 + 66, f"0000{world.task_id}")
    assert name[:10].isalnum()
    assert body["data"]["secretProvisioningUrl"] == f"{world.url}/enclave/v1/sessions"
    assert ask_session(world, enclave)[1]["data"]["sessionId"] != name
    assert DATASET_KEY not in json.dumps(body)


def test_the_brokers_signature_is_as_good_as_the_pools(file_world: World) -> None:
    push_dataset_key(file_world)
    enclave = challenge(file_world)
    assert ask_session(file_world, enclave, signer=file_world.teebroker)[0] == 200


def test_a_configured_address_is_the_one_told(tmp_path: Path) -> None:
    with World(tmp_path, settings={"public_url": "https://sms.example/"}).serving() as world:
        push_dataset_key(world)
        _, body = ask_session(world, challenge(world))
        assert body["data"]["secretProvisioningUrl"] == "https://sms.example/enclave/v1/sessions"


def refused(world: World, *answer: Any, **changes: Any) -> tuple[int, str]:
    status, body = ask_session(world, *answer, **changes)
    assert body["data"] is None
    return status, body["error"]


def test_every_check_in_its_order(file_world: World) -> None:
    """Each world below fails one check; all later checks fail too, so the answer also tells the order."""
    world, zero = file_world, Address("0x" + "00" * 20)
    prefix = "EXECUTION_NOT_AUTHORIZED_"
    wrong = Address("0x" + "ee" * 20)
    task, deal = world.task, world.deal
    hopeless = {"signer": world.stranger}
    del world.ledger.tasks[world.task_id]
    assert refused(world, wrong, key=world.stranger, **hopeless) == (401, "INVALID_AUTHORIZATION")
    assert refused(world, wrong, **hopeless) == (401, prefix + "GET_CHAIN_TASK_FAILED")
    world.task = dataclasses.replace(task, status=TaskStatus.COMPLETED)
    world.deal = dataclasses.replace(deal, tag=NO_TAG, params='{"iexec_result_encryption":"maybe"}')
    world.put_on_chain()
    assert refused(world, wrong, **hopeless) == (401, prefix + "NO_MATCH_ONCHAIN_TYPE")
    world.deal = dataclasses.replace(world.deal, tag=deal.tag)
    world.put_on_chain()
    assert refused(world, wrong, **hopeless) == (401, prefix + "TASK_NOT_ACTIVE")
    world.task = dataclasses.replace(task, contribution_deadline=START)
    world.put_on_chain()
    assert refused(world, wrong, **hopeless) == (401, prefix + "TASK_NOT_ACTIVE")
    world.task = task
    world.put_on_chain()
    assert refused(world, wrong, **hopeless) == (401, prefix + "INVALID_SIGNATURE")
    assert refused(world, zero) == (500, "GET_SIGNATURE_TOKENS_FAILED_EMPTY_PUBLIC_ENCLAVE_CHALLENGE")
    assert refused(world, wrong) == (500, "GET_SIGNATURE_TOKENS_FAILED_EMPTY_TEE_CHALLENGE")
    enclave = challenge(world)
    assert refused(world, wrong) == (500, "GET_SIGNATURE_TOKENS_FAILED_EMPTY_TEE_CHALLENGE")
    assert refused(world, enclave) == (500, "GET_TASK_DESCRIPTION_FAILED")
    world.deal = dataclasses.replace(deal, params='{"iexec_result_encryption":true}')
    world.put_on_chain()
    assert refused(world, enclave) == (500, "PRE_COMPUTE_GET_DATASET_SECRET_FAILED")
    push_dataset_key(world)
    missing = "POST_COMPUTE_GET_ENCRYPTION_TOKENS_FAILED_EMPTY_BENEFICIARY_KEY"
    assert refused(world, enclave) == (500, missing)
    who, name = world.requester.address, "iexec-result-encryption-public-key"
    wanted = authorization.sms_web2_challenge(who, name, "key")
    target = f"/secrets/web2?ownerAddress={who}&secretName={name}"
    assert world.set_secret("POST", target, "key", wanted, world.requester)[0] == 204
    assert ask_session(world, enclave)[0] == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"chainTaskId": None},
        {"chainTaskId": "0x12"},
        {"chainTaskId": 7},
        {"workerWallet": None},
        {"workerWallet": "worker"},
        {"enclaveChallenge": ""},
        {"signature": None},
        {"signature": "0x12"},
        {"signature": {"value": "0x12"}},
        {"signature": {"value": None}},
        {"signature": {}},
    ],
    ids=str,
)
def test_a_body_that_lacks_something_is_empty_params(steady: World, changes: dict[str, Any]) -> None:
    enclave = Address("0x" + "ee" * 20)
    assert refused(steady, enclave, **changes) == (401, "EXECUTION_NOT_AUTHORIZED_EMPTY_PARAMS_UNAUTHORIZED")


@pytest.mark.parametrize("body", [b"", b"  ", b"{", b"[]", b"null", b"\xff", b"[" * 9000])
def test_no_body_is_empty_params_too(steady: World, body: bytes) -> None:
    status, raw = steady.ask("POST", "/tee/sessions", body=body, headers={"authorization": "0x" + "11" * 65})
    assert (status, json.loads(raw)["error"]) == (401, "EXECUTION_NOT_AUTHORIZED_EMPTY_PARAMS_UNAUTHORIZED")


def test_a_body_over_the_cap_is_refused(steady: World) -> None:
    assert steady.ask("POST", "/tee/sessions", body=b" " * 20_000)[0] == 413


def test_a_session_that_was_told_opens_nothing(tmp_path: Path) -> None:
    """What ``/tee/sessions`` tells is no key: the address it names wants evidence, and gives none without."""
    world = BulkWorld(tmp_path)
    with world.serving():
        world.make_deal(dataset=ZERO_ADDRESS)
        _, body = ask_session(world, challenge(world))
        session = body["data"]["sessionId"]
        for attempt in ({"sessionId": session}, {"request": {"sessionId": session}}, {}):
            assert world.ask("POST", "/enclave/v1/sessions", body=attempt)[0] == 400
        assert world.ask("GET", f"/enclave/v1/sessions/{session}")[0] == 404
