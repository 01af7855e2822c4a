"""CIDs, multibase and multiaddr: published vectors, round trips and refusals."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import DecodeError, InputError, VerificationError
from cloister.storage.cid import Cid, Codec
from cloister.storage.content import parse_reference
from cloister.storage.multiaddr import build_multiaddr, parse_multiaddr
from cloister.storage.multibase import build_base58, parse_base58, parse_multibase
from cloister.storage.varint import build_varint, parse_varint

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "storage" / "identifiers.json").read_text()
)

cids = st.one_of(
    st.builds(lambda d: Cid(0, Codec.DAG_PB, d), st.binary(min_size=32, max_size=32)),
    st.builds(lambda c, d: Cid(1, c, d), st.sampled_from(Codec), st.binary(min_size=32, max_size=32)),
)


@given(cids)
def test_cids_round_trip_in_both_forms(cid: Cid) -> None:
    assert Cid.parse(str(cid)) == cid
    assert Cid.from_raw(cid.raw) == cid


@given(cids)
def test_other_bases_name_the_same_content(cid: Cid) -> None:
    if cid.version == 1:
        for text in ("f" + cid.raw.hex(), "F" + cid.raw.hex().upper(), str(cid).upper(), "z" + build_base58(cid.raw)):
            assert Cid.parse(text) == cid


@pytest.mark.parametrize("row", VECTORS["cids"], ids=lambda row: row["text"])
def test_forms_of_one_cid_as_js_multiformats_writes_them(row: dict[str, str]) -> None:
    cid = Cid.parse(row["text"])
    assert cid.raw.hex() == row["raw"]
    assert str(Cid(1, cid.codec, cid.digest)) == row["v1"]


@pytest.mark.parametrize("row", VECTORS["multiaddrs"], ids=lambda row: row["location"])
def test_multiaddrs_are_those_of_the_reference(row: dict[str, str]) -> None:
    assert build_multiaddr(row["location"]).hex() == row["raw"]
    assert parse_multiaddr(bytes.fromhex(row["raw"])) == row["read"]


@given(st.text(max_size=60))
def test_foreign_text_parses_or_raises_from_the_tree(text: str) -> None:
    for parse in (Cid.parse, parse_reference, build_multiaddr):
        with contextlib.suppress(DecodeError, InputError):
            parse(text)


@given(st.binary(max_size=60))
def test_foreign_bytes_parse_or_raise_from_the_tree(data: bytes) -> None:
    for parse in (Cid.from_raw, parse_multiaddr):
        with contextlib.suppress(DecodeError):
            parse(data)


@given(st.binary(max_size=64))
def test_base58_round_trips(data: bytes) -> None:
    assert parse_base58(build_base58(data)) == data


@given(st.integers(0, 2**63 - 1), st.binary(max_size=4))
def test_varints_round_trip(value: int, rest: bytes) -> None:
    encoded = build_varint(value)
    assert parse_varint(encoded + rest) == (value, len(encoded))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 10])
def test_varints_that_are_not_canonical_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="varint"):
        parse_varint(data)


GOOD = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a cid"),
        ("Qm" + "0" * 44, "not base58"),
        ("Qm" + "1" * 44, "not a cid"),
        (GOOD + "aa", "not canonical|not multibase|digest"),
        (GOOD[:-1] + "v", "not canonical"),
        (GOOD[:1] + GOOD[1:].upper(), "not canonical"),
        ("m" + GOOD, "unknown multibase"),
        ("f01701220" + "00" * 31, "digest has 32 bytes"),
        ("f01701220" + "00" * 33, "digest has 32 bytes"),
        ("f01721220" + "00" * 32, "codec 0x72"),
        ("f01551340" + "00" * 64, "only sha2-256|hash is not supported"),
        ("f1220" + "00" * 32, "version 18"),
        ("b" + "a" * 300, "1 to 256 characters"),
        ("z" + "2" * 5000, "1 to 256 characters"),
    ],
)
def test_what_is_not_a_supported_cid_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        Cid.parse(text)


def test_multibase_refuses_mixed_case_and_non_ascii() -> None:
    for text in ("fAb", "bÄ", "f0", "f 00", "z0"):
        with pytest.raises(DecodeError):
            parse_multibase(text)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "1 to 2048 bytes"),
        ("x" * 2049, "1 to 2048 bytes"),
        ("/dns4/host", "not a location"),
        ("https://a\n", "not a location"),
        (f"/ipfs/{GOOD}", "cannot name raw content"),
        ("/ipfs/QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi/a", "cannot name a path"),
    ],
)
def test_locations_that_a_multiaddr_cannot_hold_are_refused(location: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_multiaddr(location)


def test_a_block_proves_its_cid_or_is_refused() -> None:
    cid = Cid.of_block(b"hello")
    cid.verify_block(b"hello")
    with pytest.raises(VerificationError):
        cid.verify_block(b"hellp")


def test_references_split_into_cid_and_path() -> None:
    cid = Cid.parse(GOOD)
    assert parse_reference(f"/ipfs/{GOOD}/a/b") == (cid, "a/b")
    assert parse_reference(GOOD) == (cid, "")
    assert parse_reference(cid) == (cid, "")
    with pytest.raises(InputError, match="climbs"):
        parse_reference(f"{GOOD}/a/../b")
