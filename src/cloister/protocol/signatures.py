"""secp256k1 keys and recoverable signatures (EIP-191 personal messages, EIP-2098 compact form).

One message has one acceptable signature: high ``s`` is refused (EIP-2), ``v`` is 27 or 28 (reference 1.5).
"""

from __future__ import annotations

from typing import Final, Self

import coincurve

# coincurve's own key object holds its secret as immutable bytes, which cannot be cleared: sign with the library itself.
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from coincurve.ecdsa import serialize_recoverable

from cloister.errors import DecodeError, InputError, VerificationError
from cloister.protocol.codec import Address, keccak256, parse_hex

CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HALF_ORDER: Final = CURVE_ORDER // 2
SIGNATURE_LENGTH: Final = 65


def address_of(public_key: bytes) -> Address:
    """Return the address of a 64-byte public key (x then y, no prefix)."""
    if len(public_key) != 64:
        raise InputError(f"a public key has 64 bytes, got {len(public_key)}")
    return Address.from_raw(keccak256(public_key)[12:])


def message_digest(data: bytes) -> bytes:
    """Return the 32 bytes that ``personal_sign`` signs for ``data`` (EIP-191 version 0x45)."""
    return keccak256(b"\x19Ethereum Signed Message:\n" + str(len(data)).encode("ascii") + data)


class PrivateKey:
    """A secp256k1 private key. Neither ``repr`` nor pickling gives the secret away.

    Signing is deterministic (RFC 6979). Instances do not change until ``wipe`` and may be shared between threads.

    Raises:
        InputError: not 32 bytes, or not in 1..order-1.
    """

    __slots__ = ("_secret", "address", "public_key")

    address: Address
    public_key: bytes
    """64 bytes, x then y."""

    def __init__(self, raw: bytes) -> None:
        self._take(bytearray(raw))

    @classmethod
    def at(cls, memory: memoryview) -> Self:
        """The key that lies in ``memory`` (32 writable bytes): it is used there, never copied, and cleared by ``wipe``.

        Raises:
            InputError: as the constructor.
        """
        key = cls.__new__(cls)
        key._take(memory)
        return key

    def _take(self, secret: bytearray | memoryview) -> None:
        if len(secret) != 32:
            raise InputError("a private key is 32 bytes in 1..order-1")
        point = ffi.new("secp256k1_pubkey *")
        # The library checks the range itself; a comparison here would make a number of the secret, which nobody clears.
        with ffi.from_buffer("unsigned char[]", secret) as pointer:
            if not lib.secp256k1_ec_pubkey_create(GLOBAL_CONTEXT.ctx, point, pointer):
                raise InputError("a private key is 32 bytes in 1..order-1")
        self._secret: bytearray | memoryview | None = secret
        self.public_key = coincurve.PublicKey(point).format(compressed=False)[1:]
        self.address = address_of(self.public_key)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 64 hex digits, with or without ``0x``. The text is never repeated in an error.

        Raises:
            InputError: anything else.
        """
        try:
            raw = parse_hex(text if text.startswith("0x") else "0x" + text, length=32)
        except DecodeError:
            # from None: the cause quotes its input, and its input is a secret.
            raise InputError("a private key is 64 hex digits") from None
        return cls(raw)

    def __repr__(self) -> str:
        return f"PrivateKey({self.address})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("private keys are not pickled")

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes as they are. Returns r, s, v (65 bytes, low s, v 27 or 28)."""
        if len(digest) != 32:
            raise InputError(f"a digest has 32 bytes, got {len(digest)}")
        signature = ffi.new("secp256k1_ecdsa_recoverable_signature *")
        with ffi.from_buffer("unsigned char[]", self._memory()) as pointer:
            done = lib.secp256k1_ecdsa_sign_recoverable(
                GLOBAL_CONTEXT.ctx, signature, digest, pointer, ffi.NULL, ffi.NULL
            )
        if not done:
            raise InputError("this private key was wiped")
        compact: bytes = serialize_recoverable(signature)
        return compact[:64] + bytes([27 + compact[64]])

    def sign_message(self, data: bytes) -> bytes:
        """Sign ``data`` as ``personal_sign`` does (EIP-191). Returns 65 bytes."""
        return self.sign_digest(message_digest(data))

    def unprotected_raw(self) -> bytes:
        """The 32 secret bytes, for the one caller that stores them under protection. Raises InputError after ``wipe``."""
        return bytes(self._memory())

    def wipe(self) -> None:
        """Overwrite the secret where it lies; the key signs no more. May be called again."""
        if self._secret is not None:
            self._secret[:] = bytes(32)
            self._secret = None

    def _memory(self) -> bytearray | memoryview:
        if self._secret is None:
            raise InputError("this private key was wiped")
        return self._secret


def _split(signature: bytes) -> tuple[bytes, int, int]:
    """Return r as bytes, s and the recovery id of a 65- or 64-byte signature."""
    if len(signature) == 65:
        if signature[64] not in (27, 28):
            raise VerificationError(f"signature has v {signature[64]}, expected 27 or 28", code="bad-signature")
        return signature[:32], int.from_bytes(signature[32:64], "big"), signature[64] - 27
    if len(signature) == 64:
        # EIP-2098: the top bit of s carries the parity.
        word = int.from_bytes(signature[32:], "big")
        return signature[:32], word & ~(1 << 255), word >> 255
    raise VerificationError(f"signature has {len(signature)} bytes, expected 65 or 64", code="bad-signature")


def recover_public_key(digest: bytes, signature: bytes) -> bytes:
    """Recover the 64-byte public key that signed ``digest``.

    Raises:
        VerificationError: a malformed, malleable (high s) or unrecoverable signature.
    """
    if len(digest) != 32:
        raise InputError(f"a digest has 32 bytes, got {len(digest)}")
    r, s, recovery_id = _split(signature)
    if not 0 < s <= _HALF_ORDER:
        raise VerificationError("signature has s out of the lower half of the order", code="bad-signature")
    try:
        point = coincurve.PublicKey.from_signature_and_message(
            r + s.to_bytes(32, "big") + bytes([recovery_id]), digest, hasher=None
        )
    except Exception as error:
        raise VerificationError("signature recovers to no key", code="bad-signature") from error
    raw: bytes = point.format(compressed=False)
    return raw[1:]


def recover_address(digest: bytes, signature: bytes) -> Address:
    """Recover the address that signed ``digest``.

    Raises:
        VerificationError: as ``recover_public_key``.
    """
    return address_of(recover_public_key(digest, signature))


def verify_signature(digest: bytes, signature: bytes, signer: Address) -> Address:
    """Return ``signer`` when it signed ``digest``.

    Raises:
        VerificationError: another signer, or as ``recover_public_key``.
    """
    recovered = recover_address(digest, signature)
    if recovered != signer:
        raise VerificationError(f"signed by {recovered}, expected {signer}", code="wrong-signer")
    return signer
