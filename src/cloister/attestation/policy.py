"""Appraisal policies: which enclaves are good enough. Frozen, composable, and nothing is allowed that is not written
down.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cloister.attestation.claims import Claims
from cloister.attestation.evidence import EvidenceKind
from cloister.errors import ConfigurationError, PolicyRejected

MEASUREMENT_SIZES = {
    EvidenceKind.SIMULATED: 32,
    EvidenceKind.TDX: 48,
    EvidenceKind.SGX: 32,
    EvidenceKind.SNP: 48,
    EvidenceKind.TPM: 32,
    EvidenceKind.SNP_VTPM: 48,
}
"""Exact length of a measurement, in bytes. A prefix of one is not one."""

CLOCK_SKEW = 60
"""Evidence may be dated this many seconds ahead of the appraiser's clock."""

DEFAULT_MAX_AGE = 600


@dataclass(frozen=True, slots=True)
class EnclavePolicy:
    """One kind of enclave and its reference values.

    ``roots``: SHA-256 of trusted root certificates (DER). ``measurements``: programs that may run. Either one empty
    denies everything. ``max_age``: seconds between the hardware's signature and the appraisal.
    """

    kind: EvidenceKind
    roots: frozenset[bytes]
    measurements: frozenset[bytes]
    min_svn: int = 0
    max_age: int = DEFAULT_MAX_AGE

    def __post_init__(self) -> None:
        object.__setattr__(self, "roots", frozenset(self.roots))
        object.__setattr__(self, "measurements", frozenset(self.measurements))
        size = MEASUREMENT_SIZES[self.kind]
        for measurement in self.measurements:
            if len(measurement) != size:
                raise ConfigurationError(
                    f"a {self.kind} reference measurement has {len(measurement)} bytes instead of {size}",
                    hint="give the whole measurement; a prefix is not accepted",
                )
        for root in self.roots:
            if len(root) != 32:
                raise ConfigurationError(f"a root certificate's SHA-256 has {len(root)} bytes instead of 32")
        if self.max_age <= 0:
            raise ConfigurationError(f"max_age {self.max_age} is not positive")
        if self.min_svn < 0:
            raise ConfigurationError(f"min_svn {self.min_svn} is negative")

    def check(self, claims: Claims, now: int) -> None:
        """Raise ``PolicyRejected`` with the name of the first rule that the claims break."""
        if claims.kind is not self.kind:
            raise PolicyRejected(f"{claims.kind} evidence where {self.kind} is required", code="kind-not-allowed")
        if not self.roots:
            raise PolicyRejected(f"no trusted root is set for {self.kind}", code="no-trusted-root")
        if claims.root not in self.roots:
            raise PolicyRejected(f"{claims.kind} evidence rests on an unknown root", code="untrusted-root")
        if claims.debug:
            raise PolicyRejected(f"the {claims.kind} enclave is in debug mode", code="debug-enabled")
        if not self.measurements:
            raise PolicyRejected(f"no reference measurement is set for {self.kind}", code="no-reference-values")
        if claims.measurement not in self.measurements:
            raise PolicyRejected(
                f"measurement {claims.measurement.hex()} is not a reference value",
                code="measurement-unknown",
                hint="the agent is another release than the reference values: set them anew, or restart with one release",
            )
        if claims.svn < self.min_svn:
            raise PolicyRejected(f"security version {claims.svn} is below {self.min_svn}", code="svn-too-low")
        if claims.issued_at is None:
            return
        if claims.issued_at > now + CLOCK_SKEW:
            raise PolicyRejected(
                f"evidence is dated {claims.issued_at - now} seconds ahead", code="evidence-from-the-future"
            )
        if now - claims.issued_at > self.max_age:
            raise PolicyRejected(
                f"evidence is {now - claims.issued_at} seconds old; at most {self.max_age}", code="evidence-stale"
            )


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Accepts what at least one of its policies accepts. Without policies it accepts nothing."""

    policies: tuple[AppraisalPolicy, ...] = field(default=())

    def __init__(self, policies: Iterable[AppraisalPolicy] = ()) -> None:
        object.__setattr__(self, "policies", tuple(policies))

    def check(self, claims: Claims, now: int) -> None:
        """Raise the only refusal, or ``PolicyRejected`` that lists all of them."""
        refusals: list[PolicyRejected] = []
        for policy in self.policies:
            try:
                return policy.check(claims, now)
            except PolicyRejected as refusal:
                refusals.append(refusal)
        if not refusals:
            raise PolicyRejected("no appraisal policy is set", code="no-policy")
        # A refusal for another kind of evidence says nothing about this one.
        telling = [r for r in refusals if r.code != "kind-not-allowed"] or refusals
        if len(telling) == 1:
            raise telling[0]
        raise PolicyRejected("; ".join(r.message for r in telling[:4]), code=telling[0].code)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Accepts what every one of its policies accepts. Without policies it accepts nothing."""

    policies: tuple[AppraisalPolicy, ...] = field(default=())

    def __init__(self, policies: Iterable[AppraisalPolicy] = ()) -> None:
        object.__setattr__(self, "policies", tuple(policies))

    def check(self, claims: Claims, now: int) -> None:
        """Raise the first refusal."""
        if not self.policies:
            raise PolicyRejected("no appraisal policy is set", code="no-policy")
        for policy in self.policies:
            policy.check(claims, now)


AppraisalPolicy = EnclavePolicy | AnyOf | AllOf
