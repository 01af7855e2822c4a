"""The image that this machine keeps: built when it is missing or is not of this installation, and measured once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import CloisterError
from cloister.files import locked, write_durably
from cloister.worker.vm.builder import PACKAGE_ROOT, build_image
from cloister.worker.vm.image import COMMAND_LINE, Image, load_image
from cloister.worker.vm.measure import measure_image
from cloister.worker.vm.qemu import VmOptions
from cloister.worker.vm.rootfs import installed_inputs

_MEASUREMENT = "measurement.json"
_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image, and the boot measurement (32 bytes) that its machines show."""

    image: Image
    measurement: bytes


def image_folder(folder: Path) -> Path:
    """Where the image lies in a folder that keeps one."""
    return folder / "image"


def keep_image(folder: Path, options: VmOptions, announce: Callable[[str], None] = lambda text: None) -> KeptImage:
    """The image in ``folder``, built and booted once for its measurement where need be. One process at a time does it.

    Raises: as ``build_image`` and ``measure_image``.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    with locked(folder / _LOCK):
        image = _load(image_folder(folder))
        if image is None:
            announce("building the virtual machine's image (half a minute, once for each release)")
            image = build_image(image_folder(folder), cache=folder / "packages", announce=announce)
        measurement = _recall(folder, image, options)
        if measurement is None:
            announce("booting the image once to measure it")
            measurement = measure_image(image, options).measurement
            line = {"image": image.digest, "processors": options.processors, "measurement": measurement.hex()}
            write_durably(folder / _MEASUREMENT, json.dumps(line).encode())
        return KeptImage(image, measurement)


def _load(folder: Path) -> Image | None:
    """The image that is there, if it is whole and holds this installation's agent and libraries."""
    try:
        image = load_image(folder)
    except CloisterError:
        return None
    if image.manifest.command_line != COMMAND_LINE:
        return None
    return image if dict(image.manifest.files) == installed_inputs(PACKAGE_ROOT) else None


def _recall(folder: Path, image: Image, options: VmOptions) -> bytes | None:
    try:
        match json.loads((folder / _MEASUREMENT).read_bytes()):
            case {"image": image.digest, "processors": options.processors, "measurement": str(text)}:
                return bytes.fromhex(text)
    except (OSError, ValueError):
        pass
    return None
