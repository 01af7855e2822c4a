"""Evidence: what an enclave's hardware signs, as it travels between enclave, host, SMS and receipt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cloister.errors import DecodeError, TooLarge, quoted

MAX_PAYLOAD = 128 * 1024
"""Longest payload, in bytes. A TDX quote with its certificate chain takes about 8 KiB, a TPM's event log up to 64."""


class EvidenceKind(StrEnum):
    """Every kind of evidence that has a name; what can be verified is decided in ``verify``."""

    SIMULATED = "simulated"
    TDX = "tdx"
    SGX = "sgx"
    SNP = "snp"
    TPM = "tpm"
    SNP_VTPM = "snp-vtpm"
    """A TPM quote whose attestation key is bound in an SNP report: Azure's confidential VMs."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """``payload`` as the hardware made it; its meaning depends on ``kind``. Nothing in it is trusted before
    appraisal.
    """

    kind: EvidenceKind
    payload: bytes

    def __post_init__(self) -> None:
        if not self.payload:
            raise DecodeError("evidence is empty", code="evidence-empty")
        if len(self.payload) > MAX_PAYLOAD:
            raise TooLarge(
                f"evidence has {len(self.payload)} bytes; the cap is {MAX_PAYLOAD}", code="evidence-too-large"
            )


def parse_evidence(kind: str, payload: bytes) -> Evidence:
    """Name the kind and check the size.

    Raises:
        DecodeError: unknown kind, or empty. TooLarge: over 64 KiB.
    """
    try:
        known = EvidenceKind(kind)
    except ValueError as error:
        raise DecodeError(f"evidence kind {quoted(kind)} is unknown", code="evidence-kind") from error
    return Evidence(known, payload)
