"""Rehearsing an iApp: the whole command ``cloister iapp test`` on the template hello-world, a process each time.

Warm: the bundle is kept from the run before, and files are in the page cache. Beside it a run after a change of the
code, and ``rehearse`` on a stage that has an enclave ready, as ``--watch`` and tests have it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.rows import Row
from cloister.generator.init import init_project
from cloister.generator.rehearsal import Request, Stage

RUNS = 9
BUDGET_SECONDS = 2.0
NAME = "cloister iapp test, hello-world"


def measure() -> list[Row]:
    """Rows: the command cold, warm and after a change; parts of the warm one; a rehearsal on a warm stage."""
    program = Path(sys.executable).with_name("cloister")
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as scratch:
        project = Path(scratch) / "hello-world"
        init_project("hello-world", "hello-world", project)
        command = [str(program), "iapp", "test", str(project), "--json"]
        environment = os.environ | {"CLOISTER_HOME": str(Path(scratch) / "home")}
        first, _ = _run(command, environment)
        warm = [_run(command, environment) for _ in range(RUNS)]
        changed = []
        for number in range(RUNS):
            with (project / "main.py").open("a") as code:
                code.write(f"\n# {number}\n")
            changed.append(_run(command, environment)[0])
        parts = sorted(warm, key=lambda run: run[0])[RUNS // 2][1]
        staged = _staged(project)
    return [
        Row(f"{NAME}, first", first, "s"),
        Row(f"{NAME}, warm", statistics.median(seconds for seconds, _ in warm), "s", BUDGET_SECONDS),
        *(Row(f"{NAME}, warm: {name}", seconds, "s") for name, seconds in parts.items() if name != "whole command"),
        Row(f"{NAME}, after a change", statistics.median(changed), "s", BUDGET_SECONDS),
        Row("rehearse() hello-world, enclave ready", staged, "s"),
    ]


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, dict[str, float]]:
    """Elapsed seconds, and what the command says of its parts."""
    begun = time.perf_counter()
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    elapsed = time.perf_counter() - begun
    return elapsed, json.loads(done.stdout)["timings"]


def _staged(project: Path) -> float:
    taken = []
    with Stage(warm=True) as stage:
        for _ in range(RUNS):
            time.sleep(0.5)  # the next enclave gets ready
            begun = time.perf_counter()
            run = stage.rehearse(project, Request())
            taken.append(time.perf_counter() - begun)
            assert run.cause is None, run.message
    return statistics.median(taken)
