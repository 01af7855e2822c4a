"""What each kind of evidence is worth against the machine's own operator, in the words that must stand beside it."""

from __future__ import annotations

from cloister.attestation.evidence import EvidenceKind

SIMULATED_WARNING = "SIMULATED: not confidential against the host"
TPM_WARNING = (
    "memory is not encrypted on this machine: the boot chain is measured, but the host's operator can read the enclave"
)
_PROOFS = {
    EvidenceKind.SIMULATED: "a software key of this network says which program ran",
    EvidenceKind.TPM: (
        "boot chain proven: firmware, kernel, initramfs, command line and app were measured into a TPM that the network's root "
        "certified"
    ),
    EvidenceKind.TDX: "Intel TDX proves the guest, its boot and that its memory is encrypted",
    EvidenceKind.SGX: "Intel SGX proves the enclave and that its memory is encrypted",
    EvidenceKind.SNP: "AMD SEV-SNP proves the guest and that its memory is encrypted",
    EvidenceKind.SNP_VTPM: "AMD SEV-SNP proves the paravisor and that memory is encrypted, and its TPM the boot",
}
_WARNINGS = {EvidenceKind.SIMULATED: SIMULATED_WARNING, EvidenceKind.TPM: TPM_WARNING}


def warning_for(kind: EvidenceKind) -> str | None:
    """The warning that every page, line, receipt and report carries that rests on this kind; None for hardware that
    encrypts memory.
    """
    return _WARNINGS.get(kind)


def proof_for(kind: EvidenceKind) -> str:
    """What evidence of this kind proves once it was accepted, in one sentence."""
    return _PROOFS[kind]
