"""One quote under one attestation key: the signature holds, and the register values are the ones it covers."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from cloister.attestation.tpm.structures import EcdsaSignature, Quote, RsaSignature, parse_quote, parse_signature
from cloister.errors import VerificationError

AttestationKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

RSA_BITS = (2048, 3072, 4096)
RSA_EXPONENT = 65537


def verify_quote(key: object, attest: bytes, signature: bytes, pcrs: Mapping[int, bytes]) -> Quote:
    """Check that ``key`` signed ``attest``, and that it covers exactly ``pcrs``.

    ``key`` must be ECDSA P-256, or RSA of 2048, 3072 or 4096 bits. What extraData must say is the caller's to check.

    Raises:
        DecodeError: quote or signature does not parse.
        VerificationError: ``ak-key-type``, ``quote-signature``, ``quote-selection`` (the registers given are not the ones
            selected), ``quote-pcr-digest``.
    """
    _verify_signature(verify_key_type(key), attest, signature)
    quote = parse_quote(attest)
    if quote.pcrs != tuple(sorted(pcrs)):
        raise VerificationError(
            "the register values given are not those that the quote selects", code="quote-selection"
        )
    digest = hashlib.sha256(b"".join(pcrs[index] for index in quote.pcrs)).digest()
    if not hmac.compare_digest(digest, quote.pcr_digest):
        raise VerificationError("the register values given are not those that were quoted", code="quote-pcr-digest")
    return quote


def verify_key_type(key: object) -> AttestationKey:
    """The key, when it is of a type that a quote may be signed with.

    Raises:
        VerificationError: ``ak-key-type``.
    """
    match key:
        case ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1):
            return key
        case rsa.RSAPublicKey() if key.key_size in RSA_BITS and key.public_numbers().e == RSA_EXPONENT:
            return key
        case _:
            raise VerificationError(
                "the attestation key is neither P-256 nor RSA of 2048 bits or more", code="ak-key-type"
            )


def _verify_signature(key: AttestationKey, attest: bytes, encoded: bytes) -> None:
    try:
        match parse_signature(encoded), key:
            case EcdsaSignature(r, s), ec.EllipticCurvePublicKey():
                key.verify(utils.encode_dss_signature(r, s), attest, ec.ECDSA(hashes.SHA256()))
            case RsaSignature(value, pss), rsa.RSAPublicKey():
                key.verify(value, attest, _pss() if pss else padding.PKCS1v15(), hashes.SHA256())
            case _:
                raise VerificationError("the signature is not of the attestation key's type", code="quote-signature")
    except InvalidSignature as error:
        raise VerificationError("the quote's signature is not the attestation key's", code="quote-signature") from error


def _pss() -> padding.PSS:
    # TPM 2.0 Part 1, B.7: a salt of the digest's size, or the longest that fits; which one depends on the TPM's FIPS mode.
    return padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
