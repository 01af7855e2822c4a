"""Builds the image: one command, the same inputs, the same bytes, on whatever machine.

Inputs are Debian packages in exact versions, the agent of this installation and the Python libraries that it imports.
Not among them: the time, the machine's name, folders, locale, umask, or the building Python.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from cloister.errors import NotFound, UnavailableError
from cloister.files import sync_folder, write_durably
from cloister.worker.vm.image import (
    COMMAND_LINE,
    FIRMWARE,
    INITRAMFS,
    KERNEL,
    MANIFEST,
    VARIABLES,
    Image,
    Manifest,
    load_image,
)
from cloister.worker.vm.packages import Package, fetch_packages, package_files, resolve_packages
from cloister.worker.vm.rootfs import PYTHON, build_tree

FIRMWARE_PACKAGE = "ovmf"
_FIRMWARE_FILES = {FIRMWARE: "OVMF_CODE_4M.fd", VARIABLES: "OVMF_VARS_4M.fd"}
_MOST_FIRMWARE = 16 << 20
PACKAGE_ROOT = Path(__file__).resolve().parent.parent.parent
"""The package of this installation, whose agent goes into the image."""


def build_image(
    output: Path,
    *,
    cache: Path,
    lock: Manifest | None = None,
    announce: Callable[[str], None] = lambda text: None,
    root: Path = PACKAGE_ROOT,
) -> Image:
    """Build an image into ``output``; an image that lies there is replaced. ``cache`` keeps downloaded packages.

    ``lock``: the manifest of an earlier image, whose packages and files are demanded, and nothing newer.

    Raises:
        ConfigurationError: this machine cannot build it; the hint says what is missing. NotFound: a package is not to be
            had. UnavailableError: no network or no room. VerificationError: an input differs from the lock or its record.
    """
    packages = resolve_packages() if lock is None else lock.packages
    debs = fetch_packages(packages, cache, announce)
    announce("putting the image together")
    others = {package: deb for package, deb in debs.items() if package.name != FIRMWARE_PACKAGE}
    tree, kernel, files = build_tree(others, root, None if lock is None else lock.files)
    parts = {KERNEL: kernel, INITRAMFS: tree.build_cpio(), **_firmware(debs)}
    try:
        return _write(output, parts, packages, files)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UnavailableError(f"there is no room in {output}", hint="an image takes about 100 MB") from error
        raise UnavailableError(f"the image cannot be written to {output}: {error.strerror}") from error


def _write(output: Path, parts: dict[str, bytes], packages: tuple[Package, ...], files: dict[str, str]) -> Image:
    output.mkdir(parents=True, exist_ok=True)
    # Without its manifest a folder is no image, so one that is half-replaced is none.
    (output / MANIFEST).unlink(missing_ok=True)
    sync_folder(output)
    for name, content in parts.items():
        write_durably(output / name, content)
    outputs = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    manifest = Manifest(COMMAND_LINE, packages, files, outputs, PYTHON)
    write_durably(output / MANIFEST, manifest.build())
    for name in (*parts, MANIFEST):
        # Public, and read by the machine's own user.
        os.chmod(output / name, 0o644)  # noqa: PTH101
    return load_image(output)


def _firmware(debs: dict[Package, Path]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    deb = next((place for package, place in debs.items() if package.name == FIRMWARE_PACKAGE), None)
    if deb is None:
        raise NotFound(f"the package {FIRMWARE_PACKAGE} is not among the image's inputs")
    wanted = {file: name for name, file in _FIRMWARE_FILES.items()}
    with package_files(deb) as members:
        for member, file in members:
            name = wanted.get(Path(member.name).name)
            if name is not None and file is not None and member.size <= _MOST_FIRMWARE:
                found[name] = file.read()
    if missing := [file for name, file in _FIRMWARE_FILES.items() if name not in found]:
        raise NotFound(f"the package {FIRMWARE_PACKAGE} has no {missing[0]}")
    return found
