"""Load test vectors: JSON files that say who made them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def load_vectors(path: str) -> dict[str, Any]:
    """The file at ``path`` (under this folder). Fails when it names no maker or has no case."""
    vectors: dict[str, Any] = json.loads((_FOLDER / path).read_text())
    assert vectors["made_by"], f"{path} does not say who made it"
    assert vectors["cases"], f"{path} has no cases"
    return vectors


def load_cases(path: str) -> list[dict[str, Any]]:
    """The cases of the file at ``path``."""
    cases: list[dict[str, Any]] = load_vectors(path)["cases"]
    return cases
