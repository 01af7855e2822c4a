"""Certificates of a TPM's two keys, both issued by one trusted root (X.509, RFC 5280).

* endorsement key: it names the TPM. Extended key usage tcg-kp-EKCertificate, key usage keyEncipherment or keyAgreement;
* attestation key: it signs quotes. tcg-kp-AIKCertificate, digitalSignature; its subject's serialNumber is the SHA-256 (hex)
  of the endorsement key's SubjectPublicKeyInfo (DER). The root writes that only after TPM2_ActivateCredential proved that
  both keys are in one TPM (TPM 2.0 Library, Part 1, 24).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.errors import DecodeError, VerificationError

EK_PURPOSE = ObjectIdentifier("2.23.133.8.1")
"""tcg-kp-EKCertificate."""
AK_PURPOSE = ObjectIdentifier("2.23.133.8.3")
"""tcg-kp-AIKCertificate."""
MAX_CRL = 256 * 1024

_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_CURVES = (ec.SECP256R1, ec.SECP384R1)
_MIN_RSA_BITS = 2048
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)
"""Extensions that may be critical: their rules are kept here, or (names and identifiers) they allow nothing by themselves."""


@dataclass(frozen=True, slots=True)
class TpmIdentity:
    """What a trusted root vouches for: both keys, and that they are in one TPM. Built by ``verify_identity``.

    ``platform``: SHA-256 of the endorsement key (SubjectPublicKeyInfo, DER). ``root``: SHA-256 of the root (DER).
    ``crl_checked``: a revocation list of that root was at hand, was in force and names neither certificate.
    """

    attestation_key: object
    platform: bytes
    root: bytes
    crl_checked: bool


def verify_identity(ak_der: bytes, ek_der: bytes, collateral: Collateral, now: int) -> TpmIdentity:
    """Check both certificates against the roots for TPMs in ``collateral``. ``now``: unix seconds.

    Raises:
        DecodeError: ``certificate-malformed``, ``collateral-malformed``.
        VerificationError: ``no-trusted-root``, ``untrusted-root``, ``certificate-not-authority``,
            ``certificate-not-end-entity``, ``certificate-purpose``, ``certificate-expired``, ``certificate-not-yet-valid``,
            ``certificate-revoked``, ``collateral-expired``, ``ak-not-bound``.
    """
    roots = collateral.roots_of(EvidenceKind.TPM)
    if not roots:
        raise VerificationError("no root of tpms is trusted here", code="no-trusted-root")
    ak, ek = load_certificate(ak_der), load_certificate(ek_der)
    root = _find_issuer((ek, ak), roots, now)
    for certificate, what in ((root, "root"), (ek, "endorsement key's"), (ak, "attestation key's")):
        _check_validity(certificate, what, now)
    _check_authority(root)
    _check_end_entity(ek, "endorsement key's", EK_PURPOSE)
    _check_end_entity(ak, "attestation key's", AK_PURPOSE)
    checked = _check_revocation(root, (ak, ek), collateral.documents_of(EvidenceKind.TPM, "crl"), now)
    platform = key_fingerprint(ek.public_key())
    names = ak.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    if len(names) != 1 or not hmac.compare_digest(str(names[0].value).encode(), platform.hex().encode()):
        raise VerificationError("the attestation key is not bound to this endorsement key", code="ak-not-bound")
    return TpmIdentity(ak.public_key(), platform, root.fingerprint(hashes.SHA256()), checked)


def key_fingerprint(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | object) -> bytes:
    """SHA-256 of a public key's SubjectPublicKeyInfo (DER): the name of a TPM, when it is an endorsement key.

    Raises:
        VerificationError: ``ek-key-type``, neither an elliptic curve's nor RSA.
    """
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)):
        raise VerificationError("the endorsement key is of a type that no tpm has", code="ek-key-type")
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def load_certificate(der: bytes) -> x509.Certificate:
    """Parse one certificate; these bytes and no others are its encoding.

    Raises:
        DecodeError: ``certificate-malformed``.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Parsing is lazy: touch the parts that are used, so that a bad one fails here and under our name.
        _ = (certificate.subject, certificate.issuer, certificate.public_key(), certificate.signature_hash_algorithm)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc, certificate.serial_number)
        critical = [extension.oid for extension in certificate.extensions if extension.critical]
        rebuilt = certificate.public_bytes(Encoding.DER)
    except Exception as error:
        # The parser raises many types; whichever it is, these bytes are no certificate.
        raise DecodeError("a certificate does not parse", code="certificate-malformed") from error
    # The library does not look at the count of unused bits that stands before the signature.
    if rebuilt != der or not der.endswith(b"\0" + certificate.signature):
        raise DecodeError("a certificate is not in its one encoding", code="certificate-malformed")
    if not _UNDERSTOOD.issuperset(critical):
        raise DecodeError("a certificate has a critical extension that is unknown here", code="certificate-malformed")
    return certificate


def _find_issuer(certificates: Sequence[x509.Certificate], roots: Iterable[bytes], now: int) -> x509.Certificate:
    """The root that signed all of them. Roots are compared by key, never by name alone; one key may have an old certificate
    and a new one, then the one that is in force counts.
    """
    issuers = []
    for der in roots:
        root = load_certificate(der)
        if _is_strong(root.public_key()) and all(_is_issued(item, root) for item in certificates):
            issuers.append(root)
    if not issuers:
        raise VerificationError("no trusted root signed both of the tpm's certificates", code="untrusted-root")
    return next((root for root in issuers if _is_valid(root, now)), issuers[0])


def _is_issued(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    if not isinstance(certificate.signature_hash_algorithm, _HASHES):
        return False
    try:
        certificate.verify_directly_issued_by(root)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _is_strong(key: object) -> bool:
    match key:
        case ec.EllipticCurvePublicKey():
            return isinstance(key.curve, _CURVES)
        case rsa.RSAPublicKey():
            return key.key_size >= _MIN_RSA_BITS
        case _:
            return False


def _is_valid(certificate: x509.Certificate, now: int) -> bool:
    return certificate.not_valid_before_utc.timestamp() <= now <= certificate.not_valid_after_utc.timestamp()


def _check_validity(certificate: x509.Certificate, what: str, now: int) -> None:
    if now < certificate.not_valid_before_utc.timestamp():
        raise VerificationError(f"the {what} certificate is not valid yet", code="certificate-not-yet-valid")
    if now > certificate.not_valid_after_utc.timestamp():
        raise VerificationError(f"the {what} certificate has expired", code="certificate-expired")


def _check_authority(root: x509.Certificate) -> None:
    constraints, usage = _constraints(root), _key_usage(root)
    if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
        raise VerificationError("the root certificate is not an authority's", code="certificate-not-authority")


def _check_end_entity(certificate: x509.Certificate, what: str, purpose: ObjectIdentifier) -> None:
    constraints, usage = _constraints(certificate), _key_usage(certificate)
    if constraints is not None and constraints.ca:
        raise VerificationError(f"the {what} certificate is an authority's", code="certificate-not-end-entity")
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        purposes = x509.ExtendedKeyUsage([])
    if purpose not in purposes or usage is None or usage.key_cert_sign:
        raise VerificationError(f"the {what} certificate was issued for something else", code="certificate-purpose")
    fits = usage.digital_signature if purpose == AK_PURPOSE else usage.key_encipherment or usage.key_agreement
    if not fits:
        raise VerificationError(f"the {what} key may not be used as one", code="certificate-purpose")


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return None


def _key_usage(certificate: x509.Certificate) -> x509.KeyUsage | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None


def _check_revocation(
    root: x509.Certificate, certificates: Iterable[x509.Certificate], documents: Iterable[bytes], now: int
) -> bool:
    """Honour every list that the root signed; others say nothing here. True when at least one was in force."""
    lists = [crl for crl in (_load_crl(document) for document in documents) if _is_list_of(crl, root)]
    for crl in lists:
        # A list that has run out still tells who was revoked.
        if any(crl.get_revoked_certificate_by_serial_number(item.serial_number) is not None for item in certificates):
            raise VerificationError("a certificate of this tpm has been revoked", code="certificate-revoked")
    if lists and not any(_is_in_force(crl, now) for crl in lists):
        raise VerificationError("no revocation list of the root is in force", code="collateral-expired")
    return bool(lists)


def _load_crl(der: bytes) -> x509.CertificateRevocationList:
    if len(der) > MAX_CRL:
        raise DecodeError(f"a revocation list has {len(der)} bytes; the cap is {MAX_CRL}", code="collateral-malformed")
    try:
        crl = x509.load_der_x509_crl(der)
        # A critical extension narrows what a list covers (RFC 5280, 5.2): none is understood here.
        narrowed = any(extension.critical for extension in crl.extensions)
        _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc, [item.serial_number for item in crl])
    except Exception as error:
        raise DecodeError("a revocation list does not parse", code="collateral-malformed") from error
    if narrowed:
        raise DecodeError("a revocation list has a critical extension", code="collateral-malformed")
    return crl


def _is_list_of(crl: x509.CertificateRevocationList, root: x509.Certificate) -> bool:
    key = root.public_key()
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)) or crl.issuer != root.subject:
        return False
    try:
        return isinstance(crl.signature_hash_algorithm, _HASHES) and crl.is_signature_valid(key)
    except Exception:  # noqa: BLE001
        # An algorithm that the library does not know: not a list that this root signs.
        return False


def _is_in_force(crl: x509.CertificateRevocationList, now: int) -> bool:
    until = crl.next_update_utc
    return until is not None and crl.last_update_utc.timestamp() <= now <= until.timestamp()
