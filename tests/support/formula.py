"""Content by formula: what the vectors in ``tests/vectors/storage`` are made of."""

from __future__ import annotations

from collections.abc import Iterator

_LOW = bytes(i * 131 & 255 for i in range(256))
_SHIFTS = [bytes(x + shift & 255 for x in range(256)) for shift in range(256)]


def content(size: int, step: int = 1 << 20) -> Iterator[bytes]:
    """Yield ``size`` bytes in pieces of ``step`` (a multiple of 256) bytes.

    Byte i is ``(i*131 + (i>>8)*17 + (i>>16)*29 + (i>>20)*7) mod 256``.
    """
    for start in range(0, size, step):
        out = bytearray()
        for base in range(start, min(start + step, size), 256):
            out += _LOW.translate(_SHIFTS[(base >> 8) * 17 + (base >> 16) * 29 + (base >> 20) * 7 & 255])
        yield bytes(out[: min(step, size - start)])
