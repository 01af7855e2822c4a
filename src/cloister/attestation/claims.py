"""Claims: what a verifier read out of evidence whose signatures hold. They are facts, not yet a yes."""

from __future__ import annotations

from dataclasses import dataclass

from cloister.attestation.evidence import EvidenceKind


@dataclass(frozen=True, slots=True)
class Claims:
    """What the hardware said. ``issued_at`` is unix seconds; ``root`` is the SHA-256 of the root certificate (DER)."""

    kind: EvidenceKind
    measurement: bytes
    report_data: bytes
    issued_at: int
    debug: bool
    svn: int
    root: bytes
    platform: bytes
    """SHA-256 of the platform certificate: two pieces of evidence of one machine can be told from those of two."""
