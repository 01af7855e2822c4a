"""DCAP: the verification that TDX and SGX quotes share.

Intel's root signs a PCK CA, that a platform's PCK certificate, that key the report of the platform's quoting enclave (QE),
the QE an attestation key, and that key the quote. Intel's TCB info and QE identity say what the platform's security
versions are worth on a given day; its CRLs say what was withdrawn.

The numbered steps, each of which refuses with a named reason:

1. the quote is laid out exactly (``dcap_quote``);
2. its PCK chain leads to a root that the relying party named;
3. a document of the collateral is for this TEE, platform model (FMSPC) and CA, is signed under that root, and is current
   (``dcap_collateral``); of several, the newest speaks;
4. nothing of the chain is revoked;
5. the PCK certificate signed the QE's report, that names the attestation key, and that signed the quote;
6. ``dcap-qvl`` (MIT) finds the same once more, the QE to be Intel's, the TD's attributes to be safe, and the TCB levels;
7. what the library read is what we read.

The library ends the whole process where its own assumptions fail, and bytes from outside must not be able to bring that
about. So nothing is handed to it that was not proven in steps 1 to 5; certificates and CRLs are written anew for it.

The levels' status is a claim; whether it is good enough is the policy's affair. Only ``Revoked`` is refused here.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import dcap_qvl
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.attestation.claims import Attribute, Tcb, TcbStatus
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.verifiers.dcap_collateral import (
    DcapDocument,
    authenticate,
    build_members,
    find_root,
    is_issued_by,
    parse_chain,
    parse_document,
    verify_chain,
    verify_p256,
)
from cloister.attestation.verifiers.dcap_levels import (
    as_list,
    find_module_levels,
    find_out_of_date_day,
    find_platform_level,
    find_version_level,
)
from cloister.attestation.verifiers.dcap_quote import CERTIFICATE_CHAIN, TEE_SGX, TEE_TDX, Quote, parse_quote
from cloister.errors import CloisterError, DecodeError, VerificationError, quoted

MAX_DOCUMENTS = 16
"""So many documents of one kind are looked at; of a larger collection only those that name the platform's model."""

_QE_REPORT_DATA = 320
"""Where an SGX report has its report data."""
_TEES = {EvidenceKind.TDX: TEE_TDX, EvidenceKind.SGX: TEE_SGX}
_REASONS = (
    ("No matching TCB level", "tcb-unknown-level"),
    ("QE ISVSVN", "qe-unknown-level"),
    ("TDX module TCB level", "tdx-module-unknown-level"),
    ("TDX module", "tdx-module-mismatch"),
    ("TCB status is invalid: Revoked", "tcb-revoked"),
    ("Debug mode is enabled", "debug-enabled"),
    ("TD migration", "td-migratable"),
    ("TD profiling", "td-profiling"),
    ("SEPT_VE_DISABLE", "td-sept-ve"),
    ("MR service TD", "td-service-td"),
    ("SERVTD_EXT", "td-attributes"),
    ("Reserved bits in TD attributes", "td-attributes"),
    ("Signature is invalid for qe_report", "qe-report-signature"),
    ("QE report hash mismatch", "attestation-key-mismatch"),
    ("ISV enclave report signature", "quote-signature"),
    ("Unknown QE vendor", "qe-vendor-unknown"),
    ("QE report validation failed", "qe-identity-mismatch"),
    ("QE MRSIGNER", "qe-identity-mismatch"),
    ("QE ISVPRODID", "qe-identity-mismatch"),
    ("QE MISCSELECT", "qe-identity-mismatch"),
    ("QE ATTRIBUTES", "qe-identity-mismatch"),
    ("Unsupported QE Identity", "qe-identity-mismatch"),
    ("must have version", "quote-version"),
    ("Failed to verify certificate chain", "certificate-chain"),
    ("TCB status", "tcb-unknown-status"),
    ("Failed to parse PCK certificate", "certificate-malformed"),
    ("Failed to parse", "collateral-malformed"),
    ("tcbDate", "collateral-malformed"),
    ("Failed to decode TcbInfo", "collateral-malformed"),
    ("Failed to decode QeIdentity", "collateral-malformed"),
    ("TCB components", "collateral-malformed"),
    ("TDX components", "collateral-malformed"),
    ("SGX components", "collateral-malformed"),
)
"""What the library says, in part, and our name for it; the first that is found counts. All else is ``dcap-refused``."""


@dataclass(frozen=True, slots=True)
class VerifiedQuote:
    """A quote whose whole chain holds. ``root``: SHA-256 of the root (DER). ``platform``: SHA-256 of the PPID, the same
    for every quote of one machine, TDX or SGX. ``attributes``: what the PCK certificate and the QE say of the platform.
    """

    quote: Quote
    root: bytes
    platform: bytes
    tcb: Tcb
    attributes: dict[str, Attribute]


@dataclass(frozen=True, slots=True)
class Pck:
    """A platform's certificate chain (certificate, CA), the root that issued its CA, and the words of its SGX extension.

    ``fmspc``: 12 hex digits, lower case.
    """

    chain: tuple[x509.Certificate, ...]
    root: x509.Certificate
    root_der: bytes
    ppid: bytes
    fmspc: str


@dataclass(frozen=True, slots=True)
class Match:
    """A proven document, and the platform that it speaks for."""

    document: DcapDocument
    pck: Pck

    @property
    def root(self) -> bytes:
        """The root's DER."""
        return self.pck.root_der


def verify_quote(payload: bytes, collateral: Collateral, now: int, kind: EvidenceKind) -> VerifiedQuote:
    """Take the steps above. ``now``: unix seconds.

    Raises:
        DecodeError: the quote, a certificate or every document is not in its format.
        VerificationError: ``no-trusted-root``, ``untrusted-root``, ``collateral-missing``, ``pck-revoked``,
            ``tcb-unknown-level``, ``tcb-revoked``, ``debug-enabled``, ``quote-ambiguous``, and what ``parse_quote``,
            ``authenticate`` and ``_REASONS`` name.
    """
    quote = parse_quote(payload, _TEES[kind])
    roots = collateral.roots_of(kind)
    if not roots:
        raise VerificationError(f"no root is trusted here for {kind} evidence", code="no-trusted-root")
    match = _choose(quote, collateral.documents_of(kind, "dcap"), roots, kind, now)
    _verify_signatures(quote, match.pck)
    verdict = _verify_by_library(quote, match, now)
    report = next(iter(verdict["report"].values()))
    while "base" in report:
        report = report["base"]
    if not hmac.compare_digest(str(report["report_data"]), quote.report_data.hex()):
        raise VerificationError("the quote reads differently to two parsers", code="quote-ambiguous")
    return VerifiedQuote(
        quote=quote,
        root=hashlib.sha256(match.root).digest(),
        platform=hashlib.sha256(match.pck.ppid).digest(),
        tcb=_build_tcb(verdict, quote, match),
        attributes=_build_attributes(verdict, quote),
    )


def _choose(quote: Quote, contents: Sequence[bytes], roots: Sequence[bytes], kind: EvidenceKind, now: int) -> Match:
    """Steps 2 to 4: of the documents that speak for the quote's platform and hold, the newest."""
    carried = _parse_pck(quote.chain, roots) if quote.certification_type == CERTIFICATE_CHAIN else None
    sound: list[Match] = []
    refusals: list[CloisterError] = []
    if carried is not None and len(contents) > MAX_DOCUMENTS:
        # A collection of many platforms: the model's number stands in the document as text.
        contents = [content for content in contents if carried.fmspc.upper().encode() in content.upper()]
    for content in contents[:MAX_DOCUMENTS]:
        try:
            document = parse_document(content)
            if not document.is_for(kind) or (carried is None and not document.pck_chain):
                continue
            pck = carried or _parse_pck(document.pck_chain, roots)
            if carried is None:
                # Which of the certificates at hand is this platform's, only its signature tells.
                _verify_qe_report(quote, pck)
            if document.fmspc != pck.fmspc or document.ca_chain[0].subject != pck.chain[0].issuer:
                continue
            authenticate(document, pck.root, now)
        except (DecodeError, VerificationError) as error:
            refusals.append(error)
            continue
        sound.append(Match(document, pck))
    if not sound:
        if refusals:
            raise refusals[0]
        raise VerificationError(
            "no collateral is at hand for this platform",
            code="collateral-missing",
            hint="fetch the vendor's collateral for its FMSPC and CA",
        )
    for match in sound:
        # Withdrawn by any sound list is withdrawn: an older document beside it does not bring the key back.
        verify_chain(match.pck.chain, match.pck.root, match.document.root_crl, "PCK", now)
        serial = match.pck.chain[0].serial_number
        if match.document.pck_crl.get_revoked_certificate_by_serial_number(serial) is not None:
            raise VerificationError("the platform's PCK certificate is revoked", code="pck-revoked")
    return max(sound, key=lambda match: match.document.age)


def _parse_pck(pem: bytes, roots: Sequence[bytes]) -> Pck:
    """The chain of a platform's certificate, its signatures proven, and what its SGX extension says."""
    chain = parse_chain(pem, "the PCK certificate")
    root, root_der = find_root(chain, roots)
    if len(chain) != 2 or not is_issued_by(chain[0], chain[1]):
        raise VerificationError("the PCK chain is not certificate, CA and root", code="certificate-chain")
    try:
        extension = dcap_qvl.parse_pck_extension_from_pem(chain[0].public_bytes(Encoding.PEM))
    except ValueError as error:
        raise DecodeError("the PCK certificate has no sound SGX extension", code="pck-extension") from error
    if not extension.ppid:
        raise DecodeError("the PCK certificate names no platform", code="pck-extension")
    return Pck(chain, root, root_der, bytes(extension.ppid), extension.fmspc.hex())


def _verify_signatures(quote: Quote, pck: Pck) -> None:
    """Step 5."""
    _verify_qe_report(quote, pck)
    named = quote.qe_report[_QE_REPORT_DATA : _QE_REPORT_DATA + 32]
    if not hmac.compare_digest(hashlib.sha256(quote.attestation_key + quote.authentication).digest(), named):
        raise VerificationError("the QE reported another attestation key", code="attestation-key-mismatch")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + quote.attestation_key)
    except ValueError as error:
        raise VerificationError("the attestation key is no point of P-256", code="quote-signature") from error
    verify_p256(key, quote.signature, quote.signed, "quote", "quote-signature")


def _verify_qe_report(quote: Quote, pck: Pck) -> None:
    verify_p256(pck.chain[0].public_key(), quote.qe_signature, quote.qe_report, "QE's report", "qe-report-signature")


def _verify_by_library(quote: Quote, match: Match, now: int) -> dict[str, Any]:
    """Step 6: the library's claims, as it writes them in JSON.

    Its own policy engine is left open (``claims_only``): statuses are for ours to judge.
    """
    members = build_members(match.document, match.pck.chain, match.pck.root)
    try:
        collateral = dcap_qvl.QuoteCollateralV3.from_json(members)
        verifier = dcap_qvl.QuoteVerifier(match.root)
        claims = verifier.verify_with_policy(quote.raw, collateral, now, dcap_qvl.QuotePolicy.claims_only(now))
        verdict: dict[str, Any] = json.loads(claims.to_json())
    except ValueError as error:
        text = str(error).removeprefix("Verification failed: ")
        code = next((code for part, code in _REASONS if part in text), "dcap-refused")
        raise VerificationError(f"the quote does not hold: {quoted(text[:80])}", code=code) from error
    return verdict


def _build_tcb(verdict: dict[str, Any], quote: Quote, match: Match) -> Tcb:
    tcb, platform, qe = verdict["tcb"], verdict["platform"], verdict["qe"]
    try:
        status = TcbStatus(tcb["status"])
    except ValueError as error:
        raise VerificationError(
            f"TCB status {quoted(tcb['status'])} is not known here", code="tcb-unknown-status"
        ) from error
    info, identity = match.document.tcb_info.value, match.document.qe_identity.value
    platform_levels, qe_levels = as_list(info.get("tcbLevels")), as_list(identity.get("tcbLevels"))
    lists = [
        (platform_levels, find_platform_level(platform_levels, platform["tcb_level"]["tcb"])),
        (qe_levels, find_version_level(qe_levels, qe["report"]["isv_svn"])),
    ]
    versions = {
        "tcb_evaluation_data_number": int(tcb["eval_data_number"]),
        "pce_svn": int(platform["pck"]["pce_svn"]),
        "qe_svn": int(qe["report"]["isv_svn"]),
    }
    versions |= {f"sgx_component_{i:02}": int(svn) for i, svn in enumerate(platform["pck"]["cpu_svn"], 1)}
    if quote.tee_type == TEE_TDX:
        # TEE_TCB_SVN: the TDX module's version in byte 1 and its SVN in byte 0.
        svns = quote.body[:16]
        module_levels = find_module_levels(info.get("tdxModuleIdentities"), svns[1])
        lists.append((module_levels, find_version_level(module_levels, svns[0])))
        versions |= {f"tdx_component_{i:02}": svn for i, svn in enumerate(svns, 1)}
    return Tcb(
        status=status,
        advisories=frozenset(str(advisory) for advisory in tcb["advisory_ids"]),
        out_of_date_since=find_out_of_date_day(lists),
        versions=MappingProxyType(versions),
    )


def _build_attributes(verdict: dict[str, Any], quote: Quote) -> dict[str, Attribute]:
    pck = verdict["platform"]["pck"]
    attributes: dict[str, Attribute] = {
        "quote_version": quote.version,
        "fmspc": bytes(pck["fmspc"]).hex(),
        "sgx_type": int(pck["sgx_type"]),
        "pck_crl_number": int(verdict["platform"]["pck_crl_num"]),
    }
    # Certificates of the processor CA do not say these.
    for name, member in (("smt", "smt_enabled"), ("dynamic_platform",) * 2, ("cached_keys",) * 2):
        if pck[member] in ("True", "False"):
            attributes[name] = pck[member] == "True"
    return attributes
