"""Mock servers of a rehearsal: programs in ``mock/`` that stand where an iApp's hosts of the network would be.

Each is started with a port number as its one argument and listens there on 127.0.0.1. It runs in a pid namespace of its
own, which the kernel ends with all in it when the rehearsal is over or dies.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from cloister.errors import InputError, UnavailableError, quoted
from cloister.generator.rehearsal.data import find_path
from cloister.worker.programs import find_program

START_SECONDS = 20.0
_POLL = 0.02
_ADDRESS = re.compile(r"([A-Za-z0-9.-]+):([0-9]{1,5})")

Places = dict[str, str]
"""``host:port`` as an iApp names it -> the ``host:port`` where it is led."""


def start_servers(connect: Mapping[str, object], folder: Path, log: Path, stack: ExitStack) -> Places:
    """Start what ``connect`` names and wait until it listens. ``stack`` ends it. What they print goes to files in ``log``.

    A value is a program's path, or the ``host:port`` of a server that runs already.

    Raises:
        InputError, NotFound: a name or a program that is none. UnavailableError: a program that does not listen.
    """
    places: Places = {}
    waiting: list[tuple[str, subprocess.Popen[bytes], int, Path]] = []
    for name, value in connect.items():
        if not _ADDRESS.fullmatch(name):
            raise InputError(
                f"connect: {quoted(name)} is no host with a port", hint='"rates.example.org:443" = "api.py"'
            )
        running = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
        if running is not None:
            places[name] = running.group()
            continue
        program = value if isinstance(value, Path) else find_path(str(value), folder)
        port = _free_port()
        said = log / f"server-{len(waiting)}.log"
        process = _start(program, port, said)
        stack.callback(_end, process)
        waiting.append((name, process, port, said))
        places[name] = f"127.0.0.1:{port}"
    deadline = time.monotonic() + START_SECONDS
    for name, process, port, said in waiting:
        _await(name, process, port, said, deadline)
    return places


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _start(program: Path, port: int, said: Path) -> subprocess.Popen[bytes]:
    command = [find_program("bwrap", "bubblewrap"), "--dev-bind", "/", "/", "--unshare-pid", "--die-with-parent", "--"]
    with said.open("wb") as log:
        return subprocess.Popen(
            [*command, sys.executable, str(program), str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=program.parent,
            start_new_session=True,
        )


def _await(name: str, process: subprocess.Popen[bytes], port: int, said: Path, deadline: float) -> None:
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
            return
        ended = process.poll() is not None
        if ended or time.monotonic() >= deadline:
            what = "ended before it listened" if ended else f"does not listen after {START_SECONDS:g} seconds"
            lines = said.read_text(errors="replace").strip().splitlines()
            raise UnavailableError(
                f"the mock server for {quoted(name)} {what}: {quoted(lines[-1] if lines else 'it printed nothing')}",
                hint="it gets a port as its one argument and listens there on 127.0.0.1",
            )
        time.sleep(_POLL)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
