"""Evidence from files: what a person has at hand becomes what a verifier takes. Works without any network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cloister.attestation import anchors
from cloister.attestation.bundle import parse_collateral_file
from cloister.attestation.claims import Attribute, Claims
from cloister.attestation.collateral import MAX_COLLATERAL, Collateral, Document, parse_documents
from cloister.attestation.countersignature import verify_countersignature
from cloister.attestation.evidence import MAX_PAYLOAD, Evidence, EvidenceKind, parse_evidence
from cloister.attestation.receipt import parse_receipt
from cloister.attestation.report import build_report_data
from cloister.attestation.snp_payload import MAX_TABLE, REPORT_SIZE, build_snp_evidence, parse_certificates
from cloister.attestation.verify import read_claims
from cloister.errors import InputError, NotFound, TooLarge, VerificationError

FILE_CAP = 1024 * 1024
"""Longest file that is read, in bytes."""
_VENDOR_ROOTS = {
    EvidenceKind.TDX: (anchors.INTEL_SGX_ROOT,),
    EvidenceKind.SGX: (anchors.INTEL_SGX_ROOT,),
    EvidenceKind.SNP: (anchors.AMD_ARK_MILAN, anchors.AMD_ARK_GENOA, anchors.AMD_ARK_TURIN),
    EvidenceKind.SNP_VTPM: (anchors.AMD_ARK_MILAN, anchors.AMD_ARK_GENOA, anchors.AMD_ARK_TURIN),
}
"""Roots of the vendors themselves. Other kinds have a root per network, which must be given."""


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A piece of evidence, what it is verified with, and as of which moment (unix seconds)."""

    evidence: Evidence
    collateral: Collateral
    at: int

    def claims(self) -> Claims:
        """What the hardware said, signatures proven up to a root.

        Raises:
            DecodeError, VerificationError.
        """
        return read_claims(self.evidence, self.collateral, self.at)


def load_exhibit(
    path: Path,
    kind: str,
    *,
    collateral: Sequence[Path] = (),
    certificates: Sequence[Path] = (),
    roots: Sequence[Path] = (),
    network: str | None = None,
    at: str | None = None,
) -> Exhibit:
    """Read evidence of a kind, in the form in which people have it.

    ``tdx``, ``sgx``: the raw quote. ``snp``: the raw report of 1,184 bytes with ``certificates`` (PEM or DER: the VCEK or VLEK
    and its issuer), or the payload as an enclave sends it. ``snp-vtpm``: that payload, or the JSON of the
    confidential-containers agent. Others: the payload. ``collateral``: Intel's as JSON, a bundle, a CRL or a certificate
    (DER). ``roots`` (PEM or DER) take the place of the vendors' own; kinds that have none rest on what is pinned here of
    ``network``. ``at``: ``parse_time``.

    Raises:
        NotFound: no such file. InputError: no root is known for the kind. DecodeError, TooLarge: a file is something else.
    """
    chain = [der for each in certificates for der in load_certificates(each)]
    evidence = _build_evidence(parse_evidence(kind, load_file(path, MAX_PAYLOAD)), chain)
    documents: list[Document] = []
    for each in collateral:
        documents += parse_collateral_file(load_file(each, MAX_COLLATERAL), evidence.kind)
    if chain and evidence.kind is not EvidenceKind.SNP:
        documents += [Document(evidence.kind, "certificate", der) for der in chain]
    trusted = Collateral(load_roots(evidence.kind, roots, network), tuple(documents))
    return Exhibit(evidence, trusted, parse_time(at))


def load_receipt_exhibit(
    path: Path, *, roots: Sequence[Path] = (), network: str | None = None, at: str | None = None
) -> Exhibit:
    """Take the evidence out of a receipt, with the collateral that the SMS used, as of the moment when it appraised it.

    Of the receipt only this is proven here: the SMS that it names countersigned it, and the evidence, once it verifies, is
    what the receipt's binding demands. The rest is ``verify_receipt``'s.

    Raises:
        NotFound, InputError, DecodeError, VerificationError.
    """
    receipt = parse_receipt(load_file(path))
    claims = receipt.claims
    statement = verify_countersignature(receipt.countersignature, sms=claims.binding.sms)
    trusted = Collateral(load_roots(claims.evidence.kind, roots, network), parse_documents(statement.collateral))
    moment = statement.facts.judgement.appraised_at if at is None else parse_time(at)
    exhibit = Exhibit(claims.evidence, trusted, moment)
    if exhibit.claims().report_data != build_report_data(claims.binding):
        raise VerificationError("the evidence is bound to something else than the receipt", code="report-data-mismatch")
    return exhibit


def load_roots(
    kind: EvidenceKind, files: Sequence[Path], network: str | None = None
) -> tuple[tuple[EvidenceKind, bytes], ...]:
    """The roots in these files; without files the vendor's own; for kinds without a vendor those pinned of a network.

    Raises:
        InputError: there is none. NotFound, DecodeError: a file.
    """
    roots = [der for each in files for der in load_certificates(each)] or list(_VENDOR_ROOTS.get(kind, ()))
    if not roots and network is not None:
        from cloister.sdk.receipts import load_reference_values

        with suppress(NotFound):
            roots = list(load_reference_values(network).collateral.roots_of(kind))
    if not roots:
        raise InputError(f"{kind} has no vendor's root", hint="name the network's root certificate: --root FILE")
    return tuple((kind, der) for der in roots)


def load_certificates(path: Path) -> tuple[bytes, ...]:
    """The certificates (DER) of a PEM or DER file."""
    return parse_certificates(load_file(path, MAX_TABLE))


def load_file(path: Path, cap: int = FILE_CAP) -> bytes:
    """The bytes of a file of at most ``cap``.

    Raises:
        NotFound: no such file. TooLarge: longer.
    """
    if not path.is_file():
        raise NotFound(f"no file at {path}", hint="check the path")
    with path.open("rb") as stream:
        content = stream.read(cap + 1)
    if len(content) > cap:
        raise TooLarge(f"{path} has more than {cap} bytes")
    return content


def parse_time(text: str | None) -> int:
    """Unix seconds of a moment: digits, ISO 8601 (UTC where it names no zone), or now.

    Raises:
        InputError: neither.
    """
    if text is None:
        return int(time.time())
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"not a time: {text[:40]}", hint='for example "2026-01-10" or unix seconds') from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def build_claims_json(claims: Claims) -> dict[str, object]:
    """What the hardware said, as JSON members: bytes in hex, times in unix seconds."""
    tcb = claims.tcb
    attributes: dict[str, Attribute] = dict(sorted(claims.attributes.items()))
    return {
        "kind": claims.kind.value,
        "vendor": claims.vendor,
        "measurement": claims.measurement.hex(),
        "registers": {name: value.hex() for name, value in sorted(claims.registers.items())},
        "report_data": claims.report_data.hex(),
        "debug": claims.debug,
        "svn": claims.svn,
        "issued_at": claims.issued_at,
        "app_digest": None if claims.app_digest is None else claims.app_digest.hex(),
        "platform": claims.platform.hex(),
        "root": claims.root.hex(),
        "tcb": None
        if tcb is None
        else {
            "status": tcb.status.value,
            "advisories": sorted(tcb.advisories),
            "out_of_date_since": tcb.out_of_date_since,
            "versions": dict(sorted(tcb.versions.items())),
        },
        "attributes": attributes,
    }


def _build_evidence(given: Evidence, chain: Sequence[bytes]) -> Evidence:
    match given.kind:
        case EvidenceKind.SNP if len(given.payload) == REPORT_SIZE:
            return Evidence(given.kind, build_snp_evidence(given.payload, chain))
        case EvidenceKind.SNP_VTPM if given.payload.lstrip()[:1] == b"{":
            from cloister.attestation.tpm.azure import import_az_snp_vtpm

            # The certificates go into the collateral: there, one of another chip does no harm.
            return import_az_snp_vtpm(given.payload)
        case _:
            return given
