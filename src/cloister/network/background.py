"""A network that runs without a terminal: started by one command, which returns when it is ready."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from cloister.errors import CloisterError, DecodeError, UnavailableError, quoted
from cloister.network.state import NetworkState

READY_SECONDS = 180.0
"""A measured virtual machine is built first where that was asked for."""
_STOP_SECONDS = 30.0


def start_in_background(name: str, options: Sequence[str]) -> dict[str, Any]:
    """Run ``cloister up`` with ``options`` as a process of its own; returns what it announced when it was ready.

    Its errors go to ``logs/up.log`` in the network's folder, and the last one is raised here.

    Raises:
        UnavailableError: it ended, or was not ready within three minutes.
    """
    log = NetworkState(name).path("logs", "up.log")
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "cloister.cli.main", "up", "--json", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    if process.stdout is None:
        raise UnavailableError("the network's process has no output")
    with process.stdout as announced:
        line = _first_line(announced.fileno(), time.monotonic() + READY_SECONDS)
    if not line:
        with suppress(OSError):
            os.kill(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        raise _refusal(log.read_text(errors="replace"), str(log))
    try:
        value = json.loads(line)
    except ValueError as error:
        raise DecodeError(f"the network announced {quoted(line)}") from error
    return dict(value)


def _first_line(descriptor: int, deadline: float) -> bytes:
    """One line, or nothing when the other end closes or is too late."""
    import select

    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(descriptor, 1 << 16) if ready else b""
        if not piece:
            return b""
        line += piece
    return line


def _refusal(said: str, log: str) -> CloisterError:
    """What the process said last, as an error of ours."""
    for line in reversed(said.splitlines()):
        with suppress(ValueError, TypeError, KeyError):
            error = json.loads(line)["error"]
            return UnavailableError(str(error["message"]), hint=str(error["hint"] or f"read {log}"))
    return UnavailableError("the network did not start", hint=f"read {log}")
