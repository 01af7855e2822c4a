"""What Intel publishes about its platforms, and the proof that Intel published it.

One document has the members of a ``QuoteCollateralV3`` (JSON; binary members in hex): TCB info and QE identity, each with
its signature and its signer's chain; the CRL of the PCK certificates' CA with that CA's chain; the root's CRL; and
``pck_certificate_chain`` when the quote does not carry one.

A document may come from anybody. ``authenticate`` proves every part by the relying party's root and by its dates before
one word of it decides anything, so that a forged document can neither speak for a platform nor push a sound one aside.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.attestation.depth import check_depth
from cloister.attestation.evidence import EvidenceKind
from cloister.errors import DecodeError, TooLarge, VerificationError, quoted

MAX_DOCUMENT = 256 * 1024
MAX_CHAIN = 64 * 1024
_MAX_CERTIFICATES = 4
_TEXTS = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "tcb_info", "qe_identity_issuer_chain", "qe_identity")
_HEXES = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
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
    """One document, parsed and not yet proven. ``pck_chain``: PEM, empty where the document has none."""

    pck_chain: bytes
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
        TooLarge: over 256 KiB. DecodeError: ``collateral-malformed``, ``certificate-malformed``, ``json-too-deep``.
    """
    if len(content) > MAX_DOCUMENT:
        raise TooLarge(
            f"a dcap document of {len(content)} bytes is over the cap of {MAX_DOCUMENT}", code="collateral-too-large"
        )
    value = _parse_json(content, "a dcap document")
    members: dict[str, str] = {}
    for name in (*_TEXTS, *_HEXES):
        member = value.get(name)
        if not isinstance(member, str) or not member or not member.isascii():
            raise DecodeError(f"a dcap document has no ASCII member {name}", code="collateral-malformed")
        members[name] = member
    chain = value.get("pck_certificate_chain")
    binary = {name: _parse_hex(members[name], name) for name in _HEXES}
    return DcapDocument(
        pck_chain=chain.encode() if isinstance(chain, str) and chain.isascii() else b"",
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
    if not is_issued_by(document.ca_chain[-1], root):
        raise VerificationError("the collateral does not lead to the platform's root", code="untrusted-root")
    # No list of revoked certificates is looked into before its signature is proven.
    _verify_crl(document.root_crl, root, "root", now)
    verify_chain(document.ca_chain, root, document.root_crl, "PCK CA", now)
    _verify_crl(document.pck_crl, document.ca_chain[0], "PCK", now)
    for statement, code in (
        (document.tcb_info, "collateral-signature"),
        (document.qe_identity, "qe-identity-signature"),
    ):
        verify_chain(statement.chain, root, document.root_crl, f"{statement.what} signer", now)
        # A PCK certificate leads to the same root. What the root issued itself, and only that, signs for all platforms.
        if not is_issued_by(statement.chain[0], root):
            raise VerificationError(f"the {statement.what}'s signer is not the root's own", code=code)
        verify_p256(statement.chain[0].public_key(), statement.signature, statement.text, statement.what, code)
        check_dates(statement.issued, statement.until, f"the {statement.what}", now)


def build_members(document: DcapDocument, pck_chain: Sequence[x509.Certificate], root: x509.Certificate) -> str:
    """A proven document in JSON for the library, every certificate and CRL written anew, and ``pck_chain`` in it: the
    library then parses nothing that is not signed under the root.
    """

    def pem(chain: Sequence[x509.Certificate]) -> str:
        return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in (*chain, root))

    members = {
        "pck_crl_issuer_chain": pem(document.ca_chain),
        "root_ca_crl": document.root_crl.public_bytes(Encoding.DER).hex(),
        "pck_crl": document.pck_crl.public_bytes(Encoding.DER).hex(),
        "pck_certificate_chain": pem(pck_chain),
    }
    for name, statement in (("tcb_info", document.tcb_info), ("qe_identity", document.qe_identity)):
        members[f"{name}_issuer_chain"] = pem(statement.chain)
        members[name] = statement.text.decode()
        members[f"{name}_signature"] = statement.signature.hex()
    return json.dumps(members)


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
    if not is_issued_by(chain[-1], root):
        raise VerificationError(
            f"the certificate chain of the {what} does not lead to a trusted root", code="untrusted-root"
        )
    if root_crl.get_revoked_certificate_by_serial_number(chain[-1].serial_number) is not None:
        raise VerificationError(f"the root revoked a certificate of the {what}", code="certificate-revoked")
    for subject, issuer in pairwise(chain):
        if not is_issued_by(subject, issuer):
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
            _ = (root.subject, root.extensions, root.public_key(), root.not_valid_before_utc, root.not_valid_after_utc)
            sound = root.public_bytes(Encoding.DER) == der and is_issued_by(root, root)
        except Exception as error:
            raise DecodeError("a trusted root certificate does not parse", code="certificate-malformed") from error
        if not sound:
            raise DecodeError("a trusted root certificate is not signed by itself", code="certificate-malformed")
        if is_issued_by(chain[-1], root):
            return root, der
    raise VerificationError("no trusted root issued the PCK certificate's CA", code="untrusted-root")


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether ``issuer`` is a CA that signed ``certificate`` and is named in it."""
    try:
        certificate.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.ExtensionNotFound):
        return False
    return constraints.ca and _is_same_name(certificate.issuer, issuer.subject)


def _is_same_name(first: x509.Name, second: x509.Name) -> bool:
    """Byte for byte, as the library compares: equal words in another string type are another name."""
    return first.public_bytes() == second.public_bytes()


def _verify_crl(crl: x509.CertificateRevocationList, issuer: x509.Certificate, what: str, now: int) -> None:
    key = issuer.public_key()
    try:
        sound = (
            isinstance(key, ec.EllipticCurvePublicKey)
            and _is_same_name(crl.issuer, issuer.subject)
            and crl.is_signature_valid(key)
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        sound = False
    if not sound:
        raise VerificationError(f"the {what} CRL is not signed by its CA", code="crl-signature")
    until = crl.next_update_utc
    if until is None:
        raise VerificationError(f"the {what} CRL has no next update", code="collateral-expired")
    # At its next update a CRL is already due to be replaced; the library counts so too.
    check_dates(int(crl.last_update_utc.timestamp()), int(until.timestamp()) - 1, f"the {what} CRL", now)


def verify_p256(key: object, signature: bytes, message: bytes, what: str, code: str) -> None:
    """Prove Intel's form of signature: P-256 with SHA-256, r and s of 32 bytes each, big-endian.

    Raises:
        VerificationError: with ``code``.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.key_size != 256 or len(signature) != 64:
        raise VerificationError(f"the {what}'s signature is not one of P-256", code=code)
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    try:
        key.verify(der, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise VerificationError(f"the {what}'s signature is wrong", code=code) from error


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
    try:
        value = json.loads(check_depth(content))
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
