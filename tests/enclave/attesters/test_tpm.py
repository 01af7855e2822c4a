"""The TPM's attester against a real swtpm, judged by the verifier."""

from __future__ import annotations

import hashlib
import os
import struct
import time
import tty
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.enclave.attesters.machine import Machine, booted

from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.tpm.payload import MAX_EVENT_LOG, parse_tpm_payload
from cloister.attestation.verify import read_claims
from cloister.enclave.attesters import tpm_commands
from cloister.enclave.attesters.tpm import AK_CERTIFICATE_INDEX, AK_HANDLE, TpmAttester
from cloister.enclave.attesters.tpm_commands import (
    EMPTY_PASSWORD,
    TpmRefused,
    build_selection,
    execute,
    extend_pcr,
    quote_pcrs,
    read_nv,
    read_pcrs,
    sized,
)
from cloister.enclave.attesters.transceivers import DeviceTransceiver
from cloister.errors import CloisterError, LocalError, RemoteError, UnavailableError, VerificationError
from cloister.network.tpmroot import TpmRoot

REPORT_DATA = bytes(range(64))
APP = hashlib.sha256(b"an app").digest()
OTHER = hashlib.sha256(b"another app").digest()


def attest(machine: Machine, app: bytes = APP) -> Evidence:
    attester = machine.attester()
    attester.measure_app(app)
    return attester.attest(REPORT_DATA, now=0)


def test_evidence_of_a_real_tpm_passes_its_verifier(machine: Machine) -> None:
    evidence = attest(machine)
    claims = read_claims(evidence, machine.collateral, int(time.time()))
    assert claims.kind is EvidenceKind.TPM
    assert claims.report_data == REPORT_DATA
    assert claims.app_digest == APP
    assert claims.registers["pcr4"] == hashlib.sha256(bytes(32) + hashlib.sha256(b"kernel").digest()).digest()
    assert claims.root == hashlib.sha256(machine.root.root).digest()
    assert not claims.debug


def test_copies_of_one_tpm_are_one_platform_with_one_measurement(
    machine: Machine, tpm_root: TpmRoot, tmp_path: Path
) -> None:
    now = int(time.time())
    first = read_claims(attest(machine), machine.collateral, now)
    with booted(tpm_root, tmp_path / "second") as second:
        other = read_claims(attest(second, OTHER), second.collateral, now)
    assert (first.platform, first.measurement) == (other.platform, other.measurement)
    assert (first.app_digest, other.app_digest) == (APP, OTHER)


def test_the_same_app_is_measured_once(machine: Machine) -> None:
    attester = machine.attester()
    attester.measure_app(APP)
    attester.measure_app(APP)
    claims = read_claims(attester.attest(REPORT_DATA, now=0), machine.collateral, int(time.time()))
    assert claims.app_digest == APP


def test_a_second_app_is_refused(machine: Machine) -> None:
    attester = machine.attester()
    attester.measure_app(APP)
    with pytest.raises(VerificationError, match="another app") as refused:
        attester.measure_app(OTHER)
    assert refused.value.code == "app-register-used"


def test_a_register_that_somebody_used_before_is_refused(machine: Machine) -> None:
    extend_pcr(machine.tpm, 15, APP)
    before = read_pcrs(machine.tpm, (15,))
    for app in (APP, OTHER):
        with pytest.raises(VerificationError, match="PCR 15") as refused:
            machine.attester().measure_app(app)
        assert refused.value.code == "app-register-used"
    assert read_pcrs(machine.tpm, (15,)) == before, "nothing is extended after a refusal"


def test_an_app_that_was_not_measured_is_not_attested(machine: Machine) -> None:
    with pytest.raises(LocalError, match="measured before"):
        machine.attester().attest(REPORT_DATA, now=0)


def test_an_extension_after_the_app_does_not_pass_the_verifier(machine: Machine) -> None:
    attester = machine.attester()
    attester.measure_app(APP)
    extend_pcr(machine.tpm, 15, OTHER)
    evidence = attester.attest(REPORT_DATA, now=0)
    with pytest.raises(VerificationError):
        read_claims(evidence, machine.collateral, int(time.time()))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_digest_of_another_size_is_refused(machine: Machine, size: int) -> None:
    with pytest.raises(LocalError, match="32 bytes"):
        machine.attester().measure_app(bytes(size))


def test_the_event_log_must_be_there_and_small(machine: Machine) -> None:
    attester = machine.attester()
    attester.measure_app(APP)
    machine.log.write_bytes(bytes(MAX_EVENT_LOG + 1))
    with pytest.raises(RemoteError, match="cap") as refused:
        attester.attest(REPORT_DATA, now=0)
    assert refused.value.code == "event-log-too-large"
    machine.log.unlink()
    with pytest.raises(UnavailableError, match="event log"):
        attester.attest(REPORT_DATA, now=0)


def test_the_guest_cannot_write_what_the_authority_certified(machine: Machine) -> None:
    for hierarchy, index in ((0x40000001, 0x01800002), (0x4000000C, 0x01C0000A)):
        content = read_nv(machine.tpm, index)
        with pytest.raises(TpmRefused):
            execute(
                machine.tpm,
                0x137,
                handles=(hierarchy, index),
                authorizations=(EMPTY_PASSWORD,),
                parameters=sized(b"other") + bytes(2),
            )
        assert read_nv(machine.tpm, index) == content


def test_every_register_is_read_and_starts_as_the_boot_leaves_it(machine: Machine) -> None:
    values = read_pcrs(machine.tpm, range(24))
    assert sorted(values) == list(range(24))
    assert values[15] == bytes(32)


def test_an_absent_index_and_key_are_refused_by_name(machine: Machine) -> None:
    with pytest.raises(TpmRefused, match="0x169"):
        read_nv(machine.tpm, AK_CERTIFICATE_INDEX + 1)
    with pytest.raises(TpmRefused, match="0x158"):
        quote_pcrs(machine.tpm, AK_HANDLE + 1, bytes(32), (0,))


def test_selections_are_canonical() -> None:
    assert build_selection((15, 0, 9)) == bytes.fromhex("00000001000b03018200")
    with pytest.raises(LocalError):
        build_selection((24,))


class Wire:
    """A TPM's wire on which something happens to answers: ``change`` gets each and the number of its exchange."""

    def __init__(self, machine: Machine, change: object) -> None:
        self._machine = machine
        self._change = change
        self.exchanges = 0

    def exchange(self, command: bytes) -> bytes:
        self.exchanges += 1
        return self._change(self.exchanges, lambda: self._machine.tpm.exchange(command))  # type: ignore[operator]


def busy(code: int) -> bytes:
    return struct.pack(">HII", 0x8001, 10, code)


@pytest.mark.parametrize("code", [0x908, 0x90A, 0x920, 0x922, 0x923])
def test_a_busy_tpm_is_asked_again(machine: Machine, code: int) -> None:
    wire = Wire(machine, lambda number, ask: busy(code) if number % 2 else ask())
    attester = TpmAttester(wire, machine.log)
    attester.measure_app(APP)
    evidence = attester.attest(REPORT_DATA, now=0)
    assert read_claims(evidence, machine.collateral, int(time.time())).app_digest == APP


def test_registers_that_move_between_reading_and_quoting_are_read_again(machine: Machine) -> None:
    attester = TpmAttester(Wire(machine, lambda number, ask: (moving(number), ask())[1]), machine.log)
    moved: list[int] = []

    def moving(number: int) -> None:
        # The fourth exchange is the first PCR_Read of attest, the fifth its quote.
        if number == 5:
            moved.append(number)
            extend_pcr(machine.tpm, 9, OTHER)

    attester.measure_app(APP)
    payload = parse_tpm_payload(attester.attest(REPORT_DATA, now=0).payload)
    assert moved == [5]
    assert payload.pcrs == read_pcrs(machine.tpm, tuple(payload.pcrs))


NONSENSE = {
    "empty": b"",
    "head cut short": bytes(9),
    "unknown tag": struct.pack(">HII", 0x8003, 10, 0),
    "size too large": struct.pack(">HII", 0x8001, 11, 0),
    "size 2^32-1": struct.pack(">HII", 0x8001, 2**32 - 1, 0),
    "no parameters": struct.pack(">HII", 0x8001, 10, 0),
    "sessions without parameters": struct.pack(">HII", 0x8002, 10, 0),
    "parameters of 2^32-1 bytes": struct.pack(">HIII", 0x8002, 14, 0, 2**32 - 1),
    "no bank": struct.pack(">HIIII", 0x8001, 18, 0, 1, 0),
    "2^32-1 banks": struct.pack(">HIIII", 0x8001, 18, 0, 1, 2**32 - 1),
    "bank of SHA-1": struct.pack(">HIIIIHB", 0x8001, 24, 0, 1, 1, 4, 3) + b"\0\x80\0",
    "other register": struct.pack(">HIIIIHB3sI", 0x8001, 28, 0, 1, 1, 11, 3, b"\x01\0\0", 0),
    "register of 20 bytes": struct.pack(">HIIIIHB3sIH", 0x8001, 50, 0, 1, 1, 11, 3, b"\0\x80\0", 1, 20) + bytes(20),
    "register cut short": struct.pack(">HIIIIHB3sIH", 0x8001, 30, 0, 1, 1, 11, 3, b"\0\x80\0", 1, 32),
    "bytes left over": struct.pack(">HIIIIHB3sIH", 0x8001, 63, 0, 1, 1, 11, 3, b"\0\x80\0", 1, 32) + bytes(33),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CloisterError) as refused:
        TpmAttester(Answers(NONSENSE[name]), tmp_path / "log").measure_app(APP)
    assert refused.value.code == "tpm-malformed"


class Answers:
    """Answers every command with these bytes."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def exchange(self, command: bytes) -> bytes:
        return self._answer


@given(tag=st.sampled_from((0x8001, 0x8002)), body=st.binary(max_size=200), inner=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_answer_is_read_or_refused(tag: int, body: bytes, inner: bool) -> None:
    if inner:
        body = struct.pack(">I", len(body)) + body
    tpm = Answers(struct.pack(">HII", tag, 10 + len(body), 0) + body)
    for ask in (
        lambda: read_pcrs(tpm, (0, 15)),
        lambda: quote_pcrs(tpm, AK_HANDLE, bytes(32), (0, 15)),
        lambda: read_nv(tpm, AK_CERTIFICATE_INDEX),
        lambda: extend_pcr(tpm, 15, APP),
    ):
        with suppress(CloisterError):
            ask()


def test_a_tpm_that_stays_busy_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpm_commands, "_BUSY_SECONDS", 0.05)
    with pytest.raises(UnavailableError, match="busy"):
        read_pcrs(Answers(busy(0x922)), (15,))


def test_a_device_that_is_absent_or_silent_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="does not open"):
        DeviceTransceiver(tmp_path / "tpmrm0")
    # A terminal's far end behaves as a device does: written commands go nowhere, and nothing comes back.
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    device = DeviceTransceiver(Path(os.ttyname(theirs)), seconds=0.05)
    with pytest.raises(UnavailableError, match="no answer in"):
        device.exchange(bytes(10))
    os.write(ours, busy(0))
    assert device.exchange(bytes(10)) == busy(0)
    device.close()
    os.close(ours)
    os.close(theirs)
