"""Deterministic CBOR: one value, one encoding; checked against an independent implementation."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.attestation.cbor import Tagged, Value, build_cbor, parse_cbor
from cloister.errors import DecodeError

KEYS = st.one_of(st.integers(-(2**64), 2**64 - 1), st.text(max_size=8), st.binary(max_size=8))
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**64), 2**64 - 1), st.text(max_size=40), st.binary(max_size=300)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(KEYS, inner, max_size=5)),
    max_leaves=20,
)


@given(VALUES)
def test_round_trip(value: Value) -> None:
    assert parse_cbor(build_cbor(value)) == value


@given(VALUES)
def test_an_independent_decoder_reads_the_same(value: Value) -> None:
    assert cbor2.loads(build_cbor(value)) == value


@given(st.binary(max_size=200))
def test_what_parses_is_the_only_encoding(data: bytes) -> None:
    try:
        value = parse_cbor(data)
    except DecodeError:
        return
    assert build_cbor(value) == data


def test_tags() -> None:
    assert parse_cbor(build_cbor(Tagged(18, [b"x"]))) == Tagged(18, [b"x"])
    assert cbor2.loads(build_cbor(Tagged(18, [b"x"]))) == cbor2.CBORTag(18, [b"x"])


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "1801",  # 1 in two bytes
        "190001",
        "1a00000001",
        "1b0000000000000001",
        "5f4101ff",  # indefinite bytes
        "9f01ff",
        "bf0101ff",
        "f90000",  # a float
        "f7",  # undefined
        "f800",
        "a201010102",  # a key twice
        "a202010101",  # keys out of order
        "a1f501",  # true as a key
        "a1800001",  # a list as a key
        "a1f601",
        "62ff41",  # not UTF-8
        "1c",
        "5bffffffffffffffff",
        "9bffffffffffffffff",
        "bbffffffffffffffff",
        "8101" + "00",  # something behind
        "81" * 40 + "01",
    ],
)
def test_refused(encoded: str) -> None:
    with pytest.raises(DecodeError):
        parse_cbor(bytes.fromhex(encoded))
