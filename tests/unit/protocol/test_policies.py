"""Access policies with and without hardware rules, and what an owner signs as a standing policy."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import pytest

from cloister.errors import CloisterError, DecodeError, InputError, PolicyRejected, VerificationError
from cloister.protocol.codec import ZERO_BYTES32, Address, Bytes32, canonical_json, keccak256, parse_json
from cloister.protocol.data_policies import (
    DataPolicy,
    parse_data_policy_body,
    parse_shown_data_policy,
    sign_data_policy,
    verify_data_policy,
)
from cloister.protocol.eip712 import hub_domain
from cloister.protocol.policies import (
    HARDWARE_CAP,
    POLICY_CAP,
    AccessPolicy,
    PolicyFacts,
    check_policy,
    parse_policy,
    policy_salt,
    verify_policy_salt,
)
from cloister.protocol.signatures import PrivateKey

NONCE = bytes(range(16))
PLAIN = AccessPolicy(NONCE, valid_until=1_800_000_000, purposes=("research",))
RULES = canonical_json({"kind": "tdx", "measurements": "any", "version": 1}).decode()
HARD = dataclasses.replace(PLAIN, hardware=RULES)
HUB, DATASET = Address("0x" + "b2" * 20), Address("0x" + "d1" * 20)
DOMAIN = hub_domain(421614, HUB)
OWNER, OTHER = PrivateKey(b"\x31" * 32), PrivateKey(b"\x32" * 32)
STATEMENT = DataPolicy(DATASET, Bytes32("0x" + "ab" * 32), 7, 1_790_000_000)


def test_without_rules_nothing_changed() -> None:
    """Grants that were signed before must keep their hash."""
    text = (
        '{"enclaves":[],"max_result_bytes":null,"nonce":"0x000102030405060708090a0b0c0d0e0f","purposes":["research"],'
        '"valid_from":null,"valid_until":1800000000,"version":1}'
    )
    assert canonical_json(PLAIN.to_json()).decode() == text
    assert PLAIN.hash().raw == hashlib.sha256(b"cloister/access-policy/v1" + text.encode()).digest()
    assert check_policy(PLAIN, PolicyFacts(1, "tdx", "research", ("research",))).hardware is None


def test_rules_are_covered_by_hash_and_salt() -> None:
    document = HARD.to_json()
    assert document["version"] == 2
    assert document["hardware"] == {"kind": "tdx", "measurements": "any", "version": 1}
    assert parse_policy(parse_json(canonical_json(document))) == HARD
    assert HARD.hash() != PLAIN.hash()
    assert verify_policy_salt(HARD, policy_salt(HARD)) is HARD
    for other in (PLAIN, dataclasses.replace(HARD, hardware=canonical_json({"kind": "tpm"}).decode())):
        with pytest.raises(VerificationError):
            verify_policy_salt(other, policy_salt(HARD))


@pytest.mark.parametrize("base", [PLAIN, HARD])
def test_a_word_on_logs_is_covered_by_hash_and_salt_and_is_there_only_when_it_allows(base: AccessPolicy) -> None:
    allowing = dataclasses.replace(base, logs=True)
    document = allowing.to_json()
    assert (document["version"], document["logs"]) == (3, True)
    assert parse_policy(parse_json(canonical_json(document))) == allowing
    assert "logs" not in base.to_json()
    with pytest.raises(VerificationError):
        verify_policy_salt(allowing, policy_salt(base))
    facts = PolicyFacts(1, "tdx", "research", ("research",))
    assert (check_policy(allowing, facts).logs, check_policy(base, facts).logs) == (True, False)
    for change in ({"logs": False}, {"logs": 1}, {"logs": None}, {"version": 1}, {"version": 2}, {"version": True}):
        with pytest.raises(DecodeError):
            parse_policy(document | change)
    with pytest.raises(DecodeError):
        parse_policy(base.to_json() | {"version": 3})


def test_who_clears_a_policy_is_told_of_its_rules() -> None:
    assert check_policy(HARD, PolicyFacts(1, "tdx", "research", ("research",))).hardware == RULES
    with pytest.raises(PolicyRejected):
        check_policy(HARD, PolicyFacts(1, "tdx"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"any"',
        '{"a": 1}',
        '{"b":1,"a":1}',
        '{"a":1,"a":1}',
        "{}\n",
        '{"a":"' + "x" * HARDWARE_CAP + '"}',
    ],
)
def test_rules_are_canonical_json_of_an_object(text: str) -> None:
    with pytest.raises(InputError, match="hardware rules"):
        dataclasses.replace(PLAIN, hardware=text)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"version": 3},
        {"version": True},
        {"hardware": None},
        {"hardware": []},
        {"hardware": "any"},
    ],
)
def test_a_document_with_rules_has_version_two(change: dict[str, object]) -> None:
    with pytest.raises(DecodeError):
        parse_policy({**HARD.to_json(), **change})
    with pytest.raises(DecodeError):
        parse_policy({**PLAIN.to_json(), "version": 2})


def test_the_largest_policy_fits_its_cap() -> None:
    names = tuple(f"{n:064d}" for n in range(32))
    largest = canonical_json({"a": "x" * (HARDWARE_CAP - 8)}).decode()
    policy = AccessPolicy(NONCE, purposes=names, enclaves=names, hardware=largest)
    assert len(largest) == HARDWARE_CAP
    assert len(canonical_json(policy.to_json())) < POLICY_CAP


def test_what_the_owner_signs_is_typed_data_under_the_hub() -> None:
    """EIP-712 by hand: the type's hash, then each member in 32 bytes."""
    kind = keccak256(b"DataPolicy(address dataset,bytes32 policy,uint256 version,uint256 issuedAt)")
    members = [
        DATASET.raw.rjust(32, b"\0"),
        STATEMENT.policy.raw,
        (7).to_bytes(32, "big"),
        (1_790_000_000).to_bytes(32, "big"),
    ]
    struct = keccak256(kind + b"".join(members))
    assert STATEMENT.digest(DOMAIN).raw == keccak256(b"\x19\x01" + DOMAIN.separator() + struct)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": HUB},
        {"policy": ZERO_BYTES32},
        {"version": 8},
        {"issued_at": 1_790_000_001},
    ],
)
def test_a_signature_is_for_one_statement_one_owner_one_hub(change: dict[str, object]) -> None:
    signed = sign_data_policy(STATEMENT, {}, OWNER, DOMAIN)
    assert verify_data_policy(signed, OWNER.address, DOMAIN) is signed
    other = dataclasses.replace(signed, statement=dataclasses.replace(STATEMENT, **change))  # type: ignore[arg-type]
    for given, owner, domain in (
        (other, OWNER.address, DOMAIN),
        (signed, OTHER.address, DOMAIN),
        (signed, OWNER.address, hub_domain(1, HUB)),
        (signed, OWNER.address, hub_domain(421614, DATASET)),
        (dataclasses.replace(signed, signature=b""), OWNER.address, DOMAIN),
        (dataclasses.replace(signed, signature=bytes(65)), OWNER.address, DOMAIN),
        (dataclasses.replace(signed, signature=signed.signature * 2), OWNER.address, DOMAIN),
    ):
        with pytest.raises(CloisterError):
            verify_data_policy(given, owner, domain)


def test_bodies_read_back() -> None:
    signed = sign_data_policy(STATEMENT, {"kind": "tpm"}, OWNER, DOMAIN)
    body = parse_data_policy_body(parse_json(canonical_json(signed.to_json())))
    assert (body.rules, body.version, body.issued_at, body.signature) == (
        {"kind": "tpm"},
        7,
        1_790_000_000,
        signed.signature,
    )
    shown = {**signed.to_json(), "dataset": DATASET.lower(), "owner": OWNER.address, "hash": STATEMENT.policy}
    assert parse_shown_data_policy(json.loads(json.dumps(shown)), DATASET) == signed
    with pytest.raises(DecodeError):
        parse_shown_data_policy(shown, HUB)
    for change in ({"policy": []}, {"version": -1}, {"version": 2**53}, {"signature": "0x" + "00" * 2049}, {"more": 1}):
        with pytest.raises(DecodeError):
            parse_data_policy_body({**signed.to_json(), **change})
    assert DataPolicy(DATASET, ZERO_BYTES32, 1, 1).lifted
