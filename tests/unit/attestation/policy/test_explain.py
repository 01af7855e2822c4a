"""The explanation says what the refusal says, and what would pass."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.attestation.policy.facts import MRTD, NOW, ROOT, RTMR1, TDX, TDX_POLICY, late

from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.explain import build_verdict_json, explain
from cloister.attestation.rules import parse_rules

RULES = parse_rules(
    {
        "any_of": [
            {
                "kind": "tdx",
                "measurements": ["set:release-1"],
                "registers": {"rtmr1": [RTMR1.hex()], "rtmr2": "any"},
                "tcb": {"grace_days": 30},
            },
            {"kind": "sgx", "measurements": "any"},
        ],
        "sets": {"release-1": [MRTD.hex(), "ab" * 48]},
    }
).policy({EvidenceKind.TDX: frozenset({ROOT})})


def test_the_whole_tree_with_what_would_pass() -> None:
    claims = replace(late(45), measurement=b"\x3f" * 48)
    verdict = RULES.judge(claims, NOW)
    assert explain(verdict) == [
        "✗ any of",
        "  ✗ tdx enclave",
        "    ✓ kind: tdx",
        f"    ✓ root: {ROOT.hex()}",
        "    ✓ debug: off",
        f"    ✗ measurement: {'3f' * 48}; wanted: one of 2 reference values (release-1) [measurement-unknown]",
        "      → add it, or run image release-1",
        f"    ✓ register rtmr1: {RTMR1.hex()}",
        f"    ✓ register rtmr2: {'12' * 48} (wanted: any)",
        "    ✓ security version: 0 (wanted: at least 0)",
        "    ✗ tcb",
        "      ✗ tcb status: OutOfDate since 2026-12-01; wanted: UpToDate, 30 days of grace [tcb-out-of-date]",
        "        → update the platform's firmware, or grace_days >= 45",
        "    ✓ advisories: none",
        "    ✓ age: no date: the hardware has no clock, the nonce is what is fresh",
        "  ✗ sgx enclave",
        "    ✗ kind: tdx; wanted: sgx [kind-not-allowed]",
    ]
    assert verdict.code == "measurement-unknown"
    (tdx, _) = verdict.children
    (tcb,) = [child for child in tdx.children if child.rule == "tcb"]
    assert tcb.message == "the platform's tcb is OutOfDate since 2026-12-01, grace of 30 days ended 2026-12-31"


def test_an_acceptance_shows_its_marks() -> None:
    lines = explain(RULES.judge(late(10), NOW))
    assert lines[0] == "✓ any of"
    assert "        ! tcb-out-of-date: since 2027-01-05, in grace until 2027-02-04" in lines


def test_json_has_every_member_at_every_node() -> None:
    document = build_verdict_json(TDX_POLICY.judge(TDX, NOW))
    names = {"rule", "ok", "found", "wanted", "code", "message", "remedy", "marks", "children"}

    def walk(node: dict[str, object]) -> int:
        assert set(node) == names
        assert (node["code"] is None) == node["ok"]
        children = node["children"]
        assert isinstance(children, list)
        return 1 + sum(walk(child) for child in children)

    assert walk(document) > 8
