"""Provenance: a piece of collateral is a vendor's, under a root that the caller trusts, and not older than one seen before.

The checks, each of which refuses with a named code:

1. it parses (``collateral-malformed``);
2. its signer's chain leads to one of the given roots (``untrusted-root``) and none of it is revoked (``collateral-revoked``);
3. its signature holds (``collateral-signature``);
4. it is dated (``collateral-not-yet-valid``) and not over (``collateral-expired``) at ``now``;
5. by ``raise_floor``: evaluation number, issue date and CRL number are none below what was seen (``collateral-rollback``).

A ``ProvenPiece`` is the proof of 1 to 4; nothing else can build one. Sources: Intel PCS API v4 (signature over the raw JSON,
ECDSA P-256 with SHA-256, r || s), RFC 5280 section 5 (CRLs), AMD 57230 (ASK, VCEK and their extensions).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cloister.attestation.depth import check_depth
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.pieces import Family, Piece, PieceId, PieceName
from cloister.attestation.policy import CLOCK_SKEW
from cloister.errors import DecodeError, LocalError, VerificationError, quoted

_SEAL: Final = object()
_MAX_NUMBER: Final = 2**63 - 1
_FAILURES: Final = (
    *(ValueError, TypeError, IndexError, OverflowError, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
_STATEMENT_IDS: Final = {"TDX": EvidenceKind.TDX, "SGX": EvidenceKind.SGX}
_IDENTITY_IDS: Final = {"TD_QE": EvidenceKind.TDX, "QE": EvidenceKind.SGX}
_AMD_PRODUCT: Final = x509.ObjectIdentifier("1.3.6.1.4.1.3704.1.2")
_AMD_CHIP: Final = x509.ObjectIdentifier("1.3.6.1.4.1.3704.1.4")
_AMD_TCB: Final = {"bl": 1, "tee": 2, "snp": 3, "ucode": 8, "fmc": 9}
_TCB_PLACES: Final = {"bl": 0, "tee": 1, "snp": 6, "ucode": 7}
_TURIN_PLACES: Final = {"fmc": 0, "bl": 1, "tee": 2, "snp": 3, "ucode": 7}


@dataclass(frozen=True, slots=True)
class Floor:
    """What must never be gone below for one id: None where such a piece has no such number. ``issued``: unix seconds."""

    issued: int
    evaluation: int | None = None
    number: int | None = None


class RootedPiece(Protocol):
    """A piece that was proven, now or before it was stored."""

    @property
    def piece(self) -> Piece: ...

    @property
    def id(self) -> PieceId: ...

    @property
    def root(self) -> bytes:
        """SHA-256 of the root certificate under which it was proven."""
        ...


@dataclass(frozen=True, slots=True)
class ProvenPiece:
    """Proof that ``piece`` is its vendor's. ``root``: SHA-256 of the root certificate. Times are unix seconds.

    ``next_update`` is when the piece, or a certificate in its chain, is over. Built by ``prove_piece`` only.
    """

    piece: Piece
    id: PieceId
    root: bytes
    floor: Floor
    next_update: int
    _seal: object

    def __post_init__(self) -> None:
        if self._seal is not _SEAL:
            raise LocalError("a proven piece is built by prove_piece() only")


def root_fingerprint(der: bytes) -> bytes:
    """SHA-256 of a root certificate: what ``ProvenPiece.root`` names it by."""
    return hashlib.sha256(der).digest()


def prove_piece(piece: Piece, *, roots: Sequence[bytes], now: int, known: Sequence[RootedPiece] = ()) -> ProvenPiece:
    """Checks 1 to 4. ``roots``: trusted certificates (DER) of the family. ``known``: pieces proven before, of which CRLs revoke
    and AMD's intermediate certificates lead on to a chip's.

    Raises:
        DecodeError: check 1. VerificationError: checks 2 to 4.
    """
    anchors = [_load_certificate(root) for root in roots]
    try:
        key, anchor, issued, over, floor = _read(piece, anchors, known)
        if piece.chain:
            piece = replace(piece, chain=_write_chain(piece.chain, anchor))
    except _FAILURES as error:
        raise DecodeError(f"the {piece.name} does not parse", code="collateral-malformed") from error
    what = PieceId(piece.family, piece.name, key)
    if issued > now + CLOCK_SKEW:
        raise VerificationError(f"{what} is dated {_day(issued)}, which is to come", code="collateral-not-yet-valid")
    if over <= now:
        raise VerificationError(f"{what} is over since {_day(over)}", code="collateral-expired")
    return ProvenPiece(piece, what, _fingerprint(anchor), floor, over, _SEAL)


def raise_floor(seen: Floor | None, piece: ProvenPiece) -> Floor:
    """Check 5; answers with the new floor. A certificate says nothing about the state of a platform and has none: the old one
    stays good beside the new one until it is revoked.

    Raises:
        VerificationError: ``collateral-rollback``.
    """
    new = piece.floor
    if seen is None or piece.id.name is PieceName.CERTIFICATE:
        return new
    for what, old, given in (
        ("evaluation number", seen.evaluation, new.evaluation),
        ("CRL number", seen.number, new.number),
    ):
        if old is not None and (given is None or given < old):
            raise VerificationError(
                f"{piece.id} has {what} {given} where {old} was seen before", code="collateral-rollback"
            )
    if new.issued < seen.issued:
        raise VerificationError(
            f"{piece.id} is of {_day(new.issued)} where one of {_day(seen.issued)} was seen before",
            code="collateral-rollback",
        )
    return new


_Read = tuple[str, x509.Certificate, int, int, Floor]
"""Key, root, issued, over, floor."""


def _read(piece: Piece, anchors: Sequence[x509.Certificate], known: Sequence[RootedPiece]) -> _Read:
    match piece.family, piece.name:
        case Family.INTEL, (PieceName.TCB_INFO | PieceName.QE_IDENTITY):
            return _read_statement(piece, anchors, known)
        case Family.INTEL, PieceName.PCK_CRL:
            issuer, anchor = _walk(piece.chain, anchors, known, ca=True)
            return _read_crl(piece, issuer, anchor, _pck_key(issuer))
        case (Family.INTEL, PieceName.ROOT_CRL) | (Family.TPM, PieceName.CRL):
            anchor = _issuer_of_crl(piece, anchors)
            return _read_crl(piece, anchor, anchor, "root")
        case Family.AMD, PieceName.CRL:
            anchor = _issuer_of_crl(piece, anchors)
            return _read_crl(piece, anchor, anchor, _amd_product(anchor))
        case Family.AMD, PieceName.CERTIFICATE:
            return _read_amd_certificate(piece, anchors, known)
        case _:
            raise DecodeError(f"{piece.family} has no {piece.name}", code="collateral-malformed")


def _read_statement(piece: Piece, anchors: Sequence[x509.Certificate], known: Sequence[RootedPiece]) -> _Read:
    signer, anchor = _walk(piece.chain, anchors, known, ca=False)
    key = signer.public_key()
    if not isinstance(key, EllipticCurvePublicKey) or len(piece.signature) != 64:
        raise VerificationError(f"the {piece.name} is not signed with P-256", code="collateral-signature")
    r, s = (int.from_bytes(half, "big") for half in (piece.signature[:32], piece.signature[32:]))
    try:
        key.verify(encode_dss_signature(r, s), piece.body, ECDSA(SHA256()))
    except InvalidSignature as error:
        raise VerificationError(f"the signature of the {piece.name} is wrong", code="collateral-signature") from error
    try:
        value = json.loads(check_depth(piece.body))
        kinds = _STATEMENT_IDS if piece.name is PieceName.TCB_INFO else _IDENTITY_IDS
        kind, evaluation = kinds[value["id"]], value["tcbEvaluationDataNumber"]
        issued, over = _parse_date(value["issueDate"]), _parse_date(value["nextUpdate"])
        fmspc = bytes.fromhex(value["fmspc"]).hex() if piece.name is PieceName.TCB_INFO else ""
    except (KeyError, RecursionError) as error:
        raise DecodeError(f"the {piece.name} lacks what it must say", code="collateral-malformed") from error
    if isinstance(evaluation, bool) or not isinstance(evaluation, int) or not 0 <= evaluation <= _MAX_NUMBER:
        raise DecodeError(f"the {piece.name} has no evaluation number", code="collateral-malformed")
    name = f"{kind}/{fmspc}" if fmspc else str(kind)
    over = min(over, *(_timestamp(each.not_valid_after_utc) for each in (signer, anchor)))
    return name, anchor, issued, over, Floor(issued, evaluation=evaluation)


def _read_crl(piece: Piece, issuer: x509.Certificate, anchor: x509.Certificate, key: str) -> _Read:
    crl = x509.load_der_x509_crl(piece.body)
    if not piece.body.endswith(b"\0" + crl.signature):  # a BIT STRING of whole bytes, and nothing behind it
        raise DecodeError(f"the {piece.name} has another encoding than DER", code="collateral-malformed")
    if crl.issuer != issuer.subject or not _signed_by(crl, issuer):
        raise VerificationError(f"the {piece.name} is not signed by its issuer", code="collateral-signature")
    if crl.next_update_utc is None:
        raise DecodeError(f"the {piece.name} does not say when the next one comes", code="collateral-malformed")
    number = None
    with suppress(x509.ExtensionNotFound):
        number = min(crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number, _MAX_NUMBER)
    issued = _timestamp(crl.last_update_utc)
    over = min(_timestamp(crl.next_update_utc), *(_timestamp(each.not_valid_after_utc) for each in (issuer, anchor)))
    return key, anchor, issued, over, Floor(issued, number=number)


def _read_amd_certificate(piece: Piece, anchors: Sequence[x509.Certificate], known: Sequence[RootedPiece]) -> _Read:
    certificate = _load_certificate(piece.body)
    anchor = _issuer(certificate, anchors)
    if anchor is not None and _fingerprint(anchor) == _fingerprint(certificate):
        raise DecodeError("a root is no collateral: the relying party names it", code="collateral-malformed")
    between = None
    if anchor is None:
        intermediates = {
            each.piece.body: each.root
            for each in known
            if each.id.family is Family.AMD and each.id.name is PieceName.CERTIFICATE and each.id.key.count("/") == 1
        }
        between = _issuer(certificate, [_load_certificate(der) for der in intermediates])
        if between is None:
            raise VerificationError("the certificate does not lead to a trusted root", code="untrusted-root")
        anchor = next(
            (each for each in anchors if _fingerprint(each) == intermediates[between.public_bytes(Encoding.DER)]), None
        )
        if anchor is None:
            raise VerificationError("the certificate does not lead to a trusted root", code="untrusted-root")
    for each in (certificate, between):
        if each is not None:
            _check_revoked(each, known, _fingerprint(anchor))
    product = _amd_product(anchor)
    key = f"{product}/{_intermediate_key(certificate)}" if between is None else f"{product}/{_chip_key(certificate)}"
    issued = _timestamp(certificate.not_valid_before_utc)
    chain = [each for each in (certificate, between, anchor) if each is not None]
    return key, anchor, issued, min(_timestamp(each.not_valid_after_utc) for each in chain), Floor(issued)


def _write_chain(chain: bytes, anchor: x509.Certificate) -> bytes:
    """The chain as far as it was proven, in one form: what else came in it is not kept."""
    signer = x509.load_pem_x509_certificates(chain)[0]
    return signer.public_bytes(Encoding.PEM) + anchor.public_bytes(Encoding.PEM)


def _walk(
    chain: bytes, anchors: Sequence[x509.Certificate], known: Sequence[RootedPiece], *, ca: bool
) -> tuple[x509.Certificate, x509.Certificate]:
    """The first certificate of a PEM chain, and the trusted root that signed it itself. Whatever else stands in the chain is
    not asked: roots do not come with what they prove.
    """
    certificates = x509.load_pem_x509_certificates(chain)
    if len(certificates) > 4:
        raise DecodeError(f"a chain of {len(certificates)} certificates", code="collateral-malformed")
    signer = _strict(certificates[0])
    anchor = _issuer(signer, anchors)
    if anchor is None or _fingerprint(anchor) == _fingerprint(signer):
        raise VerificationError("the chain does not lead to a trusted root", code="untrusted-root")
    if _is_ca(signer) is not ca:
        raise VerificationError("the signing certificate is not one for this", code="collateral-signature")
    _check_revoked(signer, known, _fingerprint(anchor))
    return signer, anchor


def _issuer(certificate: x509.Certificate, candidates: Iterable[x509.Certificate]) -> x509.Certificate | None:
    """The candidate whose key signed ``certificate``, found by name and proven by signature."""
    for candidate in candidates:
        with suppress(InvalidSignature, *_FAILURES):
            certificate.verify_directly_issued_by(candidate)
            return candidate
    return None


def _issuer_of_crl(piece: Piece, anchors: Sequence[x509.Certificate]) -> x509.Certificate:
    crl = x509.load_der_x509_crl(piece.body)
    named = [each for each in anchors if each.subject == crl.issuer]
    found = next((each for each in named if _signed_by(crl, each)), None)
    if found is None:
        raise VerificationError(f"the {piece.name} is not signed by a trusted root", code="untrusted-root")
    return found


def _signed_by(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    if not isinstance(key, EllipticCurvePublicKey | RSAPublicKey):
        return False
    try:
        return crl.is_signature_valid(key)
    except _FAILURES:
        return False


def _check_revoked(certificate: x509.Certificate, known: Sequence[RootedPiece], root: bytes) -> None:
    for each in known:
        if each.root != root or each.id.name not in (PieceName.ROOT_CRL, PieceName.CRL):
            continue
        crl = x509.load_der_x509_crl(each.piece.body)
        if (
            crl.issuer == certificate.issuer
            and crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        ):
            raise VerificationError("the signing certificate is revoked", code="collateral-revoked")


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _pck_key(issuer: x509.Certificate) -> str:
    """Intel's two issuers of PCK certificates are told apart by name, as its own API does."""
    name = _common_name(issuer)
    for key in ("platform", "processor"):
        if key.capitalize() in name:
            return key
    raise DecodeError(f"{quoted(name)} is neither the platform nor the processor CA", code="collateral-malformed")


def _amd_product(anchor: x509.Certificate) -> str:
    """``Milan`` of ``ARK-Milan``."""
    name = _common_name(anchor).removeprefix("ARK-")
    if not name.isalnum() or not name.isascii() or len(name) > 16:
        raise DecodeError(f"{quoted(name)} is not the name of a product", code="collateral-malformed")
    return name


def _intermediate_key(certificate: x509.Certificate) -> str:
    """AMD's ASK signs chips' keys, its ASVK the keys of cloud providers."""
    if not _is_ca(certificate):
        raise VerificationError("a certificate under the root is not an intermediate one", code="untrusted-root")
    return "asvk" if "VLEK" in _common_name(certificate) else "ask"


def _chip_key(certificate: x509.Certificate) -> str:
    """``<chip id>/<tcb>`` of a VCEK, from the extensions that AMD signs into it."""
    extensions = {each.oid: each.value for each in certificate.extensions}
    raw = {oid: value.value for oid, value in extensions.items() if isinstance(value, x509.UnrecognizedExtension)}
    if _AMD_CHIP not in raw or _AMD_PRODUCT not in raw:
        raise DecodeError("the certificate names no chip", code="collateral-malformed")
    # Some of AMD's issuers wrap the id in an OCTET STRING, most do not.
    chip = raw[_AMD_CHIP]
    if len(chip) in (10, 66) and chip[0] == 4:
        chip = chip[2:]
    places = _TURIN_PLACES if b"Turin" in raw[_AMD_PRODUCT] else _TCB_PLACES
    tcb = bytearray(8)
    for name, place in places.items():
        oid = x509.ObjectIdentifier(f"1.3.6.1.4.1.3704.1.3.{_AMD_TCB[name]}")
        value = raw.get(oid, b"")
        # An INTEGER of 0 to 255 has one or two content bytes.
        if len(value) not in (3, 4) or value[0] != 2 or int.from_bytes(value[2:], "big") > 255:
            raise DecodeError("the certificate names no TCB", code="collateral-malformed")
        tcb[place] = int.from_bytes(value[2:], "big")
    if len(chip) not in (8, 64):
        raise DecodeError("the certificate names no chip", code="collateral-malformed")
    return f"{chip.hex()}/{tcb.hex()}"


def _load_certificate(der: bytes) -> x509.Certificate:
    try:
        return _strict(x509.load_der_x509_certificate(der))
    except _FAILURES as error:
        raise DecodeError("a certificate does not parse", code="collateral-malformed") from error


def _strict(certificate: x509.Certificate) -> x509.Certificate:
    """Refuse the other spellings of one signature that the library reads: a BIT STRING here has whole bytes."""
    if not certificate.public_bytes(Encoding.DER).endswith(b"\0" + certificate.signature):
        raise DecodeError("a certificate has another encoding than DER", code="collateral-malformed")
    return certificate


def _fingerprint(certificate: x509.Certificate) -> bytes:
    return root_fingerprint(certificate.public_bytes(Encoding.DER))


def _parse_date(text: object) -> int:
    if not isinstance(text, str):
        raise TypeError
    return _timestamp(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC))


def _timestamp(date: datetime) -> int:
    return int(date.timestamp())


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
