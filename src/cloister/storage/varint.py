"""Unsigned variable-length integers (multiformats unsigned-varint; protobuf base-128)."""

from __future__ import annotations

from cloister.errors import DecodeError

MAX_LENGTH = 9
"""Most bytes of a varint here: 63 bits, as multiformats limits it."""


def build_varint(value: int) -> bytes:
    """Encode 0 <= value < 2**63, least significant group first."""
    if not 0 <= value < 1 << 63:
        raise ValueError(f"not a varint: {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def parse_varint(data: bytes, position: int = 0) -> tuple[int, int]:
    """Decode the varint at ``position``; return it and the position after it.

    Raises:
        DecodeError: the data ends inside it, it is longer than 9 bytes, or it is not the shortest form.
    """
    value = 0
    for count in range(MAX_LENGTH):
        if position + count >= len(data):
            raise DecodeError("varint is cut short")
        byte = data[position + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            if byte == 0 and count > 0:
                raise DecodeError("varint is not in its shortest form")
            return value, position + count + 1
    raise DecodeError("varint is longer than 9 bytes")
