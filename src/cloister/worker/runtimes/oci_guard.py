"""Ends the containers of a worker that is gone: ``oci_guard.py ENGINE NAMES FOLDER``, with a pipe of the worker's as its
standard input.

Containers are not children of the worker, so no signal reaches them when it dies. When the pipe ends, every container whose
name begins with NAMES is removed, then FOLDER. Standard library only; it must start in no time and depend on nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

LABEL = "org.cloister.enclave"
_SECONDS = 30
_ROUNDS = 3
_PAUSE = 1.0
"""Another look: one may have been on its way when the worker died."""


def find_containers(engine: str, names: str) -> list[str]:
    """Names of this project's containers that begin with ``names``, running or not; none when the engine does not answer."""
    asked = _run(engine, "ps", "--all", "--filter", f"label={LABEL}", "--format", "{{.Names}}")
    return [name for name in asked.split() if name.startswith(names)]


def remove_containers(engine: str, names: list[str]) -> None:
    """End and remove them, with everything that the engine keeps of them."""
    if names:
        _run(engine, "rm", "--force", "--volumes", *names)


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def main(engine: str, names: str, folder: str) -> None:
    """Wait for the end of the pipe, then clean."""
    while os.read(0, 1):
        pass
    for round_ in range(_ROUNDS):
        if round_:
            time.sleep(_PAUSE)
        found = find_containers(engine, names)
        remove_containers(engine, found)
        if not found and not os.path.isdir(folder):  # noqa: PTH112  starts with few modules
            return
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
