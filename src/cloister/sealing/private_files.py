"""Private input files: sealed by their requester, opened in the enclave with a key that comes as a requester secret.

A file is content in the native format (sealing.stream), with its number among the request's input files, counted from 1, as
associated data: all files of a request share a key, and a host that hands over the second in the place of the first must
not get away with it. iExec's format is not taken: it proves nothing by itself, and no checksum of such a file is on
chain, so whoever can change it could ask about its padding run by run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from cloister.errors import InputError
from cloister.sealing import stream
from cloister.sealing.keys import ContentFormat, ContentKey, parse_content_key
from cloister.sealing.segments import Buffer

_DOMAIN = b"cloister/input-file/v1/"


def parse_private_key(text: str) -> ContentKey:
    """Read the key of a request's input files from its text, which is secret and in no error.

    Raises:
        InputError: no content key, or one of a format that proves nothing by itself.
    """
    key = parse_content_key(text)
    if key.format is not ContentFormat.AES256_GCM_HKDF_1MB:
        key.wipe()
        raise InputError(
            f"the key of private input files must be of the format {ContentFormat.AES256_GCM_HKDF_1MB.value}"
        )
    return key


def seal_private_file(
    key: ContentKey, number: int, chunks: Iterable[Buffer], *, entropy: Callable[[int], bytes]
) -> Iterator[bytes]:
    """Seal input file ``number`` (from 1), in constant memory. Raises InputError for a number that counts from 0."""
    return stream.seal_stream(
        key.raw,
        chunks,
        salt=entropy(stream.SALT_SIZE),
        nonce_prefix=entropy(stream.NONCE_PREFIX_SIZE),
        associated_data=_context(number),
    )


def open_private_file(key: ContentKey, number: int, chunks: Iterable[Buffer]) -> Iterator[bytes]:
    """Open input file ``number`` (from 1), in constant memory; a cut is noticed at the end only.

    Raises:
        VerificationError: another key, another number, or a byte that was changed, moved, added or removed.
    """
    return stream.open_stream(key.raw, chunks, associated_data=_context(number))


def _context(number: int) -> bytes:
    if number < 1:
        raise InputError(f"input files count from 1, got {number}")
    return _DOMAIN + str(number).encode()
