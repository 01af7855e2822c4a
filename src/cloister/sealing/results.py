"""The native sealed result: a content stream whose key is enveloped to one beneficiary.

    file     = "CLOISTER-RESULT/1\\n" || u32 big-endian length of the envelope || envelope || content stream
    envelope = HPKE(public key, content key (32 bytes) || context, info = "cloister/result/v1")
    stream   = sealing.stream under the content key, associated data = SHA-256 of all bytes before the stream

``context`` names what the result belongs to (the task). It is sealed with the key, so a result moved to another task
or beneficiary does not open there.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator

from cloister.errors import InputError, VerificationError
from cloister.sealing import envelope, stream
from cloister.sealing.segments import Buffer

MAGIC = b"CLOISTER-RESULT/1\n"
MAX_CONTEXT = 1024
INFO = b"cloister/result/v1"
_LENGTH_SIZE = 4
_MAX_ENVELOPE = envelope.OVERHEAD + stream.KEY_SIZE + MAX_CONTEXT


def seal_result(
    public: envelope.HpkePublicKey,
    chunks: Iterable[Buffer],
    *,
    content_key: bytes,
    salt: bytes,
    nonce_prefix: bytes,
    context: bytes,
) -> Iterator[bytes]:
    """Seal a result to ``public``; yields the file in constant memory.

    ``content_key`` (32), ``salt`` (32) and ``nonce_prefix`` (7) are fresh random bytes. ``context`` is 1 to 1024 bytes.
    Raises InputError, before anything is read from ``chunks``.
    """
    if not 1 <= len(context) <= MAX_CONTEXT:
        raise InputError(f"a result's context is 1 to {MAX_CONTEXT} bytes, not {len(context)}")
    if len(content_key) != stream.KEY_SIZE:
        raise InputError(f"the content key must be {stream.KEY_SIZE} bytes, not {len(content_key)}")
    wrapped = envelope.seal(public, content_key + context, INFO)
    head = MAGIC + len(wrapped).to_bytes(_LENGTH_SIZE, "big") + wrapped
    body = stream.seal_stream(
        content_key, chunks, salt=salt, nonce_prefix=nonce_prefix, associated_data=hashlib.sha256(head).digest()
    )

    def sealed() -> Iterator[bytes]:
        yield head
        yield from body

    return sealed()


def sealed_result_size(plain: int, context: bytes) -> int:
    """Bytes of the sealed result of ``plain`` bytes."""
    head = len(MAGIC) + _LENGTH_SIZE + envelope.OVERHEAD + stream.KEY_SIZE + len(context)
    return head + stream.sealed_size(plain)


def open_result(
    private: envelope.HpkePrivateKey, chunks: Iterable[Buffer], *, context: bytes | None = None
) -> Iterator[bytes]:
    """Open a sealed result; yields plaintext, each piece proved before it is given.

    With ``context`` the result must belong to exactly that; ``None`` accepts any, for a file whose task is not known.
    A cut is noticed at the end only: nothing built from the output may be used before the iterator has ended.
    Raises VerificationError.
    """
    source = _Source(chunks)
    head = source.take(len(MAGIC) + _LENGTH_SIZE)
    length = int.from_bytes(head[len(MAGIC) :], "big")
    if head[: len(MAGIC)] != MAGIC:
        raise VerificationError("this is not a sealed result: its first line is another", code="result-refused")
    if length > _MAX_ENVELOPE:
        raise _refusal()
    wrapped = source.take(length)
    opened = envelope.open(private, wrapped, INFO)
    content_key, found = opened[: stream.KEY_SIZE], opened[stream.KEY_SIZE :]
    if len(content_key) != stream.KEY_SIZE or not found:
        raise _refusal()
    if context is not None and not hmac.compare_digest(found, context):
        raise VerificationError(
            "the sealed result belongs to another task",
            hint="fetch the result of the task that you asked for",
            code="result-swapped",
        )
    return stream.open_stream(content_key, source.rest(), associated_data=hashlib.sha256(head + wrapped).digest())


def _refusal() -> VerificationError:
    return VerificationError("the sealed result does not open: its bytes were changed or cut", code="result-refused")


class _Source:
    """Exact reads from the front of a chunk stream, then what is left of it."""

    __slots__ = ("_chunks", "_held")

    def __init__(self, chunks: Iterable[Buffer]) -> None:
        self._chunks = iter(chunks)
        self._held = b""

    def take(self, size: int) -> bytes:
        parts, have = [self._held], len(self._held)
        while have < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise _refusal()
            parts.append(bytes(chunk))
            have += len(chunk)
        joined = b"".join(parts)
        self._held = joined[size:]
        return joined[:size]

    def rest(self) -> Iterator[Buffer]:
        held, self._held = self._held, b""
        yield held
        yield from self._chunks
