"""Wheels that a test makes, in a folder that is all that pip finds."""

from __future__ import annotations

import base64
import hashlib
import tarfile
import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import pytest


def offline_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make ``folder`` all that pip finds."""
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_CONFIG_FILE", raising=False)
    return folder


def add_wheel(index: Path, name: str, version: str, *, needs: Iterable[str] = (), code: str = "VALUE = 42\n") -> str:
    """Add a pure wheel with a script; returns its SHA-256."""
    path = index / f"{name}-{version}-py3-none-any.whl"
    record = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": code,
        f"{name}/tool.sh": "#!/bin/sh\n",
        f"{record}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {need}\n" for need in needs),
        f"{record}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{record}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    lines = []
    with zipfile.ZipFile(path, "w") as file:
        for member, text in files.items():
            file.writestr(zipfile.ZipInfo(member), text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            lines.append(f"{member},sha256={digest},{len(text)}")
        file.writestr(zipfile.ZipInfo(f"{record}/RECORD"), "\n".join([*lines, f"{record}/RECORD,,", ""]))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def add_sources(index: Path, name: str, version: str) -> None:
    """Add a source distribution whose build would leave a trace beside it."""
    script = f"import pathlib\npathlib.Path({str(index / 'it-ran')!r}).touch()\n".encode()
    with tarfile.open(index / f"{name}-{version}.tar.gz", "w:gz") as file:
        entry = tarfile.TarInfo(f"{name}-{version}/setup.py")
        entry.size = len(script)
        file.addfile(entry, BytesIO(script))


def write_app(folder: Path, *, wanted: str | None = None, runtime: str = "python3") -> Path:
    """A Python iApp; ``wanted`` is its requirements.in."""
    folder.mkdir(parents=True)
    (folder / "iapp.toml").write_text(
        f'name = "tiny"\nversion = "1.0.0"\nentrypoint = "main.py"\nruntime = "{runtime}"\n'
    )
    (folder / "main.py").write_text("print('hello')\n")
    if wanted is not None:
        (folder / "requirements.in").write_text(wanted)
    return folder
