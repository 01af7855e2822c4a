"""A base image of this machine's own Python, for tests that build images where no registry is."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from functools import cache
from pathlib import Path

import pytest
from tests.support.images import entry, folder, machine_root, symlink

PYTHON_BASE = "localhost/cloister-test-python:1"
_LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "ensurepip",
    "tkinter",
    "lib2to3",
    "site-packages",
    "turtledemo",
    "__pycache__",
    "pydoc_data",
}


@cache
def _refusal() -> str | None:
    """Why images cannot be built here; None when they can."""
    program = shutil.which("podman")
    if program is None:
        return "podman is not installed"
    done = subprocess.run([program, "image", "ls"], capture_output=True, text=True, check=False, timeout=60)
    return None if done.returncode == 0 else f"podman does not work here: {done.stderr.strip()[-200:]}"


def need_builder() -> str:
    """Podman, or the test is skipped by name."""
    reason = _refusal()
    if reason is not None:
        pytest.skip(reason)
    return "podman"


def python_base() -> str:
    """The name of the base image; it is made when this machine does not have it."""
    podman = need_builder()
    if subprocess.run([podman, "image", "exists", PYTHON_BASE], check=False).returncode:
        done = subprocess.run(
            [podman, "import", "-", PYTHON_BASE], input=_root(), capture_output=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
    return PYTHON_BASE


def _root() -> bytes:
    """Python at the place where it is installed, its standard library without tests, and what both are linked to."""
    prefix = Path(sys.base_prefix)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    python = (prefix / "bin" / version).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    members: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
    for info, content in (*machine_root("sh", "env"), folder("tmp", 0o1777), symlink("usr/bin/python3", str(python))):
        members[info.name.rstrip("/")] = info, content
    files = [
        path
        for path in library.rglob("*")
        if not _LEFT_OUT & set(path.relative_to(library).parts) and path.suffix != ".a"
    ]
    for path in (python, *files, *_linked([python, *(library / "lib-dynload").glob("*.so")])):
        if path.is_file():
            members[str(path).lstrip("/")] = entry(str(path).lstrip("/"), path.read_bytes(), mode=0o755)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for _, (info, content) in sorted(members.items()):
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _linked(programs: list[Path]) -> list[Path]:
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    words = {
        word for line in told.splitlines() for word in line.split() if word.startswith("/") and not word.endswith(":")
    }
    return [Path(word) for word in sorted(words)]
