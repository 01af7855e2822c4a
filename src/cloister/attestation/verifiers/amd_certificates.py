"""AMD's certificates and revocation lists, as their key distribution service issues them (AMD 57230).

They are read here and not by a general library because AMD gives every VCEK the serial number zero, which RFC 5280
forbids and libraries announce to refuse, and because only one form is accepted: RSASSA-PSS with SHA-384 over RSA 4096,
inner and outer algorithm alike, critical extensions that are known. The signatures themselves are ``cryptography``'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import load_der_public_key

from cloister.attestation import der
from cloister.attestation.der import Element
from cloister.attestation.snp_payload import MAX_CERTIFICATE
from cloister.errors import DecodeError, VerificationError

MAX_CRL = 256 * 1024
_MAX_REVOKED = 8192
_RSA_BITS = 4096
_PADDING = padding.PSS(mgf=padding.MGF1(SHA384()), salt_length=48)

_PSS = bytes.fromhex("06092a864886f70d01010a")
_MGF1 = bytes.fromhex("06092a864886f70d010108")
_SHA384 = bytes.fromhex("0609608648016503040202")
_COMMON_NAME = bytes.fromhex("550403")
_BASIC_CONSTRAINTS = bytes.fromhex("551d13")
_KEY_USAGE = bytes.fromhex("551d0f")
_DISTRIBUTION_POINT = bytes.fromhex("551d1c")


def _wrap(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content


def _algorithm(null: bytes, trailer: bytes) -> bytes:
    sha384 = _wrap(0x30, _SHA384 + null)
    parameters = _wrap(0xA0, sha384) + _wrap(0xA1, _wrap(0x30, _MGF1 + sha384)) + bytes.fromhex("a203020130") + trailer
    return _wrap(0x30, _PSS + _wrap(0x30, parameters))


_ALGORITHMS = frozenset(
    _algorithm(null, trailer) for null in (b"\x05\x00", b"") for trailer in (bytes.fromhex("a303020101"), b"")
)
"""RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt of 48 (RFC 4055): with the hash's empty parameters or without, and with
the default trailer written out, as AMD does, or left out.
"""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate, parsed and not yet trusted. Names are compared by their bytes, ``serial`` as it is encoded.

    ``not_before`` and ``not_after`` are unix seconds, both inclusive. ``extensions``: value by object identifier (its
    content bytes).
    """

    raw: bytes
    signed: bytes
    signature: bytes
    serial: bytes
    issuer: bytes
    subject: bytes
    common_name: str
    not_before: int
    not_after: int
    key: bytes
    authority: bool
    signs_certificates: bool
    signs_lists: bool
    extensions: Mapping[bytes, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RevocationList:
    """One revocation list, parsed and not yet trusted. Times are unix seconds, both inclusive."""

    signed: bytes
    signature: bytes
    issuer: bytes
    this_update: int
    next_update: int
    revoked: frozenset[bytes]


def parse_certificate(raw: bytes) -> Certificate:
    """Read one certificate in DER.

    Raises:
        DecodeError: ``certificate-malformed``: too long, not DER, another algorithm, a part missing, or a critical
        extension that is not known.
    """
    if len(raw) > MAX_CERTIFICATE:
        raise DecodeError(f"a certificate has {len(raw)} bytes", code="certificate-malformed")
    try:
        return _parse_certificate(raw)
    except DecodeError as error:
        raise DecodeError(f"a certificate does not parse: {error.message}", code="certificate-malformed") from error


def parse_revocation_list(raw: bytes) -> RevocationList:
    """Read one revocation list in DER.

    Raises:
        DecodeError: ``collateral-malformed``: too long, not DER, another algorithm, without a next update, for part of the
        certificates only, or with a critical extension that is not known.
    """
    if len(raw) > MAX_CRL:
        raise DecodeError(f"a revocation list has {len(raw)} bytes", code="collateral-malformed")
    try:
        return _parse_revocation_list(raw)
    except DecodeError as error:
        raise DecodeError(f"a revocation list does not parse: {error.message}", code="collateral-malformed") from error


def signed_by(signed: bytes, signature: bytes, issuer: Certificate) -> bool:
    """Whether the issuer's key made this signature. A yes says nothing about the issuer itself.

    Raises:
        VerificationError: ``certificate-key``: the issuer's key is not RSA of 4,096 bits.
    """
    key = _load_key(issuer)
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size != _RSA_BITS:
        raise VerificationError(f"an issuer's key is not RSA of {_RSA_BITS} bits", code="certificate-key")
    try:
        key.verify(signature, signed, _PADDING, SHA384())
    except InvalidSignature:
        return False
    return True


def load_signing_key(certificate: Certificate) -> ec.EllipticCurvePublicKey:
    """The key that signs reports.

    Raises:
        VerificationError: ``certificate-key``: it is not on P-384.
    """
    key = _load_key(certificate)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise VerificationError("the key that signs reports is not on P-384", code="certificate-key")
    return key


def _load_key(certificate: Certificate) -> object:
    try:
        return load_der_public_key(certificate.key)
    except Exception as error:
        # The loader raises several types; whichever it is, this is no key that can be used.
        raise VerificationError("a certificate's key cannot be used", code="certificate-key") from error


def _parse_envelope(raw: bytes) -> tuple[Element, bytes, bytes]:
    """What certificates and lists share (RFC 5280): the signed part, the algorithm (encoded), the signature."""
    parts = der.parse_children(der.parse_element(raw, der.SEQUENCE), limit=3)
    if len(parts) != 3:
        raise DecodeError("not three parts")
    signed = der.expect(parts[0], der.SEQUENCE)
    if parts[1].raw not in _ALGORITHMS:
        raise DecodeError("the signature's algorithm is not RSASSA-PSS with SHA-384")
    return signed, parts[1].raw, der.parse_bits(parts[2])


def _parse_certificate(raw: bytes) -> Certificate:
    signed, outer, signature = _parse_envelope(raw)
    parts = der.parse_children(signed, limit=8)
    if len(parts) != 8 or parts[0].raw != b"\xa0\x03\x02\x01\x02":
        raise DecodeError("not the eight parts of a version 3 certificate")
    _, serial, algorithm, issuer, validity, subject, key, extensions = parts
    der.parse_integer(serial)
    if algorithm.raw != outer:
        raise DecodeError("the inner and the outer algorithm differ")
    times = der.parse_children(der.expect(validity, der.SEQUENCE), limit=2)
    if len(times) != 2:
        raise DecodeError("the validity is not two times")
    values = _parse_extensions(extensions)
    usage = _parse_usage(values.get(_KEY_USAGE))
    return Certificate(
        raw=raw,
        signed=signed.raw,
        signature=signature,
        serial=serial.content,
        issuer=der.expect(issuer, der.SEQUENCE).raw,
        subject=der.expect(subject, der.SEQUENCE).raw,
        common_name=_parse_common_name(subject),
        not_before=der.parse_time(times[0]),
        not_after=der.parse_time(times[1]),
        key=der.expect(key, der.SEQUENCE).raw,
        authority=_parse_authority(values.get(_BASIC_CONSTRAINTS)),
        signs_certificates=bool(usage & 0x04),
        signs_lists=bool(usage & 0x02),
        extensions=MappingProxyType(values),
    )


def _parse_common_name(name: Element) -> str:
    found = []
    for group in der.parse_children(name, limit=16):
        for attribute in der.parse_children(der.expect(group, der.SET), limit=4):
            parts = der.parse_children(der.expect(attribute, der.SEQUENCE), limit=2)
            if len(parts) != 2:
                raise DecodeError("a part of a name is not a type and a value")
            if der.expect(parts[0], der.OID).content == _COMMON_NAME:
                found.append(parts[1])
    if len(found) != 1 or found[0].tag not in (der.UTF8_STRING, der.PRINTABLE_STRING):
        raise DecodeError("a name does not have one common name")
    try:
        return found[0].content.decode("ascii")
    except UnicodeDecodeError as error:
        raise DecodeError("a common name is not ASCII") from error


def _parse_extensions(holder: Element) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    (sequence,) = der.parse_children(der.expect(holder, der.context(3)), limit=1) or (None,)
    if sequence is None:
        raise DecodeError("the extensions are empty")
    for extension in der.parse_children(der.expect(sequence, der.SEQUENCE), limit=32):
        name, critical, value = _parse_extension(extension)
        if critical and name not in (_BASIC_CONSTRAINTS, _KEY_USAGE):
            raise DecodeError("a critical extension is not known")
        if name in values:
            raise DecodeError("an extension stands twice")
        values[name] = value
    return values


def _parse_extension(extension: Element) -> tuple[bytes, bool, bytes]:
    match der.parse_children(der.expect(extension, der.SEQUENCE), limit=3):
        case [name, value]:
            critical = False
        case [name, flag, value]:
            critical = der.parse_boolean(flag)
            if not critical:
                raise DecodeError("a default is written out")
        case _:
            raise DecodeError("an extension is not a name and a value")
    return der.expect(name, der.OID).content, critical, der.expect(value, der.OCTET_STRING).content


def _parse_authority(value: bytes | None) -> bool:
    if value is None:
        return False
    match der.parse_children(der.parse_element(value, der.SEQUENCE), limit=2):
        case []:
            return False
        case [flag]:
            return der.parse_boolean(flag)
        case [flag, length]:
            der.parse_integer(length)
            return der.parse_boolean(flag)
        case _:
            raise DecodeError("basic constraints have other parts")


def _parse_usage(value: bytes | None) -> int:
    """The first byte of the key usage: 0x04 signs certificates, 0x02 signs revocation lists."""
    if value is None:
        return 0
    content = der.parse_element(value, der.BIT_STRING).content
    if len(content) < 2 or content[0] > 7:
        raise DecodeError("the key usage is empty")
    return content[1]


def _parse_revocation_list(raw: bytes) -> RevocationList:
    signed, outer, signature = _parse_envelope(raw)
    parts = der.parse_children(signed, limit=7)
    if parts and parts[0].tag == der.INTEGER:
        if parts[0].raw != b"\x02\x01\x01":
            raise DecodeError("not version 2")
        parts = parts[1:]
    if len(parts) < 4:
        raise DecodeError("a part is missing")
    algorithm, issuer, this_update, next_update, *rest = parts
    if algorithm.raw != outer:
        raise DecodeError("the inner and the outer algorithm differ")
    revoked: frozenset[bytes] = frozenset()
    if rest and rest[0].tag == der.SEQUENCE:
        revoked = frozenset(_parse_revoked(item) for item in der.parse_children(rest[0], limit=_MAX_REVOKED))
        rest = rest[1:]
    if rest and rest[0].tag == der.context(0):
        _check_list_extensions(rest[0])
        rest = rest[1:]
    if rest:
        raise DecodeError("there are more parts")
    return RevocationList(
        signed=signed.raw,
        signature=signature,
        issuer=der.expect(issuer, der.SEQUENCE).raw,
        this_update=der.parse_time(this_update),
        next_update=der.parse_time(next_update),
        revoked=revoked,
    )


def _parse_revoked(item: Element) -> bytes:
    parts = der.parse_children(der.expect(item, der.SEQUENCE), limit=3)
    if len(parts) < 2:
        raise DecodeError("an entry is not a serial number and a time")
    der.parse_integer(parts[0])
    der.parse_time(parts[1])
    return parts[0].content


def _check_list_extensions(holder: Element) -> None:
    """A list for part of the certificates, or one of changes only, would say "not revoked" of the others."""
    for sequence in der.parse_children(holder, limit=1):
        for extension in der.parse_children(der.expect(sequence, der.SEQUENCE), limit=16):
            name, critical, value = _parse_extension(extension)
            if name == _DISTRIBUTION_POINT:
                _check_distribution_point(value)
            elif critical:
                raise DecodeError("a critical extension is not known")


def _check_distribution_point(value: bytes) -> None:
    """Where a list is published may stand in it (RFC 5280 section 5.2.5, member 0); every other member narrows it."""
    for member in der.parse_children(der.parse_element(value, der.SEQUENCE), limit=6):
        if member.tag != der.context(0):
            raise DecodeError("it is a list for part of the certificates")
