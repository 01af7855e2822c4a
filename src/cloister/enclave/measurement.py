"""Measurement of the agent: one digest over the program that runs in the enclave.

For simulated enclaves this stands where hardware would hash memory. Whoever sets reference values calls the same
function on the same release.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

DOMAIN = b"cloister/agent-measurement/v1"

FILES = ("__init__.py", "errors.py", "version.py")
ROOMS = ("protocol", "sealing", "datasets", "attestation", "iapp", "enclave")
"""All of the package that is inside an enclave; the other rooms are not there to be imported."""


def package_root() -> Path:
    """Where this very package lies."""
    return Path(__file__).resolve().parent.parent


def agent_files(root: Path) -> list[Path]:
    """Every source file of the agent, in the order in which it is measured."""
    found = [root / name for name in FILES]
    for room in ROOMS:
        found += (root / room).rglob("*.py")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix().encode())


def measure_agent(root: Path | None = None) -> bytes:
    """SHA-256 (32 bytes) over interpreter version, and name and SHA-256 of every source file of the agent."""
    root = root or package_root()
    digest = hashlib.sha256(DOMAIN)
    version = f"{sys.implementation.name} {'.'.join(map(str, sys.version_info[:3]))}".encode()
    digest.update(len(version).to_bytes(4, "big") + version)
    for path in agent_files(root):
        name = path.relative_to(root).as_posix().encode()
        digest.update(len(name).to_bytes(4, "big") + name + hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()
