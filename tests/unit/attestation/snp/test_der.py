"""DER has one encoding for a value, and the reader takes no other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloister.attestation import der
from cloister.errors import DecodeError


def element(tag: int, content: bytes) -> der.Element:
    return der.parse_element(bytes([tag, len(content)]) + content, tag)


@pytest.mark.parametrize(
    ("tag", "text", "seconds"),
    [
        (der.UTC_TIME, b"700101000000Z", 0),
        (der.UTC_TIME, b"491231235959Z", 2_524_607_999),
        (der.UTC_TIME, b"500101000000Z", -631_152_000),
        (der.GENERALIZED_TIME, b"20500101000000Z", 2_524_608_000),
        (der.GENERALIZED_TIME, b"20240229120000Z", 1_709_208_000),
    ],
)
def test_times(tag: int, text: bytes, seconds: int) -> None:
    assert der.parse_time(element(tag, text)) == seconds


def test_long_lengths() -> None:
    for size, head in ((127, "307f"), (128, "308180"), (255, "3081ff"), (256, "30820100")):
        whole = bytes.fromhex(head) + bytes(size)
        assert der.parse_element(whole, der.SEQUENCE).content == bytes(size)


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("empty", lambda: der.parse_element(b"", der.SEQUENCE)),
        ("head only", lambda: der.parse_element(b"\x30", der.SEQUENCE)),
        ("cut short", lambda: der.parse_element(b"\x30\x02\x00", der.SEQUENCE)),
        ("trailing", lambda: der.parse_element(b"\x30\x00\x00", der.SEQUENCE)),
        ("another tag", lambda: der.parse_element(b"\x31\x00", der.SEQUENCE)),
        ("tag of two bytes", lambda: der.parse_element(b"\x3f\x01\x00", 0x3F)),
        ("indefinite", lambda: der.parse_element(b"\x30\x80\x00\x00", der.SEQUENCE)),
        ("length of five bytes", lambda: der.parse_element(b"\x30\x85\x00\x00\x00\x00\x00", der.SEQUENCE)),
        ("length cut short", lambda: der.parse_element(b"\x30\x82\x01", der.SEQUENCE)),
        ("length of 2^32-1", lambda: der.parse_element(b"\x30\x84\xff\xff\xff\xff", der.SEQUENCE)),
        ("long form of a short length", lambda: der.parse_element(b"\x30\x81\x01\x00", der.SEQUENCE)),
        ("length with a leading zero", lambda: der.parse_element(b"\x30\x82\x00\x80" + bytes(128), der.SEQUENCE)),
        ("too many parts", lambda: der.parse_children(element(der.SEQUENCE, b"\x05\x00" * 3), limit=2)),
        ("empty integer", lambda: der.parse_integer(element(der.INTEGER, b""))),
        ("integer with a leading zero", lambda: der.parse_integer(element(der.INTEGER, b"\x00\x01"))),
        ("integer with leading ones", lambda: der.parse_integer(element(der.INTEGER, b"\xff\x80"))),
        ("boolean one", lambda: der.parse_boolean(element(der.BOOLEAN, b"\x01"))),
        ("boolean of two bytes", lambda: der.parse_boolean(element(der.BOOLEAN, b"\x00\x00"))),
        ("bits that are no bytes", lambda: der.parse_bits(element(der.BIT_STRING, b"\x01\x80"))),
        ("no bits", lambda: der.parse_bits(element(der.BIT_STRING, b""))),
        ("time without seconds", lambda: der.parse_time(element(der.UTC_TIME, b"7001010000Z"))),
        ("time with a zone", lambda: der.parse_time(element(der.UTC_TIME, b"700101000000+0100"))),
        ("time with a sign", lambda: der.parse_time(element(der.UTC_TIME, b"-00101000000Z"))),
        ("thirteenth month", lambda: der.parse_time(element(der.UTC_TIME, b"701301000000Z"))),
        ("year zero", lambda: der.parse_time(element(der.GENERALIZED_TIME, b"00000101000000Z"))),
        ("a fraction", lambda: der.parse_time(element(der.GENERALIZED_TIME, b"20240101000000.5Z"))),
        ("a number as a time", lambda: der.parse_time(element(der.INTEGER, b"\x01"))),
    ],
)
def test_what_is_not_der(name: str, act: Callable[[], object]) -> None:
    with pytest.raises(DecodeError) as caught:
        act()
    assert caught.value.code == "der-malformed", name
