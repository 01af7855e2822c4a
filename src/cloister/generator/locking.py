"""``cloister iapp lock``: from what an author wants to exact versions with hashes.

pip resolves, as it would install, and installs nothing (``--dry-run --report``); only wheels are taken, so nothing of a
dependency runs. The lock names the one wheel of each package that was chosen: whoever builds from it takes the same
file, whatever other wheels their platform could use.
"""

from __future__ import annotations

import platform
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import Conflict, DecodeError, InputError, NotFound, quoted
from cloister.files import write_durably
from cloister.generator import node_modules
from cloister.generator.interpreters import Interpreter, find_interpreter, last_words, run_pip
from cloister.generator.requirements import (
    LOCK_NAME,
    SOURCE_LINE,
    WANTED_NAME,
    Locked,
    load_wanted,
    normal_name,
    wanted_digest,
)
from cloister.generator.settings import load_settings
from cloister.protocol.bundles import Language
from cloister.protocol.codec import parse_json

_REPORT_CAP = 256 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MISSING = re.compile(r"No matching distribution found for ([^\s(]+)")
_OFFERED = re.compile(r"\(from versions: ([^)]*)\)")
_CONFLICT = re.compile(r"The conflict is caused by:\n((?: {4}.*\n?)+)")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock on disk."""

    path: Path
    packages: tuple[str, ...]
    """``name==version`` of each."""
    changed: bool


def lock_folder(folder: Path) -> Lock:
    """Lock what the iApp in ``folder`` depends on: ``requirements.in`` into ``requirements.txt``, or ``package.json``
    into ``package-lock.json``.

    Raises:
        NotFound: nothing to lock, or a package or version that does not exist. InputError: what cannot be locked, by
        name. Conflict: versions that do not go together. UnavailableError: the package index is not reached.
    """
    folder = folder.resolve()
    manifest = load_settings(folder).manifest
    if manifest.language is Language.NODE:
        path, packages, changed = node_modules.lock_packages(folder)
        return Lock(path, packages, changed)
    if manifest.language is not Language.PYTHON:
        raise InputError(
            "a container's dependencies are not locked here", hint="name its base image by digest in the Containerfile"
        )
    if not (folder / WANTED_NAME).is_file():
        raise NotFound(
            f"no {WANTED_NAME} in {folder}", hint=f"write the packages that the app needs into {WANTED_NAME}"
        )
    wanted = load_wanted(folder)
    interpreter = find_interpreter(manifest.runtime)
    locked = _resolve(folder / WANTED_NAME, interpreter) if wanted else ()
    content = _write(locked, wanted_digest(wanted), interpreter).encode()
    path = folder / LOCK_NAME
    changed = not path.is_file() or path.read_bytes() != content
    if changed:
        write_durably(path, content)
        path.chmod(0o644)
    return Lock(path, tuple(f"{item.name}=={item.version}" for item in locked), changed)


def _resolve(wanted: Path, interpreter: Interpreter) -> tuple[Locked, ...]:
    with tempfile.TemporaryDirectory(prefix="cloister-lock-") as temporary:
        report = Path(temporary) / "report.json"
        command = ["install", "--progress-bar", "off", "--dry-run", "--ignore-installed", "--only-binary", ":all:"]
        done = run_pip(interpreter, [*command, "--report", str(report), "--requirement", str(wanted)])
        if done.returncode != 0:
            raise _explain(done, interpreter)
        return _read_report(report.read_bytes())


def _read_report(report: bytes) -> tuple[Locked, ...]:
    """Read pip's installation report, version 1.

    Raises:
        DecodeError: it is none. InputError: a package without a SHA-256, or that is no wheel.
    """
    document = parse_json(report, cap=_REPORT_CAP)
    if not isinstance(document, dict) or document.get("version") != "1" or not isinstance(document["install"], list):
        raise DecodeError("pip's report is of another version", hint="use pip 22.2 or later")
    locked = []
    for item in document["install"]:
        try:
            name, version = normal_name(item["metadata"]["name"]), str(item["metadata"]["version"])
            hashes = item["download_info"]["archive_info"].get("hashes", {})
            url = str(item["download_info"]["url"])
        except (KeyError, TypeError, AttributeError) as error:
            raise DecodeError("pip's report does not read") from error
        if not url.partition("#")[0].endswith(".whl"):
            raise _cannot(f"{quoted(name)} {quoted(version)} is no wheel")
        digest = str(hashes.get("sha256", ""))
        if not _SHA256.fullmatch(digest):
            raise _cannot(f"the package index gives no SHA-256 for {quoted(name)} {quoted(version)}")
        locked.append(Locked(name, version, (digest,)))
    return tuple(sorted(locked, key=lambda item: item.name))


def _explain(done: subprocess.CompletedProcess[str], interpreter: Interpreter) -> InputError | NotFound | Conflict:
    """Why pip could not resolve, in one line."""
    conflict = _CONFLICT.search(done.stdout + done.stderr)
    if conflict is not None or "ResolutionImpossible" in done.stderr:
        lines = [" ".join(line.split()) for line in (conflict[1] if conflict else "").splitlines() if line.strip()]
        told = "; ".join(lines[:_SHOWN]) + ("; …" if len(lines) > _SHOWN else "")
        return Conflict(
            f"the requirements contradict each other: {quoted(told)}",
            hint=f"loosen a version in {WANTED_NAME}",
            code="cannot-lock",
        )
    missing = _MISSING.search(done.stderr)
    if missing is None:
        return _cannot(f"pip: {last_words(done)}")
    wanted = missing[1]
    offered = _OFFERED.search(done.stderr)
    versions = [] if offered is None or offered[1] == "none" else offered[1].split(", ")
    if versions:
        return NotFound(
            f"no version of {quoted(wanted)} fits; the latest are {quoted(', '.join(versions[-_SHOWN:]))}",
            hint=f"change {WANTED_NAME}",
            code="cannot-lock",
        )
    name = re.split(r"[^A-Za-z0-9._-]", wanted)[0]
    if run_pip(interpreter, ["index", "versions", name]).returncode == 0:
        return _cannot(
            f"{quoted(wanted)} has no wheel for {_target(interpreter)}; its sources would have to be run to build it"
        )
    return NotFound(
        f"no package {quoted(name)} at the package index", hint=f"check its name in {WANTED_NAME}", code="cannot-lock"
    )


def _cannot(why: str) -> InputError:
    return InputError(why, hint=f"choose another package or version in {WANTED_NAME}", code="cannot-lock")


def _target(interpreter: Interpreter) -> str:
    return f"{interpreter.runtime} on {platform.system().lower()} {platform.machine()}"


def _write(locked: tuple[Locked, ...], source: str, interpreter: Interpreter) -> str:
    lines = [
        f"# Locked by `cloister iapp lock` from {WANTED_NAME}: change that one, then lock again.",
        f"# For {_target(interpreter)}: one wheel of each package and its SHA-256.",
        SOURCE_LINE + source,
    ]
    for item in locked:
        lines.append(f"{item.name}=={item.version} \\")
        lines += [f"    --hash=sha256:{digest}" for digest in item.hashes]
    return "\n".join(lines) + "\n"
