"""Reference values: what a network's evidence must rest on, as JSON and as the verifier takes it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from tests.unit.attestation.platform import BINDING, COLLATERAL, MEASUREMENT, NOW, ROOT, evidence

from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import AnyOf, EnclavePolicy
from cloister.attestation.report import build_report_data
from cloister.attestation.verify import read_claims
from cloister.errors import CloisterError, DecodeError, NotFound, PolicyRejected
from cloister.sdk.receipts import (
    KindValues,
    ReferenceValues,
    parse_reference_values,
    read_receipt,
    read_reference_values,
    reference_values_of,
)

SIMULATED = KindValues(EvidenceKind.SIMULATED, (ROOT,), frozenset({MEASUREMENT}))
TPM = KindValues(EvidenceKind.TPM, (b"root of tpms",), frozenset({b"\x01" * 32, b"\x02" * 32}))
TDX = KindValues(
    EvidenceKind.TDX,
    (b"root of quotes",),
    frozenset({b"\x03" * 48}),
    {"rtmr1": frozenset({b"\x04" * 48}), "rtmr2": frozenset({b"\x05" * 48})},
)


@pytest.mark.parametrize("values", [(), (SIMULATED,), (SIMULATED, TPM), (TDX, TPM, SIMULATED)])
def test_round_trip(values: tuple[KindValues, ...]) -> None:
    given = reference_values_of(*values)
    assert parse_reference_values(json.loads(json.dumps(given.to_json()))) == given


def test_each_kind_is_judged_by_its_own_values() -> None:
    claims = read_claims(evidence(build_report_data(BINDING)), COLLATERAL, NOW)
    both = reference_values_of(TPM, SIMULATED)
    assert isinstance(both.policy, AnyOf)
    both.policy.check(claims, NOW)
    assert both.collateral.roots_of(EvidenceKind.SIMULATED) == (ROOT,)
    assert both.collateral.roots_of(EvidenceKind.TPM) == (b"root of tpms",)
    alone = reference_values_of(TDX).policy
    assert isinstance(alone, EnclavePolicy)
    assert set(alone.registers) == {"rtmr1", "rtmr2"}
    for refused, code in ((reference_values_of(TPM), "kind-not-allowed"), (reference_values_of(), "no-policy")):
        with pytest.raises(PolicyRejected) as refusal:
            refused.policy.check(claims, NOW)
        assert refusal.value.code == code


ONE = SIMULATED.to_json()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        ONE,
        {"kinds": None},
        {"kinds": [None]},
        {"kinds": [{}]},
        {"kinds": [{**ONE, "kind": "abacus"}]},
        {"kinds": [{**ONE, "kind": None}]},
        {"kinds": [{**ONE, "roots": "AA=="}]},
        {"kinds": [{**ONE, "roots": ["?"]}]},
        {"kinds": [{**ONE, "roots": [1]}]},
        {"kinds": [{**ONE, "measurements": ["zz"]}]},
        {"kinds": [{**ONE, "measurements": ["00"]}]},
        {"kinds": [{**ONE, "measurements": {"00": 1}}]},
        {"kinds": [{**ONE, "registers": ["rtmr1"]}]},
        {"kinds": [{**ONE, "registers": {"rtmr1": [5]}}]},
    ],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(CloisterError) as refusal:
        parse_reference_values(value)
    assert refusal.value.message


def test_files_that_are_not_there_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "roots.json"
    for read in (read_reference_values, read_receipt):
        with pytest.raises(NotFound):
            read(path)
    path.write_text('{"kinds": [')
    with pytest.raises(DecodeError):
        read_reference_values(path)
    path.write_text(json.dumps(ReferenceValues((SIMULATED,)).to_json()))
    assert read_reference_values(path).kinds[0].roots == (base64.b64decode(base64.b64encode(ROOT)),)
