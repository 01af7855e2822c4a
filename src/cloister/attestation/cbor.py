"""Deterministic CBOR (RFC 8949 section 4.2.1), only the part that evidence and receipts use.

Unsigned and negative integers of at most 64 bits, byte and text strings, arrays, maps, tags, true, false and null.
The decoder takes exactly what the encoder would write: shortest heads, definite lengths, keys in bytewise order and
no key twice, nothing behind the value. So a value has one encoding, and a general decoder's corners (big floats,
regular expressions, shared references) do not exist here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from cloister.errors import DecodeError, LocalError

MAX_DEPTH = 16
MAX_ITEMS = 4096

Value: TypeAlias = "bool | int | bytes | str | list[Value] | dict[Value, Value] | Tagged | None"

_UINT, _NINT, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_MAX_UINT = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Tagged:
    """A CBOR tag (major type 6) around one value."""

    tag: int
    value: Value


def build_cbor(value: Value) -> bytes:
    """Encode ``value`` deterministically."""
    out = bytearray()
    _encode(value, out)
    return bytes(out)


def parse_cbor(data: bytes) -> Value:
    """Decode exactly one deterministically encoded value.

    Raises:
        DecodeError: malformed, not deterministic, nested deeper than 16, more than 4,096 items in one container, or
        followed
            by more bytes.
    """
    reader = _Reader(data)
    value = reader.value(0)
    if reader.position != len(data):
        raise DecodeError(f"{len(data) - reader.position} bytes follow the CBOR value", code="trailing-bytes")
    return value


def _head(major: int, argument: int) -> bytes:
    if not 0 <= argument <= _MAX_UINT:
        raise LocalError(f"{argument} does not fit a CBOR head")
    if argument < 24:
        return bytes([major << 5 | argument])
    for info, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * width:
            return bytes([major << 5 | info]) + argument.to_bytes(width, "big")
    raise LocalError("unreachable")


def _encode(value: Value, out: bytearray) -> None:
    match value:
        case None:
            out += b"\xf6"
        case bool():
            out += b"\xf5" if value else b"\xf4"
        case int():
            out += _head(_UINT, value) if value >= 0 else _head(_NINT, -1 - value)
        case bytes():
            out += _head(_BYTES, len(value)) + value
        case str():
            raw = value.encode()
            out += _head(_TEXT, len(raw)) + raw
        case list():
            out += _head(_ARRAY, len(value))
            for item in value:
                _encode(item, out)
        case dict():
            out += _head(_MAP, len(value))
            for key, item in sorted(((build_cbor(key), item) for key, item in value.items()), key=lambda pair: pair[0]):
                out += key
                _encode(item, out)
        case Tagged():
            out += _head(_TAG, value.tag)
            _encode(value.value, out)


class _Reader:
    """A cursor over untrusted bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def value(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise DecodeError(f"CBOR is nested deeper than {MAX_DEPTH}")
        initial = self._take(1)[0]
        major, info = initial >> 5, initial & 31
        if major == _SIMPLE:
            return self._simple(info)
        argument = self._argument(info)
        match major:
            case 0:
                return argument
            case 1:
                return -1 - argument
            case 2:
                return self._take(argument)
            case 3:
                return self._text(argument)
            case 4:
                return self._array(argument, depth)
            case 5:
                return self._map(argument, depth)
            case _:
                return Tagged(argument, self.value(depth + 1))

    def _simple(self, info: int) -> Value:
        if info not in (20, 21, 22):
            raise DecodeError(f"CBOR simple value or float {info} is not accepted")
        return None if info == 22 else info == 21

    def _argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise DecodeError("CBOR of indefinite or reserved length is not accepted")
        width = 1 << info - 24
        argument = int.from_bytes(self._take(width), "big")
        if argument < 24 or (width > 1 and argument < 1 << 4 * width):
            raise DecodeError("a CBOR head is longer than it need be")
        return argument

    def _text(self, length: int) -> str:
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise DecodeError("a CBOR text is not UTF-8") from error

    def _array(self, count: int, depth: int) -> list[Value]:
        self._check_count(count)
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[Value, Value]:
        self._check_count(count)
        result: dict[Value, Value] = {}
        previous = b""
        for _ in range(count):
            start = self.position
            key = self.value(depth + 1)
            encoded = self._data[start : self.position]
            if encoded <= previous:
                raise DecodeError("CBOR map keys are not in order, or one stands twice")
            if isinstance(key, bool) or not isinstance(key, (int, str, bytes)):
                raise DecodeError("a CBOR map key is neither number, text nor bytes")
            previous = encoded
            result[key] = self.value(depth + 1)
        return result

    def _check_count(self, count: int) -> None:
        if count > MAX_ITEMS or count > len(self._data) - self.position:
            raise DecodeError(f"a CBOR container claims {count} items")

    def _take(self, length: int) -> bytes:
        end = self.position + length
        if end > len(self._data):
            raise DecodeError("CBOR is cut short")
        piece = self._data[self.position : end]
        self.position = end
        return piece
