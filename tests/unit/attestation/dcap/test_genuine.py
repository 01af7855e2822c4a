"""Genuine quotes of Intel's, with the outcomes that are known for them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.support.genuine import genuine
from tests.unit.attestation.dcap.cases import SGX, TDX, VERIFIERS, refusal

from cloister.attestation.anchors import AMD_ARK_MILAN, INTEL_SGX_ROOT, INTEL_SGX_ROOT_SHA256
from cloister.attestation.claims import Claims, TcbStatus
from cloister.attestation.collateral import Collateral, Document
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.policy import EnclavePolicy
from cloister.attestation.verify import appraise

NAMES = {"tdx_quote": TDX, "sgx_quote": SGX, "tdx_quote_outdated": TDX}


def at(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


def collateral(*names: str) -> Collateral:
    pieces = [Document(NAMES[name], "dcap", genuine(f"dcap/{name}_collateral.json")) for name in names]
    return Collateral(tuple((kind, INTEL_SGX_ROOT) for kind in (TDX, SGX)), tuple(pieces))


def read(name: str, day: str, given: Collateral | None = None) -> Claims:
    return VERIFIERS[NAMES[name]](genuine(f"dcap/{name}"), given or collateral(name), at(day))


def test_a_genuine_td() -> None:
    claims = read("tdx_quote", "2025-06-20")
    assert claims.kind is TDX
    assert claims.vendor == "intel"
    assert claims.measurement.hex().startswith("91eb2b44d141d4ece09f0c75c2c53d24")
    assert claims.registers["rtmr1"].hex().startswith("0084452c01668329d4bc06acdf58a720")
    assert claims.registers["mrseam"].hex().startswith("5b38e33a6487958b72c3c12a938eaa5e")
    assert claims.report_data.hex().startswith("9a9d48e7f6799642")
    assert claims.root == INTEL_SGX_ROOT_SHA256
    assert not claims.debug
    assert claims.issued_at is None
    assert claims.tcb is not None
    assert (claims.tcb.status, claims.tcb.advisories) == (TcbStatus.UP_TO_DATE, frozenset())
    assert claims.tcb.out_of_date_since is None
    assert claims.tcb.versions["tcb_evaluation_data_number"] == 17
    assert claims.attributes["sept_ve_disable"] is True
    assert claims.attributes["fmspc"] == "b0c06f000000"
    assert claims.attributes["xfam"] == "e702060000000000"
    assert claims.attributes["smt"] is True
    assert claims.platform == hashlib.sha256(bytes.fromhex("811dca2a26b952e85bb6448b097ba4fd")).digest()


def test_a_genuine_enclave() -> None:
    claims = read("sgx_quote", "2025-06-20")
    assert claims.kind is SGX
    assert claims.measurement.hex() == "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"
    assert claims.registers["mrsigner"].hex() == "815f42f11cf64430c30bab7816ba596a1da0130c3b028b673133a66cf9a3e0e6"
    assert claims.report_data == b"Hello, world!".ljust(64, b"\0")
    assert (claims.svn, claims.attributes["isvprodid"], claims.debug) == (0, 0, False)
    assert claims.tcb is not None
    assert claims.tcb.status is TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED
    assert claims.tcb.advisories == {"INTEL-SA-00289", "INTEL-SA-00615"}
    assert claims.tcb.out_of_date_since is None
    assert "smt" not in claims.attributes
    assert claims.platform == hashlib.sha256(bytes.fromhex("d04ec06d4e6d92dc90d0ad3cf5ee2ddf")).digest()


@pytest.mark.parametrize(
    ("name", "day", "code"),
    [
        ("tdx_quote_outdated", "2026-02-19", "tcb-unknown-level"),
        ("tdx_quote", "2025-06-18", "collateral-not-yet-valid"),
        ("sgx_quote", "2025-06-18", "collateral-not-yet-valid"),
        ("tdx_quote", "2025-07-20", "collateral-expired"),
        ("sgx_quote", "2025-07-20", "collateral-expired"),
        ("tdx_quote", "2031-01-01", "collateral-expired"),
        ("tdx_quote", "2017-01-01", "collateral-not-yet-valid"),
    ],
)
def test_a_genuine_quote_at_another_time(name: str, day: str, code: str) -> None:
    assert refusal(lambda: read(name, day)) == code


def test_a_genuine_quote_under_no_root_or_another_one() -> None:
    sound = collateral("tdx_quote")
    assert refusal(lambda: read("tdx_quote", "2025-06-20", replace(sound, roots=()))) == "no-trusted-root"
    other_vendor = replace(sound, roots=((TDX, AMD_ARK_MILAN),))
    assert refusal(lambda: read("tdx_quote", "2025-06-20", other_vendor)) == "untrusted-root"


def test_collateral_of_other_platforms_does_not_disturb() -> None:
    everything = collateral("sgx_quote", "tdx_quote_outdated", "tdx_quote")
    assert read("tdx_quote", "2025-06-20", everything) == read("tdx_quote", "2025-06-20")
    others = collateral("sgx_quote", "tdx_quote_outdated")
    assert refusal(lambda: read("tdx_quote", "2025-06-20", others)) == "collateral-missing"


def test_each_as_the_other_kind() -> None:
    now = at("2025-06-20")
    for name, kind in (("tdx_quote", SGX), ("sgx_quote", TDX)):
        assert refusal(VERIFIERS[kind], genuine(f"dcap/{name}"), collateral(name), now) == "quote-tee-type"


@pytest.mark.parametrize("name", ["tdx_quote", "sgx_quote"])
def test_no_bit_of_what_is_signed_may_change(name: str) -> None:
    kind, payload, given = NAMES[name], genuine(f"dcap/{name}"), collateral(name)
    start, now = 48 + (584 if kind is TDX else 384) + 4, at("2025-06-20")
    # Header and body up to the length, then signature, key, QE report and its signature.
    for position in (*range(0, start - 4, 13), *range(start, start + 128 + 384 + 64, 17)):
        changed = payload[:position] + bytes([payload[position] ^ 1 << position % 8]) + payload[position + 1 :]
        assert refusal(VERIFIERS[kind], changed, given, now) != "accepted", position


def test_the_whole_appraisal() -> None:
    claims = read("tdx_quote", "2025-06-20")
    appraisal = appraise(
        Evidence(EvidenceKind.TDX, genuine("dcap/tdx_quote")),
        policy=EnclavePolicy(
            TDX,
            frozenset({INTEL_SGX_ROOT_SHA256}),
            frozenset({claims.measurement}),
            registers={name: frozenset({claims.registers[name]}) for name in ("rtmr1", "rtmr2")},
        ),
        expected_report_data=claims.report_data,
        now=at("2025-06-20"),
        collateral=collateral("tdx_quote"),
    )
    assert appraisal.claims == claims
    assert appraisal.warning is None
