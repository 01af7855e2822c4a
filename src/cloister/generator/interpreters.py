"""The Pythons of this machine: which one compiles an app's libraries, and how pip is run with it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import NotFound, UnavailableError, quoted

_QUESTION = "import platform, sys; print(platform.python_implementation().lower(), platform.python_version())"
_QUESTION_SECONDS = 30
_ANSWER = re.compile(r"(?P<kind>[a-z]{1,20}) (?P<version>3\.[0-9]{1,2}\.[0-9]{1,3}[a-z0-9+]{0,8})")
_PIP_SECONDS = 1800
_PLACES = ("/usr/bin", "/usr/local/bin", "/opt/python/bin")
# What pip may be told by its environment: where the index is and how to reach it, not what to take or where to put it.
_PIP_SETTINGS = frozenset(
    {
        "PIP_CACHE_DIR",
        "PIP_CERT",
        "PIP_CLIENT_CERT",
        "PIP_CONFIG_FILE",
        "PIP_DEFAULT_TIMEOUT",
        "PIP_EXTRA_INDEX_URL",
        "PIP_FIND_LINKS",
        "PIP_INDEX_URL",
        "PIP_KEYRING_PROVIDER",
        "PIP_NO_CACHE_DIR",
        "PIP_NO_INDEX",
        "PIP_PROXY",
        "PIP_RETRIES",
        "PIP_TIMEOUT",
        "PIP_TRUSTED_HOST",
    }
)
_UNREACHABLE = ("Retrying (Retry(", "ConnectionError", "Could not fetch URL", "Temporary failure in name resolution")
_URL = re.compile(r"[a-z+]+://\S+")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python on this machine. ``kind`` and ``version`` are what it says of itself: ``cpython``, ``3.11.7``."""

    path: str
    kind: str
    version: str

    @property
    def runtime(self) -> str:
        """The manifest's word for it: ``python3.11``."""
        return "python" + ".".join(self.version.split(".")[:2])

    @property
    def name(self) -> str:
        """What compiles with it: bytecode may differ between any two versions, the last number included."""
        return f"{self.kind} {self.version}"


def find_interpreter(runtime: str, *, exactly: str | None = None) -> Interpreter:
    """The Python that ``runtime`` (``python3`` or ``python3.N``) asks for; ``exactly`` asks for one :attr:`Interpreter.name`.

    Raises:
        NotFound: it is not installed.
    """
    own = Interpreter(sys.executable, platform.python_implementation().lower(), platform.python_version())
    if runtime in ("python3", own.runtime) and exactly in (None, own.name):
        return own
    seen = []
    for path in _candidates(own.runtime if runtime == "python3" else runtime):
        found = _ask(path)
        if found is not None and runtime in ("python3", found.runtime):
            seen.append(found.version)
            if exactly in (None, found.name):
                return found
    if exactly is None:
        raise NotFound(
            f"{runtime}, which the app asks for, is not installed", hint=f"install it, or ask for {own.runtime}"
        )
    raise NotFound(
        f"{exactly} is not on this machine; there is {', '.join(seen) or own.version}", hint=f"install {exactly}"
    )


def run_pip(interpreter: Interpreter, arguments: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run pip for ``interpreter``. The settings of the environment that would change what it does are kept from it.

    Raises:
        UnavailableError: there is no pip, the package index is not reached, or it takes longer than half an hour.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHON")) or name in _PIP_SETTINGS
    }
    command = [interpreter.path, "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color", *arguments]
    try:
        done = subprocess.run(
            command,
            env=environment | {"PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"pip took longer than {_PIP_SECONDS} seconds") from error
    if done.returncode != 0 and "No module named pip" in done.stderr:
        raise UnavailableError(
            f"{interpreter.runtime} has no pip", hint=f"{interpreter.path} -m ensurepip, or install python3-pip"
        )
    if done.returncode != 0 and any(sign in done.stderr for sign in _UNREACHABLE):
        raise UnavailableError("the package index cannot be reached", hint="check the network and pip's settings")
    return done


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """The last line of what pip said, for a message: without the addresses of the index, which may hold a password."""
    told = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return quoted(_URL.sub("…", told[-1].removeprefix("ERROR: ")) if told else "no reason given")


def _candidates(runtime: str) -> Iterable[str]:
    seen: set[Path] = set()
    places = [*os.environ.get("PATH", "").split(os.pathsep), *_PLACES]
    versions = Path.home() / ".pyenv" / "versions"
    if versions.is_dir():
        places += [str(path / "bin") for path in sorted(versions.iterdir())]
    for place in places:
        found = shutil.which(runtime, path=place) if place else None
        if found is not None and (real := Path(found).resolve()) not in seen:
            seen.add(real)
            yield found


def _ask(path: str) -> Interpreter | None:
    """Which Python a program is; None when it does not run."""
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _QUESTION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_QUESTION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _ANSWER.fullmatch(done.stdout.strip())
    return Interpreter(path, match["kind"], match["version"]) if match and done.returncode == 0 else None
