"""Messages that iExec's services have signed, results, and our own requests' signatures."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.vectors.loading import load_cases, load_vectors

from cloister.errors import CloisterError, DecodeError, InputError, Unauthenticated, VerificationError
from cloister.protocol.authentication import audience, sign_request, verify_request
from cloister.protocol.authorization import (
    SMS_DOMAIN,
    build_challenge_header,
    challenge_digest,
    challenge_typed_data,
    parse_challenge_header,
    requester_secret_challenge,
    scheduler_authorization,
    sms_app_challenge,
    sms_web2_challenge,
    sms_web3_challenge,
    verify_challenge_header,
    verify_personal_signature,
    worker_authorization,
)
from cloister.protocol.codec import Address, Bytes32, keccak256, to_hex
from cloister.protocol.results import (
    ResultsLocation,
    build_results_location,
    callback_digest,
    directory_digest,
    downloadable_location,
    enclave_message,
    file_digest,
    parse_results_location,
    result_hash,
    result_seal,
)
from cloister.protocol.signatures import PrivateKey

KEY = PrivateKey(b"\x11" * 32)
STRANGER = PrivateKey(b"\x12" * 32)
HUB = Address("0x" + "ab" * 20)


@pytest.mark.parametrize("case", load_cases("protocol/sms_challenges.json"), ids=lambda case: case["kind"])
def test_sms_challenges(case: dict[str, str]) -> None:
    address = Address(case["address"])
    match case["kind"]:
        case "web3":
            digest = sms_web3_challenge(address, case["value"])
        case "app":
            digest = sms_app_challenge(address, case["value"])
        case _:
            digest = sms_web2_challenge(address, case["name"], case["value"])
            assert requester_secret_challenge(address, case["name"], case["value"]) == digest
    assert to_hex(digest) == case["challenge"]


def test_sms_domain() -> None:
    assert to_hex(SMS_DOMAIN) == load_vectors("protocol/sms_challenges.json")["domain"]


@pytest.mark.parametrize("case", load_cases("protocol/results.json"), ids=lambda case: case["content"])
def test_results(case: dict[str, str]) -> None:
    worker, task = Address(case["worker"]), Bytes32(case["task_id"])
    digest = file_digest([case["content"].encode()])
    assert digest == case["digest"]
    assert result_hash(task, digest) == case["result_hash"]
    assert result_seal(worker, task, digest) == case["result_seal"]
    message = enclave_message(result_hash(task, digest), result_seal(worker, task, digest))
    assert to_hex(message) == case["enclave_message"]
    assert to_hex(scheduler_authorization(worker, task, Address(case["enclave"]))) == case["authorization"]
    assert worker_authorization(task, worker) == keccak256(task.raw + worker.raw)


@pytest.mark.parametrize("case", load_cases("protocol/challenges.json"), ids=lambda case: case["name"])
def test_login_challenges(case: dict[str, Any]) -> None:
    arguments = {"name": case["name"], "chain_id": case["chain_id"], "text": case["text"]}
    digest = challenge_digest(**arguments)
    assert to_hex(digest) == case["hash"]
    data: Any = challenge_typed_data(**arguments)
    assert data["domain"] == {"name": case["name"], "version": "1", "chainId": str(case["chain_id"])}
    assert [member["name"] for member in data["types"]["EIP712Domain"]] == ["name", "version", "chainId"]
    header = build_challenge_header(digest, KEY.sign_digest(digest), KEY.address)
    assert parse_challenge_header(header)[2] == KEY.address
    assert verify_challenge_header(header, **arguments, address=KEY.address) == KEY.address
    for wrong in (
        {**arguments, "text": case["text"] + "x", "address": KEY.address},
        {**arguments, "chain_id": 1, "address": KEY.address},
        {**arguments, "address": STRANGER.address},
    ):
        with pytest.raises(VerificationError):
            verify_challenge_header(header, **wrong)
    forged = build_challenge_header(digest, STRANGER.sign_digest(digest), KEY.address)
    with pytest.raises(VerificationError):
        verify_challenge_header(forged, **arguments, address=KEY.address)


@pytest.mark.parametrize(
    "header", ["", "_", "a_b_c", "0x_0x_0x", "0x" + "00" * 32 + "_0x_" + KEY.address + "_x", "x" * 100_000]
)
def test_malformed_logins_are_refused(header: str) -> None:
    with pytest.raises(DecodeError):
        parse_challenge_header(header)


def test_personal_signatures() -> None:
    message = b"\x01" * 32
    assert verify_personal_signature(message, KEY.sign_message(message), KEY.address) == KEY.address
    for signature in (STRANGER.sign_message(message), KEY.sign_digest(message), b""):
        with pytest.raises(VerificationError):
            verify_personal_signature(message, signature, KEY.address)


# Requests to our own services

AUDIENCE = audience("scheduler", 421614, HUB)
REQUEST: dict[str, Any] = {
    "audience": AUDIENCE,
    "method": "POST",
    "target": "/scheduler/v1/leases?x=1",
    "body": b'{"a":1}',
}


def signed(key: PrivateKey = KEY, issued_at: int = 1000, **changes: Any) -> str:
    return sign_request(key, **{**REQUEST, **changes}, issued_at=issued_at, nonce=b"\x07" * 16)


def test_a_signed_request_names_its_sender() -> None:
    proof = verify_request(signed(), **REQUEST, now=1010, max_age=60)
    assert (proof.address, proof.nonce, proof.issued_at, proof.expires_at) == (KEY.address, "07" * 16, 1000, 1060)
    assert verify_request(signed(method="post"), **REQUEST, now=1000).address == KEY.address


@pytest.mark.parametrize(
    "changes",
    [
        {"audience": audience("sms", 421614, HUB)},
        {"audience": audience("scheduler", 1, HUB)},
        {"method": "PUT"},
        {"target": "/scheduler/v1/leases?x=2"},
        {"body": b'{"a":2}'},
        {"body": b""},
    ],
)
def test_a_signature_is_good_for_one_request(changes: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        verify_request(signed(), **{**REQUEST, **changes}, now=1000)


@pytest.mark.parametrize("now", [1000 + 121, 1000 - 31, 0, 10**10])
def test_a_signature_is_good_for_a_while(now: int) -> None:
    with pytest.raises(Unauthenticated, match="dated"):
        verify_request(signed(), **REQUEST, now=now)


def test_another_address_cannot_be_claimed() -> None:
    header = signed()
    with pytest.raises(Unauthenticated):
        verify_request(header.replace(KEY.address, STRANGER.address), **REQUEST, now=1000)


@given(st.integers(min_value=0, max_value=300), st.integers(min_value=1, max_value=127))
def test_a_changed_header_is_refused(position: int, change: int) -> None:
    header = bytearray(signed().encode())
    position %= len(header)
    header[position] ^= change
    text = header.decode("latin-1")
    if text.lower() == signed().lower():
        return
    with pytest.raises(Unauthenticated):
        verify_request(text, **REQUEST, now=1000)


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer x", "Cloister", "Cloister ", "Cloister a.b.c.d", "Cloister 1.2.3", "Cloister " + "9" * 10_000],
)
def test_malformed_headers_are_refused(header: str | None) -> None:
    with pytest.raises(Unauthenticated):
        verify_request(header, **REQUEST, now=1000)


def test_line_breaks_cannot_forge_another_text() -> None:
    for changes in ({"target": "/a\nb"}, {"method": "GET\n/x"}, {"audience": "a\r"}):
        with pytest.raises(InputError):
            signed(**changes)
    with pytest.raises(InputError):
        sign_request(KEY, **REQUEST, issued_at=1, nonce=b"short")


# Results on chain


def test_result_locations_have_iexecs_very_spaces() -> None:
    assert build_results_location("ipfs", "/ipfs/Qm1") == b'{ "storage": "ipfs", "location": "/ipfs/Qm1" }'


@given(
    st.sampled_from(["ipfs", "dropbox", "ethereum"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100),
)
def test_result_locations_come_back(storage: str, location: str) -> None:
    assert parse_results_location(build_results_location(storage, location)) == ResultsLocation(storage, location)


@pytest.mark.parametrize(
    "results", [b"", b"\xff", b"{}", b"[]", b'{"storage":5}', b"x" * 10_000, b"[" * 3000, b'"ipfs"']
)
def test_unreadable_results_say_none(results: bytes) -> None:
    assert parse_results_location(results) == ResultsLocation("none")


@pytest.mark.parametrize(
    ("location", "text"),
    [
        (ResultsLocation("none"), "No result uploaded for this task"),
        (ResultsLocation("dropbox", "/results/x"), "Task result stored on dropbox, download not supported"),
        (ResultsLocation("ipfs"), "Missing location key in task results, download not supported"),
    ],
)
def test_results_that_cannot_be_fetched(location: ResultsLocation, text: str) -> None:
    with pytest.raises(InputError, match=text):
        downloadable_location(location)
    assert downloadable_location(ResultsLocation("ipfs", "/ipfs/Qm1")) == "/ipfs/Qm1"


def test_directories_are_digested_in_the_order_of_names() -> None:
    one, two = bytes(32), b"\x01" * 32
    expected = Bytes32.from_raw(keccak256(one + two))
    assert directory_digest({"b": two, "a": one}) == directory_digest({"a": one, "b": two}) == expected
    for files in ({}, {"a": b"short"}):
        with pytest.raises(CloisterError):
            directory_digest(files)
    assert callback_digest(b"data") == Bytes32.from_raw(keccak256(b"data"))
