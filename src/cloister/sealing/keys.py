"""The data key as the SMS stores it, and the choice of content format that it carries.

    native    ``AES256_GCM_HKDF_1MB:<base64 of 32 bytes>``   sealing.stream
    iExec's   ``<base64 of 32 bytes>``                        sealing.iexec, AES-256-CBC (reference: encryption-utils)

The format travels inside the secret, so nobody who holds only the ciphertext can turn one format into the other.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hmac
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from cloister.errors import InputError
from cloister.sealing import iexec, stream
from cloister.sealing.segments import Buffer

KEY_SIZE = 32
MAX_KEY_TEXT = 256
"""Longest text that is looked at when a key is parsed."""


class ContentFormat(enum.Enum):
    """How content is encrypted; the value is the prefix in the key's text."""

    AES256_GCM_HKDF_1MB = "AES256_GCM_HKDF_1MB"
    AES256_CBC = "AES256_CBC"


class ContentKey:
    """A 32-byte key bound to its content format. Never shown by repr, compared in constant time, not picklable."""

    __slots__ = ("_raw", "format")

    def __init__(self, format: ContentFormat, raw: Buffer) -> None:  # noqa: A002  # the seam's name
        if len(raw) != KEY_SIZE:
            raise InputError(f"a content key is {KEY_SIZE} bytes, not {len(raw)}")
        self.format = format
        self._raw = bytearray(raw)

    @property
    def raw(self) -> bytes:
        """The 32 bytes. Raises InputError after ``wipe``."""
        if not self._raw:
            raise InputError("this content key was wiped")
        return bytes(self._raw)

    def wipe(self) -> None:
        """Overwrite this object's copy. Best effort: Python may have made others."""
        self._raw[:] = bytes(len(self._raw))
        self._raw.clear()

    def __repr__(self) -> str:
        return f"ContentKey({self.format.name}, hidden)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ContentKey):
            return NotImplemented
        return self.format is other.format and hmac.compare_digest(self._raw, other._raw)

    __hash__ = None  # type: ignore[assignment]  # a key is never a dictionary key

    def __reduce__(self) -> NoReturn:
        raise TypeError("a content key is not pickled")


def generate_content_key(
    entropy: Callable[[int], bytes], content_format: ContentFormat = ContentFormat.AES256_GCM_HKDF_1MB
) -> ContentKey:
    """Make a fresh key. ``entropy(n)`` gives n random bytes (``os.urandom``)."""
    return ContentKey(content_format, entropy(KEY_SIZE))


def parse_content_key(text: str) -> ContentKey:
    """Read a key from its text. The text is secret, so the error never repeats it. Raises InputError."""
    prefix, colon, body = text.strip()[:MAX_KEY_TEXT].rpartition(":")
    if not colon:
        content_format = ContentFormat.AES256_CBC
    elif prefix == ContentFormat.AES256_GCM_HKDF_1MB.value:
        content_format = ContentFormat.AES256_GCM_HKDF_1MB
    else:
        raise InputError(
            "the content key names a format that is not known here",
            hint=f"known: {ContentFormat.AES256_GCM_HKDF_1MB.value}:<base64>, or bare base64 as iExec writes it",
        )
    try:
        raw = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != KEY_SIZE or base64.b64encode(raw).decode() != body:
        raise InputError("the content key is not valid: it must be base64 encoded 256 bits key")
    return ContentKey(content_format, raw)


def build_content_key(key: ContentKey) -> str:
    """Write a key as the text that the SMS stores. The result is secret."""
    body = base64.b64encode(key.raw).decode()
    return body if key.format is ContentFormat.AES256_CBC else f"{key.format.value}:{body}"


def seal_content(key: ContentKey, chunks: Iterable[Buffer], *, entropy: Callable[[int], bytes]) -> Iterator[bytes]:
    """Encrypt ``chunks`` in the key's format, in constant memory, with fresh salt and nonces from ``entropy``."""
    match key.format:
        case ContentFormat.AES256_GCM_HKDF_1MB:
            return stream.seal_stream(
                key.raw, chunks, salt=entropy(stream.SALT_SIZE), nonce_prefix=entropy(stream.NONCE_PREFIX_SIZE)
            )
        case ContentFormat.AES256_CBC:
            return iexec.seal_cbc(key.raw, chunks, iv=entropy(iexec.IV_SIZE))


def sealed_content_size(content_format: ContentFormat, plain: int) -> int:
    """Bytes that ``plain`` bytes take once encrypted in that format."""
    match content_format:
        case ContentFormat.AES256_GCM_HKDF_1MB:
            return stream.sealed_size(plain)
        case ContentFormat.AES256_CBC:
            return iexec.sealed_cbc_size(plain)


def open_content(key: ContentKey, chunks: Iterable[Buffer]) -> Iterator[bytes]:
    """Decrypt ``chunks`` in the key's format, in constant memory.

    iExec's format proves nothing by itself: the caller checks the ciphertext against its checksum first. The native
    format proves every segment, but a cut only at the end. Raises VerificationError.
    """
    match key.format:
        case ContentFormat.AES256_GCM_HKDF_1MB:
            return stream.open_stream(key.raw, chunks)
        case ContentFormat.AES256_CBC:
            return iexec.open_cbc(key.raw, chunks)
