"""What Intel publishes about its platforms, and the proof that Intel published it.

One document has the members of a ``QuoteCollateralV3`` (JSON; binary members in hex): TCB info and QE identity, each with
its signature and its signer's chain; the CRL of the PCK certificates' CA with that CA's chain; the root's CRL; and
``pck_certificate_chain`` when the quote does not carry one.

A document may come from anybody. ``authenticate`` proves every part by the relying party's root and by its dates before
one word of it decides anything, so that a forged document can neither speak for a platform nor push a sound one aside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cloister.attestation.evidence import EvidenceKind
from cloister.errors import DecodeError, TooLarge, VerificationError, quoted

MAX_DOCUMENT = 256 * 1024
MAX_CHAIN = 64 * 1024
_MAX_CERTIFICATES = 4
_MAX_DEPTH = 32
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_TEXTS = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "tcb_info", "qe_identity_issuer_chain", "qe_identity")
_HEXES = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
_OPTIONAL = "pck_certificate_chain"
_IDS = {EvidenceKind.TDX: "TDX", EvidenceKind.SGX: "SGX"}


@dataclass(frozen=True, slots=True)
class Statement:
    """A signed JSON of Intel's: TCB info or QE identity. ``value`` means nothing before the signature is checked."""

    what: str
    value: dict[str, object]
    text: bytes
    signature: bytes
    chain: tuple[x509.Certificate, ...]
    issued: int
    until: int
    evaluation: int


@dataclass(frozen=True, slots=True)
class DcapDocument:
    """One document, parsed and not yet proven. ``members`` are its own, for the library."""

    members: dict[str, str]
    tcb_info: Statement
    qe_identity: Statement
    ca_chain: tuple[x509.Certificate, ...]
    pck_crl: x509.CertificateRevocationList
    root_crl: x509.CertificateRevocationList

    @property
    def fmspc(self) -> str:
        """Family, model and stepping that the TCB info is for: 12 hex digits, lower case."""
        return str(self.tcb_info.value.get("fmspc", "")).lower()

    def is_for(self, kind: EvidenceKind) -> bool:
        """Whether the TCB info is for this TEE."""
        return self.tcb_info.value.get("id") == _IDS[kind]

    @property
    def age(self) -> tuple[int, int, int]:
        """Sorts the newest last: evaluation number first, as Intel counts it up with every recovery."""
        return self.tcb_info.evaluation, self.tcb_info.issued, int(self.pck_crl.last_update_utc.timestamp())


def parse_document(content: bytes) -> DcapDocument:
    """Read one document.

    Raises:
        TooLarge: over 256 KiB. DecodeError: ``collateral-malformed``, ``certificate-malformed``.
    """
    if len(content) > MAX_DOCUMENT:
        raise TooLarge(
            f"a dcap document of {len(content)} bytes is over the cap of {MAX_DOCUMENT}", code="collateral-too-large"
        )
    value = _parse_json(content, "a dcap document")
    members: dict[str, str] = {}
    for name in (*_TEXTS, *_HEXES):
        member = value.get(name)
        if not isinstance(member, str) or not member:
            raise DecodeError(f"a dcap document has no text member {name}", code="collateral-malformed")
        members[name] = member
    chain = value.get(_OPTIONAL)
    if isinstance(chain, str) and chain:
        members[_OPTIONAL] = chain
    binary = {name: _parse_hex(members[name], name) for name in _HEXES}
    return DcapDocument(
        members=members,
        tcb_info=_parse_statement(members, "tcb_info", binary["tcb_info_signature"]),
        qe_identity=_parse_statement(members, "qe_identity", binary["qe_identity_signature"]),
        ca_chain=parse_chain(members["pck_crl_issuer_chain"].encode(), "the PCK CRL's issuer"),
        pck_crl=_parse_crl(binary["pck_crl"], "PCK"),
        root_crl=_parse_crl(binary["root_ca_crl"], "root"),
    )


def authenticate(document: DcapDocument, root: x509.Certificate, now: int) -> None:
    """Prove that ``document`` was published under ``root`` and is current at ``now`` (unix seconds).

    Raises:
        VerificationError: ``untrusted-root``, ``certificate-chain``, ``certificate-expired``,
            ``certificate-not-yet-valid``, ``certificate-revoked`` (a signer's or CA's), ``crl-signature``,
            ``collateral-signature``, ``qe-identity-signature``, ``collateral-expired``, ``collateral-not-yet-valid``.
    """
    ca = document.ca_chain[0]
    verify_chain(document.ca_chain, root, document.root_crl, "PCK CA", now)
    _verify_crl(document.root_crl, root, "root", now)
    _verify_crl(document.pck_crl, ca, "PCK", now)
    for statement, code in (
        (document.tcb_info, "collateral-signature"),
        (document.qe_identity, "qe-identity-signature"),
    ):
        verify_chain(statement.chain, root, document.root_crl, f"{statement.what} signer", now)
        # A PCK certificate leads to the same root. What the root issued itself, and only that, signs for all platforms.
        if not _is_issued_by(statement.chain[0], root):
            raise VerificationError(f"the {statement.what}'s signer is not the root's own", code=code)
        _verify_signature(statement, code)
        check_dates(statement.issued, statement.until, f"the {statement.what}", now)


def parse_chain(pem: bytes, what: str) -> tuple[x509.Certificate, ...]:
    """One to four certificates, the leaf first; a self-issued one at the end is dropped, as a root is never taken from
    there.

    Raises:
        DecodeError: ``certificate-malformed``.
    """
    if len(pem) > MAX_CHAIN:
        raise DecodeError(f"the certificate chain of {what} has {len(pem)} bytes", code="certificate-malformed")
    try:
        chain = x509.load_pem_x509_certificates(pem.rstrip(b"\0"))
        for certificate in chain:
            # Parsing is lazy: touch what is used, so that a bad part fails here and under our name.
            _ = (certificate.subject, certificate.issuer, certificate.extensions, certificate.public_key())
            _ = (
                certificate.not_valid_before_utc,
                certificate.not_valid_after_utc,
                certificate.signature_hash_algorithm,
            )
    except Exception as error:
        # The parser raises many types; whichever it is, these bytes are no chain.
        raise DecodeError(f"the certificate chain of {what} does not parse", code="certificate-malformed") from error
    if len(chain) > _MAX_CERTIFICATES:
        raise DecodeError(f"the certificate chain of {what} has {len(chain)} members", code="certificate-malformed")
    if len(chain) > 1 and chain[-1].subject == chain[-1].issuer:
        chain = chain[:-1]
    return tuple(chain)


def verify_chain(
    chain: Sequence[x509.Certificate],
    root: x509.Certificate,
    root_crl: x509.CertificateRevocationList,
    what: str,
    now: int,
) -> None:
    """Prove that ``chain`` leads to ``root``, is valid at ``now``, and that the root revoked none of what it issued.

    Raises:
        VerificationError: as ``authenticate``.
    """
    if not _is_issued_by(chain[-1], root):
        raise VerificationError(
            f"the certificate chain of the {what} does not lead to a trusted root", code="untrusted-root"
        )
    if root_crl.get_revoked_certificate_by_serial_number(chain[-1].serial_number) is not None:
        raise VerificationError(f"the root revoked a certificate of the {what}", code="certificate-revoked")
    for subject, issuer in pairwise(chain):
        if not _is_issued_by(subject, issuer):
            raise VerificationError(f"the certificate chain of the {what} is broken", code="certificate-chain")
    for certificate in (*chain, root):
        if now < certificate.not_valid_before_utc.timestamp():
            raise VerificationError(f"a certificate of the {what} is not valid yet", code="certificate-not-yet-valid")
        if now > certificate.not_valid_after_utc.timestamp():
            raise VerificationError(f"a certificate of the {what} has expired", code="certificate-expired")


def check_dates(issued: int, until: int, what: str, now: int) -> None:
    """Refuse what is not current: ``collateral-not-yet-valid`` or ``collateral-expired``. Unix seconds."""
    if now < issued:
        raise VerificationError(f"{what} is dated {issued - now} seconds ahead", code="collateral-not-yet-valid")
    if now > until:
        raise VerificationError(f"{what} expired {now - until} seconds ago", code="collateral-expired")


def find_root(chain: Sequence[x509.Certificate], roots: Sequence[bytes]) -> tuple[x509.Certificate, bytes]:
    """The trusted root that issued the end of ``chain``, by its key and never by its name alone, and its DER.

    Raises:
        DecodeError: a root does not parse. VerificationError: ``untrusted-root``.
    """
    for der in roots:
        try:
            root = x509.load_der_x509_certificate(der)
            _ = (root.subject, root.public_key())
        except Exception as error:
            raise DecodeError("a trusted root certificate does not parse", code="certificate-malformed") from error
        if _is_issued_by(chain[-1], root):
            return root, der
    raise VerificationError("no trusted root issued the PCK certificate's CA", code="untrusted-root")


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return constraints.ca


def _verify_crl(crl: x509.CertificateRevocationList, issuer: x509.Certificate, what: str, now: int) -> None:
    key = issuer.public_key()
    sound = isinstance(key, ec.EllipticCurvePublicKey) and crl.issuer == issuer.subject and crl.is_signature_valid(key)
    if not sound:
        raise VerificationError(f"the {what} CRL is not signed by its CA", code="crl-signature")
    until = crl.next_update_utc
    if until is None:
        raise VerificationError(f"the {what} CRL has no next update", code="collateral-expired")
    # At its next update a CRL is already due to be replaced; the library counts so too.
    check_dates(int(crl.last_update_utc.timestamp()), int(until.timestamp()) - 1, f"the {what} CRL", now)


def _verify_signature(statement: Statement, code: str) -> None:
    """P-256 with SHA-256 over the JSON text as it stands; the signature is r and s, 32 bytes each, big-endian."""
    key = statement.chain[0].public_key()
    raw = statement.signature
    if not isinstance(key, ec.EllipticCurvePublicKey) or len(raw) != 64:
        raise VerificationError(f"the {statement.what}'s signature is not one of P-256", code=code)
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    try:
        key.verify(signature, statement.text, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise VerificationError(f"the {statement.what}'s signature is wrong", code=code) from error


def _parse_statement(members: dict[str, str], name: str, signature: bytes) -> Statement:
    what = {"tcb_info": "TCB info", "qe_identity": "QE identity"}[name]
    text = members[name].encode()
    value = _parse_json(text, f"the {what}")
    evaluation = value.get("tcbEvaluationDataNumber")
    if not isinstance(evaluation, int) or isinstance(evaluation, bool) or not 0 <= evaluation < 2**32:
        raise DecodeError(f"the {what} has no evaluation number", code="collateral-malformed")
    return Statement(
        what=what,
        value=value,
        text=text,
        signature=signature,
        chain=parse_chain(members[f"{name}_issuer_chain"].encode(), f"the {what}"),
        issued=parse_date(value.get("issueDate"), what),
        until=parse_date(value.get("nextUpdate"), what),
        evaluation=evaluation,
    )


def parse_date(value: object, what: str) -> int:
    """Unix seconds of an RFC 3339 date with its zone.

    Raises:
        DecodeError: ``collateral-malformed``.
    """
    try:
        moment = datetime.fromisoformat(value if isinstance(value, str) else "")
        # A date without a zone would be read in the zone of this process.
        seconds = None if moment.tzinfo is None else int(moment.timestamp())
    except (ValueError, OverflowError) as error:
        raise DecodeError(f"{quoted(value)} in the {what} is no date", code="collateral-malformed") from error
    if seconds is None:
        raise DecodeError(f"{quoted(value)} in the {what} names no time zone", code="collateral-malformed")
    return seconds


def _parse_json(content: bytes, what: str) -> dict[str, object]:
    # The parser recurses in C: where the interpreter's own limit is high, deep nesting would end the process.
    depth = 0
    for bracket in _BRACKETS.findall(_TEXT.sub(b"", content)):
        depth += 1 if bracket in b"[{" else -1
        if depth > _MAX_DEPTH:
            raise DecodeError(f"{what} is nested deeper than {_MAX_DEPTH} levels", code="collateral-malformed")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{what} is not JSON", code="collateral-malformed") from error
    if not isinstance(value, dict):
        raise DecodeError(f"{what} is not a JSON object", code="collateral-malformed")
    return value


def _parse_hex(text: str, name: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise DecodeError(f"member {name} of a dcap document is not hex", code="collateral-malformed") from error


def _parse_crl(der: bytes, what: str) -> x509.CertificateRevocationList:
    try:
        crl = x509.load_der_x509_crl(der)
        _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc, crl.signature_hash_algorithm, len(crl))
    except Exception as error:
        raise DecodeError(f"the {what} CRL does not parse", code="collateral-malformed") from error
    return crl
