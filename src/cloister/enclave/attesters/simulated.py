"""The simulated platform: signs what the agent measured of itself, with a key that the host handed in.

It proves nothing against that host, and everything that rests on it says so (``attestation.assurance.SIMULATED_WARNING``).
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.attestation.cbor import build_cbor, parse_cbor
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.statement import SIMULATED_DOMAIN, build_payload, build_statement
from cloister.errors import DecodeError

SECURITY_VERSION = 1


class SimulatedAttester:
    """Implements ``Attester`` in software. Neither ``repr`` nor an error shows the key."""

    __slots__ = ("_certificate", "_key", "_measurement")

    def __init__(self, key: Ed25519PrivateKey, certificate: bytes, measurement: bytes) -> None:
        self._key = key
        self._certificate = certificate
        self._measurement = measurement

    def __repr__(self) -> str:
        return "SimulatedAttester(hidden)"

    def measure_app(self, digest: bytes) -> None:
        """Nothing: this kind has no register, the digest stands in the report data alone."""

    def attest(self, report_data: bytes, *, now: int) -> Evidence:
        """Sign measurement and report data."""
        statement = build_statement(
            measurement=self._measurement, report_data=report_data, issued_at=now, debug=False, svn=SECURITY_VERSION
        )
        signature = self._key.sign(SIMULATED_DOMAIN + statement)
        return Evidence(EvidenceKind.SIMULATED, build_payload(self._certificate, statement, signature))


def build_platform(private_key: bytes, certificate: bytes) -> bytes:
    """What the host hands to an enclave of this kind: CBOR ``[raw Ed25519 private key, certificate (DER)]``."""
    return build_cbor([private_key, certificate])


def load_attester(platform: bytes, measurement: bytes) -> SimulatedAttester:
    """Read what the host handed in.

    Raises:
        DecodeError: another form. The message repeats nothing of it.
    """
    match parse_cbor(platform):
        case [bytes(key), bytes(certificate)] if len(key) == 32:
            return SimulatedAttester(Ed25519PrivateKey.from_private_bytes(key), certificate, measurement)
        case _:
            raise DecodeError("the simulated platform is not [key, certificate]")
