"""A machine that booted: a copy of an enrolled swtpm, its boot registers extended, and the log that explains them."""

from __future__ import annotations

import hashlib
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.enclave.attesters.tpm import TpmAttester
from cloister.enclave.attesters.tpm_commands import extend_pcr
from cloister.network.tpmenrolment import SocketTransceiver
from cloister.network.tpmroot import TpmRoot
from cloister.worker.vm.swtpm import STATE_FILES, Swtpm

EVENTS = (
    (0, 0x8, b"firmware"),
    (2, 0x4, bytes(4)),
    (4, 0x80000003, b"kernel"),
    (7, 0x4, bytes(4)),
    (9, 0x6, b"initramfs"),
)


def require_swtpm() -> None:
    if shutil.which("swtpm") is None:
        pytest.skip("swtpm is not installed")


def build_log(events: tuple[tuple[int, int, bytes], ...] = EVENTS) -> bytes:
    """A crypto-agile log with a SHA-256 bank (TCG PC Client Platform Firmware Profile, 10.2)."""
    spec = b"Spec ID Event03\0" + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, 1) + struct.pack("<HH", 0x0B, 32) + b"\0"
    log = struct.pack("<II20sI", 0, 3, bytes(20), len(spec)) + spec
    for pcr, kind, data in events:
        log += struct.pack("<IIIH", pcr, kind, 1, 0x0B) + hashlib.sha256(data).digest()
        log += struct.pack("<I", len(data)) + data
    return log


@dataclass(frozen=True)
class Machine:
    """``tpm`` answers raw commands; ``log`` is the event log's file."""

    tpm: SocketTransceiver
    log: Path
    root: TpmRoot

    def attester(self) -> TpmAttester:
        """The agent's, as if it had just started."""
        return TpmAttester(self.tpm, self.log)

    @property
    def collateral(self) -> Collateral:
        return Collateral(((EvidenceKind.TPM, self.root.root),))


@contextmanager
def booted(root: TpmRoot, folder: Path) -> Iterator[Machine]:
    """Copy the TPM, power it on, and boot."""
    state = folder / "state"
    state.mkdir(parents=True)
    for name in STATE_FILES:
        shutil.copyfile(root.state / name, state / name)
    log = folder / "binary_bios_measurements"
    log.write_bytes(build_log())
    with Swtpm.start_in_place(state) as swtpm:
        tpm = SocketTransceiver(swtpm.socket)
        try:
            for pcr, _, data in EVENTS:
                extend_pcr(tpm, pcr, hashlib.sha256(data).digest())
            yield Machine(tpm, log, root)
        finally:
            tpm.close()
