"""Report data: the 64 bytes that bind evidence to one task, one SMS and the enclave's own two keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cloister.errors import LocalError

DOMAIN = b"cloister/report/v1"
REPORT_DATA_SIZE = 64


@dataclass(frozen=True, slots=True)
class ReportBinding:
    """Everything report data commits to. All byte strings are raw: addresses 20 bytes, the others 32."""

    chain_id: int
    hub: bytes
    sms: bytes
    task_id: bytes
    nonce: bytes
    app_digest: bytes
    challenge: bytes
    hpke_key_hash: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.chain_id < 2**256:
            raise LocalError(f"chain id {self.chain_id} is not a uint256")
        for name, size in _SIZES:
            value: bytes = getattr(self, name)
            if len(value) != size:
                raise LocalError(f"{name} has {len(value)} bytes instead of {size}")


_SIZES = (
    ("hub", 20),
    ("sms", 20),
    ("task_id", 32),
    ("nonce", 32),
    ("app_digest", 32),
    ("challenge", 20),
    ("hpke_key_hash", 32),
)


def build_report_data(binding: ReportBinding) -> bytes:
    """Hash the binding to 64 bytes: SHA-512 over the domain and every field at a fixed width, so no two bindings
    collide.
    """
    fields = (getattr(binding, name) for name, _ in _SIZES)
    return hashlib.sha512(DOMAIN + binding.chain_id.to_bytes(32, "big") + b"".join(fields)).digest()
