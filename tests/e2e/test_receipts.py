"""Receipts and the log beside a live chain: what agrees, and what must be noticed when it does not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.countersigner import countersign
from tests.support.network import LiveNetwork
from tests.unit.attestation.platform import COLLATERAL, POLICY, evidence

import cloister
from cloister import DataProtector
from cloister.attestation.countersignature import Judgement, SessionFacts
from cloister.attestation.issuance import DatasetUse, ReceiptClaims, build_receipt
from cloister.attestation.receipt import VerifiedReceipt, verify_receipt
from cloister.attestation.report import build_report_data
from cloister.attestation.transparency import build_head
from cloister.attestation.verify import read_claims
from cloister.errors import CloisterError, PolicyRejected, VerificationError
from cloister.network.accounts import load_accounts
from cloister.protocol.signatures import PrivateKey
from cloister.sdk.apps import App
from cloister.sdk.history import CONFLICT_NAME, HEAD_NAME
from cloister.sdk.processing import Run
from cloister.sdk.protection import ProtectedData
from cloister.sdk.receipts import FILE_NAME
from cloister.sdk.results import RECEIPT_NAME
from cloister.sdk.verdict import verify_in_log, verify_on_chain

ENCLAVE, SMS = PrivateKey(b"\x61" * 32), PrivateKey(b"\x62" * 32)
HASH = b"\x66" * 32


@pytest.fixture(scope="module")
def run(live: LiveNetwork, owner: DataProtector, app: App) -> Run:
    """A finished run on data of its own."""
    requester = live.newcomer(stake="1 RLC")
    data = owner.protect_data({"n": 7}, name="receipts")
    owner.grant_access(data, app=app, user=requester.connection.address)
    return requester.process_protected_data(data, app=app, workerpool_max_price="0.02 RLC", timeout=60)


@pytest.fixture(scope="module")
def encoded(run: Run) -> bytes:
    return run.result.read(RECEIPT_NAME)


@pytest.fixture
def file(encoded: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "receipt.cose"
    path.write_bytes(encoded)
    return path


def test_a_stranger_checks_a_file_offline_and_beside_the_chain(live: LiveNetwork, run: Run, file: Path) -> None:
    description = live.network.description
    told = cloister.verify_receipt(file, network=live.name).to_json()
    assert told["chain"] is None
    beside = cloister.verify_receipt(
        file, roots=live.home / "networks" / live.name / FILE_NAME, rpc=description.rpc_url
    ).to_json()
    assert beside["chain"]["verified"] is True
    assert {**beside, "chain": None} == told
    today = cloister.verify_receipt(file, network=live.name, log=description.services.sms).to_json()["log"]
    assert today["continued_to"] >= today["size"] > told["log"]["index"]
    assert told["sms"] == description.teebroker.lower()
    assert told["task_id"] == run.task_id
    assert told["grant"].startswith("0x")
    assert told["log"]["index"] < told["log"]["size"]
    assert told["evidence"]["kind"] == "simulated"
    assert told["warning"] == "SIMULATED: not confidential against the host"
    assert json.loads(json.dumps(told)) == told


def test_every_part_of_a_real_receipt_is_named_when_it_changes(live: LiveNetwork, encoded: bytes) -> None:
    parts = set()
    for position in range(0, len(encoded), max(1, len(encoded) // 150)):
        forged = bytearray(encoded)
        forged[position] ^= 1
        with pytest.raises(CloisterError) as caught:
            cloister.verify_receipt(bytes(forged), network=live.name)
        assert caught.value.part
        parts.add(caught.value.part.partition(".")[0])
    assert {"claims", "countersignature", "log proof"} <= parts


def test_roots_that_are_not_trusted_here_refuse(live: LiveNetwork, file: Path, tmp_path: Path) -> None:
    pinned = json.loads((live.home / "networks" / live.name / FILE_NAME).read_text())
    pinned["kinds"][0]["measurements"] = ["00" * 32]
    (tmp_path / "roots.json").write_text(json.dumps(pinned))
    with pytest.raises(PolicyRejected) as refused:
        cloister.verify_receipt(file, roots=tmp_path / "roots.json")
    assert (refused.value.code, refused.value.part) == ("measurement-unknown", "evidence")


def made_up(true: ReceiptClaims, **changes: object) -> VerifiedReceipt:
    """A sound receipt about a task of the live chain, of an enclave and an SMS that we made up."""
    binding = dataclasses.replace(
        true.binding,
        challenge=ENCLAVE.address.raw,
        sms=SMS.address.raw,
        **changes.pop("binding", {}),  # type: ignore[arg-type]
    )
    proof = evidence(build_report_data(binding))
    claims = dataclasses.replace(
        true, binding=binding, public_key=ENCLAVE.public_key, evidence=proof,
        started_at=1_800_000_000, finished_at=1_800_000_001, **changes,  # type: ignore[arg-type]
    )  # fmt: skip
    facts = SessionFacts(
        task_id=binding.task_id,
        challenge=binding.challenge,
        evidence_kind="simulated",
        evidence_digest=hashlib.sha256(proof.payload).digest(),
        judgement=Judgement(None, (), read_claims(proof, COLLATERAL, 1_800_000_000).platform, 1_800_000_000, HASH),
        dataset=claims.dataset,
        bulk=None,
    )
    given = build_receipt(
        claims,
        ENCLAVE.sign_digest,
        lambda digest: countersign(
            facts, digest, SMS, chain_id=binding.chain_id, hub=binding.hub, issued_at=1_800_000_001
        ),
    )
    return verify_receipt(given, policy=POLICY, collateral=COLLATERAL, now=2_000_000_000)


def test_the_chain_says_what_of_a_receipt_is_not_so(live: LiveNetwork, run: Run, encoded: bytes) -> None:
    url = live.network.description.rpc_url
    true = cloister.verify_receipt(encoded, network=live.name).verified
    assert verify_on_chain(true, url).block > 0

    def refusal(**changes: object) -> str:
        with pytest.raises(VerificationError) as refused:
            verify_on_chain(made_up(true.claims, **changes), url)
        assert refused.value.code == "chain-mismatch"
        return refused.value.message

    data = true.claims.dataset
    assert data is not None
    words = refusal()
    assert "the hub's teebroker is" in words
    assert "the contribution is of enclave" in words
    assert "the deal's" not in words
    for changes, named in (
        ({"binding": {"chain_id": 1}}, "the node serves chain"),
        ({"binding": {"hub": bytes(19) + b"\x01"}}, "no hub stands at"),
        ({"deal_id": HASH}, "there is no deal"),
        ({"binding": {"task_id": HASH}}, "there is no task"),
        ({"index": 1}, "the deal has no task of index 1"),
        ({"app": bytes(20)}, "the deal's app is"),
        ({"requester": bytes(20)}, "the deal's requester is"),
        ({"worker": bytes(20)}, "contributed no accepted result"),
        ({"result_digest": HASH}, "the task's result digest is"),
        ({"binding": {"app_digest": HASH}}, "the app's checksum is"),
        ({"dataset": None}, "the deal's dataset is"),
        ({"dataset": DatasetUse(bytes(20), data.checksum)}, "is no registered data"),
        ({"dataset": DatasetUse(data.address, HASH)}, "the checksum of"),
    ):
        assert named in refusal(**changes)


def test_a_log_of_another_story_does_not_continue_a_receipts(live: LiveNetwork, encoded: bytes) -> None:
    true = cloister.verify_receipt(encoded, network=live.name).verified
    url = live.network.description.services.sms
    assert verify_in_log(true, url).size >= true.head.size
    with pytest.raises(VerificationError) as refused:
        verify_in_log(made_up(true.claims), url)
    assert refused.value.code == "log-origin", "the live sms did not sign what our own one did"
    key = load_accounts(live.home / "networks" / live.name / "accounts.json").key("sms")
    for size, code in ((10_000, "log-shrunk"), (1, "log-split")):
        other = build_head(true.head.origin, size, HASH, true.head.timestamp, key.sign_message)
        with pytest.raises(VerificationError) as refused:
            verify_in_log(dataclasses.replace(true, head=other), url)
        assert refused.value.code == code


@pytest.fixture
def pinned(live: LiveNetwork) -> Iterator[Path]:
    """The pinned head; what a test does to it is undone."""
    path = live.home / "networks" / live.name / HEAD_NAME
    path.unlink(missing_ok=True)
    yield path
    path.unlink(missing_ok=True)
    path.with_name(CONFLICT_NAME).unlink(missing_ok=True)


def test_an_owner_sees_every_release_and_refusal(
    live: LiveNetwork, owner: DataProtector, run: Run, encoded: bytes, pinned: Path
) -> None:
    claims = cloister.verify_receipt(encoded, network=live.name).verified.claims
    assert claims.dataset is not None
    data = "0x" + claims.dataset.address.hex()
    whole, listed = owner.get_history(data), owner.get_history(data, complete=False)
    assert whole.complete
    assert not listed.complete
    assert whole.entries == listed.entries
    (released,) = [entry for entry in whole if entry.outcome == "released"]
    assert released.task_id == run.task_id
    assert released.requester is not None
    assert released.requester.lower() == "0x" + claims.requester.hex()
    assert released.order_hash == "0x" + (claims.dataset.order_hash or b"").hex()
    assert abs(released.at - time.time()) < 600
    # A stranger may read the log, for it says what the chain shows; the SMS's own list is for the owner.
    stranger = live.newcomer()
    assert stranger.get_history(data).entries == whole.entries
    with pytest.raises(CloisterError):
        stranger.get_history(data, complete=False)
    assert json.loads(pinned.read_text())["size"] == whole.head.size
    assert pinned.stat().st_mode & 0o777 == 0o600


def test_a_log_that_tells_another_story_is_a_loud_error(
    live: LiveNetwork, owner: DataProtector, data: ProtectedData, run: Run, pinned: Path
) -> None:
    head = owner.get_history(data).head
    known = json.loads(pinned.read_text())
    key = load_accounts(live.home / "networks" / live.name / "accounts.json").key("sms")

    def pin(size: int, root: bytes) -> None:
        """What this machine remembers, signed by the SMS itself in another history."""
        signed = build_head(head.origin, size, root, head.timestamp, key.sign_message)
        told = {**known, "size": size, "root": "0x" + root.hex(), "signature": "0x" + signed.signature.hex()}
        pinned.write_text(json.dumps(told))

    for size, code in ((head.size + 1000, "log-shrunk"), (1, "log-split"), (head.size, "log-split")):
        pin(size, HASH)
        with pytest.raises(VerificationError) as caught:
            owner.get_history(data)
        assert caught.value.code == code
        assert HEAD_NAME in (caught.value.hint or "")
        assert json.loads(pinned.with_name(CONFLICT_NAME).read_text())["size"] >= head.size
        assert json.loads(pinned.read_text())["size"] == size, "what proves it is not overwritten"
    pinned.write_text(json.dumps({**known, "root": "0x" + HASH.hex()}))
    with pytest.raises(VerificationError, match="cannot be used"):
        owner.get_history(data)
