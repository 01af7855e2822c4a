"""The one way from evidence to trust: ``appraise``.

The numbered checks, each of which denies with a named reason:

1. the kind of evidence has a verifier here;
2. the evidence parses, with nothing behind it;
3. its signatures lead to a root that the caller names;
4. it says the report data that the caller expects: this chain, hub, SMS, task, nonce, app and these two keys;
5. the policy accepts root, debug state, measurement, security version and age.

An ``Appraisal`` is the proof that all five held; nothing else can build one.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from cloister.attestation.claims import Claims
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.policy import AppraisalPolicy
from cloister.attestation.report import REPORT_DATA_SIZE
from cloister.attestation.verifiers.simulated import verify_simulated
from cloister.errors import LocalError, VerificationError

SIMULATED_WARNING = "SIMULATED: not confidential against the host"

_SEAL = object()


@dataclass(frozen=True, slots=True)
class Collateral:
    """What a verifier needs beside the evidence. ``roots``: trusted root certificates (DER), per kind."""

    roots: tuple[tuple[EvidenceKind, bytes], ...] = ()

    def roots_of(self, kind: EvidenceKind) -> tuple[bytes, ...]:
        """The trusted roots of one kind; none means that kind is refused."""
        return tuple(der for k, der in self.roots if k is kind)


def simulated_collateral(roots: Iterable[bytes]) -> Collateral:
    """Collateral that trusts these simulated roots and nothing else."""
    return Collateral(tuple((EvidenceKind.SIMULATED, root) for root in roots))


@dataclass(frozen=True, slots=True)
class Appraisal:
    """Proof that evidence passed every check at ``appraised_at`` (unix seconds). Built by ``appraise`` only."""

    claims: Claims
    appraised_at: int
    _seal: object

    def __post_init__(self) -> None:
        if self._seal is not _SEAL:
            raise LocalError("an appraisal is built by appraise() only")

    @property
    def kind(self) -> EvidenceKind:
        return self.claims.kind

    @property
    def simulated(self) -> bool:
        """True when the evidence rests on software: pages, lines and receipts then carry ``SIMULATED_WARNING``."""
        return self.claims.kind is EvidenceKind.SIMULATED

    @property
    def warning(self) -> str | None:
        return SIMULATED_WARNING if self.simulated else None


def appraise(
    evidence: Evidence,
    *,
    policy: AppraisalPolicy,
    expected_report_data: bytes,
    now: int,
    collateral: Collateral,
) -> Appraisal:
    """Judge ``evidence`` by the numbered checks above.

    ``expected_report_data``: the 64 bytes that ``report.build_report_data`` gives for what the caller knows itself.
    ``now``: unix seconds.

    Raises:
        DecodeError: check 2. VerificationError: checks 1, 3 and 4. PolicyRejected: check 5. ``code`` names the reason.
    """
    if len(expected_report_data) != REPORT_DATA_SIZE:
        raise LocalError(f"expected report data has {len(expected_report_data)} bytes instead of {REPORT_DATA_SIZE}")
    claims = _verify(evidence, collateral, now)
    if not hmac.compare_digest(claims.report_data, expected_report_data):
        raise VerificationError(
            "the evidence is bound to another task, nonce, app, service or key", code="report-data-mismatch"
        )
    policy.check(claims, now)
    return Appraisal(claims, now, _SEAL)


def _verify(evidence: Evidence, collateral: Collateral, now: int) -> Claims:
    roots = collateral.roots_of(evidence.kind)
    match evidence.kind:
        case EvidenceKind.SIMULATED:
            return verify_simulated(evidence.payload, roots, now)
        case _:
            raise VerificationError(f"{evidence.kind} evidence cannot be verified here", code="kind-not-supported")
