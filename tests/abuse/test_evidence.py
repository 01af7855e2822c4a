"""Evidence and key release, cases 1 to 25, where any kind of evidence serves. Hardware's own are in ``test_hardware.py``."""

from __future__ import annotations

import dataclasses
import gzip
import json
import resource
import threading
import time
from pathlib import Path

import pytest
from tests.abuse.conftest import push_key
from tests.support.sms_world import APP, MEASUREMENT, NO_COLLATERAL, Enclave, Platform, World

from cloister.attestation.cbor import build_cbor
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import EnclavePolicy
from cloister.errors import ConfigurationError, VerificationError
from cloister.protocol.codec import Bytes32
from cloister.protocol.sessions import SessionEvidence, parse_session_answer
from cloister.services.sms.ledger import AppEntry, Head

SESSIONS = "/enclave/v1/sessions"


def open_with(world: World, payload: bytes, kind: str = "simulated") -> tuple[int, dict[str, object]]:
    """A session with this very evidence, honestly signed."""
    enclave = Enclave()
    request = dataclasses.replace(world.request(enclave, world.nonce()), evidence=SessionEvidence(kind, payload))
    return world.open(world.call(request.signed_by(enclave.challenge)))


def test_case_01_used_nonce(world: World) -> None:
    enclave, nonce = Enclave(), world.nonce()
    assert world.open(world.call(world.request(enclave, nonce)))[0] == 200
    status, body = world.open(world.call(world.request(Enclave(), nonce)))
    assert (status, body["code"]) == (403, "nonce-refused")


def test_case_02_nonce_past_its_life(world: World) -> None:
    nonce = world.nonce()
    world.clock.now += 299
    world.ledger.block = Head(101, int(world.clock.now))
    other = world.nonce()
    assert world.open(world.call(world.request(Enclave(), nonce)))[0] == 200
    world.clock.now += 300
    world.ledger.block = Head(102, int(world.clock.now))
    assert world.open(world.call(world.request(Enclave(), other)))[1]["code"] == "nonce-refused"


def test_case_03_quote_of_another_task(world: World) -> None:
    assert world.refusal(binding={"task_id": b"\x0a" * 32}) == "report-data-mismatch"


@pytest.mark.parametrize("binding", [{"chain_id": 1}, {"hub": b"\x01" * 20}, {"sms": b"\x02" * 20}], ids=str)
def test_case_04_quote_for_another_chain_or_sms(world: World, binding: dict[str, object]) -> None:
    assert world.refusal(binding=binding) == "report-data-mismatch"


def test_case_05_honest_evidence_with_the_attackers_key(world: World) -> None:
    honest, attacker, nonce = Enclave(), Enclave(), world.nonce()
    relayed = world.request(honest, nonce).evidence
    request = dataclasses.replace(world.request(attacker, nonce), evidence=relayed).signed_by(attacker.challenge)
    assert world.open(world.call(request))[1]["code"] == "report-data-mismatch"
    # The honest enclave's whole request in the attacker's hands is sealed to the honest enclave still.
    request = world.request(honest, world.nonce())
    status, body = world.open(world.call(request))
    assert status == 200
    answer = parse_session_answer(body)
    assert world.unseal(answer, honest, request).task_id == world.task_id
    with pytest.raises(VerificationError):
        world.unseal(answer, attacker, request)


def test_case_07_same_evidence_by_two_workers_at_once(world: World) -> None:
    call = world.call(world.request(Enclave(), world.nonce()))
    gate, outcomes = threading.Barrier(8), []

    def use() -> None:
        gate.wait()
        outcomes.append(world.open(call)[0])

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [200] + [403] * 7


def test_case_08_debug(world: World) -> None:
    assert world.refusal(evidence={"debug": True}) == "debug-enabled"


def test_case_10_simulated_where_no_test_root_is_named(tmp_path: Path) -> None:
    with World(tmp_path, settings={"collateral": NO_COLLATERAL}).serving() as world:
        push_key(world)
        assert world.refusal() == "no-trusted-root"
        # No flag that the evidence carries, and no other name for its kind, changes that.
        request = world.request(Enclave(), world.nonce())
        for kind in ("simulated", "SIMULATED", "tdx", "snp", "tpm", "test", ""):
            if kind:
                status, body = open_with(world, request.evidence.payload, kind)
                assert status in (400, 403), (kind, body)


def test_case_12_self_signed_root_of_the_same_name(world: World) -> None:
    world.platform = Platform()  # every name in it is the same, the keys are not
    assert world.refusal() == "untrusted-root"


@pytest.mark.parametrize(
    "payload",
    [
        b"\x00",
        b"\x84",
        b"\x9a\xff\xff\xff\xff",
        b"\x5a\xff\xff\xff\xff" + b"x" * 64,
        b"\x9b" + b"\xff" * 8,
        b"\xff" * 60_000,
        b"\x81" * 100_000,
    ],
    ids=[
        "a number",
        "an open array",
        "an array of 2^32-1",
        "a string of 2^32-1",
        "an array of 2^64-1",
        "breaks",
        "nesting",
    ],
)
def test_case_18_truncated_or_absurd_evidence(world: World, payload: bytes) -> None:
    begun = time.monotonic()
    status, body = open_with(world, payload)
    assert status in (400, 403), body
    assert body["code"] != "internal"
    assert time.monotonic() - begun < 2


def test_case_18_truncated_at_every_length(world: World) -> None:
    whole = world.request(Enclave(), world.nonce()).evidence.payload
    for size in range(1, len(whole), 37):
        status, body = open_with(world, whole[:size])
        assert status in (400, 403), (size, body)
    status, body = open_with(world, whole + b"\x00")
    assert status in (400, 403), body


def test_case_18_a_hundred_megabytes(world: World) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    body = b'{"request":{"evidence":{"kind":"tdx","payload":"' + b"A" * 100_000_000
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    assert world.ask("POST", SESSIONS, body=body, headers={"content-type": "application/json"})[0] == 413
    assert time.monotonic() - begun < 10
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - max(before, held) < 64 * 1024, "the service took the body into memory"


def test_case_19_compression_bomb(world: World) -> None:
    call = world.call(world.request(Enclave(), world.nonce())).to_json()
    bomb = gzip.compress(json.dumps({**call, "padding": "0" * 50_000_000}, default=str).encode())
    assert len(bomb) < 200_000
    for encoding in ("gzip", "deflate", "br"):
        headers = {"content-type": "application/json", "content-encoding": encoding}
        status, body = world.ask("POST", SESSIONS, body=bomb, headers=headers)
        assert status in (400, 413, 415), (status, body)
    # Nor is anything inside the evidence inflated: bytes are what they are.
    assert open_with(world, build_cbor([1, gzip.compress(b"\0" * 10_000_000), b"", b""]))[0] in (400, 403)


def test_case_20_no_reference_values(tmp_path: Path) -> None:
    platform = Platform()
    policy = dataclasses.replace(platform.policy(), measurements=frozenset())
    world = World(tmp_path, settings={"policy": policy})
    with world.serving():
        push_key(world)
        world.platform = platform
        # Trust its root, so that the lack of reference values is all that is wrong.
        assert world.refusal() in ("no-reference-values", "untrusted-root")


def test_case_20_no_reference_values_under_a_trusted_root(tmp_path: Path) -> None:
    world = World(tmp_path)
    empty = dataclasses.replace(world.platform.policy(), measurements=frozenset())
    world.settings = dataclasses.replace(world.settings, policy=empty)
    with world.serving():
        push_key(world)
        assert world.refusal() == "no-reference-values"


@pytest.mark.parametrize("size", [0, 1, 16, 31, 33, 48, 64])
def test_case_21_measurement_of_another_length(world: World, size: int) -> None:
    payload = {"measurement": (MEASUREMENT * 2)[:size]}
    status, body, _, _ = world.run(evidence=payload)
    assert (status, body["code"]) == (400, "evidence-malformed")
    with pytest.raises(ConfigurationError, match="reference measurement"):
        EnclavePolicy(EvidenceKind.SIMULATED, world.platform.policy().roots, frozenset({(MEASUREMENT * 2)[:size]}))


def test_case_23_image_by_a_tag_that_moved(world: World) -> None:
    # The app's entry on chain names a tag; what counts is its checksum, whatever the tag gives today.
    entry = world.ledger.apps[APP]
    world.ledger.apps[APP] = AppEntry(entry.owner, "registry.example/classifier:latest", entry.checksum)
    assert world.run()[0] == 200
    moved = Bytes32("0x" + "3d" * 32)
    assert world.refusal(app_digest=moved, binding={"app_digest": moved.raw}) == "app-digest-refused"
    # An enclave that measured the new image and claims the old digest is bound to what it measured.
    assert world.refusal(binding={"app_digest": moved.raw}) == "report-data-mismatch"
