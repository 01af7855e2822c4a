"""What a program printed: the last 100,000 characters of it, in bounded memory."""

from __future__ import annotations

KEPT_CHARACTERS = 100_000
_KEPT_BYTES = 4 * KEPT_CHARACTERS


class Tail:
    """Keeps the end of a byte stream."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self.total = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes; drop what is too old."""
        self.total += len(data)
        self._kept += data
        if len(self._kept) > 2 * _KEPT_BYTES:
            del self._kept[: len(self._kept) - _KEPT_BYTES]

    def text(self) -> str:
        """The last characters; bytes that are not UTF-8 are replaced."""
        return self._kept[-_KEPT_BYTES:].decode(errors="replace")[-KEPT_CHARACTERS:]
