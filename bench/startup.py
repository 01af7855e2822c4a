"""Whole-process time of importing the SDK and of ``cloister --help``: medians over fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.rows import Row

RUNS = 15
BUDGET_SECONDS = 0.25


def _median_seconds(command: list[str]) -> float:
    seconds = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def measure() -> list[Row]:
    """Rows: bare interpreter (for comparison), SDK import, help."""
    program = Path(sys.executable).with_name("cloister")
    return [
        Row("bare python -c pass", _median_seconds([sys.executable, "-c", "pass"]), "s"),
        Row(
            "from cloister import DataProtector",
            _median_seconds([sys.executable, "-c", "from cloister import DataProtector"]),
            "s",
            BUDGET_SECONDS,
        ),
        Row("cloister --help", _median_seconds([str(program), "--help"]), "s", BUDGET_SECONDS),
    ]
