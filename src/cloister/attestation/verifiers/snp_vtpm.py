"""Evidence of an Azure confidential VM: a virtual TPM's quote whose key an SEV-SNP report vouches for.

The numbered checks:

1. the payload has its one form (``tpm.azure``) and the HCL report too (``tpm.hcl``);
2. the SNP report leads to a trusted AMD root (``verifiers.snp``);
3. it was asked for at VMPL 0, where the paravisor runs: what runs in the guest may ask for reports at its own level, with
   report data of its choice, and so put a key of its own into one;
4. its report data is the SHA-256 of the claims, behind it only zeros: so the claims' attestation key is the paravisor's;
5. that key signed the quote, over exactly the registers given (``tpm.quoting``);
6. with report data given, the quote's extraData is its hash; without, extraData itself is what the claims tell;
7. an event log, when given, accounts for every quoted register of the firmware (0 to 7).

The SNP measurement is that of the paravisor, which Microsoft builds and which is alike on many VMs. What the VM booted stands
in the registers (``pcr4``, ``pcr9``, ...): a policy for this kind names reference values of both.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import rsa

from cloister.attestation.claims import Attribute, Claims
from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.snp_payload import build_snp_evidence
from cloister.attestation.tpm.azure import SnpVtpmPayload, parse_snp_vtpm_payload
from cloister.attestation.tpm.boot import describe_boot
from cloister.attestation.tpm.events import parse_event_log, verify_replay
from cloister.attestation.tpm.hcl import HclReport, RuntimeClaims, parse_hcl_report, parse_runtime_claims
from cloister.attestation.tpm.payload import build_qualifying_data
from cloister.attestation.tpm.quoting import RSA_EXPONENT, verify_quote
from cloister.attestation.tpm.structures import Quote
from cloister.attestation.verifiers.snp import verify_snp
from cloister.attestation.verifiers.tpm import describe_quote
from cloister.errors import DecodeError, VerificationError

FIRMWARE_PCRS = range(8)
"""What the firmware extends before it hands over; the system that it started goes on with the others."""


def verify_snp_vtpm(payload: bytes, collateral: Collateral, now: int) -> Claims:
    """Check both halves; answer with the SNP report's claims, the TPM's registers and what both tell. ``now``: unix seconds.

    Raises:
        DecodeError, VerificationError: ``code`` names the check (``tpm.*`` and ``verifiers.snp`` list theirs); here
            ``no-trusted-root``, ``hcl-vmpl`` (check 3), ``hcl-binding`` (4), ``quote-binding`` (6), ``event-log-mismatch`` (7).
    """
    given = parse_snp_vtpm_payload(payload)
    hcl = parse_hcl_report(given.hcl_report)
    hardware = _verify_hardware(hcl, given, collateral, now)
    runtime = _verify_binding(hcl, hardware)
    key = _load_key(runtime.modulus)
    quote = verify_quote(key, given.attest, given.signature, given.pcrs)
    if given.report_data and not hmac.compare_digest(quote.extra_data, build_qualifying_data(given.report_data)):
        raise VerificationError("the quote is bound to other report data", code="quote-binding")
    registers = {f"pcr{index}": value for index, value in sorted(given.pcrs.items())}
    return replace(
        hardware,
        kind=EvidenceKind.SNP_VTPM,
        report_data=given.report_data or quote.extra_data,
        registers=MappingProxyType({**hardware.registers, **registers}),
        attributes=MappingProxyType(_describe(hardware, runtime, quote, given)),
    )


def _verify_hardware(hcl: HclReport, given: SnpVtpmPayload, collateral: Collateral, now: int) -> Claims:
    roots = collateral.roots_of(EvidenceKind.SNP_VTPM)
    if not roots:
        raise VerificationError("no AMD root is trusted here for virtual tpms", code="no-trusted-root")
    # The same vendor's pieces, kept under either kind; the roots are those that were named for this one.
    kinds = (EvidenceKind.SNP, EvidenceKind.SNP_VTPM)
    pieces = {(item.name, item.content): None for item in collateral.documents if item.kind in kinds}
    trusted = Collateral(
        tuple((EvidenceKind.SNP, root) for root in roots),
        tuple(Document(EvidenceKind.SNP, name, content) for name, content in pieces),
    )
    claims = verify_snp(build_snp_evidence(hcl.snp_report, given.certificates), trusted, now)
    if claims.attributes.get("vmpl") != 0:
        raise VerificationError("the snp report was not asked for by the paravisor, at vmpl 0", code="hcl-vmpl")
    return claims


def _verify_binding(hcl: HclReport, hardware: Claims) -> RuntimeClaims:
    bound = hashlib.sha256(hcl.claims).digest() + bytes(32)
    if not hmac.compare_digest(hardware.report_data, bound):
        raise VerificationError("the snp report is not bound to these claims of the paravisor", code="hcl-binding")
    return parse_runtime_claims(hcl.claims)


def _load_key(modulus: int) -> rsa.RSAPublicKey:
    try:
        return rsa.RSAPublicNumbers(RSA_EXPONENT, modulus).public_key()
    except ValueError as error:
        raise DecodeError("the virtual tpm's attestation key is no RSA key", code="hcl-claims") from error


def _describe(hardware: Claims, runtime: RuntimeClaims, quote: Quote, given: SnpVtpmPayload) -> dict[str, Attribute]:
    boot: dict[str, Attribute] = {}
    if given.event_log:
        events = parse_event_log(given.event_log)
        verify_replay(events, {index: given.pcrs[index] for index in FIRMWARE_PCRS if index in given.pcrs})
        # Labels are told only of registers whose log was held against the quote.
        boot = describe_boot(event for event in events if event.pcr in FIRMWARE_PCRS and event.pcr in given.pcrs)
    # Whatever a later source calls by the same name does not replace what an earlier one proved.
    return {**boot, **runtime.attributes, **describe_quote(quote), **hardware.attributes}
