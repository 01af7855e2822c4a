"""Installed libraries, kept between rehearsals: a change of the code need not install them again.

They are used again as long as lock, exclusions, interpreter and installer are the same and no kept file was touched.
What is deployed is never built from them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from cloister.files import write_durably
from cloister.generator import packages
from cloister.generator.interpreters import Interpreter
from cloister.generator.packages import install_packages

_FORM = "cloister/rehearsal-libraries/v1"


class KeptLibraries:
    """Installs as ``install_packages`` does, into ``folder``, where the last libraries stay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(
        self,
        lock: Path,
        library: Path,
        interpreter: Interpreter,
        exclude: tuple[str, ...],
        *,
        compiler: str | None = None,
    ) -> dict[str, Path]:
        """The files of the libraries by their names in a bundle. ``library`` is not used. Raises as ``install_packages``."""
        key = _key(lock, interpreter, exclude, compiler)
        place, note = self._folder / key / "lib", self._folder / key / "files.json"
        known = _read(note)
        if known is not None and known == _states(place):
            return {name: place / name for name in known}
        shutil.rmtree(self._folder, ignore_errors=True)
        place.parent.mkdir(parents=True)
        files = install_packages(lock, place, interpreter, exclude, compiler=compiler)
        states = _states(place)
        write_durably(note, json.dumps({name: states[name] for name in files}).encode())
        return files


def _key(lock: Path, interpreter: Interpreter, exclude: tuple[str, ...], compiler: str | None) -> str:
    source = Path(packages.__file__).read_text()
    parts = [_FORM, source, lock.read_text(), interpreter.path, interpreter.name, compiler, *exclude]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _read(note: Path) -> dict[str, list[int]] | None:
    try:
        known = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def _states(place: Path) -> dict[str, list[int]]:
    """Size and times of every file; the time of change cannot be set by a program."""
    states = {}
    for path in place.rglob("*"):
        if path.is_file():
            status = path.stat()
            states[path.relative_to(place).as_posix()] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return states
