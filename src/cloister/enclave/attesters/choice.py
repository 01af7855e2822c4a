"""Which hardware this enclave's evidence comes from: what the machine has, never what the host would like."""

from __future__ import annotations

from pathlib import Path

from cloister.attestation.evidence import EvidenceKind
from cloister.enclave.attesters import tpm, tsm
from cloister.enclave.attesters.attester import Attester
from cloister.enclave.attesters.simulated import load_attester
from cloister.enclave.attesters.transceivers import DEVICE, DeviceTransceiver
from cloister.errors import DecodeError, UnavailableError, VerificationError, quoted

COMMAND_LINE = Path("/proc/cmdline")
SIMULATED_NEVER = "cloister.simulated=never"
"""On the kernel's command line, which a measured boot measures: this machine takes no key from its host."""
_HARDWARE = frozenset({EvidenceKind.TDX, EvidenceKind.SNP, EvidenceKind.TPM})
_COMMAND_LINE_CAP = 1 << 16


def choose_attester(
    kind: str,
    material: bytes,
    measurement: bytes,
    *,
    command_line: Path = COMMAND_LINE,
    reports: Path = tsm.REPORTS,
    device: Path = DEVICE,
    event_log: Path = tpm.EVENT_LOG,
    files: tsm.ReportFiles = tsm.KERNEL_FILES,
) -> Attester:
    """The attester of this enclave. ``kind`` and ``material`` are the host's platform frame, ``measurement`` the agent's own.

    ``simulated`` is taken when the host says so and the boot does not forbid it. For any kind of hardware the machine
    decides: encrypted memory's reports (configfs-tsm) before a TPM, which can do less.

    Raises:
        VerificationError: simulated, where the boot forbids it or cannot be asked. DecodeError: an unknown kind, or
            material of another form. UnavailableError: this machine has no hardware that signs. RemoteError: it has
            hardware without a verifier.
    """
    if kind == EvidenceKind.SIMULATED:
        _check_simulated(command_line)
        return load_attester(material, measurement)
    if kind not in _HARDWARE:
        raise DecodeError(f"this enclave has no attester for {quoted(kind)}", code="evidence-kind")
    found = tsm.find_tsm(reports, files)
    if found is not None:
        return found
    if device.exists():
        return tpm.TpmAttester(DeviceTransceiver(device), event_log)
    raise UnavailableError(
        "this machine has neither configfs-tsm nor a TPM: nothing here signs evidence",
        hint="start it as a confidential guest, or with a TPM",
    )


def _check_simulated(command_line: Path) -> None:
    try:
        with command_line.open("rb") as file:
            words = file.read(_COMMAND_LINE_CAP).decode(errors="replace").split()
    except OSError as error:
        raise VerificationError(
            "simulated evidence is refused: the kernel's command line cannot be read", code="simulated-forbidden"
        ) from error
    if SIMULATED_NEVER in words:
        raise VerificationError("this machine's boot forbids simulated evidence", code="simulated-forbidden")
