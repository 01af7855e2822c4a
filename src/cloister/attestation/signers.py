"""Who signed, by secp256k1: addresses and the recovery of personal signatures (EIP-191), in one canonical form."""

from __future__ import annotations

from typing import Final

import coincurve
from Crypto.Hash import keccak

from cloister.errors import VerificationError

HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""A signature whose s is above has a twin below with the same meaning; only the lower one counts (EIP-2)."""


def address_of(public_key: bytes) -> bytes:
    """The raw address of a public key (x then y, 64 bytes)."""
    return keccak.new(digest_bits=256, data=public_key).digest()[12:]


def recover_personal_signer(message: bytes, signature: bytes, *, code: str) -> bytes:
    """The raw address (20 bytes) that personal_signed 32 bytes; r || s || v of 65 bytes, v 27 or 28, low s.

    Raises:
        VerificationError: of this ``code``: it is no signature.
    """
    low = len(signature) == 65 and 0 < int.from_bytes(signature[32:64], "big") <= HALF_ORDER
    if not low or signature[64] not in (27, 28):
        raise VerificationError("a signature is not r, s and v with a low s", code=code)
    digest = keccak.new(digest_bits=256, data=b"\x19Ethereum Signed Message:\n32" + message).digest()
    try:
        public = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except Exception as error:
        raise VerificationError("a signature belongs to no key", code=code) from error
    return address_of(public.format(compressed=False)[1:])
