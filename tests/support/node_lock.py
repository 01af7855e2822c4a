"""A ``package-lock.json`` for packages that a test puts into ``node_modules`` by itself."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def write_node_lock(folder: Path, missing: Mapping[str, str] | None = None) -> None:
    """Lock what is installed in ``folder``, and ``missing`` (place to version) too."""
    places = dict(missing or {})
    for package in (folder / "node_modules").rglob("package.json"):
        above = package.parent.parent
        if above.name == "node_modules" or (above.name.startswith("@") and above.parent.name == "node_modules"):
            places[package.parent.relative_to(folder).as_posix()] = json.loads(package.read_text())["version"]
    wanted = json.loads((folder / "package.json").read_text()).get("dependencies", {})
    packages: dict[str, object] = {"": {"dependencies": wanted}}
    for place, version in sorted(places.items()):
        digest = base64.b64encode(hashlib.sha512(f"{place}@{version}".encode()).digest()).decode()
        packages[place] = {"version": version, "integrity": f"sha512-{digest}"}
    (folder / "package-lock.json").write_text(json.dumps({"lockfileVersion": 3, "packages": packages}))
