"""Sealed content: the Tink streaming AEAD wire format, key type AES256_GCM_HKDF_1MB.

    header  = 1 byte 0x28 (header length) || 32 bytes salt || 7 bytes nonce prefix
    key     = HKDF-SHA256(ikm = content key, salt = salt, info = associated data, 32 bytes)
    nonce   = nonce prefix || u32 big-endian segment number || 0x01 for the last segment, else 0x00
    segment = AES-256-GCM(key, nonce, plaintext), no associated data
    file    = header || segment 0 || segment 1 || ...

Every segment is 1 MiB of ciphertext, tag included; the header counts into the first one; the last may be shorter.
The number and the last-segment mark in the nonce make a cut, a swap and an extension fail to open.
Source: Tink wire format, "AES-GCM-HKDF Streaming AEAD"; "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance" (2015/189), section STREAM.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister.errors import InputError, VerificationError
from cloister.sealing.segments import Buffer, cut_segments

KEY_SIZE = 32
SALT_SIZE = 32
NONCE_PREFIX_SIZE = 7
HEADER_SIZE = 1 + SALT_SIZE + NONCE_PREFIX_SIZE
TAG_SIZE = 16
SEGMENT_SIZE = 1 << 20
"""Bytes of ciphertext in a segment, tag (and, for the first, header) included."""

FIRST_PLAIN = SEGMENT_SIZE - HEADER_SIZE - TAG_SIZE
REST_PLAIN = SEGMENT_SIZE - TAG_SIZE
MAX_SEGMENTS = 1 << 32
MAX_PLAIN_SIZE = FIRST_PLAIN + (MAX_SEGMENTS - 1) * REST_PLAIN

_REFUSED = "sealed content does not open: the key is not the one it was sealed with, or the bytes were changed or cut"
_REFUSED_HINT = "fetch the content again and check that the key belongs to it"


def _refusal() -> VerificationError:
    return VerificationError(_REFUSED, hint=_REFUSED_HINT, code="content-refused")


def sealed_size(plain: int) -> int:
    """Bytes that ``plain`` bytes take once sealed."""
    if not 0 <= plain <= MAX_PLAIN_SIZE:
        raise InputError(f"cannot seal {plain} bytes: the format holds 0 to {MAX_PLAIN_SIZE}")
    return HEADER_SIZE + plain + TAG_SIZE * _segment_count(plain)


def plain_size(sealed: int) -> int:
    """Bytes inside a sealed content of ``sealed`` bytes. Raises VerificationError when no content has that size."""
    count = max(1, -(-sealed // SEGMENT_SIZE))
    plain = sealed - HEADER_SIZE - TAG_SIZE * count
    if plain < 0 or count > MAX_SEGMENTS or _segment_count(plain) != count:
        raise _refusal()
    return plain


def _segment_count(plain: int) -> int:
    return 1 if plain <= FIRST_PLAIN else 1 + -(-(plain - FIRST_PLAIN) // REST_PLAIN)


class _SegmentCipher:
    """AES-256-GCM under the derived key, with the nonce of a numbered segment."""

    __slots__ = ("_aead", "_prefix")

    def __init__(self, key: bytes, salt: bytes, nonce_prefix: bytes, associated_data: bytes) -> None:
        for name, value, size in (
            ("content key", key, KEY_SIZE),
            ("salt", salt, SALT_SIZE),
            ("nonce prefix", nonce_prefix, NONCE_PREFIX_SIZE),
        ):
            if len(value) != size:
                raise InputError(f"the {name} must be {size} bytes, not {len(value)}")
        derived = HKDF(algorithm=SHA256(), length=KEY_SIZE, salt=salt, info=associated_data).derive(key)
        self._aead = AESGCM(derived)
        self._prefix = nonce_prefix

    def _nonce(self, number: int, last: bool) -> bytes:
        if number >= MAX_SEGMENTS:
            raise InputError(f"the content is larger than the format holds: {MAX_PLAIN_SIZE} bytes")
        return self._prefix + number.to_bytes(4, "big") + (b"\x01" if last else b"\x00")

    def seal(self, number: int, last: bool, plaintext: Buffer) -> bytes:
        return self._aead.encrypt(self._nonce(number, last), plaintext, None)

    def open(self, number: int, last: bool, ciphertext: Buffer) -> bytes:
        try:
            return self._aead.decrypt(self._nonce(number, last), ciphertext, None)
        except InvalidTag:
            raise _refusal() from None


def seal_stream(
    key: bytes, chunks: Iterable[Buffer], *, salt: bytes, nonce_prefix: bytes, associated_data: bytes = b""
) -> Iterator[bytes]:
    """Seal ``chunks`` (any sizes) under a 32-byte ``key``; yields 1 MiB of ciphertext at a time, in constant memory.

    ``salt`` (32 bytes) and ``nonce_prefix`` (7 bytes) must be fresh and random for every content.
    Raises InputError for wrong sizes, before anything is read from ``chunks``.
    """
    cipher = _SegmentCipher(key, salt, nonce_prefix, associated_data)
    header = bytes([HEADER_SIZE]) + salt + nonce_prefix

    def sealed() -> Iterator[bytes]:
        for number, (plain, last) in enumerate(cut_segments(chunks, FIRST_PLAIN, REST_PLAIN)):
            segment = cipher.seal(number, last, plain)
            yield header + segment if number == 0 else segment

    return sealed()


def open_stream(key: bytes, chunks: Iterable[Buffer], *, associated_data: bytes = b"") -> Iterator[bytes]:
    """Open sealed ``chunks`` (any sizes); yields plaintext segment by segment, each proved before it is given.

    A cut is noticed at the end only: nothing built from the output may be used before the iterator has ended.
    Raises VerificationError when the key is wrong or a byte was changed, moved, added or removed; InputError for a
    key that is not 32 bytes.
    """
    if len(key) != KEY_SIZE:
        raise InputError(f"the content key must be {KEY_SIZE} bytes, not {len(key)}")

    def opened() -> Iterator[bytes]:
        cipher: _SegmentCipher | None = None
        for number, (segment, last) in enumerate(cut_segments(chunks, SEGMENT_SIZE, SEGMENT_SIZE)):
            body = segment
            if cipher is None:
                cipher = _parse_header(key, bytes(segment[:HEADER_SIZE]), associated_data)
                body = segment[HEADER_SIZE:]
            # An empty segment after the first is a second spelling of the same content: there is only one.
            if len(body) < TAG_SIZE + (number > 0):
                raise _refusal()
            plain = cipher.open(number, last, body)
            if plain:
                yield plain

    return opened()


def _parse_header(key: bytes, header: bytes, associated_data: bytes) -> _SegmentCipher:
    if len(header) != HEADER_SIZE or header[0] != HEADER_SIZE:
        raise _refusal()
    return _SegmentCipher(key, header[1 : 1 + SALT_SIZE], header[1 + SALT_SIZE :], associated_data)


class SealedReader(io.RawIOBase):
    """The plaintext of a sealed content as a seekable binary file; opens only the segments that are read.

    ``read_at(offset, length)`` returns exactly that part of the ciphertext. The last segment is opened at once: its
    mark proves that ``size`` is the true size. Keeps one segment in memory. Not safe to share between threads.
    Raises VerificationError from the constructor and from reads, InputError for a key that is not 32 bytes.
    """

    def __init__(
        self, key: bytes, read_at: Callable[[int, int], bytes], size: int, *, associated_data: bytes = b""
    ) -> None:
        super().__init__()
        self.size = plain_size(size)
        """Bytes of plaintext."""
        self._sealed_size = size
        self._read_at = read_at
        self._position = 0
        self._count = _segment_count(self.size)
        self._cipher = _parse_header(key, read_at(0, HEADER_SIZE), associated_data)
        self._held = (-1, b"")
        self._segment(self._count - 1)

    def _segment(self, number: int) -> bytes:
        if self._held[0] != number:
            start = HEADER_SIZE if number == 0 else number * SEGMENT_SIZE
            end = min((number + 1) * SEGMENT_SIZE, self._sealed_size)
            ciphertext = self._read_at(start, end - start)
            if len(ciphertext) != end - start:
                raise _refusal()
            self._held = (number, self._cipher.open(number, number == self._count - 1, ciphertext))
        return self._held[1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise InputError(f"cannot seek to {base + offset}: a position is 0 or more")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Buffer) -> int:  # type: ignore[override]  # typeshed's WriteableBuffer is not public
        if self._position >= self.size:
            return 0
        if self._position < FIRST_PLAIN:
            number, start = 0, self._position
        else:
            number, start = divmod(self._position - FIRST_PLAIN, REST_PLAIN)
            number += 1
        target = memoryview(buffer).cast("B")
        part = self._segment(number)[start : start + len(target)]
        target[: len(part)] = part
        self._position += len(part)
        return len(part)
