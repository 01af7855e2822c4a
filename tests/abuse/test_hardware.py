"""Evidence of hardware, cases 8 to 26, through the real SMS over HTTP: quotes of an Intel, reports of an AMD and TPMs of our
own making, which differ from the vendors' in their root alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.abuse.conftest import push_key
from tests.support.dcap_authority import DAY, DcapAuthority, Knobs
from tests.support.sms_world import APP_DIGEST, START, Enclave, World
from tests.support.snp_authority import MEASUREMENT as SNP_MEASUREMENT
from tests.support.snp_authority import POLICY, SnpAuthority
from tests.support.tpm_authority import NOW as TPM_NOW
from tests.support.tpm_authority import TpmAuthority

from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.policy import ANY, AdvisoryRule, AnyOf, EnclavePolicy, TcbRule
from cloister.protocol.sessions import SessionEvidence
from cloister.services.sms.ledger import Head

TDX, SGX, SNP, TPM = EvidenceKind.TDX, EvidenceKind.SGX, EvidenceKind.SNP, EvidenceKind.TPM
INTEL = DcapAuthority.create(now=START)
MRTD, MRENCLAVE = b"\x11" * 48, b"\x41" * 32


def dcap_policy(kind: EvidenceKind, **rules: Any) -> EnclavePolicy:
    """Believe our Intel, and one program."""
    registers = {"rtmr1": frozenset({b"\x21" * 48}), "rtmr2": ANY} if kind is TDX else {}
    return EnclavePolicy(
        kind,
        frozenset({hashlib.sha256(INTEL.root).digest()}),
        frozenset({MRTD if kind is TDX else MRENCLAVE}),
        registers=registers,
        **rules,
    )


def snp_policy(authority: SnpAuthority, **rules: Any) -> EnclavePolicy:
    """Believe our AMD, and one program."""
    return EnclavePolicy(SNP, frozenset({authority.fingerprint}), frozenset({SNP_MEASUREMENT}), **rules)


@contextmanager
def serving(folder: Path, policy: Any, collateral: Collateral) -> Iterator[World]:
    """An SMS that believes what the policy says."""
    folder.mkdir(exist_ok=True)
    with World(folder, settings={"policy": policy, "collateral": collateral}).serving() as world:
        push_key(world)
        yield world


@pytest.fixture(scope="module", params=[TDX, SGX], ids=str)
def intel(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, EvidenceKind]]:
    """An SMS for one of Intel's kinds, which releases to an honest enclave."""
    kind = request.param
    collateral = INTEL.collateral(kind)
    with serving(tmp_path_factory.mktemp("intel"), dcap_policy(kind), collateral) as world:
        world.attest = quoting(kind)
        assert world.run()[0] == 200
        yield world, kind


def quoting(kind: EvidenceKind, authority: DcapAuthority = INTEL, **parts: Any) -> Callable[[bytes], Evidence]:
    """Makes quotes of one kind that differ from honest ones in ``parts``."""
    make = authority.tdx_quote if kind is TDX else authority.sgx_quote
    return lambda report_data: Evidence(kind, make(report_data, **parts))


def refusal(world: World, attest: Callable[[bytes], Evidence]) -> str:
    """The code with which a session on this evidence is refused."""
    world.attest = attest
    status, body, _, _ = world.run()
    assert status in (400, 403), body
    return str(body["code"])


def test_case_08_debug(intel: tuple[World, EvidenceKind]) -> None:
    world, kind = intel
    assert refusal(world, quoting(kind, debug=True)) == "debug-enabled"


def test_case_08_debug_snp(tmp_path: Path) -> None:
    amd = SnpAuthority.create()
    with serving(tmp_path, snp_policy(amd), amd.collateral()) as world:
        world.attest = amd.evidence
        assert world.run()[0] == 200
        assert refusal(world, lambda data: amd.evidence(data, policy=POLICY | 1 << 19)) == "debug-enabled"


def test_case_10_simulated_where_hardware_is_demanded(intel: tuple[World, EvidenceKind]) -> None:
    world, kind = intel
    world.attest = None
    assert world.refusal() in ("no-trusted-root", "kind-not-allowed")
    world.attest = quoting(kind)


BROKEN_COLLATERAL: dict[str, tuple[Knobs, str]] = {
    "case 11 forged QE identity": (Knobs(qe_identity_signer="forger"), "qe-identity-signature"),
    "case 11 QE identity of another QE": (Knobs(qe_mrsigner=b"\x09" * 32), "qe"),
    "case 13 revoked PCK": (Knobs(revoked=[INTEL.machine().serial]), "revoked"),
    "case 13 expired CRL": (Knobs(crl_next_update=START - 1), "collateral-expired"),
    "case 14 expired TCB info": (Knobs(tcb_next_update=START - 1), "collateral-expired"),
    "case 14 expired QE identity": (Knobs(qe_next_update=START - 1), "collateral-expired"),
    "case 14 TCB info of the future": (Knobs(tcb_issued=START + DAY), "collateral-not-yet-valid"),
}


@pytest.mark.parametrize("kind", [TDX, SGX], ids=str)
@pytest.mark.parametrize("name", BROKEN_COLLATERAL)
def test_cases_11_13_14_collateral(name: str, kind: EvidenceKind, tmp_path: Path) -> None:
    knobs, word = BROKEN_COLLATERAL[name]
    with serving(tmp_path, dcap_policy(kind), INTEL.collateral(kind, knobs)) as world:
        code = refusal(world, quoting(kind))
        assert word in code, code


def test_case_12_another_root_of_the_same_name(intel: tuple[World, EvidenceKind]) -> None:
    world, kind = intel
    impostor = DcapAuthority.create(now=START, seed="impostor")
    assert refusal(world, quoting(kind, impostor)) in ("untrusted-root", "pck-signature", "certificate-signature")


@pytest.mark.parametrize("kind", [TDX, SGX], ids=str)
def test_case_12_the_impostors_whole_chain(kind: EvidenceKind, tmp_path: Path) -> None:
    impostor = DcapAuthority.create(now=START, seed="impostor")
    mixed = Collateral(INTEL.roots(), impostor.collateral(kind).documents)
    with serving(tmp_path, dcap_policy(kind), mixed) as world:
        assert refusal(world, quoting(kind, impostor)) in (
            "untrusted-root",
            "collateral-signature",
            "collateral-refused",
        )


def test_case_12_snp_root_of_the_same_name(tmp_path: Path) -> None:
    amd, impostor = SnpAuthority.create(), SnpAuthority.create(stranger=True)
    with serving(tmp_path, snp_policy(amd), amd.collateral()) as world:
        assert refusal(world, impostor.evidence) == "untrusted-root"


def test_case_14_the_clock_set_back_sixty_days(intel: tuple[World, EvidenceKind]) -> None:
    world, kind = intel
    world.attest = quoting(kind)
    world.clock.now -= 60 * DAY
    world.ledger.block, kept = Head(100, int(world.clock.now)), world.ledger.block
    try:
        status, body, _, _ = world.run()
        assert status in (403, 503), body
        assert body["code"] in ("collateral-not-yet-valid", "chain-behind", "chain-ahead")
        world.attest = quoting(kind)
    finally:
        world.clock.now += 60 * DAY
        world.ledger.block = kept


@pytest.mark.parametrize("kind", [TDX, SGX], ids=str)
def test_case_15_grace_window(kind: EvidenceKind, tmp_path: Path) -> None:
    late = INTEL.machine("late", pce_svn=11)  # OutOfDate since 2026-02-11, 222 days before
    listed = AdvisoryRule(allowed=frozenset({"INTEL-SA-01036", "INTEL-SA-00615"}))
    outcomes = {}
    for days in (0, 200, 240):
        policy = dcap_policy(kind, tcb=TcbRule(grace=days * DAY), advisories=listed)
        with serving(tmp_path / str(days), policy, INTEL.collateral(kind)) as world:
            world.attest = quoting(kind, machine=late)
            status, body, _, _ = world.run()
            outcomes[days] = (status, body.get("code"))
    assert outcomes == {0: (403, "tcb-out-of-date"), 200: (403, "tcb-out-of-date"), 240: (200, None)}


def test_case_18_quotes_cut_short_or_absurd(intel: tuple[World, EvidenceKind]) -> None:
    world, kind = intel
    whole = quoting(kind)(bytes(64)).payload
    cases = [whole[:size] for size in (1, 47, 48, 400, 432, 436, 600, len(whole) - 1)]
    cases += [whole + b"\x00", whole + whole, b"\xff" * 60_000]
    for offset in range(400, 700, 44):
        cases.append(whole[:offset] + b"\xff\xff\xff\xff" + whole[offset + 4 :])
    for payload in cases:
        enclave = Enclave()
        request = dataclasses.replace(
            world.request(enclave, world.nonce()), evidence=SessionEvidence(kind.value, payload)
        )
        begun = time.monotonic()
        status, body = world.open(world.call(request.signed_by(enclave.challenge)))
        assert status in (400, 403), body
        assert body["code"] != "internal"
        assert time.monotonic() - begun < 2


def test_case_20_no_reference_values_of_hardware(tmp_path: Path) -> None:
    bare = EnclavePolicy(TDX, frozenset({hashlib.sha256(INTEL.root).digest()}), frozenset({MRTD}))
    with serving(tmp_path, bare, INTEL.collateral(TDX)) as world:
        # MRTD alone is the firmware: what it booted needs reference values too.
        assert refusal(world, quoting(TDX)) == "no-reference-values"


def test_case_21_measurement_of_another_program(intel: tuple[World, EvidenceKind]) -> None:
    world, kind = intel
    other = {"mrtd": MRTD[:-1] + b"\x12"} if kind is TDX else {"mrenclave": MRENCLAVE[:-1] + b"\x42"}
    assert refusal(world, quoting(kind, **other)) == "measurement-unknown"
    if kind is TDX:
        assert refusal(world, quoting(kind, rtmrs=(b"\x20" * 48, b"\x99" * 48, b"\x22" * 48, b"\x23" * 48))) == (
            "register-unknown"
        )


SNP_GUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "vmpl 1": ({"vmpl": 1}, "attribute-refused"),
    "vmpl 3": ({"vmpl": 3}, "attribute-refused"),
    "migration agent by policy": ({"policy": POLICY | 1 << 18}, "attribute-refused"),
    "reported below committed": (
        {"reported_tcb": {"snp": 20}, "committed_tcb": {"snp": 24}},
        "attribute-refused",
    ),
    "policy without its reserved bit": ({"policy": POLICY & ~(1 << 17)}, "snp-"),
}


@pytest.mark.parametrize("name", SNP_GUESTS)
def test_case_25_snp_guests(name: str, tmp_path: Path) -> None:
    options, code = SNP_GUESTS[name]
    amd = SnpAuthority.create()
    with serving(tmp_path, snp_policy(amd), amd.collateral()) as world:
        assert refusal(world, lambda data: amd.evidence(data, **options)).startswith(code)


def test_case_25_an_owner_may_name_what_is_allowed(tmp_path: Path) -> None:
    amd = SnpAuthority.create()
    policy = snp_policy(amd, attributes={"smt": frozenset({False})})
    with serving(tmp_path, policy, amd.collateral()) as world:
        assert refusal(world, amd.evidence) == "attribute-refused"  # the guest's policy allows SMT
        world.attest = lambda data: amd.evidence(data, policy=POLICY & ~(1 << 16))
        assert world.run()[0] == 200


def test_case_13_revoked_chip(tmp_path: Path) -> None:
    amd = SnpAuthority.create()
    with serving(tmp_path / "expired", snp_policy(amd), amd.collateral(crls=[amd.crl(next_update=START - 1)])) as world:
        assert refusal(world, amd.evidence) == "collateral-expired"
    amd.revoke()
    with serving(tmp_path / "revoked", snp_policy(amd), amd.collateral()) as world:
        assert refusal(world, amd.evidence) == "certificate-revoked"


def test_a_tpms_boot_and_app(tmp_path: Path) -> None:
    """The kind of the measured virtual machine: root, boot and app each hold, or nothing is released."""
    tpm = TpmAuthority.create()
    good = tpm.evidence(bytes(64), app_digest=APP_DIGEST.raw)
    root = tpm.collateral().roots_of(TPM)[0]
    policy = EnclavePolicy(TPM, frozenset({hashlib.sha256(root).digest()}), frozenset({tpm.measurement()}))
    with serving(tmp_path, AnyOf([policy, dcap_policy(TDX)]), tpm.collateral()) as world:
        world.clock.now, world.ledger.block = TPM_NOW, Head(100, TPM_NOW)
        world.task = dataclasses.replace(world.task, contribution_deadline=TPM_NOW + 1000)
        world.put_on_chain()
        world.attest = lambda data: tpm.evidence(data, app_digest=APP_DIGEST.raw)
        status, body, _, _ = world.run()
        assert status == 200, body
        assert refusal(world, lambda data: tpm.evidence(data, app_digest=b"\x0a" * 32)) == "app-digest-mismatch"
        assert refusal(world, lambda _: good) == "report-data-mismatch"
