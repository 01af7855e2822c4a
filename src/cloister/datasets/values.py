"""Single values as bytes: borsh for bool, f64, i128 and string; older releases' boolean, number and string are read.

    bool    1 byte 00 or 01                f64     8 bytes, little-endian IEEE 754, finite
    i128    16 bytes, little-endian        string  u32 little-endian length || UTF-8
    boolean 1 byte 00 or 01                number  decimal text (older releases; their strings are bare UTF-8)

Source: borsh specification; reference, DataProtector's data packing.
"""

from __future__ import annotations

import math
import struct

from cloister.errors import DecodeError, InputError, quoted

Value = bool | int | float | str | bytes
I128_MIN, I128_MAX = -(1 << 127), (1 << 127) - 1
MAX_STRING = (1 << 32) - 1
MAX_NUMBER_TEXT = 64


def build_value(value: bool | int | float | str) -> tuple[str, bytes]:
    """(schema type, bytes) of a value: bool -> bool, int -> i128, float -> f64, str -> string.

    Raises InputError with the reference client's text for what no type holds.
    """
    if isinstance(value, bool):
        return "bool", b"\x01" if value else b"\x00"
    if isinstance(value, int):
        if not I128_MIN <= value <= I128_MAX:
            raise InputError("data is not valid: Unsupported integer value: out of i128 range")
        return "i128", value.to_bytes(16, "little", signed=True)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError("data is not valid: Unsupported number value: infinity")
        return "f64", struct.pack("<d", value)
    try:
        text_bytes = value.encode()
    except UnicodeEncodeError:
        raise InputError("data is not valid: Unsupported string value: it is not valid Unicode") from None
    if len(text_bytes) > MAX_STRING:
        raise InputError(f"data is not valid: Unsupported string value: longer than {MAX_STRING} bytes")
    return "string", struct.pack("<I", len(text_bytes)) + text_bytes


def parse_value(kind: str, data: bytes) -> Value:
    """Read ``data`` as ``kind``; a media type gives the bytes back. Raises DecodeError when they do not fit exactly."""
    match kind:
        case "bool" | "boolean":
            if data not in (b"\x00", b"\x01"):
                raise _misfit(kind, data)
            return data == b"\x01"
        case "i128":
            if len(data) != 16:
                raise _misfit(kind, data)
            return int.from_bytes(data, "little", signed=True)
        case "f64":
            if len(data) != 8:
                raise _misfit(kind, data)
            number: float = struct.unpack("<d", data)[0]
            if not math.isfinite(number):
                raise _misfit(kind, data)
            return number
        case "number":
            return _parse_number(data)
        case "string":
            return _parse_string(data)
        case _ if "/" in kind:
            return data
        case _:
            raise InputError(
                f"unknown type {quoted(kind)}", hint="known: bool, f64, i128, string, boolean, number, or a media type"
            )


def _misfit(kind: str, data: bytes) -> DecodeError:
    return DecodeError(f"these {len(data)} bytes are not a value of type {kind}")


def _parse_number(data: bytes) -> int | float:
    if len(data) > MAX_NUMBER_TEXT or not data.isascii() or data != data.strip():
        raise _misfit("number", data)
    for read in (int, float):
        try:
            number = read(data)
        except ValueError:
            continue
        if math.isfinite(number) and b"_" not in data:
            return number
    raise _misfit("number", data)


def _parse_string(data: bytes) -> str:
    """Borsh when the length says so, else bare UTF-8 as older releases wrote it."""
    body = data[4:] if len(data) >= 4 and struct.unpack("<I", data[:4])[0] == len(data) - 4 else data
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise _misfit("string", data) from None


def parse_untyped(data: bytes) -> str | bytes:
    """Read an entry whose type nobody named: a borsh string when it can be nothing else, else the bytes.

    A string proves itself: its first four bytes say how many follow. One with a NUL is left alone, because the i128 12
    looks like that. Numbers and booleans show only a size, so they are never guessed.
    """
    if len(data) < 4 or struct.unpack("<I", data[:4])[0] != len(data) - 4 or 0 in data[4:]:
        return data
    try:
        return data[4:].decode()
    except UnicodeDecodeError:
        return data
