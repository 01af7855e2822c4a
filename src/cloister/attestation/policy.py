"""Appraisal policies: which enclaves are good enough. Frozen, composable, and nothing is allowed that is not written
down.

Every node answers ``judge(claims, now)`` with a tree of verdicts, and ``check`` raises what that tree refuses first. A
debug enclave is never accepted and no field of a policy changes that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cloister.attestation.claims import VENDORS, Attribute, Claims
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.tcb import ANY, AdvisoryRule, Anything, TcbRule
from cloister.attestation.verdicts import OTHER_KIND, Verdict, fails, holds, judge_all, judge_any
from cloister.errors import ConfigurationError, quoted

MEASUREMENT_SIZES = {
    EvidenceKind.SIMULATED: 32,
    EvidenceKind.TDX: 48,
    EvidenceKind.SGX: 32,
    EvidenceKind.SNP: 48,
    EvidenceKind.TPM: 32,
    EvidenceKind.SNP_VTPM: 48,
}
"""Exact length of a measurement, in bytes. A prefix of one is not one."""

REQUIRED_REGISTERS: Final[Mapping[EvidenceKind, tuple[str, ...]]] = {
    EvidenceKind.TDX: ("rtmr1", "rtmr2"),
    EvidenceKind.SNP_VTPM: ("pcr4", "pcr9"),
}
"""Registers without which the main measurement says nothing of the program: MRTD covers the firmware of a TDX guest only,
and the launch measurement of Azure's guests only what boots them. They need reference values, or the word ``ANY``."""

REQUIRED_ATTRIBUTES: Final[Mapping[EvidenceKind, Mapping[str, Attribute]]] = {
    kind: {"vmpl": 0, "migration_agent": False, "reported_below_committed": False}
    for kind in (EvidenceKind.SNP, EvidenceKind.SNP_VTPM)
}
"""What must be so unless a policy names the attribute itself."""

CLOCK_SKEW = 60
"""Evidence may be dated this many seconds ahead of the appraiser's clock."""

DEFAULT_MAX_AGE = 600
PLATFORM_SIZE: Final = 32
MAX_REGISTER: Final = 64
_LISTED_KINDS: Final = frozenset({EvidenceKind.TDX, EvidenceKind.SGX, EvidenceKind.SNP, EvidenceKind.SNP_VTPM})
"""Kinds whose vendor tells how far a platform's firmware is."""

References = frozenset[bytes] | Anything
Allowed = frozenset[Attribute] | Anything


@dataclass(frozen=True, slots=True)
class EnclavePolicy:
    """One kind of enclave and its reference values.

    ``roots``: SHA-256 of trusted root certificates (DER). ``measurements``: programs that may run. Either one empty
    denies everything. ``registers``: reference values by register name; ``REQUIRED_REGISTERS`` must be among them.
    ``platforms`` (32 bytes each) and ``vendors``: None leaves them open, an empty set denies. ``attributes``: accepted
    values by name, over ``REQUIRED_ATTRIBUTES``. ``tcb``: None is the strictest rule for kinds with a vendor's list, and
    none for the others. ``max_age``: seconds between the hardware's signature and the appraisal. ``names``: what people
    call a reference value; only explanations use it.

    Raises:
        ConfigurationError: a value of another length, or out of range.
    """

    kind: EvidenceKind
    roots: frozenset[bytes]
    measurements: References
    min_svn: int = 0
    max_age: int = DEFAULT_MAX_AGE
    registers: Mapping[str, References] = field(default_factory=dict, hash=False)
    platforms: frozenset[bytes] | None = None
    vendors: frozenset[str] | None = None
    tcb: TcbRule | None = None
    advisories: AdvisoryRule = field(default_factory=AdvisoryRule)
    attributes: Mapping[str, Allowed] = field(default_factory=dict, hash=False)
    names: Mapping[bytes, str] = field(default_factory=dict, hash=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "roots", frozenset(self.roots))
        object.__setattr__(self, "measurements", _frozen(self.measurements))
        object.__setattr__(self, "registers", _frozen_members(self.registers))
        object.__setattr__(self, "attributes", _frozen_members(self.attributes))
        object.__setattr__(self, "names", MappingProxyType(dict(self.names)))
        for name in ("platforms", "vendors"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, frozenset(given))
        self._check_sizes()
        if self.max_age <= 0:
            raise ConfigurationError(f"max_age {self.max_age} is not positive")
        if self.min_svn < 0:
            raise ConfigurationError(f"min_svn {self.min_svn} is negative")

    def _check_sizes(self) -> None:
        size = MEASUREMENT_SIZES[self.kind]
        for measurement in _listed(self.measurements):
            if len(measurement) != size:
                raise ConfigurationError(
                    f"a {self.kind} reference measurement has {len(measurement)} bytes instead of {size}",
                    hint="give the whole measurement; a prefix is not accepted",
                )
        for root in self.roots:
            if len(root) != 32:
                raise ConfigurationError(f"a root certificate's SHA-256 has {len(root)} bytes instead of 32")
        for platform in self.platforms or ():
            if len(platform) != PLATFORM_SIZE:
                raise ConfigurationError(f"a platform's id has {len(platform)} bytes instead of {PLATFORM_SIZE}")
        for name, values in self.registers.items():
            wanted = register_size(self.kind, name)
            for value in _listed(values):
                if len(value) != wanted if wanted else not 0 < len(value) <= MAX_REGISTER:
                    raise ConfigurationError(
                        f"a reference value of {quoted(name)} has {len(value)} bytes instead of {wanted or '1 to 64'}"
                    )
        for vendor in self.vendors or ():
            if vendor not in VENDORS.values():
                raise ConfigurationError(f"vendor {quoted(vendor)} is unknown")

    def judge(self, claims: Claims, now: int) -> Verdict:
        """Judge every rule; only the kind where it is another one, since nothing else would mean anything."""
        rule = f"{self.kind} enclave"
        if claims.kind is not self.kind:
            text = f"{claims.kind} evidence where {self.kind} is required"
            return judge_all(rule, [fails("kind", OTHER_KIND, text, found=claims.kind, wanted=self.kind)])
        return judge_all(rule, tuple(self._verdicts(claims, now)))

    def check(self, claims: Claims, now: int) -> Verdict:
        """Return the verdict, or raise ``PolicyRejected`` with the name of the first rule that the claims break."""
        return self.judge(claims, now).require()

    def _verdicts(self, claims: Claims, now: int) -> Iterator[Verdict]:
        yield holds("kind", found=claims.kind, wanted=self.kind)
        yield self._judge_root(claims)
        if claims.debug:
            yield fails(
                "debug",
                "debug-enabled",
                f"the {claims.kind} enclave is in debug mode",
                found="on",
                wanted="off",
                remedy="start the enclave without debug mode: no policy can accept it",
            )
        else:
            yield holds("debug", found="off", wanted="off")
        yield self._judge_measurement(claims)
        for name in sorted({*REQUIRED_REGISTERS.get(self.kind, ()), *self.registers}):
            yield self._judge_register(name, claims.registers.get(name))
        if self.platforms is not None:
            yield self._judge_platform(claims.platform, self.platforms)
        if self.vendors is not None:
            yield _judge_vendor(claims.vendor, self.vendors)
        wanted: dict[str, Allowed] = {
            name: frozenset({value}) for name, value in REQUIRED_ATTRIBUTES.get(self.kind, {}).items()
        }
        wanted.update(self.attributes)
        for name in sorted(wanted):
            yield _judge_attribute(name, claims.attributes.get(name), wanted[name])
        yield self._judge_svn(claims.svn)
        if self.tcb is not None or self.kind in _LISTED_KINDS:
            yield (self.tcb or TcbRule()).judge(claims.tcb, now)
        yield self.advisories.judge(claims.tcb)
        yield self._judge_age(claims.issued_at, now)

    def _judge_root(self, claims: Claims) -> Verdict:
        found = claims.root.hex()
        if not self.roots:
            return fails(
                "root", "no-trusted-root", f"no trusted root is set for {self.kind}", found=found, wanted="nothing"
            )
        wanted = f"one of {len(self.roots)}" if len(self.roots) > 1 else next(iter(self.roots)).hex()
        if claims.root not in self.roots:
            return fails(
                "root", "untrusted-root", f"{claims.kind} evidence rests on an unknown root", found=found, wanted=wanted
            )
        return holds("root", found=found, wanted=wanted)

    def _judge_measurement(self, claims: Claims) -> Verdict:
        found, references = claims.measurement.hex(), self.measurements
        if isinstance(references, Anything):
            return holds("measurement", found=found, wanted="any")
        if not references:
            text = f"no reference measurement is set for {self.kind}"
            remedy = "name the measurements of the programs that may run"
            return fails("measurement", "no-reference-values", text, found=found, wanted="nothing", remedy=remedy)
        wanted = self._describe(references)
        if claims.measurement not in references:
            known = sorted({self.names[value] for value in references if value in self.names})
            remedy = (
                f"add it, or run image {' or '.join(known)}"
                if known
                else "the agent is another release than the reference values: set them anew, or restart with one release"
            )
            text = f"measurement {found} is not a reference value"
            return fails("measurement", "measurement-unknown", text, found=found, wanted=wanted, remedy=remedy)
        return holds("measurement", found=self._named(claims.measurement), wanted=wanted)

    def _judge_register(self, name: str, value: bytes | None) -> Verdict:
        rule = f"register {name}"
        found = "none" if value is None else value.hex()
        references = self.registers.get(name, frozenset[bytes]())
        if isinstance(references, Anything):
            return holds(rule, found=found, wanted="any")
        if not references:
            text = f"no reference value is set for {name} of {self.kind}"
            remedy = f'give the values of {quoted(name)}, or the word "any"'
            return fails(rule, "no-reference-values", text, found=found, wanted="nothing", remedy=remedy)
        wanted = self._describe(references)
        if value is None:
            return fails(
                rule, "register-missing", f"the evidence has no register {quoted(name)}", found=found, wanted=wanted
            )
        if value not in references:
            text = f"register {name} with {found} is not a reference value"
            return fails(
                rule, "register-unknown", text, found=found, wanted=wanted, remedy="add it, if you know the image"
            )
        return holds(rule, found=self._named(value), wanted=wanted)

    def _judge_platform(self, platform: bytes, allowed: frozenset[bytes]) -> Verdict:
        found, wanted = platform.hex(), f"one of {len(allowed)} platforms"
        if platform not in allowed:
            text = f"platform {found} is not among those that are allowed"
            return fails(
                "platform", "platform-not-allowed", text, found=found, wanted=wanted, remedy="add the platform"
            )
        return holds("platform", found=found, wanted=wanted)

    def _judge_svn(self, svn: int) -> Verdict:
        wanted = f"at least {self.min_svn}"
        if svn < self.min_svn:
            text = f"security version {svn} is below {self.min_svn}"
            return fails("security version", "svn-too-low", text, found=str(svn), wanted=wanted)
        return holds("security version", found=str(svn), wanted=wanted)

    def _judge_age(self, issued_at: int | None, now: int) -> Verdict:
        wanted = f"at most {self.max_age} seconds old"
        if issued_at is None:
            return holds("age", found="no date: the hardware has no clock, the nonce is what is fresh")
        age = now - issued_at
        found = f"{age} seconds old"
        if -age > CLOCK_SKEW:
            text = f"evidence is dated {-age} seconds ahead"
            return fails("age", "evidence-from-the-future", text, found=found, wanted=wanted)
        if age > self.max_age:
            text = f"evidence is {age} seconds old; at most {self.max_age}"
            return fails("age", "evidence-stale", text, found=found, wanted=wanted)
        return holds("age", found=found, wanted=wanted)

    def _named(self, value: bytes) -> str:
        name = self.names.get(value)
        return value.hex() if name is None else f"{value.hex()} ({name})"

    def _describe(self, references: frozenset[bytes]) -> str:
        if len(references) == 1:
            return self._named(next(iter(references)))
        known = sorted({self.names[value] for value in references if value in self.names})
        return f"one of {len(references)} reference values" + (f" ({', '.join(known)})" if known else "")


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Accepts what at least one of its policies accepts. Without policies it accepts nothing."""

    policies: tuple[AppraisalPolicy, ...] = field(default=())

    def __init__(self, policies: Iterable[AppraisalPolicy] = ()) -> None:
        object.__setattr__(self, "policies", tuple(policies))

    def judge(self, claims: Claims, now: int) -> Verdict:
        """Judge every policy; a refusal is the only telling one, or lists all of them."""
        return judge_any("any of", [policy.judge(claims, now) for policy in self.policies])

    def check(self, claims: Claims, now: int) -> Verdict:
        """Return the verdict, or raise ``PolicyRejected``."""
        return self.judge(claims, now).require()


@dataclass(frozen=True, slots=True)
class AllOf:
    """Accepts what every one of its policies accepts. Without policies it accepts nothing."""

    policies: tuple[AppraisalPolicy, ...] = field(default=())

    def __init__(self, policies: Iterable[AppraisalPolicy] = ()) -> None:
        object.__setattr__(self, "policies", tuple(policies))

    def judge(self, claims: Claims, now: int) -> Verdict:
        """Judge every policy; a refusal is the first one."""
        return judge_all("all of", [policy.judge(claims, now) for policy in self.policies])

    def check(self, claims: Claims, now: int) -> Verdict:
        """Return the verdict, or raise ``PolicyRejected``."""
        return self.judge(claims, now).require()


AppraisalPolicy = EnclavePolicy | AnyOf | AllOf


def register_size(kind: EvidenceKind, name: str) -> int | None:
    """Exact length in bytes of a register's value, None where it is not known here."""
    if name.startswith("pcr"):
        return 32
    match kind:
        case EvidenceKind.TDX:
            return 48
        case EvidenceKind.SGX:
            return 32 if name == "mrsigner" else None
        case _:
            return {"host_data": 32, "report_id": 32, "id_key_digest": 48, "author_key_digest": 48}.get(name)


def _judge_vendor(vendor: str, allowed: frozenset[str]) -> Verdict:
    wanted = " or ".join(sorted(allowed)) or "nothing"
    if vendor not in allowed:
        text = f"hardware of the vendor {vendor} is not allowed"
        return fails("vendor", "vendor-not-allowed", text, found=vendor, wanted=wanted, remedy=f'add "{vendor}"')
    return holds("vendor", found=vendor, wanted=wanted)


def _judge_attribute(name: str, value: Attribute | None, allowed: Allowed) -> Verdict:
    rule, found = f"attribute {name}", _spell(value)
    if isinstance(allowed, Anything):
        return holds(rule, found=found, wanted="any")
    wanted = " or ".join(sorted(_spell(each) for each in allowed)) or "nothing"
    if value is None:
        text = f"the evidence does not say {quoted(name)}"
        return fails(rule, "attribute-missing", text, found=found, wanted=wanted)
    # 1 and True are equal in Python and not the same word of a vendor.
    if not any(type(each) is type(value) and each == value for each in allowed):
        text = f"attribute {name} is {found}, the policy wants {wanted}"
        remedy = f'change the guest, or name "{name}" in attributes'
        return fails(rule, "attribute-refused", text, found=found, wanted=wanted, remedy=remedy)
    return holds(rule, found=found, wanted=wanted)


def _spell(value: Attribute | None) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "true" if value else "false"
        case _:
            return quoted(str(value))


def _listed(references: References) -> frozenset[bytes]:
    return frozenset() if isinstance(references, Anything) else references


def _frozen(values: Iterable[object] | Anything) -> frozenset[object] | Anything:
    return values if isinstance(values, Anything) else frozenset(values)


def _frozen_members(members: Mapping[str, Iterable[object] | Anything]) -> Mapping[str, object]:
    return MappingProxyType({name: _frozen(values) for name, values in members.items()})


__all__ = ["ANY", "AdvisoryRule", "AllOf", "AnyOf", "AppraisalPolicy", "EnclavePolicy", "TcbRule"]
