"""Owners' rules: what is read, what is refused and where, and that one meaning has one spelling."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.attestation.policy.facts import MRTD, NOW, PLATFORM, ROOT, RTMR1, TDX, TPM, late

from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import ANY, AllOf, AnyOf, EnclavePolicy
from cloister.attestation.rules import RULES_CAP, Distinct, parse_rules
from cloister.errors import DecodeError, PolicyRejected, TooLarge

ROOTS = {kind: frozenset({ROOT}) for kind in EvidenceKind}
H48, H32 = MRTD.hex(), PLATFORM.hex()
TDX_RULES: dict[str, Any] = {
    "kind": "tdx",
    "measurements": [H48],
    "registers": {"rtmr1": [RTMR1.hex()], "rtmr2": "any"},
}
FULL: dict[str, Any] = {
    "version": 1,
    "any_of": [
        {
            **TDX_RULES,
            "measurements": ["set:release-1", H48.upper()],
            "tcb": {
                "statuses": ["UpToDate", "SWHardeningNeeded"],
                "grace_days": 30,
                "min": {"tdx_module": 5},
                "min_evaluation_number": 17,
            },
            "advisories": {"allow": ["INTEL-SA-00289"], "deny": ["INTEL-SA-00001"]},
            "platforms": ["0x" + H32],
            "vendors": ["intel"],
            "attributes": {"smt": False, "quote_version": [5, 4], "fmspc": "any"},
            "min_svn": 0,
            "max_age": 300,
        },
        {"all_of": [{"kind": "tpm", "measurements": "any"}]},
    ],
    "sets": {"release-1": ["ab" * 48]},
    "distinct": "platform",
}


def tdx(**other: object) -> dict[str, Any]:
    return {**TDX_RULES, **other}


def nested(depth: int) -> dict[str, Any]:
    return {"any_of": [nested(depth - 1)]} if depth else {"kind": "tpm", "measurements": "any"}


def test_everything_that_can_be_said() -> None:
    rules = parse_rules(FULL)
    assert rules.distinct is Distinct.PLATFORM
    assert rules.gaps == ()
    assert isinstance(rules.node, AnyOf)
    first, second = rules.node.policies
    assert isinstance(first, EnclavePolicy)
    assert first.measurements == {MRTD, b"\xab" * 48}
    assert first.registers == {"rtmr1": {RTMR1}, "rtmr2": ANY}
    assert first.tcb is not None
    assert (first.tcb.grace, first.tcb.min_evaluation_number) == (30 * 86_400, 17)
    assert first.platforms == {PLATFORM}
    assert first.attributes == {"smt": {False}, "quote_version": {4, 5}, "fmspc": ANY}
    assert first.roots == frozenset()
    assert first.max_age == 300
    assert isinstance(second, AllOf)


def test_one_meaning_has_one_spelling() -> None:
    rules = parse_rules(FULL)
    assert parse_rules(rules.to_json()) == rules
    assert rules.canonical == json.dumps(rules.to_json(), sort_keys=True, separators=(",", ":"))
    shuffled = json.loads(json.dumps(FULL))
    shuffled["any_of"][0]["measurements"].reverse()
    shuffled["any_of"][0]["tcb"]["statuses"].reverse()
    shuffled["any_of"][0]["attributes"]["quote_version"].reverse()
    shuffled["any_of"][0].pop("min_svn")
    shuffled.pop("version")
    shuffled["any_of"][1]["all_of"][0] |= {"attributes": {}, "registers": {}, "advisories": {}}
    assert parse_rules(shuffled).digest == rules.digest
    assert rules.digest == hashlib.sha256(b"cloister/hardware-rules/v1" + rules.canonical.encode()).digest()
    shuffled["any_of"].reverse()
    assert parse_rules(shuffled).digest != rules.digest


def test_roots_are_the_relying_partys() -> None:
    rules = parse_rules(tdx())
    assert rules.policy(ROOTS).check(TDX, NOW).ok
    for roots in ({}, {EvidenceKind.SGX: frozenset({ROOT})}, {EvidenceKind.TDX: frozenset({bytes(32)})}):
        with pytest.raises(PolicyRejected):
            rules.policy(roots).check(TDX, NOW)
    with pytest.raises(PolicyRejected):
        rules.policy(ROOTS).check(replace(TDX, debug=True), NOW)


def test_days_of_grace_are_days() -> None:
    rules = parse_rules(tdx(tcb={"grace_days": 30})).policy(ROOTS)
    assert rules.check(late(30), NOW).marks
    with pytest.raises(PolicyRejected) as refusal:
        rules.check(late(45), NOW)
    assert refusal.value.hint == "update the platform's firmware, or grace_days >= 45"
    assert parse_rules(tdx(tcb={"grace_days": 45})).policy(ROOTS).check(late(45), NOW).ok


@pytest.mark.parametrize(
    ("rules", "gaps"),
    [
        ({"kind": "tpm"}, ("measurements",)),
        ({"kind": "tdx"}, ("measurements", "registers.rtmr1", "registers.rtmr2")),
        ({"all_of": [tdx(registers={"rtmr2": "any"})]}, ("all_of[0].registers.rtmr1",)),
    ],
)
def test_missing_reference_values_are_told_and_deny(rules: dict[str, Any], gaps: tuple[str, ...]) -> None:
    parsed = parse_rules(rules)
    assert parsed.gaps == gaps
    claims = TPM if rules.get("kind") == "tpm" else TDX
    with pytest.raises(PolicyRejected) as refusal:
        parsed.policy(ROOTS).check(claims, NOW)
    assert refusal.value.code == "no-reference-values"


MALFORMED: dict[str, tuple[object, str]] = {
    "no object": ([], "the rules is a list"),
    "nothing": ({}, "the rules needs exactly one of kind, any_of and all_of"),
    "two at once": ({**tdx(), "any_of": [tdx()]}, "the rules needs exactly one"),
    "another version": (tdx(version=2), "version is another than 1"),
    "version true": (tdx(version=True), "version is another than 1"),
    "version as a fraction": (tdx(version=1.0), "version is another than 1"),
    "unknown kind": ({"kind": "sev", "measurements": "any"}, "kind is unknown: sev"),
    "kind as a number": ({"kind": 1}, "kind is unknown: a number"),
    "unknown member": (tdx(debug=True), "debug is unknown"),
    "roots": (tdx(roots=[H32]), "roots is unknown"),
    "unknown member inside": ({"any_of": [tdx(tcb={"grace": 1})]}, "any_of[0].tcb.grace is unknown"),
    "empty any_of": ({"any_of": []}, "any_of is empty"),
    "any_of is no list": ({"any_of": {}}, "any_of is an object where a list belongs"),
    "element is no object": ({"any_of": [tdx(), "tdx"]}, "any_of[1] is a text where an object belongs"),
    "no measurement": (tdx(measurements=[]), "measurements is empty"),
    "measurement as text": (tdx(measurements=H48), "measurements is a text where a list belongs"),
    "measurement as a prefix": (tdx(measurements=[H48[:94]]), "measurements[0] has 47 bytes instead of 48"),
    "measurement of another kind": (tdx(measurements=[H48, H32]), "measurements[1] has 32 bytes instead of 48"),
    "measurement twice": (tdx(measurements=[H48, "0x" + H48.upper()]), "measurements[1] stands there twice"),
    "measurement that is no hex": (tdx(measurements=["0x" + "gg" * 48]), "measurements[0] is no hex"),
    "register of another length": (tdx(registers={"rtmr1": [H32], "rtmr2": "any"}), "registers.rtmr1[0] has 32 bytes"),
    "register null": (tdx(registers={"rtmr1": None, "rtmr2": "any"}), "registers.rtmr1 is null where a list"),
    "set that is not there": (tdx(measurements=["set:r2"]), 'measurements[0] names the set "r2"'),
    "set that nobody names": (tdx(sets={"r1": [H48]}), "sets.r1 is named by no rule"),
    "set of another length": (tdx(measurements=["set:r1"], sets={"r1": [H32]}), "measurements[0] has 32 bytes"),
    "set with a bad name": (tdx(sets={"R 1": [H48]}), "sets.R 1 is no name of a set"),
    "sets inside": ({"any_of": [tdx(sets={})]}, "any_of[0].sets is unknown"),
    "distinct inside": ({"any_of": [tdx(distinct="platform")]}, "any_of[0].distinct is unknown"),
    "unknown distinct": (tdx(distinct="operator"), "distinct is unknown: operator"),
    "revoked": (tdx(tcb={"statuses": ["Revoked"]}), "tcb.statuses[0] is unknown: Revoked"),
    "unknown status": (tdx(tcb={"statuses": ["uptodate"]}), "tcb.statuses[0] is unknown: uptodate"),
    "status twice": (tdx(tcb={"statuses": ["UpToDate", "UpToDate"]}), "tcb.statuses[1] stands there twice"),
    "grace as text": ({"any_of": [tdx(tcb={"grace_days": "30"})]}, "any_of[0].tcb.grace_days is a text"),
    "grace as a fraction": (tdx(tcb={"grace_days": 0.5}), "tcb.grace_days is a fraction"),
    "grace as a truth value": (tdx(tcb={"grace_days": True}), "tcb.grace_days is true"),
    "grace below zero": (tdx(tcb={"grace_days": -1}), "tcb.grace_days is -1, it must be 0 to 3650"),
    "grace for ever": (tdx(tcb={"grace_days": 10**5000}), "tcb.grace_days is far out of range"),
    "least version below zero": (tdx(tcb={"min": {"tdx_module": -1}}), "tcb.min.tdx_module is -1"),
    "least versions as a list": (tdx(tcb={"min": [5]}), "tcb.min is a list where an object belongs"),
    "tcb null": (tdx(tcb=None), "tcb is null where an object belongs"),
    "advisories as a list": (tdx(advisories=["INTEL-SA-00289"]), "advisories is a list where an object belongs"),
    "no advisory": (tdx(advisories={"allow": []}), "advisories.allow is empty"),
    "platform of another length": (tdx(platforms=[H48]), "platforms[0] has 48 bytes instead of 32"),
    "no platform": (tdx(platforms=[]), "platforms is empty"),
    "unknown vendor": (tdx(vendors=["acme"]), "vendors[0] is unknown: acme"),
    "attribute as an object": (tdx(attributes={"smt": {}}), "attributes.smt is an object"),
    "attribute null": (tdx(attributes={"smt": None}), "attributes.smt is null"),
    "any in a list": (tdx(attributes={"smt": ["any"]}), 'attributes.smt[0] is the word "any" in a list'),
    "one and true": (tdx(attributes={"smt": [1, True]}), "attributes.smt[1] stands there twice"),
    "a number beyond reach": (tdx(attributes={"smt": 10**5000}), "attributes.smt is a number far out of range"),
    "max_age zero": (tdx(max_age=0), "max_age is 0, it must be 1 to"),
    "a name that cannot be printed": (tdx(attributes={"a\nb": 1}), "is no name"),
}


@pytest.mark.parametrize("name", list(MALFORMED))
def test_what_is_wrong_is_named_with_its_place(name: str) -> None:
    value, says = MALFORMED[name]
    with pytest.raises(DecodeError) as refusal:
        parse_rules(value)
    assert refusal.value.code == "rules-malformed"
    assert says in refusal.value.message
    assert len(refusal.value.message) < 300
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize(
    "value",
    [
        nested(8),
        {"any_of": [tdx()] * 65},
        tdx(measurements=[f"{n:096x}" for n in range(65)]),
        tdx(attributes={f"a{n}": 1 for n in range(65)}),
        {"any_of": [tdx(measurements=[f"{n:096x}" for n in range(60)])] * 8},
    ],
)
def test_caps(value: object) -> None:
    with pytest.raises(TooLarge) as refusal:
        parse_rules(value)
    assert refusal.value.code == "rules-too-large"
    assert isinstance(parse_rules(nested(7)).node, AnyOf)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["any", "tdx", H48]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4)
            | st.sampled_from(
                ["kind", "any_of", "all_of", "measurements", "registers", "tcb", "sets", "attributes", "min"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_is_given_there_is_an_answer(value: object) -> None:
    try:
        rules = parse_rules(value)
    except DecodeError:
        return
    assert parse_rules(rules.to_json()) == rules
    assert len(rules.canonical) <= RULES_CAP


@given(st.dictionaries(st.sampled_from([*sorted(TDX_RULES), "tcb", "attributes", "platforms", "max_age"]), JSON))
def test_a_member_of_any_form_is_read_or_refused(change: dict[str, object]) -> None:
    try:
        rules = parse_rules({**TDX_RULES, **change})
    except DecodeError:
        return
    assert parse_rules(rules.to_json()).digest == rules.digest
