"""The checksum of a content: SHA-256 of the encrypted bytes, as the chain holds it (reference: m_datasetChecksum)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator

from cloister.errors import InputError, LocalError, TooLarge, VerificationError
from cloister.sealing.segments import Buffer


class ChecksumStream:
    """Pass ``chunks`` through while hashing and counting them."""

    __slots__ = ("_chunks", "_done", "_hash", "size")

    def __init__(self, chunks: Iterable[Buffer]) -> None:
        self._chunks = chunks
        self._hash = hashlib.sha256()
        self._done = False
        self.size = 0
        """Bytes passed so far."""

    def __iter__(self) -> Iterator[Buffer]:
        for chunk in self._chunks:
            self._hash.update(chunk)
            self.size += len(chunk)
            yield chunk
        self._done = True

    @property
    def digest(self) -> bytes:
        """The 32 bytes of SHA-256. Raises LocalError before the last chunk has passed."""
        if not self._done:
            raise LocalError("the checksum was asked for before the content had ended")
        return self._hash.digest()

    @property
    def hex(self) -> str:
        """The checksum as ``0x`` and 64 hex digits."""
        return "0x" + self.digest.hex()


def verify_checksum(chunks: Iterable[Buffer], expected: bytes, *, max_size: int) -> Iterator[Buffer]:
    """Pass ``chunks`` through and prove at the end that their SHA-256 is ``expected`` (32 bytes).

    Nothing built from the output may be used before the iterator has ended. Raises VerificationError when the bytes
    are others, TooLarge as soon as more than ``max_size`` bytes came.
    """
    if len(expected) != hashlib.sha256().digest_size:
        raise InputError(f"a checksum is 32 bytes, not {len(expected)}")
    passing = ChecksumStream(chunks)
    for chunk in passing:
        if passing.size > max_size:
            raise TooLarge(f"the content is larger than its cap of {max_size} bytes")
        yield chunk
    if not hmac.compare_digest(passing.digest, expected):
        raise VerificationError(
            f"the content's checksum is {passing.hex}, not 0x{expected.hex()}",
            hint="the storage gave other bytes than the owner published",
            code="checksum-mismatch",
        )
