"""AMD SEV-SNP evidence: a report that a processor's firmware signed over a guest's memory.

What holds when this verifier answers: a key that AMD endorsed, under a root that the caller pins, signed this report; the
endorsement is for the very chip and the very firmware level that the report names. Whether that level, the guest's
policy or its privilege level is good enough is for policies to say: everything they need is in the claims.

Sources: AMD 56860 (firmware ABI), AMD 57230 (VCEK certificates). Payload: ``attestation.snp_payload``.
"""

from __future__ import annotations

import hashlib
from types import MappingProxyType

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from cloister.attestation.claims import Attribute, Claims, Tcb, TcbStatus
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.snp_payload import SIGNED_BY_VCEK, SIGNED_BY_VLEK, parse_snp_evidence
from cloister.attestation.verifiers.amd_certificates import load_signing_key
from cloister.attestation.verifiers.amd_chain import Endorsement, Signer, verify_endorsement
from cloister.attestation.verifiers.snp_report import Report, parse_report, product_of, read_tcb
from cloister.errors import VerificationError

CHIP_DOMAIN = b"cloister/snp-chip/v1\x00"
PROVIDER_DOMAIN = b"cloister/snp-provider/v1\x00"

_SIGNERS = {SIGNED_BY_VCEK: Signer.VCEK, SIGNED_BY_VLEK: Signer.VLEK}
_NO_AGENT = (b"\xff" * 32, bytes(32))
_KNOWN_PLATFORM_BITS = 0b1011_1111
"""PLATFORM_INFO's bits that have a meaning; newer firmware may set others, which a policy sees and may refuse."""


def verify_snp(payload: bytes, collateral: Collateral, now: int) -> Claims:
    """Check form, chain and signature of a report, and that its endorsement is for what it says; answer with its claims.

    ``collateral``: roots (ARK, DER) of ``EvidenceKind.SNP``; documents ``certificate`` (what the evidence leaves out)
    and ``crl``, both DER. ``now``: unix seconds at which certificates and lists must be valid.

    Raises:
        DecodeError: not the payload's or the report's form; a certificate or list that does not parse.
        VerificationError: no trusted root, a chain that does not hold (codes in ``amd_chain``), ``evidence-signature``,
        ``snp-signing-key``, ``snp-author-key``, ``snp-product``, ``snp-chip-mismatch``, ``snp-tcb-mismatch``,
        ``snp-tcb-order``.
    """
    raw, certificates = parse_snp_evidence(payload)
    report = parse_report(raw)
    signer = _check_signer(report)
    endorsement = verify_endorsement(certificates, report, collateral, now)
    if endorsement.signer is not signer:
        raise VerificationError(
            f"the report says that {signer.value} signed it, its certificate is {endorsement.signer.value}'s",
            code="snp-signing-key",
        )
    _check_signature(report, endorsement)
    _check_product(report, endorsement)
    _check_chip(report, endorsement)
    return _build_claims(report, endorsement, _check_tcb(report, endorsement))


def _check_signer(report: Report) -> Signer:
    signer = _SIGNERS.get(report.signing_key)
    if signer is None or (signer is Signer.VCEK and report.mask_chip_key):
        raise VerificationError(
            f"the report is signed by no key that can be checked (signing key {report.signing_key}"
            f"{', chip key masked' if report.mask_chip_key else ''})",
            code="snp-signing-key",
        )
    if not report.author_key and any(report.author_key_digest):
        raise VerificationError("the report names an author key and says that there is none", code="snp-author-key")
    return signer


def _check_signature(report: Report, endorsement: Endorsement) -> None:
    key = load_signing_key(endorsement.certificate)
    try:
        key.verify(encode_dss_signature(report.r, report.s), report.signed, ec.ECDSA(SHA384()))
    except InvalidSignature as error:
        raise VerificationError("the signature over the SEV-SNP report is wrong", code="evidence-signature") from error


def _check_product(report: Report, endorsement: Endorsement) -> None:
    """The bytes of a TCB version mean different things on different products, so both must name the same."""
    if report.cpu is not None and product_of(report.cpu) is not endorsement.product:
        raise VerificationError(
            f"the report is of family {report.cpu[0]:#x} model {report.cpu[1]:#x}, its certificate of "
            f"{endorsement.product}",
            code="snp-product",
        )


def _check_chip(report: Report, endorsement: Endorsement) -> None:
    if endorsement.chip is not None and not report.chip_masked and report.chip_id != endorsement.chip:
        raise VerificationError("the certificate is for another chip than the report's", code="snp-chip-mismatch")


def _check_tcb(report: Report, endorsement: Endorsement) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Reported, committed and current versions by name: the endorsed ones are those reported, and each is at most the
    next. The firmware keeps that order itself; a report that breaks it is not understood.
    """
    product = endorsement.product
    reported = read_tcb(product, report.reported_tcb)
    committed = read_tcb(product, report.committed_tcb)
    current = read_tcb(product, report.current_tcb)
    read_tcb(product, report.launch_tcb)
    if reported != endorsement.tcb:
        raise VerificationError(
            "the certificate is for another firmware level than the reported one", code="snp-tcb-mismatch"
        )
    for name in reported:
        if not reported[name] <= committed[name] <= current[name]:
            raise VerificationError(
                f"{name}: reported {reported[name]}, committed {committed[name]}, current {current[name]} are out of order",
                code="snp-tcb-order",
            )
    return reported, committed, current


def _platform(report: Report, endorsement: Endorsement) -> bytes:
    """One name for one chip. A VCEK's certificate names it even where the report does not; for a leased key with masked
    chips all machines of a provider are one, since they cannot be told apart.
    """
    chip = endorsement.chip if endorsement.chip is not None else report.chip_id
    if endorsement.chip is None and report.chip_masked:
        return hashlib.sha256(PROVIDER_DOMAIN + (endorsement.provider or "").encode()).digest()
    return hashlib.sha256(CHIP_DOMAIN + chip).digest()


def _build_claims(
    report: Report, endorsement: Endorsement, levels: tuple[dict[str, int], dict[str, int], dict[str, int]]
) -> Claims:
    reported, committed, _ = levels
    below = reported != committed
    return Claims(
        kind=EvidenceKind.SNP,
        measurement=report.measurement,
        report_data=report.report_data,
        debug=report.policy.debug,
        root=endorsement.root,
        platform=_platform(report, endorsement),
        svn=report.guest_svn,
        registers=MappingProxyType(
            {
                "host_data": report.host_data,
                "id_key_digest": report.id_key_digest,
                "author_key_digest": report.author_key_digest,
                "family_id": report.family_id,
                "image_id": report.image_id,
                "report_id": report.report_id,
                "report_id_ma": report.report_id_ma,
            }
        ),
        # AMD keeps no list of levels that count as up to date, so only the machine itself can be behind: by its own word.
        tcb=Tcb(
            status=TcbStatus.OUT_OF_DATE if below else TcbStatus.UP_TO_DATE, versions=MappingProxyType(dict(reported))
        ),
        attributes=MappingProxyType(_attributes(report, endorsement, levels)),
    )


def _attributes(
    report: Report, endorsement: Endorsement, levels: tuple[dict[str, int], dict[str, int], dict[str, int]]
) -> dict[str, Attribute]:
    """What a policy may rule on. Those of the guest's policy say what the host may do or must have, those of the platform
    (``smt_enabled`` and so on) what it has.
    """
    policy, info = report.policy, report.platform_info
    reported, committed, current = levels
    attributes: dict[str, Attribute] = {
        "report_version": report.version,
        "product": endorsement.product.value,
        "signing_key": "vcek" if endorsement.signer is Signer.VCEK else "vlek",
        "crl_checked": endorsement.revocation_checked,
        "vmpl": report.vmpl,
        "guest_svn": report.guest_svn,
        "abi": policy.abi,
        "migration_agent": policy.migration_agent or report.report_id_ma not in _NO_AGENT,
        "smt": policy.smt,
        "single_socket": policy.single_socket,
        "cxl_allowed": policy.cxl_allowed,
        "aes256_xts": policy.aes256_xts,
        "rapl_disable_required": policy.rapl_disabled,
        "ciphertext_hiding": policy.ciphertext_hiding,
        "page_swap_disabled": policy.page_swap_disabled,
        "smt_enabled": bool(info & 1),
        "tsme": bool(info & 2),
        "ecc": bool(info & 4),
        "rapl_disabled": bool(info & 8),
        "ciphertext_hiding_enabled": bool(info & 16),
        "alias_check_complete": bool(info & 32),
        "tio_enabled": bool(info & 128),
        "platform_info": info,
        "platform_info_unknown": info & ~_KNOWN_PLATFORM_BITS != 0,
        "chip_masked": report.chip_masked,
        "author_key": report.author_key,
        "family_id": report.family_id.hex(),
        "image_id": report.image_id.hex(),
        "host_data": report.host_data.hex(),
        "id_key_digest": report.id_key_digest.hex(),
        "author_key_digest": report.author_key_digest.hex(),
        "reported_below_committed": reported != committed,
        "provisional_firmware": committed != current,
        "current_tcb": report.current_tcb.hex(),
        "committed_tcb": report.committed_tcb.hex(),
        "launch_tcb": report.launch_tcb.hex(),
        "current_firmware": report.current_firmware,
        "committed_firmware": report.committed_firmware,
    }
    if endorsement.provider is not None:
        attributes["provider"] = endorsement.provider
    if report.launch_mitigations is not None and report.current_mitigations is not None:
        attributes["launch_mitigations"] = report.launch_mitigations
        attributes["current_mitigations"] = report.current_mitigations
    return attributes
