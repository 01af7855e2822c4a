"""Keys, signatures, transactions and typed data against another maker's vectors."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import rlp
from hypothesis import given
from hypothesis import strategies as st
from tests.vectors.loading import load_cases, load_vectors

from cloister.errors import CloisterError, DecodeError, InputError, VerificationError
from cloister.protocol.codec import Address, to_hex
from cloister.protocol.eip712 import Domain, hub_domain, type_hash, typed_data_digest
from cloister.protocol.rlp import build_rlp
from cloister.protocol.signatures import CURVE_ORDER, PrivateKey, message_digest, recover_address, verify_signature
from cloister.protocol.transactions import Transaction

MESSAGES = load_cases("protocol/messages.json")
TRANSACTIONS = load_cases("protocol/transactions.json")


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: f"{len(case['message']) // 2 - 1} bytes")
def test_messages_are_signed_as_wallets_do(case: dict[str, Any]) -> None:
    key = PrivateKey.parse(case["private_key"])
    message = bytes.fromhex(case["message"][2:])
    assert key.address == case["address"]
    assert to_hex(message_digest(message)) == case["digest"]
    assert to_hex(key.sign_message(message)) == case["sign"]
    assert recover_address(message_digest(message), bytes.fromhex(case["sign"][2:])) == case["address"]


@pytest.mark.parametrize("case", TRANSACTIONS, ids=lambda case: case["hash"][:10])
def test_transactions_are_signed_as_wallets_do(case: dict[str, Any]) -> None:
    given = case["transaction"]
    transaction = Transaction(
        chain_id=given["chainId"],
        nonce=given["nonce"],
        max_priority_fee=given["maxPriorityFeePerGas"],
        max_fee=given["maxFeePerGas"],
        gas=given["gas"],
        to=Address(given["to"]) if "to" in given else None,
        value=given["value"],
        data=bytes.fromhex(given["data"][2:]),
    )
    signed = transaction.sign(PrivateKey.parse(case["private_key"]))
    assert to_hex(signed.raw) == case["raw"]
    assert signed.hash == case["hash"]


nested = st.recursive(
    st.binary(max_size=80) | st.integers(min_value=0, max_value=2**256),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=30,
)


@given(nested)
def test_rlp_is_that_of_another_writer(item: Any) -> None:
    def as_bytes(value: Any) -> Any:
        if isinstance(value, int):
            return value.to_bytes((value.bit_length() + 7) // 8, "big")
        return [as_bytes(part) for part in value] if isinstance(value, list) else value

    assert build_rlp(item) == rlp.encode(as_bytes(item))


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_signature_recovers_in_both_forms(secret: bytes, digest: bytes) -> None:
    if not 0 < int.from_bytes(secret, "big") < CURVE_ORDER:
        return
    key = PrivateKey(secret)
    signature = key.sign_digest(digest)
    assert recover_address(digest, signature) == key.address
    # EIP-2098: the parity goes to the top bit of s.
    compact = bytearray(signature[:64])
    compact[32] |= (signature[64] - 27) << 7
    assert recover_address(digest, bytes(compact)) == key.address
    assert secret.hex() not in repr(key)


def test_a_malleable_signature_is_refused() -> None:
    key = PrivateKey(b"\x11" * 32)
    digest = b"\x22" * 32
    signature = key.sign_digest(digest)
    high = CURVE_ORDER - int.from_bytes(signature[32:64], "big")
    twin = signature[:32] + high.to_bytes(32, "big") + bytes([55 - signature[64]])
    with pytest.raises(VerificationError):
        recover_address(digest, twin)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s[:64] + b"\x00",
        lambda s: s[:64] + b"\x1d",
        lambda s: s + b"\x00",
        lambda s: s[:63],
        lambda s: b"",
        lambda s: bytes(32) + s[32:],
        lambda s: s[:32] + bytes(32) + s[64:],
        lambda s: b"\xff" * 32 + s[32:],
    ],
)
def test_malformed_signatures_are_refused(change: Any) -> None:
    signature = PrivateKey(b"\x11" * 32).sign_digest(b"\x22" * 32)
    with pytest.raises(VerificationError):
        recover_address(b"\x22" * 32, change(signature))


@given(st.integers(min_value=0, max_value=64), st.integers(min_value=1, max_value=255))
def test_a_changed_signature_proves_nothing(position: int, change: int) -> None:
    key = PrivateKey(b"\x11" * 32)
    changed = bytearray(key.sign_digest(b"\x22" * 32))
    changed[position] ^= change
    with pytest.raises(VerificationError):
        verify_signature(b"\x22" * 32, bytes(changed), key.address)


@pytest.mark.parametrize(
    "raw", [b"", b"\x01" * 31, b"\x01" * 33, bytes(32), CURVE_ORDER.to_bytes(32, "big"), b"\xff" * 32]
)
def test_bad_keys_are_refused(raw: bytes) -> None:
    with pytest.raises(InputError):
        PrivateKey(raw)


def test_a_key_never_shows() -> None:
    secret = "5eed" * 16
    key = PrivateKey.parse(secret)
    assert "5eed" not in repr(key) + str(key) + f"{key}"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    for bad in (secret[:-1], secret + "5eed", secret[:-1] + "z"):
        with pytest.raises(InputError) as caught:
            PrivateKey.parse(bad)
        assert "5eed" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def from_json(types: dict[str, Any], kind: str, value: Any) -> Any:
    """Turn hex of bytes members into bytes, as a caller of ours does."""
    if kind.endswith("]"):
        return [from_json(types, kind[: kind.rindex("[")], item) for item in value]
    if kind in types:
        return {member["name"]: from_json(types, member["type"], value[member["name"]]) for member in types[kind]}
    return bytes.fromhex(value[2:]) if kind.startswith("bytes") else value


def test_typed_data_with_every_kind_of_member() -> None:
    for case in load_cases("protocol/typed_data.json"):
        data = case["typed_data"]
        types = {
            name: tuple((member["name"], member["type"]) for member in members)
            for name, members in data["types"].items()
            if name != "EIP712Domain"
        }
        domain = Domain(data["domain"]["name"], data["domain"]["version"], data["domain"]["chainId"])
        message = from_json(data["types"], data["primaryType"], data["message"])
        assert to_hex(typed_data_digest(types, data["primaryType"], domain, message)) == case["hash"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint8", 256),
        ("uint256", -1),
        ("uint7", 1),
        ("int8", 128),
        ("int8", True),
        ("uint256", "1"),
        ("bytes4", b"abc"),
        ("bytes33", b"a" * 33),
        ("bytes", "0x00"),
        ("address", "0x00"),
        ("address", 5),
        ("bool", 1),
        ("string", b"x"),
        ("uint8[2]", [1]),
        ("uint8[]", "11"),
        ("Other", {}),
        ("T", 5),
        ("T", {}),
    ],
)
def test_values_that_a_type_cannot_hold_are_refused(kind: str, value: object) -> None:
    types = {"T": (("a", kind),)}
    with pytest.raises((DecodeError, InputError)):
        typed_data_digest(types, "T", Domain("n", "1", 1), {"a": value})


def test_endless_nesting_is_refused() -> None:
    types = {"T": (("a", "T"),)}
    value: dict[str, Any] = {}
    value["a"] = value
    with pytest.raises(CloisterError):
        typed_data_digest(types, "T", Domain("n", "1", 1), copy.copy(value))


def test_domain_of_the_hub() -> None:
    vectors = load_vectors("protocol/orders.json")
    domain = hub_domain(vectors["chain_id"], Address(vectors["hub"]))
    assert to_hex(domain.separator()) == vectors["domain_separator"]
    assert to_hex(type_hash({"EIP712Domain": domain.members()}, "EIP712Domain")) == vectors["eip712_domain_type"]
