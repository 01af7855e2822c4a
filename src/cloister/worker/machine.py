"""How probes look at this machine: files, programs and their answers, each bounded in time and size, none raising."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cloister.errors import quoted

SECONDS: Final = 5.0
_READ_CAP: Final = 64 * 1024
_ENVIRONMENT: Final = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended. ``code`` is None when it could not be started or did not end in time; ``said`` is its last words."""

    code: int | None
    said: str


@dataclass(frozen=True, slots=True)
class Machine:
    """``root`` stands before every path of a file, ``search`` is where programs are looked for, ``seconds`` is the longest
    that one may run.
    """

    root: Path = Path("/")
    search: str = field(default_factory=lambda: os.environ.get("PATH", _ENVIRONMENT["PATH"]))
    seconds: float = SECONDS

    def text(self, path: str) -> str | None:
        """The start of a file, or None when it cannot be read."""
        try:
            with (self.root / path.lstrip("/")).open("rb") as file:
                return file.read(_READ_CAP).decode("utf-8", "replace").strip()
        except OSError:
            return None

    def has(self, path: str) -> bool:
        """Whether a path is there."""
        try:
            return (self.root / path.lstrip("/")).exists()
        except OSError:
            return False

    def may_use(self, path: str) -> bool:
        """Whether a device may be read and written by this user."""
        return os.access(self.root / path.lstrip("/"), os.R_OK | os.W_OK)

    def program(self, name: str) -> str | None:
        """Where a program is."""
        return shutil.which(name, path=self.search)

    def run(self, *command: str) -> Ran:
        """Run a program without input, in a session of its own."""
        try:
            done = subprocess.run(
                command,
                env=_ENVIRONMENT | {"PATH": self.search},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=self.seconds,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            return Ran(None, f"did not end within {self.seconds:g} s")
        except OSError as error:
            return Ran(None, error.strerror or "cannot be started")
        words = (done.stdout.strip() or done.stderr.strip())[:_READ_CAP].decode("utf-8", "replace")
        return Ran(done.returncode, words)

    def flags(self) -> frozenset[str]:
        """The processor's features, in the kernel's words."""
        for line in (self.text("/proc/cpuinfo") or "").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return frozenset(value.split())
        return frozenset()


def short(text: str) -> str:
    """The first line of a program's words, for a table."""
    return quoted(text.splitlines()[0] if text else "no reason given")
