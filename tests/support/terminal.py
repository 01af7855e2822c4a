"""``cloister`` as a user runs it: a process with arguments, an exit code, and two streams of text."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.network import environment

SECONDS = 90
COMMAND = (sys.executable, "-m", "cloister.cli.main")


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What it printed, parsed: the whole of stdout is one JSON document."""
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        """The error of a command with ``--json``: the last line of stderr."""
        return dict(json.loads(self.stderr.splitlines()[-1])["error"])


@dataclass(frozen=True)
class Terminal:
    """Runs commands with one ``CLOISTER_HOME``."""

    home: Path
    seconds: int = SECONDS

    def run(self, *arguments: object, code: int = 0, **more: str) -> Answer:
        """Run ``cloister`` with arguments; its exit code must be ``code`` and no traceback is ever shown."""
        words = [str(argument) for argument in arguments]
        done = subprocess.run(
            [*COMMAND, *words],
            env=environment(self.home) | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=self.seconds,
            cwd=self.home,
        )
        answer = Answer(done.returncode, done.stdout, done.stderr)
        assert answer.code == code, f"cloister {' '.join(words)}: exit {answer.code}\n{done.stdout}\n{done.stderr}"
        for stream in (answer.stdout, answer.stderr):
            assert "Traceback" not in stream, stream
            assert "this is a bug" not in stream, stream
        return answer

    def json(self, *arguments: object, **more: str) -> Any:
        """Run with ``--json`` and parse."""
        return self.run(*arguments, "--json", **more).json

    def refusal(self, code: int, *arguments: object) -> dict[str, Any]:
        """Run a command that must fail, for people and with ``--json``; both must say the same. Returns the error."""
        machine = self.run(*arguments, "--json", code=code)
        assert machine.stdout == ""
        error = machine.error
        assert set(error) == {"code", "message", "hint"}
        assert error["code"]
        person = self.run(*arguments, code=code)
        assert f"error: {error['message']}\n" in person.stderr
        if error["hint"]:
            assert f"hint:  {error['hint']}\n" in person.stderr
        return error


@contextmanager
def network_process(terminal: Terminal, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """``cloister up --json`` until it is ready; yields the process and what it printed, and ends it."""
    log = (terminal.home / "up.log").open("w")
    process = subprocess.Popen(
        [*COMMAND, "up", "--json", "--port", "0", "--chain-port", "0", *options],
        env=environment(terminal.home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait(10)
            pytest.fail(f"cloister up ended with {process.returncode}: {(terminal.home / 'up.log').read_text()}")
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.terminate()
            deadline = time.monotonic() + 40
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            if process.poll() is None:
                process.kill()
                process.wait()
        log.close()
