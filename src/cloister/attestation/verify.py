"""The one way from evidence to trust: ``appraise``.

The numbered checks, each of which denies with a named reason:

1. the kind of evidence has a verifier here;
2. the evidence parses, with nothing behind it;
3. its signatures lead to a root that the caller names;
4. it says the report data that the caller expects: this chain, hub, SMS, task, nonce, app and these two keys; where the
   hardware measured the app itself, it is that very app;
5. the policy accepts root, debug state, measurements, platform, attributes, security versions, advisories and age.

An ``Appraisal`` is the proof that all five held; nothing else can build one.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from cloister.attestation.assurance import warning_for
from cloister.attestation.claims import Claims
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.policy import AppraisalPolicy
from cloister.attestation.report import REPORT_DATA_SIZE
from cloister.attestation.verifiers.simulated import verify_simulated
from cloister.errors import LocalError, VerificationError

_SEAL = object()


@dataclass(frozen=True, slots=True)
class Appraisal:
    """Proof that evidence passed every check at ``appraised_at`` (unix seconds). Built by ``appraise`` only.

    ``marks``: what the policy let pass and must be said beside the acceptance, such as a platform in its grace.
    """

    claims: Claims
    appraised_at: int
    _seal: object
    marks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self._seal is not _SEAL:
            raise LocalError("an appraisal is built by appraise() only")

    @property
    def kind(self) -> EvidenceKind:
        return self.claims.kind

    @property
    def simulated(self) -> bool:
        """True when the evidence rests on software alone."""
        return self.claims.kind is EvidenceKind.SIMULATED

    @property
    def warning(self) -> str | None:
        """The words that must stand beside anything that rests on it."""
        return warning_for(self.claims.kind)


def appraise(
    evidence: Evidence,
    *,
    policy: AppraisalPolicy,
    expected_report_data: bytes,
    now: int,
    collateral: Collateral,
    expected_app_digest: bytes | None = None,
) -> Appraisal:
    """Judge ``evidence`` by the numbered checks above.

    ``expected_report_data``: the 64 bytes that ``report.build_report_data`` gives for what the caller knows itself.
    ``now``: unix seconds. ``expected_app_digest``: the 32 bytes in that report data; None only where no app is at hand.

    Raises:
        DecodeError: check 2. VerificationError: checks 1, 3 and 4. PolicyRejected: check 5. ``code`` names the reason.
    """
    if len(expected_report_data) != REPORT_DATA_SIZE:
        raise LocalError(f"expected report data has {len(expected_report_data)} bytes instead of {REPORT_DATA_SIZE}")
    claims = read_claims(evidence, collateral, now)
    if not hmac.compare_digest(claims.report_data, expected_report_data):
        raise VerificationError(
            "the evidence is bound to another task, nonce, app, service or key", code="report-data-mismatch"
        )
    measured, expected = claims.app_digest, expected_app_digest
    if measured is not None and (expected is None or not hmac.compare_digest(measured, expected)):
        raise VerificationError("the hardware measured another app than the expected one", code="app-digest-mismatch")
    verdict = policy.check(claims, now)
    return Appraisal(claims, now, _SEAL, verdict.marks)


def read_claims(evidence: Evidence, collateral: Collateral, now: int) -> Claims:
    """Checks 1 to 3 alone: what the hardware said, signatures proven. It is no appraisal: nothing was asked of it yet.

    Raises:
        DecodeError, VerificationError.
    """
    # A verifier is imported when its kind is met: each brings a parser or a library that the others do not need.
    match evidence.kind:
        case EvidenceKind.SIMULATED:
            return verify_simulated(evidence.payload, collateral.roots_of(evidence.kind), now)
        case EvidenceKind.TDX:
            from cloister.attestation.verifiers.tdx import verify_tdx

            return verify_tdx(evidence.payload, collateral, now)
        case EvidenceKind.SGX:
            from cloister.attestation.verifiers.sgx import verify_sgx

            return verify_sgx(evidence.payload, collateral, now)
        case EvidenceKind.SNP:
            from cloister.attestation.verifiers.snp import verify_snp

            return verify_snp(evidence.payload, collateral, now)
        case EvidenceKind.TPM:
            from cloister.attestation.verifiers.tpm import verify_tpm

            return verify_tpm(evidence.payload, collateral, now)
        case EvidenceKind.SNP_VTPM:
            from cloister.attestation.verifiers.snp_vtpm import verify_snp_vtpm

            return verify_snp_vtpm(evidence.payload, collateral, now)
