"""Private input files: sealed by the requester, opened inside, and nothing of their key for the iApp."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.enclave.world import World

from cloister.attestation.receipt import parse_receipt
from cloister.enclave.environment import input_file_name
from cloister.sealing.keys import ContentFormat, ContentKey, build_content_key, generate_content_key, seal_content
from cloister.sealing.private_files import seal_private_file
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

Make = Callable[..., World]

FIRST, SECOND = "https://example.org/ipfs/QmFirst", "https://example.org/ipfs/QmSecond"
LARGE = bytes(range(256)) * 10_000  # more than two segments

READ = """
import hashlib, json, os
folder = os.environ["IEXEC_INPUT_FILES_FOLDER"]
files = [open(os.path.join(folder, os.environ[f"IEXEC_INPUT_FILE_NAME_{n}"]), "rb").read() for n in (1, 2)]
secrets = {name: text for name, text in os.environ.items() if "SECRET" in name}
found = {"files": [hashlib.sha256(file).hexdigest() for file in files], "secrets": secrets}
json.dump(found, open("/iexec_out/result.json", "w"))
json.dump({"deterministic-output-path": "/iexec_out/result.json"}, open("/iexec_out/computed.json", "w"))
"""


@pytest.fixture
def private_world(world: Make) -> Make:
    """A task with two private input files; ``key`` is what the request gives as secret 2."""

    def make(*, key: str | None = "", contents: tuple[bytes, bytes] | None = None) -> World:
        sealing = generate_content_key(os.urandom)
        first, second = contents or (seal(sealing, 1, b"mine alone"), seal(sealing, 2, LARGE))
        given = {"1": "for the app"} | ({} if key is None else {"2": key or build_content_key(sealing)})
        params = {"iexec_input_files": [FIRST, SECOND], "iexec_secrets": {"1": "a", "2": "b"}, "cloister_input_key": 2}
        task = world(READ, inputs={FIRST: first, SECOND: second}, params=json.dumps(params))
        task.release = replace(task.release, requester_secrets=given)
        return task

    return make


def seal(key: ContentKey, number: int, content: bytes) -> bytes:
    return b"".join(seal_private_file(key, number, [content], entropy=os.urandom))


def test_files_are_opened_and_their_key_is_not_the_iapps(private_world: Make, runtime: BubblewrapRuntime) -> None:
    task = private_world()
    outcome = task.run(runtime)
    assert outcome.cause is None
    digests = [hashlib.sha256(content).hexdigest() for content in (b"mine alone", LARGE)]
    found = json.loads(task.files()["result.json"])
    assert found == {"files": digests, "secrets": {"IEXEC_REQUESTER_SECRET_1": "for the app"}}
    inputs = parse_receipt(task.files()["receipt.cose"]).claims.inputs
    names = [input_file_name(FIRST), input_file_name(SECOND)]
    assert [(item.name, item.sha256.hex()) for item in inputs] == list(zip(names, digests, strict=True))


def spoil(case: str) -> dict[str, object]:
    key = generate_content_key(os.urandom)
    first, second = seal(key, 1, b"mine alone"), seal(key, 2, LARGE)
    text = build_content_key(key)
    match case:
        case "another key":
            return {"key": build_content_key(generate_content_key(os.urandom)), "contents": (first, second)}
        case "swapped":
            return {"key": text, "contents": (second, first)}
        case "changed":
            return {"key": text, "contents": (first, second[:-1] + bytes([second[-1] ^ 1]))}
        case "cut at a segment":
            return {"key": text, "contents": (first, second[: 1 << 20])}
        case "not sealed":
            return {"key": text, "contents": (b"mine alone", LARGE)}
        case "sealed as protected data":
            return {"key": text, "contents": (b"".join(seal_content(key, [b"x"], entropy=os.urandom)), second)}
        case "no key":
            return {"key": "not a key", "contents": (first, second)}
        case "iExec's format":
            other = ContentKey(ContentFormat.AES256_CBC, os.urandom(32))
            sealed = b"".join(seal_content(other, [b"mine alone"], entropy=os.urandom))
            return {"key": build_content_key(other), "contents": (sealed, sealed)}
        case _:
            return {"key": None, "contents": (first, second)}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("another key", "input file 1 does not open with the request's key"),
        ("swapped", "input file 1 does not open with the request's key"),
        ("changed", "input file 2 does not open with the request's key"),
        ("cut at a segment", "input file 2 does not open with the request's key"),
        ("not sealed", "input file 1 does not open with the request's key"),
        ("sealed as protected data", "input file 1 does not open with the request's key"),
        ("no key", "secret 2 is no key for private input files"),
        ("iExec's format", "secret 2 is no key for private input files"),
        ("not given", "secret 2, the key of the private input files, was not given"),
    ],
)
def test_what_does_not_open_ends_the_task_by_name(
    private_world: Make, runtime: BubblewrapRuntime, case: str, message: str
) -> None:
    task = private_world(**spoil(case))
    outcome = task.run(runtime)
    assert outcome.cause == "PRE_COMPUTE_INPUT_FILE_DECRYPTION_FAILED"
    files = task.files()
    assert {"error.txt", "computed.json", "receipt.cose"} <= set(files)
    assert b"causes:[PRE_COMPUTE_INPUT_FILE_DECRYPTION_FAILED]" in files["error.txt"]
    assert json.loads(files["computed.json"])["error-message"] == message
    assert parse_receipt(files["receipt.cose"]).claims.cause == outcome.cause
