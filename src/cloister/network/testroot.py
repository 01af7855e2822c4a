"""The test root of a local network: it certifies simulated machines, and nothing outside this network believes it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.attestation.verifiers.simulated import build_platform_certificate, build_root
from cloister.enclave.attesters.simulated import build_platform
from cloister.files import write_durably

ROOT_SECONDS = 10 * 365 * 86400
BACKDATED_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class TestRoot:
    """``root``: the certificate (DER) that the SMS's settings name. ``platform``: what the worker hands to its enclaves."""

    root: bytes
    platform: bytes = field(repr=False)


def load_test_root(folder: Path, network: str) -> TestRoot:
    """Read the network's root and its one machine's key, or make them durably the first time."""
    root_path, platform_path = folder / "root.der", folder / "platform.cbor"
    if not (root_path.exists() and platform_path.exists()):
        now = int(time.time())
        span = {"not_before": now - BACKDATED_SECONDS, "not_after": now + ROOT_SECONDS}
        root_key, platform_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        root = build_root(root_key, name=f"{network} SIMULATED test root", serial=secrets.randbits(64), **span)
        certificate = build_platform_certificate(
            root_key,
            root,
            platform_key.public_key(),
            name=f"{network} SIMULATED machine",
            serial=secrets.randbits(64),
            **span,
        )
        # The root's key is not kept: a network has one machine, made together with it.
        write_durably(platform_path, build_platform(platform_key.private_bytes_raw(), certificate))
        write_durably(root_path, root)
    return TestRoot(root_path.read_bytes(), platform_path.read_bytes())
