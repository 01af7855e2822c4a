"""The image of a virtual machine: firmware, kernel and initramfs in a folder, and a manifest of what they were made of.

``manifest.json``: ``{"version": 1, "command_line", "packages": [{"name", "version", "sha256"}], "files": {input: sha256},
"outputs": {name: sha256}, "python"}``. Nothing in it depends on where or when the image was built.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.errors import DecodeError, NotFound, VerificationError, quoted
from cloister.protocol.codec import parse_json
from cloister.worker.vm.packages import Package

VERSION = 1
MANIFEST = "manifest.json"
KERNEL = "vmlinuz"
INITRAMFS = "initramfs.cpio"
FIRMWARE = "OVMF_CODE.fd"
VARIABLES = "OVMF_VARS.fd"
OUTPUTS = (FIRMWARE, VARIABLES, INITRAMFS, KERNEL)
COMMAND_LINE = (
    "console=ttyS0 quiet no_timer_check panic=-1 oops=panic cloister.simulated=never lockdown=confidentiality module.sig_enforce=1 "
    "init_on_alloc=1 slab_nomerge vsyscall=none debugfs=off random.trust_bootloader=off"
)
"""Measured by the kernel's EFI stub. ``no_timer_check``: on a busy host without KVM the timer may tick too late for the
kernel's own test of it, which ends in a panic. ``init_on_alloc`` gives no page to another process uncleared; ``lockdown``
forbids reading the kernel's memory.
"""
MOST_MANIFEST = 4 << 20
_HEX = re.compile(r"[0-9a-f]{64}")
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an image was made of. ``files``: what came from the installation; ``outputs``: what came out."""

    command_line: str
    packages: tuple[Package, ...]
    files: Mapping[str, str]
    outputs: Mapping[str, str]
    python: str

    def to_json(self) -> dict[str, Any]:
        """The form in the file."""
        return {
            "version": VERSION,
            "command_line": self.command_line,
            "packages": [
                {"name": package.name, "version": package.version, "sha256": package.sha256}
                for package in sorted(self.packages)
            ],
            "files": dict(sorted(self.files.items())),
            "outputs": dict(sorted(self.outputs.items())),
            "python": self.python,
        }

    def build(self) -> bytes:
        """The file's bytes."""
        return json.dumps(self.to_json(), indent=1, sort_keys=True).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Image:
    """An image on disk whose parts are what its manifest says."""

    folder: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """One SHA-256 (hex) for the whole image: of its manifest."""
        return hashlib.sha256(self.manifest.build()).hexdigest()


def parse_manifest(raw: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        DecodeError: another form. VerificationError: a package's name, version or digest is none.
    """
    match parse_json(raw, cap=MOST_MANIFEST):
        case {
            "version": 1,
            "command_line": str(command_line),
            "packages": list(packages),
            "files": dict(files),
            "outputs": dict(outputs),
            "python": str(python),
            **rest,
        } if not rest:
            digests = [*files.values(), *outputs.values()]
            if not all(isinstance(digest, str) and _HEX.fullmatch(digest) for digest in digests):
                raise DecodeError("the image's manifest has digests that are none")
            return Manifest(command_line, tuple(_parse_package(item) for item in packages), files, outputs, python)
        case _:
            raise DecodeError("the image's manifest has another form than this version's")


def load_image(folder: Path) -> Image:
    """Read an image and check every part against its manifest.

    Raises:
        NotFound: there is none. DecodeError: its manifest has another form. VerificationError: a part was changed.
    """
    try:
        manifest = parse_manifest((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise NotFound(f"there is no image in {folder}", hint="cloister vm build") from error
    if sorted(manifest.outputs) != sorted(OUTPUTS):
        raise DecodeError(f"the image's manifest names other parts than {', '.join(OUTPUTS)}")
    for name, digest in manifest.outputs.items():
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            raise NotFound(f"{name} is missing in {folder}", hint="cloister vm build") from error
        if found != digest:
            raise VerificationError(
                f"{name} is not what the image's manifest says: {found[:16]}…, not {digest[:16]}…",
                hint="cloister vm build",
                code="image-changed",
            )
    return Image(folder, manifest)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _parse_package(value: object) -> Package:
    match value:
        case {"name": str(name), "version": str(version), "sha256": str(sha256), **rest} if not rest:
            return Package(name, version, sha256)
        case _:
            raise DecodeError(f"not a package of a manifest: {quoted(value)}")
