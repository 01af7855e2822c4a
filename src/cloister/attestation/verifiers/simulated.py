"""Simulated evidence: the whole production path with a software signer in the hardware's place.

It proves nothing against the host: whoever has the platform key can sign any measurement. Every appraisal that rests
on it is marked so. Each network makes its own root; nothing is trusted by its name.

Payload, deterministic CBOR: ``[1, certificate, statement, signature]``. ``certificate`` is the platform's X.509
certificate (DER, Ed25519) signed by the root; ``statement`` is the CBOR of ``{1: measurement (32 bytes), 2: report
data (64), 3: issued at (unix seconds), 4: debug, 5: security version}``; ``signature`` is the platform key's Ed25519
signature over ``STATEMENT_DOMAIN || statement``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloister.attestation.cbor import Value, parse_cbor
from cloister.attestation.claims import Claims
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.statement import SIMULATED_DOMAIN, VERSION
from cloister.errors import DecodeError, VerificationError

MAX_CERTIFICATE = 2048
_MAX_DATE = 2**53
_ED25519_DER = bytes.fromhex("300506032b6570" + "034100")
"""AlgorithmIdentifier of Ed25519 (RFC 8410), then the head of a BIT STRING of 64 bytes."""


def verify_simulated(payload: bytes, roots: Iterable[bytes], now: int) -> Claims:
    """Check root, platform certificate and signature; answer with what the platform signed.

    ``roots``: trusted root certificates (DER). ``now``: unix seconds at which the certificates must be valid.

    Raises:
        DecodeError: not exactly the format above.
        VerificationError: no root given, certificate not signed by one of them or not valid at ``now``, bad signature.
    """
    certificate_der, statement, signature = _parse_payload(payload)
    certificate = _load_certificate(certificate_der)
    root_der = _verify_certificate(certificate, roots, now)
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationError("the platform key is not an Ed25519 key", code="platform-key-type")
    try:
        key.verify(signature, SIMULATED_DOMAIN + statement)
    except InvalidSignature as error:
        raise VerificationError(
            "the platform's signature over the statement is wrong", code="evidence-signature"
        ) from error
    measurement, report_data, issued_at, debug, svn = _parse_statement(statement)
    return Claims(
        kind=EvidenceKind.SIMULATED,
        measurement=measurement,
        report_data=report_data,
        issued_at=issued_at,
        debug=debug,
        svn=svn,
        root=hashlib.sha256(root_der).digest(),
        platform=hashlib.sha256(certificate_der).digest(),
    )


def build_root(key: Ed25519PrivateKey, *, name: str, serial: int, not_before: int, not_after: int) -> bytes:
    """Make a network's self-signed test root certificate (DER). Times are unix seconds."""
    subject = _name(name)
    builder = _builder(subject, subject, key.public_key(), serial, not_before, not_after)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(key, algorithm=None).public_bytes(Encoding.DER)


def build_platform_certificate(
    root_key: Ed25519PrivateKey,
    root: bytes,
    platform: Ed25519PublicKey,
    *,
    name: str,
    serial: int,
    not_before: int,
    not_after: int,
) -> bytes:
    """Make the certificate (DER) of one simulated machine, signed by the network's root."""
    issuer = _load_certificate(root)
    builder = _builder(_name(name), issuer.subject, platform, serial, not_before, not_after)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.sign(root_key, algorithm=None).public_bytes(Encoding.DER)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, serial: int, not_before: int, not_after: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after, UTC))
    )


def _parse_payload(payload: bytes) -> tuple[bytes, bytes, bytes]:
    match parse_cbor(payload):
        case [int(version), bytes(certificate), bytes(statement), bytes(signature)]:
            pass
        case _:
            raise DecodeError(
                "simulated evidence is not [version, certificate, statement, signature]", code="evidence-malformed"
            )
    if version != VERSION or isinstance(version, bool):
        raise DecodeError(f"simulated evidence has version {version} instead of {VERSION}", code="evidence-version")
    if len(certificate) > MAX_CERTIFICATE:
        raise DecodeError(f"the platform certificate has {len(certificate)} bytes", code="evidence-malformed")
    if len(signature) != 64:
        raise DecodeError(f"the signature has {len(signature)} bytes instead of 64", code="evidence-malformed")
    return certificate, statement, signature


def _load_certificate(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Parsing is lazy: touch the parts that are used, so that a bad one fails here and under our name.
        _ = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
        rebuilt = certificate.public_bytes(Encoding.DER)
    except Exception as error:
        # The parser raises many types; whichever it is, these bytes are no certificate.
        raise DecodeError("a certificate does not parse", code="certificate-malformed") from error
    # What stands outside the signed part has one form: an outer algorithm that differs from the inner one would go unseen.
    outside = _ED25519_DER + certificate.signature
    if rebuilt != der or not der.endswith(certificate.tbs_certificate_bytes + outside):
        raise DecodeError("a certificate is not in the one form of Ed25519", code="certificate-malformed")
    return certificate


def _verify_certificate(certificate: x509.Certificate, roots: Iterable[bytes], now: int) -> bytes:
    """Find the root that signed ``certificate`` and answer with its DER. Roots are compared by key, never by name
    alone.
    """
    given = tuple(roots)
    if not given:
        raise VerificationError("no simulated root is trusted here", code="no-trusted-root")
    for root_der in given:
        root = _load_certificate(root_der)
        root_key = root.public_key()
        if not isinstance(root_key, Ed25519PublicKey) or root.subject != certificate.issuer:
            continue
        try:
            root_key.verify(certificate.signature, certificate.tbs_certificate_bytes)
        except InvalidSignature:
            continue
        if not _constraint(root).ca:
            raise VerificationError("the root certificate is not an authority's", code="certificate-not-authority")
        if _constraint(certificate).ca:
            raise VerificationError("the platform certificate is an authority's", code="certificate-not-platform")
        _check_validity(root, "root", now)
        _check_validity(certificate, "platform", now)
        return root_der
    raise VerificationError("no trusted root signed the platform certificate", code="untrusted-root")


def _constraint(certificate: x509.Certificate) -> x509.BasicConstraints:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound as error:
        raise VerificationError("a certificate has no basic constraints", code="certificate-malformed") from error


def _check_validity(certificate: x509.Certificate, what: str, now: int) -> None:
    if now < certificate.not_valid_before_utc.timestamp():
        raise VerificationError(f"the {what} certificate is not valid yet", code="certificate-not-yet-valid")
    if now > certificate.not_valid_after_utc.timestamp():
        raise VerificationError(f"the {what} certificate has expired", code="certificate-expired")


def _parse_statement(statement: bytes) -> tuple[bytes, bytes, int, bool, int]:
    value: Value = parse_cbor(statement)
    if not isinstance(value, dict) or set(value) != {1, 2, 3, 4, 5}:
        raise DecodeError("the platform's statement does not have exactly the fields 1 to 5", code="evidence-malformed")
    match (value[1], value[2], value[3], value[4], value[5]):
        case (bytes(measurement), bytes(report_data), int(issued_at), bool(debug), int(svn)):
            pass
        case _:
            raise DecodeError("a field of the platform's statement has the wrong type", code="evidence-malformed")
    if len(measurement) != 32 or len(report_data) != 64:
        raise DecodeError("measurement or report data has the wrong length", code="evidence-malformed")
    if not 0 <= issued_at < _MAX_DATE or not 0 <= svn < 2**32 or isinstance(issued_at, bool) or isinstance(svn, bool):
        raise DecodeError("time or security version is out of range", code="evidence-malformed")
    return measurement, report_data, issued_at, debug, svn


def build_root_fingerprint(root: bytes) -> bytes:
    """SHA-256 of a root certificate (DER): the name by which a policy trusts it."""
    return hashlib.sha256(root).digest()
