"""Documents that cross a trust line: sessions, releases, frames, params, policies, networks, manifests."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocol.strategies import addresses, texts, uints, words

from cloister.errors import CloisterError, DecodeError, InputError, PolicyRejected, TooLarge, VerificationError
from cloister.protocol.bundles import Manifest, Resources, build_manifest, parse_manifest
from cloister.protocol.channel import BODY_CAP, HEADER_CAP, Frame, FrameCaps, FrameParser, build_frame
from cloister.protocol.codec import Address, Bytes32, canonical_json, parse_json
from cloister.protocol.networks import ContractAddresses, NetworkDescription, ServiceUrls, parse_network
from cloister.protocol.orders import DatasetOrder
from cloister.protocol.params import RequestParams, build_params, parse_params
from cloister.protocol.policies import (
    SALT_TAG,
    AccessPolicy,
    PolicyFacts,
    check_policy,
    parse_policy,
    policy_salt,
    salt_names_policy,
    verify_policy_salt,
)
from cloister.protocol.sessions import (
    NonceGrant,
    Release,
    ReleasedApp,
    ReleasedDataset,
    ResultFormat,
    SessionAnswer,
    SessionCall,
    SessionEvidence,
    SessionRequest,
    build_release,
    parse_nonce_grant,
    parse_release,
    parse_session_answer,
    parse_session_call,
    parse_session_request,
    release_digest,
    verify_session_answer,
    verify_session_signature,
)
from cloister.protocol.signatures import PrivateKey

ENCLAVE = PrivateKey(b"\x21" * 32)
WORD = Bytes32("0x" + "0a" * 32)
ADDRESS = Address("0x" + "0b" * 20)

names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
optional_times = st.none() | st.integers(min_value=0, max_value=2**40)


def request(**changes: Any) -> SessionRequest:
    unsigned = SessionRequest(
        task_id=WORD,
        worker=ADDRESS,
        nonce=WORD,
        enclave_challenge=ENCLAVE.address,
        hpke_public_key=b"k" * 1216,
        app_digest=WORD,
        evidence=SessionEvidence("simulated", b"evidence"),
        purposes=("research",),
    )
    return dataclasses.replace(unsigned, **changes).signed_by(ENCLAVE)


def release(**changes: Any) -> Release:
    return dataclasses.replace(
        Release(
            task_id=WORD,
            deal_id=WORD,
            index=3,
            bot_first=0,
            bot_size=5,
            chain_id=421614,
            hub=ADDRESS,
            worker=ADDRESS,
            beneficiary=ADDRESS,
            requester=ADDRESS,
            callback=ADDRESS,
            params="{}",
            app=ReleasedApp(ADDRESS, "/ipfs/Qm", WORD),
            dataset=ReleasedDataset(ADDRESS, "/ipfs/Qm2", WORD, "SECRETKEY", order_hash=WORD),
            result_format=ResultFormat.HPKE,
            result_public_key=b"public",
            deadline=1000,
            app_secret="SECRETAPP",
            requester_secrets={"1": "SECRETREQ"},
        ),
        **changes,
    )


# Sessions


def test_sessions_come_back() -> None:
    signed = request()
    assert parse_session_request(parse_json(canonical_json(signed.to_json()))) == signed
    assert verify_session_signature(signed) == ENCLAVE.address
    order = DatasetOrder(dataset=ADDRESS)
    for call in (SessionCall(signed, bytes(65), WORD, order, {"tcb": [1]}), SessionCall(signed, bytes(65), WORD)):
        assert parse_session_call(parse_json(canonical_json(call.to_json()))) == call
    answer = SessionAnswer(b"sealed", bytes(65), ADDRESS, bytes(65))
    assert parse_session_answer(parse_json(canonical_json(answer.to_json()))) == answer
    grant = NonceGrant(WORD, 5)
    assert parse_nonce_grant(parse_json(canonical_json(grant.to_json()))) == grant


@pytest.mark.parametrize(
    "changes",
    [
        {"task_id": Bytes32("0x" + "0c" * 32)},
        {"worker": Address("0x" + "0c" * 20)},
        {"nonce": Bytes32("0x" + "0c" * 32)},
        {"hpke_public_key": b"attacker"},
        {"app_digest": Bytes32("0x" + "0c" * 32)},
        {"evidence": SessionEvidence("tdx", b"evidence")},
        {"evidence": SessionEvidence("simulated", b"other")},
        {"purposes": ("marketing",)},
    ],
)
def test_every_member_of_a_session_is_signed(changes: dict[str, Any]) -> None:
    """Abuse 3 and 5: evidence or keys moved into another request."""
    signed = request()
    changed = dataclasses.replace(signed, **changes)
    assert changed.context() != signed.context()
    with pytest.raises(VerificationError):
        verify_session_signature(changed)


def test_a_session_is_signed_by_its_own_challenge() -> None:
    with pytest.raises(InputError):
        request().signed_by(PrivateKey(b"\x22" * 32))
    with pytest.raises(VerificationError):
        verify_session_signature(dataclasses.replace(request(), signature=b""))


def test_a_release_is_signed_by_the_sms_for_one_request() -> None:
    """A host that seals a release of its own making, or one for another request, is refused."""
    sms, signed = PrivateKey(b"\x23" * 32), request()
    digest = release_digest(signed.context(), b"sealed")
    answer = SessionAnswer(b"sealed", bytes(65), sms.address, sms.sign_message(digest))
    assert verify_session_answer(answer, signed, sms.address) is answer
    host = PrivateKey(b"\x24" * 32)
    for forged in (
        dataclasses.replace(answer, sealed=b"other"),
        dataclasses.replace(answer, signature=host.sign_message(digest)),
        dataclasses.replace(answer, sms=host.address, signature=host.sign_message(digest)),
    ):
        with pytest.raises(VerificationError):
            verify_session_answer(forged, signed, sms.address)
    with pytest.raises(VerificationError):
        verify_session_answer(answer, request(nonce=Bytes32("0x" + "0c" * 32)), sms.address)


def test_sessions_have_caps() -> None:
    with pytest.raises(TooLarge):
        SessionEvidence("tdx", bytes(128 * 1024 + 1))
    with pytest.raises(InputError):
        request(hpke_public_key=bytes(5000))
    with pytest.raises(TooLarge):
        SessionCall(request(), bytes(65), WORD, collateral="x" * 600_000)
    oversized = request().to_json()
    oversized["evidence"] = {"kind": "tdx", "payload": "A" * 300_000}
    with pytest.raises(TooLarge):
        parse_session_request(oversized)


def without(path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            document = document[parent]
        del document[last]

    return change


def put(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            document = document[parent]
        document[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        put("version", 2),
        put("version", True),
        put("version", "1"),
        put("extra", 1),
        put("task_id", "0x00"),
        put("worker", None),
        put("purposes", "research"),
        put("purposes", [1]),
        put("purposes", ["a"] * 100),
        put("evidence", []),
        put("evidence.extra", 1),
        put("evidence.payload", "!!"),
        put("evidence.kind", ""),
        put("signature", "0x00"),
        put("hpke_public_key", ""),
        *(
            without(name)
            for name in ("version", "task_id", "nonce", "evidence", "evidence.kind", "signature", "purposes")
        ),
    ],
)
def test_malformed_sessions_are_refused(change: Callable[[dict[str, Any]], None]) -> None:
    document: dict[str, Any] = copy.deepcopy(request().to_json())
    change(document)
    with pytest.raises(CloisterError):
        parse_session_request(document)


# Releases


def test_releases_come_back_and_hide_their_secrets() -> None:
    plain = release(
        dataset=None, app_secret=None, requester_secrets={}, result_format=ResultFormat.PLAIN, result_public_key=None
    )
    for item in (release(), plain, release(max_result_bytes=10), release(logs=True)):
        assert parse_release(build_release(item)) == item
        assert "SECRET" not in repr(item)


@pytest.mark.parametrize(
    "change",
    [
        put("version", 9),
        put("extra", 1),
        put("index", -1),
        put("logs", False),
        put("logs", 1),
        put("result.format", "zip"),
        put("result.format", None),
        put("result.public_key", None),
        put("dataset.key", 5),
        put("dataset.other", 5),
        put("requester_secrets", []),
        put("requester_secrets", {"0": "SECRETX"}),
        put("requester_secrets", {"-1": "SECRETX"}),
        put("requester_secrets", {"1": 5}),
        put("app", None),
        put("params", "x" * 20_000),
        without("deadline"),
        without("dataset"),
    ],
)
def test_malformed_releases_are_refused_without_telling_secrets(change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(build_release(release()))
    change(document)
    with pytest.raises(CloisterError) as caught:
        parse_release(canonical_json(document))
    assert "SECRET" not in str(caught.value)


# Frames

frames = st.builds(
    Frame,
    kind=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10),
    header=st.dictionaries(texts.filter(lambda text: text != "kind"), st.integers() | texts, max_size=4),
    body=st.binary(max_size=300),
)


@given(st.lists(frames, max_size=5), st.integers(min_value=1, max_value=50))
def test_frames_come_back_however_they_are_cut(sent: list[Frame], size: int) -> None:
    stream = b"".join(build_frame(frame) for frame in sent)
    parser = FrameParser()
    received = [frame for start in range(0, len(stream), size) for frame in parser.feed(stream[start : start + size])]
    parser.close()
    assert received == sent


@pytest.mark.parametrize(
    "stream",
    [
        b"\xff\xff\xff\xff\x00\x00\x00\x00",
        b"\x00\x00\x00\x02\xff\xff\xff\xff",
        (HEADER_CAP + 1).to_bytes(4, "big") + bytes(4),
        (2).to_bytes(4, "big") + (BODY_CAP + 1).to_bytes(4, "big"),
        b"\x00\x00\x00\x02\x00\x00\x00\x00{}",
        b"\x00\x00\x00\x02\x00\x00\x00\x00[]",
        b"\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x0d\x00\x00\x00\x00" + b'{"kind": "a"}',
        b"\x00\x00\x00\x0a\x00\x00\x00\x00" + b'{"kind":1}',
        b"\x00\x00\x00\x0b\x00\x00\x00\x00" + b'{"kind":""}',
        b"\x00\x00\x00\x16\x00\x00\x00\x00" + b'{"kind":"a","a":"\\ud8"}',
    ],
)
def test_a_refused_frame_ends_the_channel(stream: bytes) -> None:
    parser = FrameParser()
    with pytest.raises(CloisterError):
        parser.feed(stream)
    with pytest.raises(DecodeError, match="broken"):
        parser.feed(build_frame(Frame("ok")))
    with pytest.raises(DecodeError):
        parser.close()


def test_frames_have_caps() -> None:
    with pytest.raises(TooLarge):
        build_frame(Frame("a", body=bytes(BODY_CAP + 1)))
    with pytest.raises(TooLarge):
        build_frame(Frame("a", {"x": "y" * HEADER_CAP}))
    with pytest.raises(TooLarge):
        FrameParser(FrameCaps(header=100, body=10)).feed(build_frame(Frame("a", body=bytes(11))))
    with pytest.raises(InputError):
        Frame("")
    with pytest.raises(InputError):
        Frame("a", {"kind": "b"})
    parser = FrameParser()
    parser.feed(build_frame(Frame("a"))[:-1])
    with pytest.raises(DecodeError, match="inside a frame"):
        parser.close()


# Params

request_params = st.builds(
    RequestParams,
    iexec_args=st.none() | texts,
    iexec_input_files=st.lists(st.sampled_from(["https://a.b/c", "http://x/y?z=1"]), max_size=3).map(tuple),
    iexec_secrets=st.dictionaries(
        st.integers(min_value=1, max_value=99), st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True), max_size=3
    ),
    iexec_result_encryption=st.booleans(),
    iexec_result_storage_provider=st.none() | st.sampled_from(["ipfs", "dropbox"]),
    bulk_cid=st.none() | st.just("QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi"),
    cloister_result_key=st.none() | st.just("ab" * 32),
    cloister_purpose=st.none() | names,
)


@given(request_params)
def test_params_come_back(params: RequestParams) -> None:
    assert parse_params(build_params(params)) == params
    assert RequestParams.parse(params.build()) == params


def test_params_are_written_as_iexecs_clients_write_them() -> None:
    params = RequestParams(iexec_args="hello", iexec_result_storage_provider="ipfs")
    assert build_params(params) == '{"iexec_args":"hello","iexec_result_storage_provider":"ipfs"}'


def test_the_key_of_private_files_is_a_secret_of_the_request() -> None:
    params = RequestParams(iexec_secrets={3: "a"}, cloister_input_key=3)
    assert build_params(params) == '{"iexec_secrets":{"3":"a"},"cloister_input_key":3}'
    assert parse_params(build_params(params)) == params
    with pytest.raises(InputError, match="cloister_input_key: 2 is not the number of a secret"):
        RequestParams(iexec_secrets={3: "a"}, cloister_input_key=2)


def test_params_in_other_forms() -> None:
    assert parse_params("--epochs 5") == RequestParams(iexec_args="--epochs 5")
    assert parse_params("") == parse_params("{}") == RequestParams()
    assert parse_params("5") == RequestParams(iexec_args="5")
    assert parse_params('{"iexec_input_files":"https://a.b/c, https://d.e/f"}').iexec_input_files == (
        "https://a.b/c",
        "https://d.e/f",
    )
    with pytest.raises(DecodeError, match='Unknown key "iexec_developer_logger" in params'):
        parse_params('{"iexec_developer_logger":true}')
    lenient = parse_params('{"iexec_developer_logger":true,"iexec_args":"a"}', allow_unknown=True)
    assert (lenient.unknown, lenient.iexec_args) == (("iexec_developer_logger",), "a")


@pytest.mark.parametrize(
    "members",
    [
        {"iexec_args": 5},
        {"iexec_input_files": ["ftp://a"]},
        {"iexec_input_files": [5]},
        {"iexec_input_files": 5},
        {"iexec_input_files": ["https://a/"] * 101},
        {"iexec_secrets": []},
        {"iexec_secrets": {"0": "a"}},
        {"iexec_secrets": {"1": "a b"}},
        {"iexec_secrets": {"1": 5}},
        {"iexec_secrets": {"one": "a"}},
        {"iexec_result_encryption": "true"},
        {"iexec_result_storage_provider": "s3"},
        {"iexec_result_storage_provider": 5},
        {"iexec_result_storage_proxy": "file:///etc"},
        {"bulk_cid": "../x"},
        {"bulk_cid": 5},
        {"cloister_result_key": "AB" * 32},
        {"cloister_purpose": "Research!"},
        {"cloister_input_key": 1},
        {"cloister_input_key": 2, "iexec_secrets": {"1": "a"}},
        {"cloister_input_key": "1", "iexec_secrets": {"1": "a"}},
        {"cloister_input_key": True, "iexec_secrets": {"1": "a"}},
        {"cloister_input_key": 1.0, "iexec_secrets": {"1": "a"}},
        {"cloister_input_key": [1], "iexec_secrets": {"1": "a"}},
    ],
)
def test_bad_params_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises((DecodeError, InputError, TooLarge)):
        parse_params(json.dumps(members))


# Policies

policies = st.builds(
    lambda nonce, bounds, purposes, enclaves, most: AccessPolicy(
        nonce=nonce,
        valid_from=bounds[0],
        valid_until=bounds[1],
        purposes=tuple(purposes),
        enclaves=tuple(enclaves),
        max_result_bytes=most,
    ),
    st.binary(min_size=16, max_size=16),
    st.tuples(optional_times, optional_times).filter(
        lambda pair: pair[0] is None or pair[1] is None or pair[0] < pair[1]
    ),
    st.lists(names, max_size=4),
    st.lists(names, max_size=4),
    optional_times,
)
OPEN = AccessPolicy(nonce=bytes(16))


@given(policies)
def test_policies_come_back_and_bind_a_salt(policy: AccessPolicy) -> None:
    again = parse_policy(parse_json(canonical_json(policy.to_json())))
    assert again == policy
    assert again.hash() == policy.hash()
    salt = policy_salt(policy)
    assert salt.raw[:4] == SALT_TAG == b"clo1"
    assert salt.raw[4:] == policy.hash().raw[:28]
    assert salt_names_policy(salt)
    assert verify_policy_salt(policy, salt) is policy


@given(policies, policies)
def test_another_policy_has_another_salt(one: AccessPolicy, two: AccessPolicy) -> None:
    if one != two:
        with pytest.raises(VerificationError):
            verify_policy_salt(two, policy_salt(one))


def test_a_plain_salt_names_no_policy() -> None:
    assert not salt_names_policy(WORD)
    with pytest.raises(VerificationError):
        verify_policy_salt(OPEN, WORD)


@pytest.mark.parametrize(
    ("policy", "facts", "code"),
    [
        ({"valid_from": 100}, {"now": 99}, "not-yet-valid"),
        ({"valid_until": 100}, {"now": 100}, "no-longer-valid"),
        ({"purposes": ("research",)}, {}, "purpose-missing"),
        ({"purposes": ("research",)}, {"purpose": "marketing", "app_purposes": ("marketing",)}, "purpose-refused"),
        ({"purposes": ("research",)}, {"purpose": "research"}, "app-purpose-refused"),
        ({"purposes": ("research",)}, {"purpose": "research", "app_purposes": ("marketing",)}, "app-purpose-refused"),
        ({"enclaves": ("tdx",)}, {"enclave": "simulated"}, "enclave-refused"),
    ],
)
def test_policies_refuse_by_name(policy: dict[str, Any], facts: dict[str, Any], code: str) -> None:
    """Abuse 31: a grant that expired between match and release."""
    with pytest.raises(PolicyRejected) as caught:
        check_policy(dataclasses.replace(OPEN, **policy), PolicyFacts(**{"now": 50, "enclave": "tdx", **facts}))
    assert caught.value.code == code


def test_policies_allow_what_they_say() -> None:
    policy = AccessPolicy(bytes(16), 10, 20, ("care", "research"), ("snp", "tdx"), 1000)
    for now in (10, 19):
        cleared = check_policy(policy, PolicyFacts(now, "tdx", "research", ("research", "other")))
        assert (cleared.policy_hash, cleared.max_result_bytes) == (policy.hash(), 1000)
    assert check_policy(OPEN, PolicyFacts(0, "simulated")).max_result_bytes is None


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": bytes(15)},
        {"valid_from": 5, "valid_until": 5},
        {"valid_from": -1},
        {"valid_until": 2**60},
        {"purposes": ("Not a name",)},
        {"enclaves": ("",)},
        {"purposes": tuple(f"p{number}" for number in range(40))},
        {"max_result_bytes": -1},
    ],
)
def test_policies_that_cannot_hold_do_not_exist(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        dataclasses.replace(OPEN, **changes)


@pytest.mark.parametrize(
    "change",
    [
        put("version", 2),
        put("extra", 1),
        put("purposes", ["b", "a"]),
        put("purposes", ["a", "a"]),
        put("nonce", "0x00"),
        put("valid_from", "soon"),
        without("enclaves"),
    ],
)
def test_other_spellings_of_a_policy_are_refused(change: Callable[[dict[str, Any]], None]) -> None:
    document: dict[str, Any] = OPEN.to_json()
    change(document)
    with pytest.raises((DecodeError, InputError)):
        parse_policy(document)


# Networks and manifests

networks = st.builds(
    NetworkDescription,
    name=st.just("home"),
    chain_id=uints,
    rpc_url=st.just("http://127.0.0.1:8545"),
    origin=st.just("https://a.example/path"),
    services=st.builds(ServiceUrls.at, st.sampled_from(["http://127.0.0.1:1", "https://x.example"])),
    contracts=st.builds(ContractAddresses, addresses, addresses, addresses, addresses, addresses, addresses),
    workerpool=addresses,
    enclave_kind=st.sampled_from(["tdx", "simulated"]),
    teebroker=addresses,
    start_block=uints,
)


@given(networks)
def test_networks_come_back(network: NetworkDescription) -> None:
    assert parse_network(parse_json(canonical_json(network.to_json()))) == network
    assert network.simulated == (network.enclave_kind == "simulated")


@pytest.mark.parametrize(
    "change",
    [
        put("origin", "javascript:x"),
        put("origin", "http://user@host"),
        put("rpc_url", 5),
        put("name", "A B"),
        put("services.sms", "ftp://x"),
        put("contracts.hub", "0x"),
        put("extra", 1),
        without("services.market"),
    ],
)
@given(network=networks)
def test_malformed_networks_are_refused(change: Callable[[dict[str, Any]], None], network: NetworkDescription) -> None:
    document: dict[str, Any] = copy.deepcopy(network.to_json())
    change(document)
    with pytest.raises((DecodeError, InputError)):
        parse_network(document)


manifests = st.builds(
    Manifest,
    name=names,
    version=st.sampled_from(["1", "0.1.0", "2.0.0-beta.1+x"]),
    entrypoint=st.sampled_from(["main.py", "src/app/run.py"]),
    runtime=st.sampled_from(["python3", "python3.11"]),
    resources=st.builds(Resources, memory_mib=st.integers(1, 4096), seconds=st.integers(1, 1000)),
    network=st.lists(st.sampled_from(["api.example.com", "a.b:443"]), max_size=2).map(tuple),
    purposes=st.lists(names, max_size=3).map(tuple),
)


@given(manifests)
def test_manifests_come_back(manifest: Manifest) -> None:
    assert parse_manifest(build_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    "change",
    [
        put("manifest_version", 2),
        put("name", "../x"),
        put("version", ""),
        put("entrypoint", "/etc/passwd"),
        put("entrypoint", "../main.py"),
        put("entrypoint", "a/../../b"),
        put("entrypoint", "a//b"),
        put("entrypoint", ""),
        put("runtime", "node20"),
        put("network", ["*"]),
        put("network", ["http://x"]),
        put("network", ["10.0.0.1:443"]),
        put("network", ["a.example:0"]),
        put("network", "x"),
        put("purposes", ["x y"]),
        put("resources.memory_mib", 0),
        put("resources.seconds", -1),
        put("resources.cores", 1),
        put("extra", 1),
        without("entrypoint"),
    ],
)
def test_malformed_manifests_are_refused(change: Callable[[dict[str, Any]], None]) -> None:
    document: dict[str, Any] = Manifest("app", "1", "main.py").to_json()
    change(document)
    with pytest.raises((DecodeError, InputError)):
        parse_manifest(canonical_json(document))


@given(words, st.binary(max_size=100))
def test_no_document_parser_lets_another_error_through(word: Bytes32, noise: bytes) -> None:
    values: list[object] = [None, 5, [], {}, str(word), noise.decode("latin-1"), {"version": 1}, [[]]]
    for parse in (
        parse_session_request,
        parse_session_call,
        parse_session_answer,
        parse_policy,
        parse_network,
        parse_nonce_grant,
    ):
        for value in values:
            with pytest.raises(CloisterError):
                parse(value)
    for parse_bytes in (parse_release, parse_manifest):
        with pytest.raises(CloisterError):
            parse_bytes(noise)
