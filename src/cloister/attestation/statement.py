"""The statement of a simulated platform: built inside the enclave, so it imports no certificate library (start-up
time).
"""

from __future__ import annotations

from cloister.attestation.cbor import build_cbor

SIMULATED_DOMAIN = b"cloister/simulated-evidence/v1\x00"
VERSION = 1


def build_statement(*, measurement: bytes, report_data: bytes, issued_at: int, debug: bool, svn: int) -> bytes:
    """The CBOR that a simulated platform signs: measurement 32 bytes, report data 64, unix seconds, debug flag,
    security version.
    """
    return build_cbor({1: measurement, 2: report_data, 3: issued_at, 4: debug, 5: svn})


def build_payload(certificate: bytes, statement: bytes, signature: bytes) -> bytes:
    """Simulated evidence as it travels; ``signature`` is Ed25519 over ``SIMULATED_DOMAIN || statement``."""
    return build_cbor([VERSION, certificate, statement, signature])
