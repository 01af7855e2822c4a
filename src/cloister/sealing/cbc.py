"""iExec's content encryption: IV (16 bytes) || AES-256-CBC with PKCS#7 padding.

The format proves nothing about its bytes: whoever opens it has checked the ciphertext's checksum first
(sealing.checksum). Source: reference, encryption-utils; RFC 5652 section 6.3 (padding).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from cloister.errors import InputError, VerificationError
from cloister.sealing.segments import Buffer

KEY_SIZE = 32
IV_SIZE = 16
BLOCK = 16


def cbc_refusal() -> VerificationError:
    """The one error of this format, whatever failed."""
    return VerificationError(
        "encrypted content does not open: the key is not the one it was encrypted with, or bytes were changed or cut",
        hint="fetch the content again and check that the key belongs to it",
        code="content-refused",
    )


def sealed_cbc_size(plain: int) -> int:
    """Bytes that ``plain`` bytes take once encrypted."""
    return IV_SIZE + (plain // BLOCK + 1) * BLOCK


def seal_cbc(key: bytes, chunks: Iterable[Buffer], *, iv: bytes) -> Iterator[bytes]:
    """Encrypt ``chunks`` under a 32-byte ``key`` with a fresh random 16-byte ``iv``, in constant memory.

    Raises InputError for wrong sizes, before anything is read from ``chunks``.
    """
    _require_key(key)
    if len(iv) != IV_SIZE:
        raise InputError(f"the initialization vector must be {IV_SIZE} bytes, not {len(iv)}")
    encryptor = Cipher(AES(key), CBC(iv)).encryptor()

    def sealed() -> Iterator[bytes]:
        yield iv
        size = 0
        for chunk in chunks:
            size += len(chunk)
            out = encryptor.update(chunk)
            if out:
                yield out
        padding = BLOCK - size % BLOCK
        yield encryptor.update(bytes([padding]) * padding) + encryptor.finalize()

    return sealed()


def open_cbc(key: bytes, chunks: Iterable[Buffer]) -> Iterator[bytes]:
    """Decrypt ``chunks`` in constant memory. Only for bytes whose checksum was verified.

    Raises VerificationError (one text) for a wrong key, a cut or bad padding; InputError for a key of a wrong size.
    """
    _require_key(key)

    def opened() -> Iterator[bytes]:
        iv = b""
        decryptor = None
        held = b""  # the last block: it holds the padding
        size = 0
        for chunk in chunks:
            size += len(chunk)
            body: Buffer = chunk
            if decryptor is None:
                iv += bytes(chunk)
                if len(iv) < IV_SIZE:
                    continue
                body = iv[IV_SIZE:]
                decryptor = Cipher(AES(key), CBC(iv[:IV_SIZE])).decryptor()
            out = decryptor.update(body)
            if out:
                if held:
                    yield held
                if len(out) > BLOCK:
                    yield out[:-BLOCK]
                held = out[-BLOCK:]
        if size % BLOCK or len(held) != BLOCK:
            raise cbc_refusal()
        padding = held[-1]
        if not 1 <= padding <= BLOCK or held[-padding:] != bytes([padding]) * padding:
            raise cbc_refusal()
        if padding < BLOCK:
            yield held[:-padding]

    return opened()


def _require_key(key: bytes) -> None:
    if len(key) != KEY_SIZE:
        raise InputError("not a valid encryption key (must be base64 encoded 256 bits key)")
