"""Whole-process time of importing the SDK and of ``cloister --help``: medians over fresh processes."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.rows import Row

RUNS = 15
BUDGET_SECONDS = 0.25
IMPORT = "from cloister import DataProtector"


def _medians(command: list[str]) -> tuple[float, float]:
    """Elapsed and processor seconds."""
    elapsed, used = [], []
    for _ in range(RUNS):
        before, begun = _children_seconds(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        elapsed.append(time.perf_counter() - begun)
        used.append(_children_seconds() - before)
    return statistics.median(elapsed), statistics.median(used)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure() -> list[Row]:
    """Rows: bare interpreter (for comparison), SDK import, help."""
    program = Path(sys.executable).with_name("cloister")
    rows = []
    for name, command, budget in (
        ("bare python -c pass", [sys.executable, "-c", "pass"], None),
        (IMPORT, [sys.executable, "-c", IMPORT], BUDGET_SECONDS),
        ("cloister --help", [str(program), "--help"], BUDGET_SECONDS),
    ):
        elapsed, used = _medians(command)
        rows += [Row(name, elapsed, "s", budget), Row(f"{name}, processor time", used, "s")]
    return rows
