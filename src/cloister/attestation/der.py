"""DER (X.690), only the part that certificates and revocation lists need, and nothing but DER.

One identifier byte, definite and shortest lengths, nothing behind a value. What does not have its one encoding does not
parse, so two different byte strings never mean the same certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from cloister.errors import DecodeError

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTF8_STRING, PRINTABLE_STRING, IA5_STRING, UTC_TIME, GENERALIZED_TIME = 0x0C, 0x13, 0x16, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31

_CODE = "der-malformed"
_MAX_LENGTH_BYTES = 4


def context(number: int) -> int:
    """The identifier byte of a constructed, context-specific element."""
    return 0xA0 | number


@dataclass(frozen=True, slots=True)
class Element:
    """One value: identifier byte, content, and the whole encoding."""

    tag: int
    content: bytes
    raw: bytes


def parse_element(data: bytes, tag: int) -> Element:
    """Read exactly one element of this tag, with nothing behind it.

    Raises:
        DecodeError.
    """
    element, end = _read(data, 0)
    if end != len(data):
        raise DecodeError(f"{len(data) - end} bytes follow a DER value", code=_CODE)
    return expect(element, tag)


def expect(element: Element, tag: int) -> Element:
    """The element itself, when it has this tag.

    Raises:
        DecodeError.
    """
    if element.tag != tag:
        raise DecodeError(f"a DER value has tag {element.tag:#04x} instead of {tag:#04x}", code=_CODE)
    return element


def parse_children(element: Element, *, limit: int) -> list[Element]:
    """Read the elements inside a constructed one, at most ``limit``.

    Raises:
        DecodeError.
    """
    children: list[Element] = []
    position = 0
    while position < len(element.content):
        if len(children) == limit:
            raise DecodeError(f"a DER value has more than {limit} parts", code=_CODE)
        child, position = _read(element.content, position)
        children.append(child)
    return children


def parse_integer(element: Element) -> int:
    """A signed integer in its shortest form.

    Raises:
        DecodeError.
    """
    content = expect(element, INTEGER).content
    if not content or (len(content) > 1 and (content[0], content[1] >> 7) in ((0, 0), (0xFF, 1))):
        raise DecodeError("a DER integer is empty or longer than it need be", code=_CODE)
    return int.from_bytes(content, "big", signed=True)


def parse_boolean(element: Element) -> bool:
    """True or false.

    Raises:
        DecodeError.
    """
    content = expect(element, BOOLEAN).content
    if content not in (b"\x00", b"\xff"):
        raise DecodeError("a DER boolean is neither 00 nor ff", code=_CODE)
    return content == b"\xff"


def parse_bits(element: Element) -> bytes:
    """The bytes of a bit string whose length is whole bytes.

    Raises:
        DecodeError.
    """
    content = expect(element, BIT_STRING).content
    if content[:1] != b"\x00":
        raise DecodeError("a DER bit string is not whole bytes", code=_CODE)
    return content[1:]


def parse_time(element: Element) -> int:
    """Unix seconds of a UTCTime (until 2049) or GeneralizedTime (from 2050), as RFC 5280 section 4.1.2.5 asks.

    Raises:
        DecodeError.
    """
    text = element.content
    if not text[:-1].isdigit() or text[-1:] != b"Z":
        raise DecodeError("a DER time is not digits and Z", code=_CODE)
    match element.tag, len(text):
        case 0x17, 13:
            digits = (b"20" if text[:2] < b"50" else b"19") + text[:-1]
        case 0x18, 15:
            digits = text[:-1]
        case _:
            raise DecodeError("a DER time is neither UTCTime nor GeneralizedTime to the second", code=_CODE)
    month, day, hour, minute, second = (int(digits[i : i + 2]) for i in range(4, 14, 2))
    try:
        moment = datetime(int(digits[:4]), month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise DecodeError("a DER time names no moment", code=_CODE) from error
    return int(moment.timestamp())


def _read(data: bytes, start: int) -> tuple[Element, int]:
    if start + 2 > len(data):
        raise DecodeError("a DER value is cut short", code=_CODE)
    tag, length, position = data[start], data[start + 1], start + 2
    if tag & 0x1F == 0x1F:
        raise DecodeError("a DER value has a tag of several bytes", code=_CODE)
    if length & 0x80:
        count = length & 0x7F
        head = data[position : position + count]
        if not 0 < count <= _MAX_LENGTH_BYTES or len(head) < count:
            raise DecodeError("a DER length is indefinite, too long or cut short", code=_CODE)
        length = int.from_bytes(head, "big")
        if head[0] == 0 or length < 0x80:
            raise DecodeError("a DER length is longer than it need be", code=_CODE)
        position += count
    end = position + length
    if end > len(data):
        raise DecodeError("a DER value is cut short", code=_CODE)
    return Element(tag, data[position:end], data[start:end]), end
