"""Evidence is believed only when every numbered check holds; every refusal has its name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from tests.unit.attestation.platform import (
    BINDING,
    CERTIFICATE,
    COLLATERAL,
    DAY,
    MEASUREMENT,
    NOW,
    POLICY,
    ROOT,
    certificate,
    evidence,
    key,
    root,
)

from cloister.attestation.assurance import SIMULATED_WARNING
from cloister.attestation.cbor import build_cbor, parse_cbor
from cloister.attestation.collateral import Collateral, simulated_collateral
from cloister.attestation.evidence import MAX_PAYLOAD, Evidence, EvidenceKind, parse_evidence
from cloister.attestation.policy import MEASUREMENT_SIZES, AllOf, AnyOf, AppraisalPolicy, EnclavePolicy
from cloister.attestation.report import ReportBinding, build_report_data
from cloister.attestation.statement import SIMULATED_DOMAIN, build_payload, build_statement
from cloister.attestation.verifiers.simulated import build_root_fingerprint
from cloister.attestation.verify import Appraisal, appraise
from cloister.errors import CloisterError, ConfigurationError, DecodeError, LocalError, PolicyRejected, RemoteError

DATA = build_report_data(BINDING)


def judge(
    given: Evidence,
    *,
    policy: AppraisalPolicy = POLICY,
    expected: bytes = DATA,
    now: int = NOW,
    collateral: Collateral = COLLATERAL,
) -> Appraisal:
    return appraise(given, policy=policy, expected_report_data=expected, now=now, collateral=collateral)


def test_sound_evidence_is_accepted_and_marked() -> None:
    appraisal = judge(evidence(DATA))
    assert appraisal.simulated
    assert appraisal.warning == SIMULATED_WARNING
    assert appraisal.claims.measurement == MEASUREMENT
    assert appraisal.appraised_at == NOW


def test_an_appraisal_cannot_be_made_by_hand() -> None:
    claims = judge(evidence(DATA)).claims
    with pytest.raises(LocalError):
        Appraisal(claims, NOW, object())


def swap(payload: bytes, position: int, value: object) -> Evidence:
    parts = parse_cbor(payload)
    assert isinstance(parts, list)
    parts[position] = value  # type: ignore[call-overload]
    return Evidence(EvidenceKind.SIMULATED, build_cbor(parts))


def signed(statement: bytes) -> Evidence:
    """A statement of any form, soundly signed: the parser is what refuses it."""
    signature = key("machine").sign(SIMULATED_DOMAIN + statement)
    return Evidence(EvidenceKind.SIMULATED, build_payload(CERTIFICATE, statement, signature))


def bound_to(**other: object) -> Evidence:
    """Sound evidence for another binding."""
    return evidence(build_report_data(replace(BINDING, **other)))  # type: ignore[arg-type]


def with_policy(**other: object) -> Appraisal:
    return judge(evidence(DATA), policy=replace(POLICY, **other))  # type: ignore[arg-type]


SOUND = evidence(DATA).payload
STATEMENT = build_statement(measurement=MEASUREMENT, report_data=DATA, issued_at=NOW, debug=False, svn=1)
FIELDS = {1: MEASUREMENT, 2: DATA, 3: NOW, 4: False, 5: 1}

TDX_ONLY = EnclavePolicy(EvidenceKind.TDX, POLICY.roots, frozenset())
TDX_ROOT = Collateral(((EvidenceKind.TDX, ROOT),))
EARLY = certificate(not_before=NOW + 1)
FEWER = {1: MEASUREMENT, 2: DATA, 3: NOW, 4: False}
OTHER_ROOT = simulated_collateral([root("other")])

REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "nonce of another session": (
        lambda: judge(bound_to(nonce=b"\x09" * 32)),
        "report-data-mismatch",
    ),
    "another task": (
        lambda: judge(bound_to(task_id=b"\x09" * 32)),
        "report-data-mismatch",
    ),
    "another chain": (lambda: judge(bound_to(chain_id=1)), "report-data-mismatch"),
    "another hub": (
        lambda: judge(bound_to(hub=b"\x09" * 20)),
        "report-data-mismatch",
    ),
    "another sms": (
        lambda: judge(bound_to(sms=b"\x09" * 20)),
        "report-data-mismatch",
    ),
    "another app": (
        lambda: judge(bound_to(app_digest=b"\x09" * 32)),
        "report-data-mismatch",
    ),
    "attacker's hpke key": (
        lambda: judge(bound_to(hpke_key_hash=b"\x09" * 32)),
        "report-data-mismatch",
    ),
    "attacker's challenge": (
        lambda: judge(bound_to(challenge=b"\x09" * 20)),
        "report-data-mismatch",
    ),
    "report data of zeros": (lambda: judge(evidence(bytes(64))), "report-data-mismatch"),
    "debug": (lambda: judge(evidence(DATA, debug=True)), "debug-enabled"),
    "unknown measurement": (lambda: judge(evidence(DATA, measurement=bytes(32))), "measurement-unknown"),
    "security version too low": (lambda: with_policy(min_svn=2), "svn-too-low"),
    "stale": (lambda: judge(evidence(DATA, issued_at=NOW - 601)), "evidence-stale"),
    "from the future": (lambda: judge(evidence(DATA, issued_at=NOW + 61)), "evidence-from-the-future"),
    "clock set back 60 days": (lambda: judge(evidence(DATA), now=NOW - 60 * DAY), "certificate-not-yet-valid"),
    "root not trusted by the verifier": (
        lambda: judge(evidence(DATA), collateral=OTHER_ROOT),
        "untrusted-root",
    ),
    "root of the same name": (lambda: judge(evidence(DATA, der=certificate("impostor"))), "untrusted-root"),
    "no root at all": (lambda: judge(evidence(DATA), collateral=Collateral()), "no-trusted-root"),
    "root of another kind only": (
        lambda: judge(evidence(DATA), collateral=TDX_ROOT),
        "no-trusted-root",
    ),
    "root not in the policy": (
        lambda: judge(evidence(DATA), policy=replace(POLICY, roots=frozenset({bytes(32)}))),
        "untrusted-root",
    ),
    "policy without roots": (
        lambda: judge(evidence(DATA), policy=replace(POLICY, roots=frozenset())),
        "no-trusted-root",
    ),
    "policy without measurements": (
        lambda: judge(evidence(DATA), policy=replace(POLICY, measurements=frozenset())),
        "no-reference-values",
    ),
    "policy for another kind": (
        lambda: judge(evidence(DATA), policy=EnclavePolicy(EvidenceKind.TDX, POLICY.roots, frozenset())),
        "kind-not-allowed",
    ),
    "any of nothing": (lambda: judge(evidence(DATA), policy=AnyOf()), "no-policy"),
    "all of nothing": (lambda: judge(evidence(DATA), policy=AllOf()), "no-policy"),
    "all of, one refuses": (
        lambda: judge(evidence(DATA), policy=AllOf([POLICY, replace(POLICY, min_svn=9)])),
        "svn-too-low",
    ),
    "signed by another machine": (lambda: judge(evidence(DATA, machine="thief")), "evidence-signature"),
    "platform certificate expired": (
        lambda: judge(evidence(DATA, der=certificate(not_after=NOW - 1))),
        "certificate-expired",
    ),
    "platform certificate not yet valid": (
        lambda: judge(evidence(DATA, der=certificate(not_before=NOW + 1))),
        "certificate-not-yet-valid",
    ),
    "root certificate as platform": (
        lambda: judge(evidence(DATA, der=ROOT, machine="root")),
        "certificate-not-platform",
    ),
    "certificate is no certificate": (lambda: judge(swap(SOUND, 1, b"\x30\x00")), "certificate-malformed"),
    "certificate with bytes behind": (lambda: judge(swap(SOUND, 1, CERTIFICATE + b"\0")), "certificate-malformed"),
    "certificate too large": (lambda: judge(swap(SOUND, 1, CERTIFICATE + bytes(4096))), "evidence-malformed"),
    "signature too short": (lambda: judge(swap(SOUND, 3, bytes(63))), "evidence-malformed"),
    "signature of zeros": (lambda: judge(swap(SOUND, 3, bytes(64))), "evidence-signature"),
    "version 2": (lambda: judge(swap(SOUND, 0, 2)), "evidence-version"),
    "version true": (lambda: judge(swap(SOUND, 0, True)), "evidence-version"),
    "bytes behind": (lambda: judge(Evidence(EvidenceKind.SIMULATED, SOUND + b"\0")), "trailing-bytes"),
    "cut short": (lambda: judge(Evidence(EvidenceKind.SIMULATED, SOUND[:-1])), "malformed"),
    "not cbor": (lambda: judge(Evidence(EvidenceKind.SIMULATED, b"\xff")), "malformed"),
    "length of 2^32": (lambda: judge(Evidence(EvidenceKind.SIMULATED, b"\x84\x01\x5a\xff\xff\xff\xff")), "malformed"),
    "length of 2^64": (lambda: judge(Evidence(EvidenceKind.SIMULATED, b"\x9b" + b"\xff" * 8)), "malformed"),
    "nested 60,000 deep": (lambda: judge(Evidence(EvidenceKind.SIMULATED, b"\x81" * 60_000)), "malformed"),
    "empty": (lambda: judge(Evidence(EvidenceKind.SIMULATED, b"")), "evidence-empty"),
    "over the cap": (lambda: judge(Evidence(EvidenceKind.SIMULATED, bytes(MAX_PAYLOAD + 1))), "evidence-too-large"),
    "unknown kind": (lambda: parse_evidence("sgx-next", SOUND), "evidence-kind"),
    "kind that the payload is not": (lambda: judge(Evidence(EvidenceKind.TDX, SOUND)), "quote-version"),
    "statement with a field more": (lambda: judge(signed(build_cbor({**FIELDS, 6: 1}))), "evidence-malformed"),
    "statement with a field less": (
        lambda: judge(signed(build_cbor({1: MEASUREMENT, 2: DATA, 3: NOW, 4: False}))),
        "evidence-malformed",
    ),
    "debug as a number": (lambda: judge(signed(build_cbor({**FIELDS, 4: 0}))), "evidence-malformed"),
    "time as a truth value": (lambda: judge(signed(build_cbor({**FIELDS, 3: True}))), "evidence-malformed"),
    "measurement as a prefix": (
        lambda: judge(signed(build_cbor({**FIELDS, 1: MEASUREMENT[:16]}))),
        "evidence-malformed",
    ),
    "long measurement": (lambda: judge(signed(build_cbor({**FIELDS, 1: MEASUREMENT + b"\0"}))), "evidence-malformed"),
    "statement with bytes behind": (lambda: judge(signed(STATEMENT + b"\0")), "trailing-bytes"),
    "statement signed without its domain": (
        lambda: judge(
            Evidence(EvidenceKind.SIMULATED, build_payload(CERTIFICATE, STATEMENT, key("machine").sign(STATEMENT)))
        ),
        "evidence-signature",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_by_name(name: str) -> None:
    action, code = REFUSED[name]
    with pytest.raises(CloisterError) as refusal:
        action()
    assert refusal.value.code == code
    assert isinstance(refusal.value, RemoteError)


def test_every_flipped_bit_is_refused() -> None:
    for position in range(len(SOUND)):
        for bit in (0x01, 0x10, 0x80):
            changed = bytearray(SOUND)
            changed[position] ^= bit
            with pytest.raises(RemoteError):
                judge(Evidence(EvidenceKind.SIMULATED, bytes(changed)))


def test_any_of_accepts_what_one_accepts() -> None:
    assert judge(evidence(DATA), policy=AnyOf([replace(POLICY, min_svn=9), POLICY])).simulated
    refused = AnyOf([replace(POLICY, min_svn=9), EnclavePolicy(EvidenceKind.TDX, POLICY.roots, frozenset())])
    with pytest.raises(PolicyRejected) as refusal:
        judge(evidence(DATA), policy=refused)
    assert refusal.value.code == "svn-too-low"


@pytest.mark.parametrize("kind", list(EvidenceKind))
@pytest.mark.parametrize("offset", [-1, 1])
def test_reference_measurements_have_the_exact_length(kind: EvidenceKind, offset: int) -> None:
    with pytest.raises(ConfigurationError, match="instead of"):
        EnclavePolicy(kind, frozenset(), frozenset({bytes(MEASUREMENT_SIZES[kind] + offset)}))


def test_report_data_covers_every_field() -> None:
    seen = {DATA}
    for item in fields(ReportBinding):
        value = getattr(BINDING, item.name)
        seen.add(
            build_report_data(
                replace(BINDING, **{item.name: value + 1 if isinstance(value, int) else b"\xee" * len(value)})
            )
        )
    assert len(seen) == 9


def test_report_data_formula() -> None:
    """docs/architecture.md, attestation: the fields in order, at fixed widths."""
    raw = b"cloister/report/v1" + (421614).to_bytes(32, "big")
    for byte, size in ((1, 20), (2, 20), (3, 32), (4, 32), (5, 32), (6, 20), (7, 32)):
        raw += bytes([byte]) * size
    assert hashlib.sha512(raw).digest() == DATA


def test_binding_refuses_other_widths() -> None:
    with pytest.raises(LocalError, match="nonce"):
        replace(BINDING, nonce=b"short")


def test_errors_quote_nothing_long() -> None:
    with pytest.raises(DecodeError) as refusal:
        parse_evidence("x" * 10_000, SOUND)
    assert len(refusal.value.message) < 200


def test_fingerprint_is_the_certificates_hash() -> None:
    assert build_root_fingerprint(ROOT) == hashlib.sha256(ROOT).digest()
