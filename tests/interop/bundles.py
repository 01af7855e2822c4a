"""Building the apps of ``apps/``. Those in JavaScript take the packages that they need from this folder's ``node_modules``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.interop.flows import PACKAGES
from tests.support.node_lock import write_node_lock

from cloister.generator.bundle import build_bundle


def build_app(source: Path, folder: Path) -> bytes:
    """The bundle of one app; ``folder`` is for what is made on the way."""
    if (source / "package.json").is_file():
        source = Path(shutil.copytree(source, folder / source.name))
        wanted = list(json.loads((source / "package.json").read_text())["dependencies"])
        _copy_packages(wanted, source / "node_modules")
        write_node_lock(source)
    return build_bundle(source, folder / f"{source.name}.bundle").path.read_bytes()


def _copy_packages(names: list[str], target: Path) -> None:
    waiting, done = list(names), set()
    while waiting:
        name = waiting.pop()
        if name not in done:
            done.add(name)
            shutil.copytree(PACKAGES / name, target / name)
            waiting += json.loads((PACKAGES / name / "package.json").read_text()).get("dependencies", {})
