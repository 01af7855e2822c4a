"""What sound quotes of a test root say, and which of several documents speaks."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import pytest
from tests.support.dcap_authority import LEVELS, MODULE_LEVELS, QE_LEVELS, SOUND, Knobs, spec
from tests.support.genuine import genuine
from tests.unit.attestation.dcap.cases import (
    AUTHORITY,
    COLLATERALS,
    DAY,
    IMPOSTOR,
    MACHINE,
    NOW,
    QUOTES,
    REPORT_DATA,
    SGX,
    TDX,
    VERIFIERS,
    Case,
    documents,
    knobs,
    made,
    quote,
    refusal,
)

from cloister.attestation import anchors
from cloister.attestation.claims import Claims, Tcb
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.verifiers.dcap_quote import TEE_SGX, TEE_TDX, parse_quote
from cloister.errors import DecodeError

BOTH = pytest.mark.parametrize("kind", [TDX, SGX])


def day(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def tcb(claims: Claims) -> Tcb:
    assert claims.tcb is not None
    return claims.tcb


def test_a_td() -> None:
    claims = Case().ask(TDX)
    assert (claims.kind, claims.report_data, claims.measurement) == (TDX, REPORT_DATA, b"\x11" * 48)
    assert {name: value[0] for name, value in claims.registers.items()} == {
        "mrseam": 0x31,
        "mrsignerseam": 0,
        "mrconfigid": 0x32,
        "mrowner": 0x33,
        "mrownerconfig": 0x34,
        "rtmr0": 0x20,
        "rtmr1": 0x21,
        "rtmr2": 0x22,
        "rtmr3": 0x23,
    }
    assert all(len(value) == 48 for value in claims.registers.values())
    assert claims.root == hashlib.sha256(AUTHORITY.root).digest()
    assert (claims.debug, claims.issued_at, claims.app_digest) == (False, None, None)
    assert claims.attributes["tdattributes"] == "0000001000000000"
    assert [claims.attributes[name] for name in ("sept_ve_disable", "migratable", "perfmon")] == [True, False, False]
    assert [claims.attributes[name] for name in ("smt", "dynamic_platform", "quote_version")] == [False, True, 4]
    assert (tcb(claims).status, tcb(claims).versions["tdx_component_02"]) == ("UpToDate", 1)


def test_an_enclave() -> None:
    claims = Case().ask(SGX)
    assert (claims.kind, claims.report_data, claims.measurement) == (SGX, REPORT_DATA, b"\x41" * 32)
    assert claims.registers["mrsigner"] == b"\x42" * 32
    assert (claims.svn, claims.attributes["isvprodid"], claims.debug) == (3, 7, False)
    assert claims.attributes["mode64bit"] is True
    assert tcb(claims).versions["pce_svn"] == 13


@pytest.mark.parametrize("body", [10, 15, 16])
def test_version_5(body: int) -> None:
    claims = made(TDX, version=5, body=body, mrtd=b"\x77" * 48).ask(TDX)
    assert (claims.measurement, claims.report_data) == (b"\x77" * 48, REPORT_DATA)
    assert claims.attributes["quote_version"] == 5
    assert ("mrservicetd" in claims.registers) == (body >= 15)
    assert claims.attributes.get("tdid") == ("61" * 32 if body == 16 else None)
    assert claims.registers.get("curservicetdhash") == (b"\x64" * 48 if body == 16 else None)


def test_genuine_quotes_of_both_versions_take_the_same_room() -> None:
    assert len(genuine("dcap/tdx_quote")) == len(genuine("dcap/tdx_quote_outdated")) == 5006


def test_the_buffer_of_intels_quoting_service() -> None:
    """Zeros behind a TDX quote where one of version 5 and TD 1.5 would end, not one more or less; behind an SGX quote none."""
    whole = QUOTES[TDX]
    padded = whole + bytes(6 + 648 - 584)
    assert Case(payload=padded).ask(TDX) == Case().ask(TDX)
    for payload in (whole + b"\0", padded[:-1], padded + b"\0", whole + bytes(3000), padded[:-1] + b"\1"):
        with pytest.raises(DecodeError, match="behind the quote"):
            parse_quote(payload, TEE_TDX)
    sgx = QUOTES[SGX]
    for count in (1, 70):
        with pytest.raises(DecodeError, match="behind the quote"):
            parse_quote(sgx + bytes(count), TEE_SGX)


@BOTH
def test_both_authorities_of_platforms(kind: EvidenceKind) -> None:
    machine = AUTHORITY.machine("small", ca="processor")
    given = AUTHORITY.collateral(kind, Knobs(ca="processor"))
    claims = VERIFIERS[kind](quote(kind, machine=machine), given, NOW)
    assert claims.platform == hashlib.sha256(machine.ppid).digest()
    assert "smt" not in claims.attributes


@pytest.mark.parametrize("certification", [1, 2, 3, 4])
@BOTH
def test_a_quote_that_leaves_its_chain_to_the_collateral(kind: EvidenceKind, certification: int) -> None:
    value = AUTHORITY.members(kind) | {"pck_certificate_chain": AUTHORITY.pck_chain(MACHINE).decode().rstrip("\0")}
    bare = quote(kind, certification_type=certification)
    given = documents(kind, json.dumps(value).encode()).collateral
    assert given is not None
    assert VERIFIERS[kind](bare, given, NOW) == Case().ask(kind)
    value["pck_certificate_chain"] = AUTHORITY.pck_chain(AUTHORITY.machine("two")).decode().rstrip("\0")
    other = documents(kind, json.dumps(value).encode()).collateral
    assert other is not None
    assert refusal(lambda: VERIFIERS[kind](bare, other, NOW)) == "qe-report-signature"
    # A quote that carries its own chain is not judged by one that somebody put beside it.
    assert VERIFIERS[kind](QUOTES[kind], other, NOW) == Case().ask(kind)


def test_one_machine_has_one_name() -> None:
    first, again = Case().ask(TDX), made(TDX, mrtd=b"\x99" * 48, attestation_key="after a reboot").ask(TDX)
    enclave, elsewhere = Case().ask(SGX), made(TDX, machine=AUTHORITY.machine("two")).ask(TDX)
    assert first.platform == again.platform == enclave.platform
    assert elsewhere.platform != first.platform


STATUSES = {
    13: ("UpToDate", set(), None),
    12: ("SWHardeningNeeded", {"INTEL-SA-00615"}, None),
    11: ("OutOfDate", {"INTEL-SA-01036", "INTEL-SA-00615"}, "2026-02-11"),
    8: ("OutOfDateConfigurationNeeded", {"INTEL-SA-00828"}, "2026-02-11"),
}


@BOTH
@pytest.mark.parametrize("pce_svn", STATUSES)
def test_levels_and_the_day_since_when(kind: EvidenceKind, pce_svn: int) -> None:
    status, advisories, since = STATUSES[pce_svn]
    found = tcb(made(kind, machine=AUTHORITY.machine(pce_svn=pce_svn)).ask(kind))
    assert (found.status.value, found.advisories) == (status, advisories)
    assert found.out_of_date_since == (since and day(since))
    assert found.versions["pce_svn"] == pce_svn


@BOTH
def test_a_quoting_enclave_that_is_out_of_date(kind: EvidenceKind) -> None:
    found = tcb(made(kind, qe_svn=4).ask(kind))
    assert (found.status.value, found.advisories) == ("OutOfDate", {"INTEL-SA-00477"})
    assert found.out_of_date_since == day("2026-06-10")
    assert found.versions["qe_svn"] == 4


def test_a_tdx_module_that_is_out_of_date() -> None:
    found = tcb(made(TDX, tee_tcb_svn=bytes([3, 1]) + bytes(14)).ask(TDX))
    assert (found.status.value, found.advisories) == ("OutOfDate", {"INTEL-SA-01099"})
    assert found.out_of_date_since == day("2026-05-13")


def test_the_earliest_of_several_days_counts() -> None:
    found = tcb(
        made(TDX, tee_tcb_svn=bytes([3, 1]) + bytes(14), qe_svn=4, machine=AUTHORITY.machine(pce_svn=11)).ask(TDX)
    )
    assert (found.status.value, found.out_of_date_since) == ("OutOfDate", day("2026-02-11"))


@pytest.mark.parametrize(
    "given",
    [
        {"levels": LEVELS[2:]},
        {"levels": [spec("2026-06-10", "OutOfDateConfigurationNeeded", pce_svn=14), *LEVELS[2:]]},
    ],
    ids=["nothing is better", "what is better is out of date itself"],
)
@BOTH
def test_a_list_that_gives_no_day(kind: EvidenceKind, given: dict[str, object]) -> None:
    case = made(kind, machine=AUTHORITY.machine(pce_svn=11))
    claims = Case(case.payload, AUTHORITY.collateral(kind, Knobs(**given))).ask(kind)  # type: ignore[arg-type]
    assert (tcb(claims).status.value, tcb(claims).out_of_date_since) == ("OutOfDate", None)


def test_one_list_without_a_day_leaves_none() -> None:
    given = AUTHORITY.collateral(TDX, Knobs(qe_levels=QE_LEVELS[1:]))
    claims = VERIFIERS[TDX](quote(TDX, machine=AUTHORITY.machine(pce_svn=11)), given, NOW)
    assert tcb(claims).out_of_date_since is None
    given = AUTHORITY.collateral(TDX, Knobs(module_levels=MODULE_LEVELS[1:]))
    assert tcb(VERIFIERS[TDX](QUOTES[TDX], given, NOW)).out_of_date_since is None


def test_a_td_that_was_started_before_the_update() -> None:
    old, new = bytes([3, 1]) + bytes(14), bytes([5, 1]) + bytes(14)
    case = made(TDX, version=5, body=15, tee_tcb_svn=old, tee_tcb_svn2=new)
    assert tcb(case.ask(TDX)).status.value == "TDRelaunchAdvised"
    hard = AUTHORITY.collateral(TDX, Knobs(levels=[spec("2026-06-10", "ConfigurationNeeded", pce_svn=13)]))
    found = tcb(Case(case.payload, hard).ask(TDX))
    assert found.status.value == "TDRelaunchAdvisedConfigurationNeeded"


# Which document speaks


def several(kind: EvidenceKind, *given: Knobs) -> Case:
    return documents(kind, *(AUTHORITY.document(kind, each).content for each in given))


NEWER = Knobs(
    evaluation=18, levels=[spec("2026-08-12", "UpToDate", pce_svn=14), spec("2026-06-10", "OutOfDate", pce_svn=13)]
)


@BOTH
@pytest.mark.parametrize("order", [(SOUND, NEWER), (NEWER, SOUND)], ids=["old first", "new first"])
def test_the_newest_speaks(kind: EvidenceKind, order: tuple[Knobs, ...]) -> None:
    found = tcb(several(kind, *order).ask(kind))
    assert (found.status.value, found.versions["tcb_evaluation_data_number"]) == ("OutOfDate", 18)
    assert found.out_of_date_since == day("2026-08-12")


@BOTH
def test_of_one_evaluation_the_later_issue_speaks(kind: EvidenceKind) -> None:
    later = Knobs(levels=LEVELS[1:], tcb_issued=NOW - 60)
    assert tcb(several(kind, SOUND, later).ask(kind)).status.value == "SWHardeningNeeded"


@BOTH
@pytest.mark.parametrize(
    "forged",
    [
        Knobs(evaluation=99, tcb_signer="forger"),
        Knobs(evaluation=99, qe_identity_signer="forger"),
        Knobs(evaluation=99, tcb_next_update=NOW - 1),
        Knobs(evaluation=99, tcb_issued=NOW + 1),
        Knobs(evaluation=99, crl_signer="forger"),
    ],
    ids=["forged", "forged QE identity", "expired", "of tomorrow", "forged CRL"],
)
def test_a_document_that_does_not_hold_pushes_no_other_aside(kind: EvidenceKind, forged: Knobs) -> None:
    assert several(kind, forged, SOUND).ask(kind) == Case().ask(kind)


@BOTH
def test_noise_beside_a_sound_document_is_passed_over(kind: EvidenceKind) -> None:
    sound = AUTHORITY.document(kind).content
    assert documents(kind, b"{", sound, b"").ask(kind) == Case().ask(kind)
    assert documents(kind, IMPOSTOR.document(kind).content, sound).ask(kind) == Case().ask(kind)


@BOTH
def test_of_several_certificates_the_one_that_signed_is_the_platforms(kind: EvidenceKind) -> None:
    two = AUTHORITY.machine("two")
    contents = [
        json.dumps(
            AUTHORITY.members(kind, given)
            | {"pck_certificate_chain": AUTHORITY.pck_chain(machine).decode().rstrip("\0")}
        ).encode()
        for machine, given in ((two, Knobs(revoked=[two.serial], evaluation=18)), (MACHINE, SOUND))
    ]
    given = documents(kind, *contents).collateral
    assert given is not None
    assert VERIFIERS[kind](quote(kind, certification_type=3), given, NOW) == Case().ask(kind)


@BOTH
def test_a_large_collection_is_searched_by_platform(kind: EvidenceKind) -> None:
    others = [AUTHORITY.document(kind, Knobs(fmspc=bytes([1, i, 0, 0, 0, 0]))).content for i in range(20)]
    assert documents(kind, *others, AUTHORITY.document(kind).content).ask(kind) == Case().ask(kind)
    assert refusal(lambda: documents(kind, *others).ask(kind)) == "collateral-missing"


@BOTH
def test_a_revocation_is_not_undone_by_another_document(kind: EvidenceKind) -> None:
    revoking = Knobs(revoked=[MACHINE.serial])
    assert refusal(lambda: several(kind, SOUND, revoking).ask(kind)) == "pck-revoked"
    assert refusal(lambda: several(kind, NEWER, revoking).ask(kind)) == "pck-revoked"


@BOTH
def test_the_lower_evaluation_number_counts(kind: EvidenceKind) -> None:
    old = AUTHORITY.members(kind, Knobs(evaluation=15))
    value = AUTHORITY.members(kind) | {name: text for name, text in old.items() if name.startswith("qe_identity")}
    found = tcb(documents(kind, json.dumps(value).encode()).ask(kind))
    assert found.versions["tcb_evaluation_data_number"] == 15


@BOTH
def test_a_root_may_be_replaced_by_another(kind: EvidenceKind) -> None:
    given = Collateral((*IMPOSTOR.roots(), *AUTHORITY.roots()), COLLATERALS[kind].documents)
    assert VERIFIERS[kind](QUOTES[kind], given, NOW) == Case().ask(kind)


@BOTH
def test_the_first_and_the_last_second(kind: EvidenceKind) -> None:
    for now in (NOW - DAY, NOW + 29 * DAY - 1):
        assert Case(now=now).ask(kind) == Case().ask(kind)
    assert refusal(lambda: Case(now=NOW - DAY - 1).ask(kind)) == "collateral-not-yet-valid"
    assert refusal(lambda: Case(now=NOW + 29 * DAY).ask(kind)) == "collateral-expired"
    assert knobs(kind, evaluation=1).ask(kind).kind is kind


@pytest.mark.parametrize("name", ["INTEL_SGX_ROOT", "AMD_ARK_MILAN", "AMD_ARK_GENOA", "AMD_ARK_TURIN"])
def test_anchors_are_named_by_their_fingerprint(name: str) -> None:
    assert hashlib.sha256(getattr(anchors, name)).digest() == getattr(anchors, f"{name}_SHA256")
