"""datasets.values: borsh and the older texts."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.datasets.values import I128_MAX, I128_MIN, build_value, parse_untyped, parse_value
from cloister.errors import DecodeError, InputError

VALUES = st.one_of(
    st.booleans(),
    st.integers(I128_MIN, I128_MAX),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)


@given(VALUES)
def test_parses_what_it_builds(value: bool | float | str) -> None:
    kind, data = build_value(value)
    assert parse_value(kind, data) == value
    assert type(parse_value(kind, data)) is type(value)


@pytest.mark.parametrize(
    ("value", "kind", "data"),
    [
        (True, "bool", "01"),
        (False, "bool", "00"),
        (1.5, "f64", "000000000000f83f"),
        (-1, "i128", "ff" * 16),
        (12, "i128", "0c" + "00" * 15),
        (I128_MIN, "i128", "00" * 15 + "80"),
        ("hello", "string", "0500000068656c6c6f"),
        ("", "string", "00000000"),
        ("é€", "string", "05000000c3a9e282ac"),
    ],
)
def test_the_bytes_are_borsh(value: bool | float | str, kind: str, data: str) -> None:
    assert build_value(value) == (kind, bytes.fromhex(data))


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="data is not valid: Unsupported number value: infinity"):
        build_value(value)


@pytest.mark.parametrize("value", [I128_MAX + 1, I128_MIN - 1, 10**100])
def test_integers_out_of_range_are_refused(value: int) -> None:
    with pytest.raises(InputError, match="data is not valid: Unsupported integer value: out of i128 range"):
        build_value(value)


def test_broken_unicode_is_refused() -> None:
    with pytest.raises(InputError, match="Unicode"):
        build_value("\ud800")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("bool", b""),
        ("bool", b"\x02"),
        ("bool", b"\x01\x00"),
        ("boolean", b"true"),
        ("f64", bytes(7)),
        ("f64", bytes(16)),
        ("f64", bytes.fromhex("000000000000f07f")),
        ("f64", bytes.fromhex("000000000000f8ff")),
        ("i128", bytes(8)),
        ("i128", bytes(17)),
        ("i128", b""),
        ("number", b""),
        ("number", b"1_0"),
        ("number", b" 1"),
        ("number", b"nan"),
        ("number", b"inf"),
        ("number", b"0x10"),
        ("number", "٣".encode()),
        ("number", b"1" * 65),
        ("string", b"\xff\xfe"),
        ("string", b"\x01\x00\x00\x00\xff"),
    ],
)
def test_bytes_that_do_not_fit_the_type_are_refused(kind: str, data: bytes) -> None:
    with pytest.raises(DecodeError, match=f"not a value of type {kind}"):
        parse_value(kind, data)


@pytest.mark.parametrize(
    ("kind", "data", "value"),
    [
        ("boolean", b"\x01", True),
        ("number", b"42", 42),
        ("number", b"-7", -7),
        ("number", b"1.5", 1.5),
        ("number", b"1e3", 1000.0),
        ("string", b"bare text", "bare text"),
        ("string", b"", ""),
        ("string", "h\u00e9llo".encode(), "héllo"),
        ("image/png", b"\x89PNG", b"\x89PNG"),
    ],
)
def test_what_older_releases_wrote_is_read(kind: str, data: bytes, value: object) -> None:
    assert parse_value(kind, data) == value


@pytest.mark.parametrize("kind", ["u8", "", "Bool"])
def test_unknown_types_are_refused(kind: str) -> None:
    with pytest.raises(InputError, match="unknown type"):
        parse_value(kind, b"")


@given(st.text(st.characters(exclude_categories=["Cs"])).filter(lambda text: "\0" not in text))
def test_an_untyped_string_proves_itself(text: str) -> None:
    assert parse_untyped(build_value(text)[1]) == text


@given(st.one_of(st.booleans(), st.integers(-(2**31), 2**31), st.integers(I128_MIN, I128_MAX)))
def test_untyped_numbers_are_never_taken_for_strings(value: int) -> None:
    data = build_value(value)[1]
    assert parse_untyped(data) == data


@pytest.mark.parametrize(
    "data", [b"", b"abc", b"\x05\x00\x00\x00abc", b"\x01\x00\x00\x00\xff", b"\x02\x00\x00\x00a\x00"]
)
def test_other_untyped_bytes_stay_bytes(data: bytes) -> None:
    assert parse_untyped(data) == data
