"""Recursive length prefix: how Ethereum writes transactions (Yellow Paper, appendix B). Writing only."""

from __future__ import annotations

from collections.abc import Sequence


def _length(size: int, offset: int) -> bytes:
    if size < 56:
        return bytes([offset + size])
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([offset + 55 + len(digits)]) + digits


def build_rlp(item: bytes | int | Sequence[object]) -> bytes:
    """Write bytes, a non-negative integer or a list of these.

    Raises:
        TypeError: anything else.
        OverflowError: a negative integer.
    """
    if isinstance(item, int):
        item = item.to_bytes((item.bit_length() + 7) // 8, "big")
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _length(len(item), 0x80) + item
    if isinstance(item, str) or not isinstance(item, Sequence):
        raise TypeError(f"rlp holds bytes, integers and lists, not {type(item).__name__}")
    body = b"".join(build_rlp(part) for part in item)  # type: ignore[arg-type]  # checked on entry
    return _length(len(body), 0xC0) + body
