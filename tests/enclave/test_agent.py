"""A real agent in a real sandbox, from the task to a verified receipt."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.enclave.world import DATASET, HELLO, World

from cloister.attestation.assurance import SIMULATED_WARNING
from cloister.attestation.receipt import parse_receipt, verify_receipt
from cloister.enclave.environment import input_file_name
from cloister.errors import (
    CloisterError,
    Denied,
    NotFound,
    PolicyRejected,
    TooLarge,
    UnavailableError,
    VerificationError,
)
from cloister.protocol.codec import Address, keccak256
from cloister.protocol.releases import ResultFormat
from cloister.protocol.sessions import SessionAnswer, release_digest
from cloister.protocol.signatures import PrivateKey
from cloister.sealing import envelope
from cloister.sealing.envelope import HpkePrivateKey, HpkePublicKey
from cloister.sealing.iexec import open_result_rsa
from cloister.sealing.keys import ContentFormat, build_content_key, generate_content_key
from cloister.sealing.results import open_result
from cloister.worker.relay import EnclaveFailed
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

Make = Callable[..., World]

READ_DATA = """
import json, os
path = os.path.join(os.environ["IEXEC_IN"], os.environ["IEXEC_DATASET_FILENAME"])
data = open(path, "rb").read()
open("/iexec_out/result.txt", "w").write(str(len(data)) + data[:5].decode())
json.dump({"deterministic-output-path": "/iexec_out/result.txt"}, open("/iexec_out/computed.json", "w"))
print("secret", data[:5])
"""


def test_plain_result_and_receipt(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(HELLO)
    outcome = task.run(runtime)
    files = task.files()
    assert files["result.txt"] == b"hello"
    assert outcome.result_digest.raw == hashlib.sha256(b"hello").digest()
    assert outcome.cause is None
    assert task.reports == ["APP_DOWNLOADED", "DATA_DOWNLOADED", "COMPUTED"]
    receipt = verify_receipt(
        files["receipt.cose"],
        policy=task.platform.policy,
        collateral=task.platform.collateral,
        now=int(time.time()),
        expected_result_digest=outcome.result_digest.raw,
    )
    assert receipt.simulated
    assert receipt.warning == SIMULATED_WARNING
    assert receipt.claims.binding.challenge == outcome.enclave_challenge.raw
    assert receipt.claims.binding.app_digest == task.bundle.digest.raw
    assert receipt.claims.dataset is None
    assert outcome.logs == {"stdout": "", "stderr": "", "exit_code": 0}


@pytest.mark.parametrize("case", ["away", "refused", "another key"])
def test_no_result_without_a_countersigned_receipt(world: Make, runtime: BubblewrapRuntime, case: str) -> None:
    """The lease fails, and may be given again: a result that nobody can check is none."""
    task = world(HELLO)
    match case:
        case "away":
            task.receipt_refusal = UnavailableError("the sms is away")
        case "refused":
            task.receipt_refusal = Denied("there is no receipt to countersign for this enclave")
        case _:
            task.countersigner = PrivateKey(b"\x01" * 32)
    with pytest.raises(EnclaveFailed, match="the receipt is not countersigned") as failed:
        task.run(runtime)
    assert failed.value.cause == "POST_COMPUTE_FAILED_UNKNOWN_ISSUE"
    assert failed.value.refusal is None
    assert task.result == b""


def test_receipt_is_refused_without_the_networks_root(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(HELLO)
    task.run(runtime)
    receipt = parse_receipt(task.files()["receipt.cose"])
    policy = replace(task.platform.policy, measurements=frozenset())
    with pytest.raises(PolicyRejected, match="no reference measurement"):
        verify_receipt(receipt, policy=policy, collateral=task.platform.collateral, now=int(time.time()))


@pytest.mark.parametrize("data_format", list(ContentFormat))
def test_native_result_of_protected_data(world: Make, runtime: BubblewrapRuntime, data_format: ContentFormat) -> None:
    reader = HpkePrivateKey.generate(lambda size: bytes(range(size)))
    data = b"alice" + bytes(3_000_000)
    task = world(
        READ_DATA,
        data=data,
        data_format=data_format,
        result_format=ResultFormat.HPKE,
        result_public_key=reader.public.raw,
    )
    outcome = task.run(runtime)
    archive = b"".join(open_result(reader, [task.result], context=task.task_id.raw))
    files = task.files(archive)
    assert files["result.txt"] == b"3000005alice"
    # What was printed may hold the data, and nobody but its owner may allow that to be read.
    assert set(files) == {"result.txt", "computed.json", "receipt.cose"}
    assert "withheld" in outcome.logs["stderr"]
    claims = parse_receipt(files["receipt.cose"]).claims
    assert claims.dataset is not None
    assert claims.dataset.address == DATASET.raw
    assert [(item.name, item.sha256) for item in claims.inputs] == [(DATASET.lower(), hashlib.sha256(data).digest())]
    with pytest.raises(VerificationError):
        b"".join(open_result(reader, [task.result], context=bytes(32)))


def test_rsa_result_opens_as_iexecs_clients_do(world: Make, runtime: BubblewrapRuntime) -> None:
    reader = rsa.generate_private_key(65537, 2048)
    der = reader.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    task = world(HELLO + "\nprint('to the requester')", result_format=ResultFormat.RSA, result_public_key=der)
    outcome = task.run(runtime)
    files = task.files(b"".join(open_result_rsa(reader, io.BytesIO(task.result))))
    assert files["result.txt"] == b"hello"
    assert files["stdout.txt"] == b"to the requester\n"
    assert "receipt.cose" in files
    assert "withheld" in outcome.logs["stderr"]


def test_environment_and_files_of_the_reference(world: Make, runtime: BubblewrapRuntime) -> None:
    url = "https://example.org/a/b.csv?x=1"
    code = """
import json, os, sys
seen = {"env": dict(os.environ), "argv": sys.argv[1:], "in": sorted(os.listdir("/iexec_in")), "cwd": os.getcwd()}
seen["input"] = open("/iexec_in/" + os.environ["IEXEC_INPUT_FILE_NAME_1"]).read()
from cloister.datasets.reader import ProtectedDataReader
seen["reader"] = ProtectedDataReader.__name__
seen["modules"] = sorted(m for m in sys.modules if m.startswith("cloister."))
json.dump(seen, open("/iexec_out/seen.json", "w"))
json.dump({"deterministic-output-path": "/iexec_out/seen.json"}, open("/iexec_out/computed.json", "w"))
"""
    params = json.dumps({"iexec_args": "--name 'a b' c", "iexec_input_files": [url], "iexec_secrets": {"1": "x"}})
    task = world(
        code, inputs={url: b"1,2"}, params=params, app_secret="app's", requester_secrets={"1": "mine", "7": "other"}
    )
    task.run(runtime)
    seen = json.loads(task.files()["seen.json"])
    zero = "0x" + "0" * 40
    expected = {
        "IEXEC_TASK_ID": task.task_id,
        "IEXEC_DEAL_ID": "0x" + "77" * 32,
        "IEXEC_TASK_INDEX": "1",
        "IEXEC_IN": "/iexec_in",
        "IEXEC_OUT": "/iexec_out",
        "IEXEC_BOT_SIZE": "2",
        "IEXEC_BOT_FIRST_INDEX": "0",
        "IEXEC_BOT_TASK_INDEX": "1",
        "IEXEC_DATASET_ADDRESS": zero,
        "IEXEC_DATASET_FILENAME": zero,
        "IEXEC_INPUT_FILES_NUMBER": "1",
        "IEXEC_INPUT_FILES_FOLDER": "/iexec_in",
        "IEXEC_INPUT_FILE_NAME_1": input_file_name(url),
        "IEXEC_APP_DEVELOPER_SECRET": "app's",
        "IEXEC_APP_DEVELOPER_SECRET_1": "app's",
        "IEXEC_REQUESTER_SECRET_1": "mine",
        "IEXEC_REQUESTER_SECRET_7": "other",
    }
    assert {name: text for name, text in seen["env"].items() if name.startswith("IEXEC_")} == expected
    assert seen["argv"] == ["--name", "a b", "c"]
    assert seen["in"] == [input_file_name(url)]
    assert seen["input"] == "1,2"
    assert seen["cwd"] == "/app"
    assert all(
        name.startswith(("cloister.datasets", "cloister.errors", "cloister.version")) for name in seen["modules"]
    )


def test_callback_data_becomes_the_digest(world: Make, runtime: BubblewrapRuntime) -> None:
    code = "import json; json.dump({'callback-data': '0x010203'}, open('/iexec_out/computed.json', 'w'))"
    task = world(code, callback=Address("0x" + "99" * 20))
    outcome = task.run(runtime)
    assert outcome.results_callback == b"\1\2\3"
    assert outcome.result_digest.raw == keccak256(b"\1\2\3")


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (HELLO, "POST_COMPUTE_RESULT_DIGEST_COMPUTATION_FAILED"),
        ("1/0", "APP_COMPUTE_FAILED"),
        (
            "import json; json.dump({'callback-data': '0xzz'}, open('/iexec_out/computed.json', 'w'))",
            "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND",
        ),
    ],
)
def test_a_callback_task_without_data_ends_with_the_digest_of_nothing(
    world: Make, runtime: BubblewrapRuntime, code: str, cause: str
) -> None:
    """The hub takes a callback whose hash is the digest: that of no bytes is one, so the task completes by its cause."""
    task = world(code, callback=Address("0x" + "99" * 20))
    outcome = task.run(runtime)
    assert outcome.cause == cause
    assert outcome.results_callback == b""
    assert outcome.result_digest.raw == keccak256(b"")
    assert parse_receipt(task.files()["receipt.cose"]).claims.cause == cause


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (NotFound("it is not there"), True),
        (Denied("10.0.0.1 is not a public address", code="private-address"), True),
        (TooLarge("it is larger than 268435456 bytes"), True),
        (Denied("it answered 403", code="input-file-refused"), True),
        (UnavailableError("it does not answer"), False),
    ],
)
def test_an_input_file_that_is_not_to_be_had(
    world: Make, runtime: BubblewrapRuntime, error: CloisterError, ends: bool
) -> None:
    """What will be so for every worker is the requester's result, by name; what may pass is tried again elsewhere."""
    here, gone = "https://example.org/here", "https://example.org/gone"
    params = json.dumps({"iexec_input_files": [here, gone]})
    task = world(HELLO, inputs={here: b"1", gone: b""}, params=params)
    task.refusals[gone] = error
    if not ends:
        with pytest.raises(EnclaveFailed, match=error.message) as failure:
            task.run(runtime)
        assert failure.value.cause == "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"
        return
    outcome = task.run(runtime)
    assert outcome.cause == "PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED"
    assert outcome.logs == {"stdout": "", "stderr": "[cloister] the app did not run\n"}
    files = task.files()
    assert set(files) == {"error.txt", "computed.json", "receipt.cose"}
    assert b"[error:DATA_DOWNLOAD_FAILED, causes:[PRE_COMPUTE_INPUT_FILE_DOWNLOAD_FAILED]]" in files["error.txt"]
    assert error.message in json.loads(files["computed.json"])["error-message"]
    assert [item.name for item in parse_receipt(files["receipt.cose"]).claims.inputs] == [input_file_name(here)]
    assert task.fetched[1] == (here, (gone,))


def test_a_place_of_the_requesters_own_is_refused_by_name(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(HELLO, params=json.dumps({"iexec_result_storage_provider": "dropbox"}))
    assert task.run(runtime).cause == "POST_COMPUTE_DROPBOX_UPLOAD_FAILED"
    assert set(task.files()) == {"error.txt", "computed.json", "receipt.cose"}


@pytest.mark.parametrize(
    ("path", "digest"),
    [
        ("result.txt", hashlib.sha256(b"hello").digest()),
        ("/iexec_out/sub", keccak256(hashlib.sha256(b"a").digest() + hashlib.sha256(b"b").digest())),
        ("sub/", keccak256(hashlib.sha256(b"a").digest() + hashlib.sha256(b"b").digest())),
    ],
)
def test_the_deterministic_path_may_be_relative_and_a_folder(
    world: Make, runtime: BubblewrapRuntime, path: str, digest: bytes
) -> None:
    code = f"""
import json, os
os.makedirs("/iexec_out/sub/below")
for name, text in (("result.txt", "hello"), ("sub/a", "a"), ("sub/b", "b"), ("sub/below/c", "not looked at")):
    open("/iexec_out/" + name, "w").write(text)
json.dump({{"deterministic-output-path": {path!r}}}, open("/iexec_out/computed.json", "w"))
"""
    outcome = world(code).run(runtime)
    assert outcome.cause is None
    assert outcome.result_digest.raw == digest


def test_exit_code_is_told_where_the_streams_are(world: Make, runtime: BubblewrapRuntime) -> None:
    outcome = world("import sys; print('so far'); sys.exit(3)").run(runtime)
    assert outcome.cause == "APP_COMPUTE_FAILED"
    assert outcome.logs == {"stdout": "so far\n", "stderr": "", "exit_code": 3}


@pytest.mark.parametrize("secret", [{"app_secret": "s3cret"}, {"requester_secrets": {"1": "s3cret"}}])
def test_streams_that_may_hold_a_secret_reach_nobody(
    world: Make, runtime: BubblewrapRuntime, secret: dict[str, object]
) -> None:
    """A plain result is the world's to read, and the host's logs are the scheduler's."""
    outcome = (task := world("import os; print(os.environ); raise SystemExit(3)", **secret)).run(runtime)
    assert "s3cret" not in str(outcome.logs)
    assert outcome.logs is not None
    assert "exit_code" not in outcome.logs
    assert all(b"s3cret" not in content for content in task.files().values())


@pytest.mark.parametrize("data_format", list(ContentFormat))
def test_a_key_that_does_not_open_the_published_data(
    world: Make, runtime: BubblewrapRuntime, data_format: ContentFormat
) -> None:
    task = world(READ_DATA, data=b"alice" * 1000, data_format=data_format)
    assert task.release.dataset is not None
    other = build_content_key(generate_content_key(os.urandom, data_format))
    task.release = replace(task.release, dataset=replace(task.release.dataset, key=other))
    with pytest.raises(EnclaveFailed) as failure:
        task.run(runtime)
    assert failure.value.cause == "PRE_COMPUTE_DATASET_DECRYPTION_FAILED"


def test_a_result_that_the_enclave_has_no_room_for_is_named(world: Make, runtime: BubblewrapRuntime) -> None:
    code = HELLO + "open('/iexec_out/large', 'wb').write(os.urandom(12 << 20))"
    task = world(code)
    with pytest.raises(EnclaveFailed, match="no room for the result's archive") as failure:
        task.run(runtime, runtime.launch(replace(task.platform.spec, scratch_bytes=8 << 20)))
    assert failure.value.cause == "POST_COMPUTE_OUT_FOLDER_ZIP_FAILED"


def test_warm_agent_waits_for_its_task(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(HELLO)
    process = runtime.launch(task.platform.spec)
    time.sleep(0.6)
    assert process.wait(0) is None
    assert task.run(runtime, process).cause is None
    assert process.wait(5) is not None


def test_release_of_another_service_is_refused(world: Make, runtime: BubblewrapRuntime) -> None:
    """The host seals a release of its own making: without the SMS's signature it is worth nothing."""
    task = world(HELLO)

    def forge(answer: SessionAnswer, request: object) -> SessionAnswer:
        forged = envelope.seal(HpkePublicKey(request.hpke_public_key), b"{}", request.context())  # type: ignore[attr-defined]
        return replace(answer, sealed=forged)

    task.tamper = forge
    with pytest.raises(EnclaveFailed, match="not signed by the sms") as failure:
        task.run(runtime)
    assert failure.value.cause == "TEE_SESSION_GENERATION_FAILED"
    assert task.result == b""


@pytest.mark.parametrize("field", ["task_id", "worker", "hub", "app"])
def test_release_for_something_else_is_refused(world: Make, runtime: BubblewrapRuntime, field: str) -> None:
    task = world(HELLO)
    other = {
        "task_id": replace(task.release, task_id=task.release.deal_id),
        "worker": replace(task.release, worker=task.release.hub),
        "hub": replace(task.release, hub=task.release.worker),
        "app": replace(task.release, app=replace(task.release.app, checksum=task.release.deal_id)),
    }[field]
    task.tamper = lambda _, request: task.answer(request, other)
    with pytest.raises(EnclaveFailed, match="than was attested"):
        task.run(runtime)


def test_answer_to_another_request_is_refused(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(HELLO)

    def replay(answer: SessionAnswer, request: object) -> SessionAnswer:
        proof = task.sms.sign_message(release_digest(b"another request", answer.sealed))
        return replace(answer, signature=proof)

    task.tamper = replay
    with pytest.raises(EnclaveFailed, match="not signed by the sms"):
        task.run(runtime)


@pytest.mark.parametrize(
    ("location", "cause"),
    [("app", "APP_IMAGE_REFUSED"), ("dataset", "PRE_COMPUTE_INVALID_DATASET_CHECKSUM")],
)
@pytest.mark.parametrize("data_format", list(ContentFormat))
def test_changed_content_is_refused(
    world: Make, runtime: BubblewrapRuntime, location: str, cause: str, data_format: ContentFormat
) -> None:
    task = world(READ_DATA, data=b"alice" * 100, data_format=data_format)
    place = task.release.app.multiaddr if location == "app" else "/ipfs/QmDataset"
    changed = bytearray(task.content[place])
    changed[len(changed) // 2] ^= 1
    task.content[place] = bytes(changed)
    with pytest.raises(EnclaveFailed) as failure:
        task.run(runtime)
    assert failure.value.cause == cause


def test_cause_is_heard_when_the_agent_gives_up_early(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(READ_DATA, data=bytes(40_000_000))
    changed = bytearray(task.content["/ipfs/QmDataset"])
    changed[100] ^= 1
    task.content["/ipfs/QmDataset"] = bytes(changed)
    with pytest.raises(EnclaveFailed) as failure:
        task.run(runtime)
    assert failure.value.cause == "PRE_COMPUTE_INVALID_DATASET_CHECKSUM"


@pytest.mark.parametrize(
    ("missing", "cause"),
    [("/ipfs/QmApp", "APP_IMAGE_DOWNLOAD_FAILED"), ("/ipfs/QmDataset", "PRE_COMPUTE_DATASET_DOWNLOAD_FAILED")],
)
def test_missing_content_is_named(world: Make, runtime: BubblewrapRuntime, missing: str, cause: str) -> None:
    task = world(READ_DATA, data=b"alice")
    del task.content[missing]
    with pytest.raises(EnclaveFailed) as failure:
        task.run(runtime)
    assert failure.value.cause == cause


def test_sms_refusal_reaches_the_host(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(HELLO)

    def refuse(answer: SessionAnswer, request: object) -> SessionAnswer:
        raise PolicyRejected("the grant has expired", code="policy-expired")

    task.tamper = refuse
    with pytest.raises(EnclaveFailed, match="the grant has expired") as failure:
        task.run(runtime)
    assert failure.value.cause == "TEE_SESSION_REFUSED"


def test_result_key_that_is_none(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(HELLO, result_format=ResultFormat.HPKE, result_public_key=b"short")
    with pytest.raises(EnclaveFailed) as failure:
        task.run(runtime)
    assert failure.value.cause == "POST_COMPUTE_MALFORMED_ENCRYPTION_PUBLIC_KEY"
