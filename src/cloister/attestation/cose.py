"""COSE_Sign1 (RFC 9052 section 4.2) signed with ES256K (RFC 8812), the one form that receipts and their
countersignatures have: deterministic, an exact protected header, a signature r || s of 64 bytes with a low s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import coincurve

from cloister.attestation.cbor import Tagged, Value, build_cbor, parse_cbor
from cloister.attestation.signers import HALF_ORDER, address_of
from cloister.errors import DecodeError, VerificationError

_SIGN1 = 18
_ALGORITHM, _CONTENT_TYPE = 1, 3
_ES256K = -47


def build_header(content_type: str | None = None) -> bytes:
    """A protected header: the algorithm, and the content type that keeps one kind of document from passing as another."""
    header: dict[Value, Value] = {_ALGORITHM: _ES256K}
    return build_cbor(header if content_type is None else header | {_CONTENT_TYPE: content_type})


@dataclass(frozen=True, slots=True)
class Sign1:
    """The parts of a COSE_Sign1. Its signature proves nothing until ``check_signer`` has answered."""

    protected: bytes
    unprotected: dict[Value, Value]
    payload: bytes
    signature: bytes

    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return signed_bytes(self.protected, self.payload)


def signed_bytes(protected: bytes, payload: bytes) -> bytes:
    """The Sig_structure of RFC 9052 section 4.4."""
    return build_cbor(["Signature1", protected, b"", payload])


def sign_payload(protected: bytes, payload: bytes, sign_digest: Callable[[bytes], bytes]) -> bytes:
    """Sign; ``sign_digest`` takes 32 bytes and answers with r || s (what stands behind is left away)."""
    return sign_digest(hashlib.sha256(signed_bytes(protected, payload)).digest())[:64]


def build_sign1(protected: bytes, unprotected: dict[Value, Value], payload: bytes, signature: bytes) -> bytes:
    """Encode the four parts, tagged."""
    return build_cbor(Tagged(_SIGN1, [protected, unprotected, payload, signature]))


def parse_sign1(encoded: bytes, protected: bytes, *, what: str, code: str) -> Sign1:
    """Read one with exactly this protected header. Proves nothing.

    Raises:
        DecodeError: of this ``code``, naming ``what`` it is not.
    """
    match parse_cbor(encoded):
        case Tagged(tag=18, value=[bytes(header), dict(unprotected), bytes(payload), bytes(signature)]):
            pass
        case _:
            raise DecodeError(f"the {what} is not a tagged COSE_Sign1", code=code)
    if header != protected:
        raise DecodeError(f"the {what}'s protected header is not the one of its kind", code=code)
    if len(signature) != 64:
        raise DecodeError(f"the {what}'s signature has {len(signature)} bytes instead of 64", code=code)
    return Sign1(header, unprotected, payload, signature)


def check_signer(document: Sign1, address: bytes, *, what: str, code: str) -> None:
    """Return when the key of this address (20 bytes) signed.

    Raises:
        VerificationError: of this ``code``: another key did, or none.
    """
    signature = document.signature
    if not 0 < int.from_bytes(signature[32:], "big") <= HALF_ORDER:
        raise VerificationError(f"the {what}'s signature has a high s", code=code)
    digest = hashlib.sha256(document.signed_bytes()).digest()
    for parity in (0, 1):
        try:
            key = coincurve.PublicKey.from_signature_and_message(signature + bytes([parity]), digest, hasher=None)
        except Exception:  # noqa: BLE001, S112  # of two candidates one may be no point; that none fits is told below
            continue
        if address_of(key.format(compressed=False)[1:]) == address:
            return
    raise VerificationError(f"the {what}'s signature does not hold", code=code)
