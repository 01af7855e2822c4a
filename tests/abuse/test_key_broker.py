"""The key broker, cases 46 to 54."""

from __future__ import annotations

import os
import time

from tests.support.sms_world import CHAIN_ID, DATASET, DATASET_KEY, START, Enclave, World

from cloister.protocol import authorization
from cloister.protocol.authentication import sign_request
from cloister.protocol.codec import Address, to_hex
from cloister.protocol.signatures import PrivateKey
from cloister.services.sms.ledger import Head

WEB3 = f"/secrets/web3?secretAddress={DATASET}"


def signed(
    world: World, key: PrivateKey, method: str, target: str, *, audience: str | None = None, nonce: bytes = b""
) -> int:
    """One signed request without a body; the status."""
    header = sign_request(
        key,
        audience=audience or world.settings.audience,
        method=method,
        target=target,
        body=b"",
        issued_at=int(world.clock.now),
        nonce=nonce or os.urandom(16),
    )
    return world.ask(method, target, headers={"authorization": header})[0]


def web2(owner: Address) -> str:
    return f"/secrets/web2?ownerAddress={owner}&secretName=token"


def set_web2(world: World, method: str, value: str) -> int:
    owner = world.requester.address
    challenge = authorization.sms_web2_challenge(owner, "token", value)
    return world.set_secret(method, web2(owner), value, challenge, world.requester)[0]


def test_case_46_replayed_signature(world: World) -> None:
    # iExec's own header has no nonce: it is accepted as it is, once.
    assert set_web2(world, "POST", "first") == 204
    assert set_web2(world, "PUT", "second") == 204
    assert set_web2(world, "PUT", "first") == 401
    # Our own requests have one, and name their broker.
    nonce = os.urandom(16)
    assert signed(world, world.requester, "DELETE", web2(world.requester.address), nonce=nonce) == 204
    assert signed(world, world.requester, "DELETE", web2(world.requester.address), nonce=nonce) == 401
    elsewhere = f"sms:{CHAIN_ID}:{world.stranger.address}"
    assert signed(world, world.requester, "DELETE", web2(world.requester.address), audience=elsewhere) == 401


def test_case_47_another_owners_key(world: World) -> None:
    for value in ("AES256_GCM_HKDF_1MB:" + "B" * 44, DATASET_KEY):
        challenge = authorization.sms_web3_challenge(DATASET, value)
        assert world.set_secret("POST", WEB3, value, challenge, world.stranger)[0] == 401
    assert signed(world, world.stranger, "DELETE", WEB3) == 403
    release = world.released()
    assert release.dataset is not None
    assert release.dataset.key == DATASET_KEY


def test_case_48_an_erased_or_rotated_key_is_never_released_again(world: World) -> None:
    assert world.released().dataset is not None
    assert signed(world, world.owner, "DELETE", WEB3) == 204
    assert world.refusal() == "dataset-key-missing"
    challenge = authorization.sms_web3_challenge(DATASET, DATASET_KEY)
    assert world.set_secret("POST", WEB3, DATASET_KEY, challenge, world.owner)[0] == 401
    assert world.refusal() == "dataset-key-missing"
    fresh = "AES256_GCM_HKDF_1MB:" + "C" * 44
    challenge = authorization.sms_web3_challenge(DATASET, fresh)
    assert world.set_secret("POST", WEB3, fresh, challenge, world.owner)[0] == 204
    release = world.released()
    assert release.dataset is not None
    assert release.dataset.key == fresh


def test_case_52_the_chain_is_behind_or_lies(world: World) -> None:
    def outcome() -> tuple[int, object]:
        status, body, _, _ = world.run()
        return status, body.get("code")

    world.ledger.block = Head(200, START)
    assert outcome()[0] == 200
    world.ledger.block = Head(201, START - 121)
    assert outcome() == (503, "chain-behind")
    world.ledger.block = Head(201, START + 121)
    assert outcome() == (503, "chain-ahead")
    world.ledger.block = Head(150, START)
    assert outcome() == (503, "chain-went-back")
    world.ledger.down = True
    assert world.run()[0] == 503


def test_case_54_answers_tell_nothing_apart(world: World) -> None:
    """An unknown task and somebody else's task, an unsigned and a wrongly signed secret: one text, and no other time."""
    enclave = Enclave()
    foreign = world.open(world.call(world.request(enclave, world.nonce()), signer=world.stranger))
    task = world.ledger.tasks.pop(world.task_id)
    unknown = world.open(world.call(world.request(enclave, world.nonce())))
    world.ledger.tasks[world.task_id] = task
    assert foreign == unknown
    wrong = to_hex(world.stranger.sign_message(bytes(32)))
    answers = {
        world.ask("POST", WEB3, body=b"value", headers={"authorization": header})
        for header in ("0x", "0x" + "00" * 65, wrong, "", "Bearer x")
    }
    assert len(answers) == 1
    timings: dict[str, list[float]] = {"unknown": [], "foreign": []}
    for _ in range(15):
        for name, signer in (("foreign", world.stranger), ("unknown", world.pool_owner)):
            if name == "unknown":
                world.ledger.tasks.pop(world.task_id, None)
            call = world.call(world.request(enclave, world.nonce()), signer=signer)
            begun = time.perf_counter()
            world.open(call)
            timings[name].append(time.perf_counter() - begun)
            world.ledger.tasks[world.task_id] = task
    # A busy machine adds time and takes none away: the quickest answers are the honest ones.
    slow, fast = sorted((min(timings["unknown"]), min(timings["foreign"])), reverse=True)
    assert slow - fast < 0.01, "the time of the answer tells an unknown task from a known one"
