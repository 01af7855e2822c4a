"""Exact reads from bytes that arrive in chunks of any size, counted against a cap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cloister.errors import DecodeError, TooLarge


class ExactStream:
    """``what`` names the content in errors: TooLarge for more than ``max_bytes``, DecodeError when it ends too early."""

    def __init__(self, chunks: Iterable[bytes], max_bytes: int, what: str) -> None:
        self._chunks = iter(chunks)
        self._held = memoryview(b"")
        self._left = max_bytes
        self._cap = max_bytes
        self._what = what

    def _more(self) -> bytes | None:
        chunk = next(self._chunks, None)
        if chunk is not None:
            self._left -= len(chunk)
            if self._left < 0:
                raise TooLarge(f"{self._what} is larger than {self._cap} bytes")
            self._hear(chunk)
        return chunk

    def _hear(self, chunk: bytes) -> None:
        """Called once with every chunk, in order."""

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield exactly ``size`` bytes."""
        while size > 0:
            if not self._held:
                chunk = self._more()
                if chunk is None:
                    raise DecodeError(f"{self._what} is cut short")
                self._held = memoryview(chunk)
            # Views: copying what is left of a large chunk for each small file would cost more than all else.
            piece, self._held = self._held[:size], self._held[size:]
            size -= len(piece)
            if piece:
                yield piece

    def take(self, size: int) -> bytes:
        """Exactly ``size`` bytes at once."""
        return b"".join(self.pieces(size))

    def at_end(self) -> bool:
        """Whether no byte is left."""
        while not self._held:
            chunk = self._more()
            if chunk is None:
                return True
            self._held = memoryview(chunk)
        return False

    def drain(self) -> None:
        """Read to the end."""
        self._held = memoryview(b"")
        while self._more() is not None:
            pass
