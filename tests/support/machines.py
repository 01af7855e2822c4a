"""The image of a virtual machine for tests: built once for the agent as it is here, and kept beside other runs' images."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from cloister.errors import CloisterError, NotFound, UnavailableError
from cloister.worker.runtimes.view import AGENT_PARTS
from cloister.worker.vm.builder import PACKAGE_ROOT, build_image
from cloister.worker.vm.image import Image, load_image

PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "swtpm": "swtpm", "setpriv": "util-linux"}
_KEPT = 4
BUILDERS = {"apt-get": "apt", "dpkg-deb": "dpkg"}


def machine_folder() -> Path:
    """Where packages and images are kept between runs."""
    folder = Path(tempfile.gettempdir()) / f"cloister-test-machines-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def package_cache() -> Path:
    """Downloaded packages; each is checked against its SHA-256 whenever it is used."""
    return machine_folder() / "packages"


def built_image() -> Image:
    """The image of this very agent. Skips the test, saying why, where it cannot be built."""
    for program, package in BUILDERS.items():
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here: an image is built from Debian packages (apt-get install {package})")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("an image is built from an environment of Python 3.11")
    folder = machine_folder()
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place = folder / f"image-{_agent_key()}"
        try:
            return load_image(place)
        except CloisterError:
            # Other checkouts build theirs here too, and may be using them.
            for old in sorted(folder.glob("image-*"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        try:
            return build_image(place, cache=package_cache())
        except (NotFound, UnavailableError) as error:
            pytest.skip(f"no image here: {error.message}")


def need_machines() -> None:
    """Skip the test, saying why, where no virtual machine can be started."""
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here: no virtual machine can be started (apt-get install {package})")


def _agent_key() -> str:
    """Names all that goes into an image from this installation."""
    digest = hashlib.sha256()
    for part in (*AGENT_PARTS, "worker/vm"):
        place = PACKAGE_ROOT / part
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(path.relative_to(PACKAGE_ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
