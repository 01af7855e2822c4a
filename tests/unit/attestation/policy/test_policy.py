"""Which enclaves a policy accepts: every rule by itself, its name when it refuses, and its mark when it lets pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.attestation.policy.facts import (
    DAY,
    MRTD,
    NOW,
    PLATFORM,
    ROOT,
    SNP,
    SNP_POLICY,
    TCB,
    TDX,
    TDX_POLICY,
    TPM,
    TPM_POLICY,
    late,
    snp,
    tcb,
)

from cloister.attestation.claims import Claims, TcbStatus
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import ANY, AdvisoryRule, AllOf, AnyOf, AppraisalPolicy, EnclavePolicy, TcbRule
from cloister.attestation.verdicts import Verdict
from cloister.errors import ConfigurationError, LocalError, PolicyRejected

HARDENING = TcbStatus.SW_HARDENING_NEEDED
BOTH = TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED
ADVISED = tcb(advisories=frozenset({"INTEL-SA-00001", "INTEL-SA-00002"}))
LENIENT = TcbRule(grace=30 * DAY)


def tdx(**other: object) -> EnclavePolicy:
    return replace(TDX_POLICY, **other)  # type: ignore[arg-type]


def registers(**values: object) -> EnclavePolicy:
    return tdx(registers={**TDX_POLICY.registers, **values})


def attributes(**values: object) -> EnclavePolicy:
    return tdx(attributes=values)


ACCEPTED: dict[str, tuple[AppraisalPolicy, Claims, tuple[str, ...]]] = {
    "tdx": (TDX_POLICY, TDX, ()),
    "snp": (SNP_POLICY, SNP, ()),
    "tpm without a vendor's list": (TPM_POLICY, TPM, ()),
    "measurement left open in words": (tdx(measurements=ANY), TDX, ()),
    "register left open in words": (registers(rtmr2=ANY), TDX, ()),
    "platform of the list": (tdx(platforms=frozenset({PLATFORM, bytes(32)})), TDX, ()),
    "vendor of the list": (tdx(vendors=frozenset({"intel", "amd"})), TDX, ()),
    "attribute of the list": (attributes(smt={True}, quote_version={4, 5}, fmspc=ANY), TDX, ()),
    "status of the list": (
        tdx(tcb=TcbRule(frozenset({HARDENING}))),
        tcb(HARDENING),
        ("tcb-status: SWHardeningNeeded",),
    ),
    "out of date by name": (
        tdx(tcb=TcbRule(frozenset({TcbStatus.OUT_OF_DATE}))),
        late(900),
        ("tcb-status: OutOfDate",),
    ),
    "within the grace": (
        tdx(tcb=LENIENT),
        late(29),
        ("tcb-out-of-date: since 2026-12-17, in grace until 2027-01-16",),
    ),
    "on the last second of the grace": (
        tdx(tcb=LENIENT),
        late(30),
        ("tcb-out-of-date: since 2026-12-16, in grace until 2027-01-15",),
    ),
    "wrong settings and late, both forgiven": (
        tdx(tcb=TcbRule(frozenset({TcbStatus.CONFIGURATION_NEEDED}), 30 * DAY)),
        late(1, BOTH),
        ("tcb-out-of-date: since 2027-01-14, in grace until 2027-02-13",),
    ),
    "least versions": (tdx(tcb=TcbRule(minimums={"tdx_module": 5}, min_evaluation_number=17)), TDX, ()),
    "advisories of the list": (
        tdx(advisories=AdvisoryRule(frozenset({"INTEL-SA-00001", "INTEL-SA-00002"}))),
        ADVISED,
        ("advisories: INTEL-SA-00001, INTEL-SA-00002",),
    ),
    "any advisory but one": (
        tdx(advisories=AdvisoryRule(ANY, frozenset({"INTEL-SA-00009"}))),
        ADVISED,
        ("advisories: INTEL-SA-00001, INTEL-SA-00002",),
    ),
    "vmpl loosened by name": (replace(SNP_POLICY, attributes={"vmpl": {0, 1}}), snp(vmpl=1), ()),
    "any of, second": (AnyOf([SNP_POLICY, TDX_POLICY]), TDX, ()),
    "any of, both": (
        AnyOf([tdx(tcb=TcbRule(frozenset(TcbStatus) - {TcbStatus.REVOKED})), TDX_POLICY]),
        TDX,
        (),
    ),
    "all of": (AllOf([TDX_POLICY, tdx(min_svn=0)]), TDX, ()),
}


@pytest.mark.parametrize("name", list(ACCEPTED))
def test_accepted(name: str) -> None:
    policy, claims, marks = ACCEPTED[name]
    verdict = policy.check(claims, NOW)
    assert verdict.ok
    assert verdict.marks == marks


REFUSED: dict[str, tuple[AppraisalPolicy, Claims, str]] = {
    "another kind": (TDX_POLICY, SNP, "kind-not-allowed"),
    "no root": (tdx(roots=frozenset()), TDX, "no-trusted-root"),
    "another root": (TDX_POLICY, replace(TDX, root=bytes(32)), "untrusted-root"),
    "debug": (TDX_POLICY, replace(TDX, debug=True), "debug-enabled"),
    "debug where everything else is open": (
        EnclavePolicy(EvidenceKind.TPM, frozenset({ROOT}), ANY),
        replace(TPM, debug=True),
        "debug-enabled",
    ),
    "no measurement": (tdx(measurements=frozenset()), TDX, "no-reference-values"),
    "another measurement": (TDX_POLICY, replace(TDX, measurement=bytes(48)), "measurement-unknown"),
    "no value for rtmr1": (tdx(registers={"rtmr2": ANY}), TDX, "no-reference-values"),
    "no value for any register": (tdx(registers={}), TDX, "no-reference-values"),
    "empty set for rtmr1": (registers(rtmr1=frozenset()), TDX, "no-reference-values"),
    "another rtmr2": (TDX_POLICY, replace(TDX, registers={**TDX.registers, "rtmr2": MRTD}), "register-unknown"),
    "register that is not told": (registers(mrseam=frozenset({MRTD})), TDX, "register-missing"),
    "required register that is not told": (TDX_POLICY, replace(TDX, registers={}), "register-missing"),
    "azure guest of which only the launch is known": (
        EnclavePolicy(EvidenceKind.SNP_VTPM, frozenset({ROOT}), frozenset({MRTD})),
        replace(SNP, kind=EvidenceKind.SNP_VTPM),
        "no-reference-values",
    ),
    "another platform": (tdx(platforms=frozenset({bytes(32)})), TDX, "platform-not-allowed"),
    "no platform": (tdx(platforms=frozenset()), TDX, "platform-not-allowed"),
    "another vendor": (tdx(vendors=frozenset({"amd"})), TDX, "vendor-not-allowed"),
    "no vendor": (tdx(vendors=frozenset()), TDX, "vendor-not-allowed"),
    "attribute of another value": (attributes(smt={False}), TDX, "attribute-refused"),
    "attribute of no value": (attributes(smt=frozenset()), TDX, "attribute-refused"),
    "a number for a truth value": (attributes(smt={1}), TDX, "attribute-refused"),
    "attribute that is not told": (attributes(sept={True}), TDX, "attribute-missing"),
    "vmpl": (SNP_POLICY, snp(vmpl=1), "attribute-refused"),
    "vmpl as a truth value": (SNP_POLICY, snp(vmpl=False), "attribute-refused"),
    "migration agent": (SNP_POLICY, snp(migration_agent=True), "attribute-refused"),
    "reported below committed": (SNP_POLICY, snp(reported_below_committed=True), "attribute-refused"),
    "an attribute that must be told": (SNP_POLICY, replace(SNP, attributes={"vmpl": 0}), "attribute-missing"),
    "one attribute loosened, another broken": (
        replace(SNP_POLICY, attributes={"vmpl": ANY}),
        snp(vmpl=3, migration_agent=True),
        "attribute-refused",
    ),
    "security version": (tdx(min_svn=1), TDX, "svn-too-low"),
    "no tcb where the vendor has a list": (TDX_POLICY, replace(TDX, tcb=None), "tcb-unknown"),
    "no tcb where the policy asks for one": (replace(TPM_POLICY, tcb=TcbRule()), TPM, "tcb-unknown"),
    "hardening": (TDX_POLICY, tcb(HARDENING), "tcb-status"),
    "revoked": (tdx(tcb=TcbRule(frozenset(TcbStatus) - {TcbStatus.REVOKED})), tcb(TcbStatus.REVOKED), "tcb-status"),
    "no status": (tdx(tcb=TcbRule(frozenset())), TDX, "tcb-status"),
    "out of date without grace": (TDX_POLICY, late(1), "tcb-out-of-date"),
    "a second after the grace": (tdx(tcb=TcbRule(grace=30 * DAY - 1)), late(30), "tcb-out-of-date"),
    "grace, but no day to count from": (tdx(tcb=LENIENT), tcb(TcbStatus.OUT_OF_DATE), "tcb-out-of-date"),
    "grace does not forgive wrong settings": (tdx(tcb=LENIENT), late(1, BOTH), "tcb-out-of-date"),
    "grace does not forgive hardening": (tdx(tcb=LENIENT), late(1, HARDENING), "tcb-status"),
    "low version": (tdx(tcb=TcbRule(minimums={"tdx_module": 6})), TDX, "tcb-version-too-low"),
    "version that is not told": (tdx(tcb=TcbRule(minimums={"microcode": 0})), TDX, "tcb-version-unknown"),
    "old evaluation": (tdx(tcb=TcbRule(min_evaluation_number=18)), TDX, "tcb-evaluation-too-low"),
    "evaluation that is not told": (
        tdx(tcb=TcbRule(min_evaluation_number=1)),
        replace(TDX, tcb=replace(TCB, versions={})),
        "tcb-version-unknown",
    ),
    "advisories": (TDX_POLICY, ADVISED, "advisory-not-allowed"),
    "one advisory too many": (
        tdx(advisories=AdvisoryRule(frozenset({"INTEL-SA-00001"}))),
        ADVISED,
        "advisory-not-allowed",
    ),
    "denied advisory among any": (
        tdx(advisories=AdvisoryRule(ANY, frozenset({"INTEL-SA-00002"}))),
        ADVISED,
        "advisory-denied",
    ),
    "denied advisory that is allowed too": (
        tdx(advisories=AdvisoryRule(frozenset({"INTEL-SA-00001", "INTEL-SA-00002"}), frozenset({"INTEL-SA-00002"}))),
        ADVISED,
        "advisory-denied",
    ),
    "stale": (TDX_POLICY, replace(TDX, issued_at=NOW - 601), "evidence-stale"),
    "from the future": (TDX_POLICY, replace(TDX, issued_at=NOW + 61), "evidence-from-the-future"),
    "any of nothing": (AnyOf(), TDX, "no-policy"),
    "all of nothing": (AllOf(), TDX, "no-policy"),
    "any of others": (AnyOf([SNP_POLICY, TPM_POLICY]), TDX, "kind-not-allowed"),
    "any of, the telling one": (AnyOf([SNP_POLICY, tdx(min_svn=1)]), TDX, "svn-too-low"),
    "all of, the second": (AllOf([TDX_POLICY, SNP_POLICY]), TDX, "kind-not-allowed"),
    "all of an any of nothing": (AllOf([TDX_POLICY, AnyOf()]), TDX, "no-policy"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_by_name(name: str) -> None:
    policy, claims, code = REFUSED[name]
    with pytest.raises(PolicyRejected) as refusal:
        policy.check(claims, NOW)
    assert refusal.value.code == code
    assert refusal.value.message == refusal.value.message.strip()
    verdict = policy.judge(claims, NOW)
    assert (verdict.code, verdict.message, verdict.remedy) == (code, refusal.value.message, refusal.value.hint)
    assert verdict.marks == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda: tdx(measurements=frozenset({MRTD[:47]})),
        lambda: tdx(roots=frozenset({b"short"})),
        lambda: tdx(platforms=frozenset({PLATFORM[:31]})),
        lambda: registers(rtmr1=frozenset({bytes(47)})),
        lambda: tdx(vendors=frozenset({"acme"})),
        lambda: tdx(max_age=0),
        lambda: tdx(min_svn=-1),
        lambda: TcbRule(frozenset({TcbStatus.REVOKED})),
        lambda: TcbRule(grace=-1),
        lambda: TcbRule(minimums={"tdx_module": -1}),
        lambda: TcbRule(min_evaluation_number=-1),
    ],
)
def test_what_no_policy_may_say(make: object) -> None:
    with pytest.raises(ConfigurationError):
        make()  # type: ignore[operator]


def test_policies_do_not_change_with_what_they_were_made_of() -> None:
    given, levels, values = {"rtmr1": {MRTD}, "rtmr2": {MRTD}}, {"tdx_module": 1}, {"smt": {True}}
    policy = tdx(registers=given, attributes=values, tcb=TcbRule(minimums=levels))
    given["rtmr1"].clear()
    given.pop("rtmr2")
    levels.clear()
    values.clear()
    assert policy.registers == {"rtmr1": frozenset({MRTD}), "rtmr2": frozenset({MRTD})}
    assert policy.attributes == {"smt": frozenset({True})}
    assert policy.tcb is not None
    assert policy.tcb.minimums == {"tdx_module": 1}
    with pytest.raises(TypeError):
        policy.registers["rtmr1"] = ANY  # type: ignore[index]


def test_a_verdict_has_a_reason_exactly_when_it_refuses() -> None:
    with pytest.raises(LocalError):
        Verdict("rule", True, code="reason")
    with pytest.raises(LocalError):
        Verdict("rule", False)


FIELDS = st.fixed_dictionaries(
    {
        "debug": st.booleans(),
        "measurement": st.sampled_from([MRTD, bytes(48)]),
        "root": st.sampled_from([ROOT, bytes(32)]),
        "platform": st.binary(min_size=32, max_size=32),
        "svn": st.integers(0, 3),
        "issued_at": st.none() | st.integers(NOW - 2000, NOW + 2000),
        "registers": st.dictionaries(st.sampled_from(["rtmr1", "rtmr2"]), st.sampled_from([MRTD, bytes(48)])),
    }
)


@given(FIELDS, FIELDS)
def test_composition_means_what_it_says(one: dict[str, object], other: dict[str, object]) -> None:
    """AnyOf accepts exactly what a part accepts, AllOf what all parts do; and no accepted enclave is in debug mode."""
    first, second = (
        tdx(measurements=frozenset({MRTD, bytes(48)}), min_svn=1),
        tdx(registers={"rtmr1": ANY, "rtmr2": ANY}),
    )
    for values in (one, other):
        claims = replace(TDX, **values)  # type: ignore[arg-type]
        single = [policy.judge(claims, NOW).ok for policy in (first, second)]
        assert AnyOf([first, second]).judge(claims, NOW).ok == any(single)
        assert AllOf([first, second]).judge(claims, NOW).ok == all(single)
        assert not (any(single) and claims.debug)
