"""The test root of a local network: it certifies simulated machines, and nothing outside this network believes it."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloister.attestation.verifiers.simulated import build_platform_certificate, build_root
from cloister.enclave.attesters.simulated import build_platform

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
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        _write(platform_path, build_platform(platform_key.private_bytes_raw(), certificate))
        _write(root_path, root)
    return TestRoot(root_path.read_bytes(), platform_path.read_bytes())


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
