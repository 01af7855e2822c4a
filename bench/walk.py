"""The hello-world tutorial, walked from nothing to a decrypted result and timed: a clone, its set-up, then every command.

The page is ``docs/hello-world/README.md``; what it shows is compared on the way, so a figure is of a walk that worked.
A reader also reads: the seconds here are the machine's.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from bench.rows import Row
from bench.transcript import Step, reader_environment, walk

ROOT = Path(__file__).parents[1]
PAGE = Path("docs") / "hello-world" / "README.md"
BUDGET_SECONDS = 300.0
UP = "cloister up --detach"
FREE_PORTS = {UP: f"{UP} --port 0 --chain-port 0"}
_SHOWN = 44


def measure() -> list[Row]:
    """Rows: clone and set-up, every command, all of it beside five minutes."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cloister-walk-") as folder:
        clone, place = Path(folder) / "clone", Path(folder) / "reader"
        place.mkdir()
        subprocess.run(["git", "clone", "--quiet", "--local", str(ROOT), str(clone)], check=True)
        subprocess.run(["make", "--silent", "setup"], cwd=clone, check=True, stdout=subprocess.DEVNULL)
        ready = time.perf_counter()
        environment = reader_environment(clone / ".venv" / "bin", Path(folder) / "home")
        steps: list[Step] = []
        try:
            walk(clone / PAGE, place, environment, replaced=FREE_PORTS, told=steps.append)
        finally:
            subprocess.run(
                ["cloister", "down"], env=environment, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        ended = time.perf_counter()
    return [
        Row("tutorial: clone and make setup", ready - began, "s"),
        *(Row(f"tutorial: {_short(step.command)}", step.seconds, "s") for step in steps),
        Row("tutorial: from nothing to the opened result", ended - began, "s", BUDGET_SECONDS),
    ]


def _short(command: str) -> str:
    line = command.splitlines()[0].removesuffix(" --port 0 --chain-port 0")
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
