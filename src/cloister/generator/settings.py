"""``iapp.toml``: what an iApp's author says of it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from cloister.errors import InputError, NotFound, TooLarge, quoted
from cloister.protocol.bundles import Manifest, Resources

SETTINGS_NAME = "iapp.toml"

_SETTINGS_CAP = 64 << 10
_KNOWN = frozenset(
    {"name", "version", "entrypoint", "runtime", "network", "purposes", "resources", "exclude", "container"}
)
_RESOURCES = frozenset({"memory_mib", "disk_mib", "seconds", "processes"})


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """How a container iApp is built: ``file`` (default: Containerfile or Dockerfile), build ``arguments``, and the
    ``network`` that its build has (``none``, or the building program's default).
    """

    file: str | None = None
    arguments: dict[str, str] = field(default_factory=dict)
    network: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """``iapp.toml``: the manifest, and ``exclude``, patterns of dependency files that the app does without."""

    manifest: Manifest
    exclude: tuple[str, ...] = ()
    container: ContainerSettings = field(default_factory=ContainerSettings)


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
    container = settings.get("runtime") == "container"
    for key in ("name", "version", "entrypoint", "runtime"):
        value = settings.get(key, "" if container and key == "entrypoint" else None)
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
    return Settings(manifest, lists["exclude"], _read_container(settings, path))


def _read_container(settings: dict[str, object], path: Path) -> ContainerSettings:
    table = settings.get("container", {})
    if not isinstance(table, dict) or not set(table) <= {"file", "arguments", "network"}:
        raise InputError(f"{path}: container may hold file, arguments, network")
    if table and settings.get("runtime") != "container":
        raise InputError(f'{path}: the table container is for runtime = "container" only')
    arguments = table.get("arguments", {})
    texts = isinstance(arguments, dict) and all(isinstance(value, str) for value in arguments.values())
    if not texts or not all(isinstance(table.get(name, ""), str) for name in ("file", "network")):
        raise InputError(
            f"{path}: container.file and container.network are texts, container.arguments a table of texts"
        )
    if table.get("network", "none") not in ("none", "default"):
        raise InputError(f"{path}: container.network is none or default")
    network = None if table.get("network") == "default" else table.get("network")
    return ContainerSettings(table.get("file"), dict(arguments), network)
