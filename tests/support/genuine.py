"""Genuine attestation evidence, which lies beside the checkout and is not part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(
    os.environ.get("CLOISTER_EVIDENCE") or Path(__file__).resolve().parents[3] / "shared" / "data" / "attestation"
)


def genuine(name: str) -> bytes:
    """The bytes of one file, as ``dcap/tdx_quote``. Skips the test, saying why, where the folder is absent."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(
            f"no genuine evidence here: {FOLDER.name}/{name} is not beside the checkout (set CLOISTER_EVIDENCE)"
        )
    return path.read_bytes()
