"""The bundle of a rehearsal: built anew only when something changed that it is made of.

The key of a kept bundle is a hash over every file that may be in it, its settings, its locked dependencies, the builder
itself and the interpreter. What is left out of a bundle whatever it holds (mock data, hidden folders, outputs) is not in
it; anything else changes the key, needed or not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cloister.errors import InputError, NotFound, quoted
from cloister.files import write_durably
from cloister.generator.bundle import BuiltBundle, build_bundle, load_manifest, load_settings
from cloister.generator.images import ARGUMENTS_VARIABLE
from cloister.generator.rehearsal.libraries import KeptLibraries
from cloister.generator.requirements import LOCK_NAME
from cloister.generator.settings import SETTINGS_NAME
from cloister.generator.sources import OUTSIDE
from cloister.protocol.bundles import Language
from cloister.protocol.codec import Bytes32
from cloister.version import __version__

STATE_FOLDER = ".cloister"
README = "README.md"
KEPT = 3
KEPT_BYTES = 512 << 20
"""How many bundles a project keeps, and how much of them; the last one whatever its size."""
_OUTSIDE = frozenset(OUTSIDE) - {SETTINGS_NAME, LOCK_NAME, "requirements.in", "Containerfile"}
_FORM = b"cloister/rehearsal-bundle/v1"


def load_bundle(folder: Path, tell: Callable[[str], None] = lambda _: None) -> BuiltBundle:
    """The bundle of the iApp in ``folder``. ``tell`` hears what its author should know.

    Raises:
        as ``build_bundle``.
    """
    runtime = load_settings(folder).manifest.runtime
    key = source_key(folder, runtime)
    kept = folder / STATE_FOLDER / "bundles"
    path, note = kept / f"{key}.bundle", kept / f"{key}.json"
    digest = _kept_digest(path, note)
    if digest is not None:
        os.utime(note)
        return BuiltBundle(path, digest, path.stat().st_size, load_manifest(path))
    libraries = KeptLibraries(folder / STATE_FOLDER / "libraries")
    try:
        kept.mkdir(parents=True, exist_ok=True)
        built = build_bundle(folder, path, tell=tell, install=libraries)
        if source_key(folder, runtime) == key:  # nobody saved a file meanwhile, and nothing was locked
            write_durably(note, json.dumps({"digest": built.digest, "state": _state(path)}).encode())
        _forget_old(kept, path.stem)
    except OSError as error:
        raise InputError(f"nothing can be kept in {quoted(str(kept))}: {error.strerror}") from error
    return built


def source_key(folder: Path, runtime: str) -> str:
    """What a bundle of ``folder`` depends on, as 64 hex digits. A base image that moves under its name is not seen: name it
    by digest.

    Raises:
        NotFound: no such folder. InputError: a file that cannot be read.
    """
    digest = hashlib.sha256(_FORM)
    outside = _OUTSIDE - {README} if runtime == Language.CONTAINER.value else _OUTSIDE
    arguments = os.environ.get(ARGUMENTS_VARIABLE, "")
    for part in (__version__, sys.version, sys.executable, _interpreter(runtime), arguments):
        _add(digest, part.encode())
    for source in sorted(Path(__file__).parent.parent.glob("*.py")):
        _add(digest, source.read_bytes())
    try:
        for path in sorted(folder.iterdir()):
            if path.name not in outside and not path.name.startswith("."):
                _add_tree(digest, path, path.name)
    except FileNotFoundError as error:
        raise NotFound(f"there is no folder {quoted(str(folder))}") from error
    except OSError as error:
        raise InputError(f"{quoted(str(folder))} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _add(digest: hashlib._Hash, part: bytes) -> None:
    digest.update(len(part).to_bytes(8, "big") + part)


def _add_tree(digest: hashlib._Hash, path: Path, name: str) -> None:
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
        if path.name == "__pycache__":
            return
        _add(digest, b"folder " + name.encode(errors="surrogateescape"))
        for inner in sorted(path.iterdir()):
            _add_tree(digest, inner, f"{name}/{inner.name}")
        return
    kind = b"link " if stat.S_ISLNK(status.st_mode) else b"file " if stat.S_ISREG(status.st_mode) else b"other "
    _add(digest, kind + name.encode(errors="surrogateescape"))
    if stat.S_ISLNK(status.st_mode):
        _add(digest, str(path.readlink()).encode(errors="surrogateescape"))
    elif stat.S_ISREG(status.st_mode):
        _add(digest, _hash_file(path).encode())


def _interpreter(runtime: str) -> str:
    """Which program ``runtime`` names on this machine, and which one it was when."""
    found = shutil.which(runtime)
    if found is None:
        return "none"
    real = Path(found).resolve()
    status = real.stat()
    return f"{real} {status.st_size} {status.st_mtime_ns}"


def _kept_digest(path: Path, note: Path) -> Bytes32 | None:
    """The digest of a kept bundle, when it is still what it was."""
    try:
        said = json.loads(note.read_text())
        return Bytes32(said["digest"]) if said["state"] == _state(path) else None
    except (OSError, ValueError, KeyError, TypeError, InputError):
        return None


def _state(path: Path) -> list[int]:
    """Size and times of a file; the time of change cannot be set by a program."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _forget_old(kept: Path, used: str) -> None:
    """Remove all but the latest bundles, and what was broken off."""
    stay, size = {used}, 0
    for note in sorted(kept.glob("*.json"), key=lambda note: note.stat().st_mtime, reverse=True)[:KEPT]:
        bundle = note.with_suffix(".bundle")
        size += bundle.stat().st_size if bundle.exists() else 0
        if size <= KEPT_BYTES:
            stay.add(note.stem)
    for path in kept.iterdir():
        if path.stem not in stay and not path.name.startswith("."):
            with suppress(FileNotFoundError):
                path.unlink()
