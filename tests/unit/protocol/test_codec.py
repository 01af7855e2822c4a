"""Hex, addresses, words, numbers and JSON from strangers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from eth_utils import keccak, to_checksum_address
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.protocol.strategies import addresses, words

from cloister.errors import CloisterError, DecodeError, InputError, TooLarge
from cloister.protocol.codec import (
    UINT256_MAX,
    Address,
    Bytes32,
    build_base64,
    canonical_json,
    check_keys,
    check_uint,
    keccak256,
    parse_base64,
    parse_hex,
    parse_json,
    parse_uint,
    to_hex,
)
from cloister.protocol.units import Nrlc, format_rlc, parse_nrlc

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5, alphabet="abc é"), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.binary(max_size=300))
def test_hex_comes_back(data: bytes) -> None:
    assert parse_hex(to_hex(data)) == data
    assert parse_hex(to_hex(data).upper().replace("0X", "0x")) == data


@given(st.binary(max_size=300))
def test_keccak_is_ethereums(data: bytes) -> None:
    assert keccak256(data) == keccak(data)


@pytest.mark.parametrize(
    "text", ["", "0", "00", "0x0", "0xzz", "0x 00", "0x00 ", "0x0\n0", "x00", None, 5, b"0x00", "0x٠٠"]
)
def test_malformed_hex_is_refused(text: object) -> None:
    with pytest.raises(DecodeError):
        parse_hex(text)


def test_hex_has_a_cap_and_a_length() -> None:
    with pytest.raises(TooLarge):
        parse_hex("0x" + "00" * 9, cap=8)
    with pytest.raises(DecodeError, match="expected 4 bytes"):
        parse_hex("0x00", length=4)


def test_messages_cap_what_they_quote() -> None:
    with pytest.raises(DecodeError) as caught:
        parse_hex("q" * 10_000)
    assert len(caught.value.message) < 300


@given(st.binary(min_size=20, max_size=20))
def test_addresses_have_one_spelling(raw: bytes) -> None:
    expected = to_checksum_address(raw)
    for spelling in (expected, expected.lower(), "0x" + raw.hex().upper()):
        address = Address(spelling)
        assert address == expected
        assert address.raw == raw
    assert Address.from_raw(raw) == expected
    assert len({Address(expected.lower()), Address(expected)}) == 1


@given(words)
def test_words_have_one_spelling(word: Bytes32) -> None:
    assert Bytes32("0x" + word[2:].upper()) == word
    assert Bytes32.from_raw(word.raw) == word


@pytest.mark.parametrize("text", ["0x" + "11" * 19, "0x" + "11" * 21, "11" * 20, "", "vitalik.eth"])
def test_malformed_addresses_are_refused(text: str) -> None:
    with pytest.raises(DecodeError):
        Address(text)


@given(st.integers(min_value=0, max_value=UINT256_MAX))
def test_numbers_come_as_numbers_or_decimal_strings(number: int) -> None:
    assert parse_uint("n", number) == parse_uint("n", str(number)) == check_uint("n", number) == number


@pytest.mark.parametrize(
    "value",
    [
        True,
        1.0,
        -1,
        UINT256_MAX + 1,
        str(UINT256_MAX + 1),
        "",
        "01",
        "+1",
        "-1",
        " 1",
        "1e3",
        "0x1",
        "٣",
        None,
        [],
        "9" * 10_000,
    ],
)
def test_other_numbers_are_refused(value: object) -> None:
    with pytest.raises(DecodeError, match="n: "):
        parse_uint("n", value)


@given(json_values)
def test_canonical_json_comes_back(value: Any) -> None:
    document = canonical_json(value)
    assert parse_json(document) == value
    assert canonical_json(parse_json(document)) == document
    assert json.loads(document) == value


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b'{"a":1,"a":2}',
        b"NaN",
        b"[Infinity]",
        b"\xff",
        b'"\xed\xa0\x80"',
        b"[" * 100_000,
        b'{"a":' * 101 + b"1" + b"}" * 101,
        b"[" * 101 + b'"' + b'\\"' * 300_000,
        b"1" * 5000,
        b"\xef\xbb\xbf{}",
        b"{} {}",
    ],
)
def test_json_that_readers_disagree_on_is_refused(document: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_json(document)


def test_nesting_is_counted_outside_strings() -> None:
    text = json.dumps({"brackets": "[" * 5000, "quoted": '\\"[[' * 500, "list": [[1], [2]] * 200})
    assert parse_json(text) == json.loads(text)
    assert parse_json(b"[" * 100 + b"]" * 100)


def test_json_has_a_cap() -> None:
    with pytest.raises(TooLarge):
        parse_json(b'"' + b"a" * 100 + b'"', cap=50)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"x", "\ud800"])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        canonical_json(value)


def test_keys_are_named() -> None:
    with pytest.raises(DecodeError, match="missing key b"):
        check_keys("thing", {"a": 1}, required=("a", "b"))
    with pytest.raises(DecodeError, match="unknown key c"):
        check_keys("thing", {"a": 1, "c": 2}, required=("a",))
    with pytest.raises(DecodeError, match="expected an object"):
        check_keys("thing", [1], required=())


@given(st.binary(max_size=200))
def test_base64_comes_back(raw: bytes) -> None:
    assert parse_base64("x", build_base64(raw), cap=200) == raw


@pytest.mark.parametrize("text", ["secr", "secret==", "secre", "se-r_t==", "c2VjcmV0\n", 5])
def test_malformed_base64_is_refused_unquoted(text: object) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_base64("key", text if text != "secr" else "sec!", cap=100)
    assert "se" not in caught.value.message.replace("base64", "")


def test_base64_has_a_cap() -> None:
    with pytest.raises(TooLarge):
        parse_base64("x", build_base64(bytes(101)), cap=100)


@given(st.integers(min_value=0, max_value=UINT256_MAX))
def test_amounts_come_back(amount: int) -> None:
    assert parse_nrlc(format_rlc(amount)) == amount
    assert parse_nrlc(f"{amount} nRLC") == parse_nrlc(str(amount)) == parse_nrlc(amount) == amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0.1 RLC", 10**8),
        ("1RLC", 10**9),
        ("5 nRLC", 5),
        ("0.000000001 RLC", 1),
        ("1.500 RLC", 15 * 10**8),
        ("7.0 nRLC", 7),
        ("0 RLC", 0),
    ],
)
def test_amounts_have_units(text: str, amount: int) -> None:
    assert parse_nrlc(text) == Nrlc(amount)


@pytest.mark.parametrize(
    "text", ["", "RLC", "-1 RLC", "0.0000000001 RLC", "0.5 nRLC", "1 ETH", "1,5 RLC", "1e9", ".5 RLC", "9" * 79]
)
def test_other_amounts_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_nrlc(text)


@given(st.text(max_size=100), st.binary(max_size=100))
def test_no_parser_lets_another_error_through(text: str, raw: bytes) -> None:
    for parse in (parse_hex, Address, Bytes32, parse_json, parse_nrlc, lambda value: parse_uint("n", value)):
        for value in (text, "0x" + text, "0x" + raw.hex()):
            try:
                parse(value)  # type: ignore[operator]
            except CloisterError:
                continue


@given(addresses)
def test_addresses_are_plain_strings_in_json(address: Address) -> None:
    assert json.loads(json.dumps({"a": address})) == {"a": str(address)}
