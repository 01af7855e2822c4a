"""Quotes that a real TPM (swtpm) signed with an enrolled key, where it is installed: what it signs and is still refused."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from tests.enclave.attesters.machine import Machine, booted, require_swtpm
from tests.support.tpm_authority import encode, select_pcrs

from cloister.attestation.tpm.payload import QUOTED_PCRS, TpmPayload, build_qualifying_data, parse_tpm_payload
from cloister.attestation.tpm.structures import parse_quote
from cloister.attestation.verify import read_claims
from cloister.enclave.attesters.tpm import AK_HANDLE
from cloister.enclave.attesters.tpm_commands import extend_pcr, quote_pcrs, read_pcrs
from cloister.errors import DecodeError, VerificationError
from cloister.network.tpmroot import TpmRoot, load_tpm_root

REPORT_DATA = hashlib.sha512(b"report").digest()
APP = hashlib.sha256(b"app").digest()


@dataclass(frozen=True)
class Booted:
    """A machine whose app was measured, and its honest evidence in members."""

    machine: Machine
    parts: TpmPayload

    def refusal(self, parts: TpmPayload) -> str:
        with pytest.raises((DecodeError, VerificationError)) as refusal:
            read_claims(encode(parts), self.machine.collateral, int(time.time()))
        return refusal.value.code

    def requoted(self, report_data: bytes = REPORT_DATA, pcrs: tuple[int, ...] = QUOTED_PCRS) -> TpmPayload:
        """A quote of now, of these registers."""
        attest, signature = quote_pcrs(self.machine.tpm, AK_HANDLE, build_qualifying_data(report_data), pcrs)
        return replace(self.parts, attest=attest, signature=signature, pcrs=dict(read_pcrs(self.machine.tpm, pcrs)))


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> TpmRoot:
    require_swtpm()
    return load_tpm_root(tmp_path_factory.mktemp("tpm"), "test network")


@pytest.fixture(scope="module")
def booted_machine(enrolled: TpmRoot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    with booted(enrolled, tmp_path_factory.mktemp("machine") / "first") as machine:
        attester = machine.attester()
        attester.measure_app(APP)
        yield Booted(machine, parse_tpm_payload(attester.attest(REPORT_DATA, now=0).payload))


def test_what_a_real_tpm_signs_is_read(booted_machine: Booted) -> None:
    claims = read_claims(encode(booted_machine.parts), booted_machine.machine.collateral, int(time.time()))
    assert (claims.app_digest, claims.report_data) == (APP, REPORT_DATA)
    quote = parse_quote(booted_machine.parts.attest)
    assert claims.attributes["reset_count"] == quote.reset_count > 0
    assert quote.extra_data == build_qualifying_data(REPORT_DATA)


@pytest.mark.parametrize(
    ("pcrs", "code"),
    [
        (QUOTED_PCRS[1:], "quote-selection"),
        (QUOTED_PCRS[:-1], "quote-selection"),
        ((*QUOTED_PCRS, 16), "quote-selection"),
        (tuple(range(24)), "quote-selection"),
    ],
    ids=["without firmware", "without the app", "one too many", "all"],
)
def test_quotes_of_other_registers_are_refused(booted_machine: Booted, pcrs: tuple[int, ...], code: str) -> None:
    assert booted_machine.refusal(booted_machine.requoted(pcrs=pcrs)) == code


CHANGES: dict[str, tuple[Callable[[Booted], TpmPayload], str]] = {
    "another nonce": (lambda b: b.requoted(bytes(64)), "quote-binding"),
    "an older quote": (lambda b: replace(b.requoted(bytes(64)), attest=b.parts.attest), "quote-signature"),
    "another app claimed": (lambda b: replace(b.parts, app_digest=bytes(32)), "app-register-mismatch"),
    "another kernel claimed": (lambda b: replace(b.parts, pcrs=b.parts.pcrs | {4: bytes(32)}), "quote-pcr-digest"),
    "an event left out": (lambda b: replace(b.parts, event_log=shortened(b.parts.event_log)), "event-log-mismatch"),
    "no selection": (
        lambda b: replace(b.parts, attest=b.parts.attest.replace(select_pcrs(QUOTED_PCRS), select_pcrs(()))),
        "quote-signature",
    ),
    "certificates swapped": (
        lambda b: replace(b.parts, ak_certificate=b.parts.ek_certificate, ek_certificate=b.parts.ak_certificate),
        "certificate-purpose",
    ),
}


def shortened(log: bytes) -> bytes:
    """Without its last event, whose data is 9 bytes long: head of 14 bytes, SHA-256, length, data."""
    return log[: -(14 + 32 + 4 + 9)]


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_refused_by_name(booted_machine: Booted, name: str) -> None:
    change, code = CHANGES[name]
    assert booted_machine.refusal(change(booted_machine)) == code


def test_another_networks_root_refuses_a_real_tpm(
    booted_machine: Booted, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = load_tpm_root(tmp_path_factory.mktemp("other"), "test network")
    machine = replace(booted_machine.machine, root=other)
    assert replace(booted_machine, machine=machine).refusal(booted_machine.parts) == "untrusted-root"


def test_what_is_measured_after_the_app_shows(enrolled: TpmRoot, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Something follows the boot into one of its registers, then the app into its own."""
    with booted(enrolled, tmp_path_factory.mktemp("machine") / "second") as machine:
        attester = machine.attester()
        attester.measure_app(APP)
        parts = parse_tpm_payload(attester.attest(REPORT_DATA, now=0).payload)
        late = Booted(machine, parts)
        assert late.refusal(replace(late.requoted(), app_digest=bytes(32))) == "app-register-mismatch"
        extend_pcr(machine.tpm, 9, bytes(32))
        assert late.refusal(late.requoted()) == "event-log-mismatch"
        extend_pcr(machine.tpm, 15, bytes(32))
        assert late.refusal(late.requoted()) == "app-register-mismatch"
