"""Which attester an enclave takes: the machine's, and a simulated one only where the boot allows it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.enclave.attesters.recorded import Driver

from cloister.enclave.attesters.attester import Attester
from cloister.enclave.attesters.choice import choose_attester
from cloister.enclave.attesters.simulated import SimulatedAttester, build_platform
from cloister.enclave.attesters.tpm import TpmAttester
from cloister.enclave.attesters.tsm import TsmAttester
from cloister.errors import DecodeError, UnavailableError, VerificationError

MATERIAL = build_platform(Ed25519PrivateKey.generate().private_bytes_raw(), b"certificate")


def no_hardware(name: str, folder: Path) -> None:
    if name == "mkdir":
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))


class Guest:
    """A machine's files, of which a test makes those that it needs."""

    def __init__(self, root: Path, command_line: str | None = "console=ttyS0 quiet\n") -> None:
        self.root = root
        self.driver = Driver("tdx_guest", lambda data: data)
        if command_line is not None:
            (root / "cmdline").write_text(command_line)

    def choose(self, kind: str, material: bytes = b"") -> Attester:
        return choose_attester(
            kind,
            material,
            bytes(32),
            command_line=self.root / "cmdline",
            reports=self.root / "report",
            device=self.root / "tpmrm0",
            event_log=self.root / "log",
            files=self.driver,
        )


@pytest.mark.parametrize("kind", ["tdx", "snp", "tpm"])
def test_encrypted_memory_comes_before_a_tpm(tmp_path: Path, kind: str) -> None:
    guest = Guest(tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "tpmrm0").touch()
    assert isinstance(guest.choose(kind), TsmAttester)


@pytest.mark.parametrize("kind", ["tdx", "snp", "tpm"])
def test_a_machine_without_it_takes_its_tpm(tmp_path: Path, kind: str) -> None:
    guest = Guest(tmp_path)
    (tmp_path / "tpmrm0").touch()
    assert isinstance(guest.choose(kind), TpmAttester)
    (tmp_path / "report").mkdir()
    guest.driver.before = no_hardware
    assert isinstance(guest.choose(kind), TpmAttester)


def test_a_machine_with_neither_has_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="nothing here signs"):
        Guest(tmp_path).choose("tpm", MATERIAL)


def test_simulated_is_taken_where_the_boot_allows_it(tmp_path: Path) -> None:
    attester = Guest(tmp_path).choose("simulated", MATERIAL)
    assert isinstance(attester, SimulatedAttester)
    attester.measure_app(bytes(32))


@pytest.mark.parametrize("line", ["cloister.simulated=never", "a cloister.simulated=never b\n", None])
def test_simulated_is_refused_where_it_does_not(tmp_path: Path, line: str | None) -> None:
    with pytest.raises(VerificationError) as refused:
        Guest(tmp_path, line).choose("simulated", MATERIAL)
    assert refused.value.code == "simulated-forbidden"


@pytest.mark.parametrize("kind", ["", "sgx", "snp-vtpm", "Simulated", "x" * 10_000])
def test_an_unknown_kind_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DecodeError) as refused:
        Guest(tmp_path).choose(kind, MATERIAL)
    assert refused.value.code == "evidence-kind"
    assert len(refused.value.message) < 200
