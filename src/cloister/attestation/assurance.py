"""What each kind of evidence is worth against the machine's own operator, in the words that must stand beside it."""

from __future__ import annotations

from cloister.attestation.evidence import EvidenceKind

SIMULATED_WARNING = "SIMULATED: not confidential against the host"
TPM_WARNING = "memory is not encrypted on this machine: the boot chain is measured, but whoever runs the host can read what the enclave holds"
_WARNINGS = {EvidenceKind.SIMULATED: SIMULATED_WARNING, EvidenceKind.TPM: TPM_WARNING}


def warning_for(kind: EvidenceKind) -> str | None:
    """The warning that every page, line, receipt and report carries that rests on this kind; None for hardware that
    encrypts memory.
    """
    return _WARNINGS.get(kind)
