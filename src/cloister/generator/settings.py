"""``iapp.toml``: what an iApp's author says of it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from cloister.errors import InputError, NotFound, TooLarge, quoted
from cloister.protocol.bundles import Manifest, Resources

SETTINGS_NAME = "iapp.toml"

_SETTINGS_CAP = 64 << 10
_KNOWN = frozenset({"name", "version", "entrypoint", "runtime", "network", "purposes", "resources", "exclude"})
_RESOURCES = frozenset({"memory_mib", "disk_mib", "seconds", "processes"})


@dataclass(frozen=True, slots=True)
class Settings:
    """``iapp.toml``: the manifest, and ``exclude``, patterns of dependency files that the app does without."""

    manifest: Manifest
    exclude: tuple[str, ...] = ()


def load_settings(folder: Path) -> Settings:
    """Read ``iapp.toml``.

    Raises:
        NotFound: there is none. InputError: a missing, unknown or malformed setting. TooLarge: over 64 KiB.
    """
    path = folder / SETTINGS_NAME
    if not path.is_file():
        raise NotFound(f"no {SETTINGS_NAME} in {folder}", hint="cloister iapp init FOLDER makes one")
    if path.stat().st_size > _SETTINGS_CAP:
        raise TooLarge(f"{path} is larger than {_SETTINGS_CAP} bytes")
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} does not parse: {quoted(str(error))}") from error
    return _read_settings(settings, path)


def _read_settings(settings: dict[str, object], path: Path) -> Settings:
    for key in settings:
        if key not in _KNOWN:
            raise InputError(f"{path}: unknown setting {quoted(key)}", hint=f"known are {', '.join(sorted(_KNOWN))}")
    texts = {}
    for key in ("name", "version", "entrypoint", "runtime"):
        value = settings.get(key)
        if not isinstance(value, str):
            raise InputError(f"{path}: {key} must be a text")
        texts[key] = value
    lists: dict[str, tuple[str, ...]] = {}
    for key in ("network", "purposes", "exclude"):
        value = settings.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{path}: {key} must be a list of texts")
        lists[key] = tuple(value)
    resources = settings.get("resources", {})
    if not isinstance(resources, dict) or not set(resources) <= _RESOURCES:
        raise InputError(f"{path}: resources may hold {', '.join(sorted(_RESOURCES))}")
    manifest = Manifest(
        name=texts["name"],
        version=texts["version"],
        entrypoint=texts["entrypoint"],
        runtime=texts["runtime"],
        resources=Resources(**resources),
        network=lists["network"],
        purposes=lists["purposes"],
    )
    return Settings(manifest, lists["exclude"])
