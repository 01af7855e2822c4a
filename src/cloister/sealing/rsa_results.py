"""A result sealed to an RSA key, as iExec's clients open it.

    archive = zip of "aes-key.rsa"        RSA PKCS#1 v1.5 of the raw 32-byte AES key
                     "iexec_out.zip.aes"  IV || AES-256-CBC of the inner zip
    legacy  = base64 of the RSA block, around the base64 of the key; a 16-byte key stands for base64 of AES-128-ECB

PKCS#1 v1.5 is a padding oracle when its failure can be told from others (Bleichenbacher 1998), so opening has one error
text, and a block that does not decode goes on with a stand-in key to the same end. The format does not prove who made a
result: the digest on the chain does. Source: reference, result-utils; RFC 8017 section 7.2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from cloister.errors import DecodeError, InputError, TooLarge, VerificationError
from cloister.sealing import cbc
from cloister.sealing.segments import Buffer

KEY_ENTRY = "aes-key.rsa"
RESULT_ENTRY = "iexec_out.zip.aes"
MAX_SEALED_RESULT = (1 << 31) - (1 << 20)
"""Bytes of ciphertext: iExec's clients hold the archive in one buffer and fail from 2 GiB on."""
MIN_KEY_BITS, MAX_KEY_BITS = 2048, 8192
MAX_KEY_TEXT = 16 << 10
MAX_LEGACY_RESULT = 256 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
_PIECE = 1 << 20
_ZIP_STARTS = (b"PK\x03\x04", b"PK\x05\x06")


def parse_result_public_key(text: str | bytes) -> RSAPublicKey:
    """Read a beneficiary's key: PEM (SubjectPublicKeyInfo), or base64 of that PEM as iExec's clients push it.

    Raises DecodeError when it is not an RSA key of 2048 to 8192 bits.
    """
    pem = text.encode() if isinstance(text, str) else text
    if len(pem) > MAX_KEY_TEXT:
        raise TooLarge(f"a public key is at most {MAX_KEY_TEXT} bytes, not {len(pem)}")
    try:
        if not pem.lstrip().startswith(b"-----"):
            pem = base64.b64decode(pem, validate=True)
        key = load_pem_public_key(pem)
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        raise DecodeError(
            "the result encryption key is not a public key in PEM form",
            hint="push the base64 of a '-----BEGIN PUBLIC KEY-----' text",
        ) from None
    if not isinstance(key, RSAPublicKey) or not MIN_KEY_BITS <= key.key_size <= MAX_KEY_BITS:
        raise DecodeError(f"the result encryption key must be an RSA key of {MIN_KEY_BITS} to {MAX_KEY_BITS} bits")
    return key


def parse_result_private_key(text: str | bytes) -> RSAPrivateKey:
    """Read the beneficiary's private key in PEM form (PKCS#8). The error never repeats it. Raises InputError."""
    pem = text.encode() if isinstance(text, str) else text
    try:
        key = load_pem_private_key(pem[:MAX_KEY_TEXT], password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise InputError(
            "the result decryption key is not an RSA private key in PEM form",
            hint="give the '-----BEGIN PRIVATE KEY-----' text that belongs to the key the result was sealed to",
        )
    return key


class _Pipe:
    """A write-only file whose bytes are taken out again: lets zipfile write to a generator."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Buffer) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        return None

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def seal_result_rsa(
    public_key: RSAPublicKey, chunks: Iterable[Buffer], *, aes_key: bytes, iv: bytes
) -> Iterator[bytes]:
    """Seal the inner zip to ``public_key``; yields the outer zip in constant memory.

    ``aes_key`` (32) and ``iv`` (16) are fresh random bytes. Raises InputError for wrong sizes, before anything is read
    from ``chunks``; TooLarge when the result is more than iExec's clients can open.
    """
    sealed_chunks = cbc.seal_cbc(aes_key, chunks, iv=iv)
    wrapped = public_key.encrypt(aes_key, PKCS1v15())

    def archive() -> Iterator[bytes]:
        pipe = _Pipe()
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as outer:  # type: ignore[call-overload]  # any writer will do
            outer.writestr(_entry(KEY_ENTRY), wrapped)
            size = 0
            with outer.open(_entry(RESULT_ENTRY), "w") as entry:
                for chunk in sealed_chunks:
                    size += len(chunk)
                    if size > MAX_SEALED_RESULT:
                        raise TooLarge(
                            f"the result is larger than {MAX_SEALED_RESULT} bytes, the most that iExec's clients open",
                            hint="seal the result to a native key",
                        )
                    entry.write(chunk)
                    yield pipe.take()
        yield pipe.take()

    return archive()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    return entry


def open_result_rsa(private_key: RSAPrivateKey, archive: IO[bytes]) -> Iterator[bytes]:
    """Open a result archive (a seekable file); yields the inner zip.

    Nothing built from the output may be used before the iterator has ended. Raises VerificationError with one text
    whatever failed inside; DecodeError when the file is not a result archive.
    """
    try:
        outer = zipfile.ZipFile(archive)
        entries = {entry.filename: entry for entry in outer.infolist()}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DecodeError("this is not a result archive: it is not a zip file") from error
    if sorted(entries) != sorted((KEY_ENTRY, RESULT_ENTRY)) or len(outer.infolist()) != len(entries):
        raise DecodeError(f"this is not a result archive: it does not hold exactly {KEY_ENTRY} and {RESULT_ENTRY}")
    _require_sizes(entries[KEY_ENTRY], entries[RESULT_ENTRY])
    return _opened(private_key, outer)


def _require_sizes(key: zipfile.ZipInfo, result: zipfile.ZipInfo) -> None:
    # Ciphertext does not compress, so an entry that claims to expand is a bomb.
    for entry, cap in ((key, MAX_KEY_BITS), (result, MAX_SEALED_RESULT)):
        if entry.file_size > cap or entry.file_size > 2 * entry.compress_size + 1024:
            raise TooLarge(f"the entry {entry.filename} is larger than its cap")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise DecodeError(f"the entry {entry.filename} is compressed or encrypted in a way that is not read here")


def _refusal() -> VerificationError:
    return VerificationError(
        "the result does not open: it was sealed to another key, or its bytes were changed or cut",
        hint="use the private key that belongs to the result encryption key of the requester",
        code="result-refused",
    )


def _opened(private_key: RSAPrivateKey, outer: zipfile.ZipFile) -> Iterator[bytes]:
    try:
        key, sound = _unwrap(private_key, outer.read(KEY_ENTRY))
        with outer.open(RESULT_ENTRY) as sealed:
            plain = _open_ecb(key, sealed) if len(key) == 16 else cbc.open_cbc(key, _pieces(sealed))
            started = False
            for chunk in plain:
                if not started and not (sound and chunk.startswith(_ZIP_STARTS)):
                    raise _refusal()
                started = True
                yield chunk
            if not started:
                raise _refusal()
    except (VerificationError, zipfile.BadZipFile, zlib.error, EOFError, ValueError):
        raise _refusal() from None


def _pieces(source: IO[bytes]) -> Iterator[bytes]:
    while piece := source.read(_PIECE):
        yield piece


def _unwrap(private_key: RSAPrivateKey, block: bytes) -> tuple[bytes, bool]:
    """(AES key, whether it is one); a block that does not open gives a stand-in key."""
    size = private_key.key_size // 8
    stand_in = hashlib.sha256(block).digest()
    if len(block) != size:
        block = _decode_base64(block)
    try:
        opened = private_key.decrypt(block, PKCS1v15())
    except ValueError:
        return stand_in, False
    if len(opened) not in (16, 32):
        opened = _decode_base64(opened)
    return (opened, True) if len(opened) in (16, 32) else (stand_in, False)


def _decode_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _open_ecb(key: bytes, sealed: IO[bytes]) -> Iterator[bytes]:
    """Legacy results: base64 of AES-128-ECB with PKCS#7 padding; small, so opened in one piece."""
    text = sealed.read(MAX_LEGACY_RESULT + 1)
    ciphertext = _decode_base64(text)
    if len(text) > MAX_LEGACY_RESULT or not ciphertext or len(ciphertext) % cbc.BLOCK:
        raise _refusal()
    plain = Cipher(AES(key), ECB()).decryptor().update(ciphertext)  # noqa: S305  # the legacy format is what it is
    padding = plain[-1]
    if not 1 <= padding <= cbc.BLOCK or plain[-padding:] != bytes([padding]) * padding:
        raise _refusal()
    yield plain[:-padding]
