"""The manifest of an iApp bundle: what the app is and what it may do. It is measured with the bundle."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Final

from cloister.errors import DecodeError, InputError, quoted
from cloister.protocol.codec import canonical_json, check_keys, check_uint, parse_json, parse_text, parse_uint
from cloister.protocol.destinations import parse_destination
from cloister.protocol.params import check_purpose

VERSION: Final = 1
MANIFEST_NAME: Final = "manifest.json"
"""The bundle's first member."""
MANIFEST_CAP: Final = 64 * 1024
LIST_CAP: Final = 64
LABEL: Final = "org.cloister.manifest"
"""The label of a container image's configuration that holds the manifest."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")
_RUNTIME: Final = re.compile(r"python3(\.[0-9]{1,2})?|node([1-9][0-9]{0,2})?|container")
_NODE_ENTRY: Final = (".js", ".mjs", ".cjs")
_PATH_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class Language(StrEnum):
    """What an iApp is written in."""

    PYTHON = "python"
    NODE = "node"
    CONTAINER = "container"
    """Whatever is in the image: its configuration says what runs."""


@dataclass(frozen=True, slots=True)
class Resources:
    """The most that one run may take."""

    memory_mib: int = 512
    disk_mib: int = 256
    seconds: int = 300
    processes: int = 64

    def __post_init__(self) -> None:
        for name, most in (("memory_mib", 1 << 20), ("disk_mib", 1 << 20), ("seconds", 360_000), ("processes", 4096)):
            if check_uint(name, getattr(self, name), maximum=most) == 0:
                raise InputError(f"{name}: must be more than 0")


@dataclass(frozen=True, slots=True)
class Manifest:
    """An iApp and what it may do.

    ``entrypoint`` is a file of the bundle, ``runtime`` what runs it (``python3``, ``python3.N``, ``node``, ``nodeN``; or
    ``container``: an image that says itself what runs, without an ``entrypoint`` here), ``network`` the hosts it may connect
    to, each as ``host:port`` (none by default), ``purposes`` what its author made it for.

    Raises:
        InputError: a malformed name, version, path, host or purpose, or an oversized list.
    """

    name: str
    version: str
    entrypoint: str
    runtime: str = "python3"
    resources: Resources = field(default_factory=Resources)
    network: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(f"app name {quoted(self.name)} is not a name of a-z 0-9 . _ - up to 64 characters")
        if not _VERSION.fullmatch(self.version):
            raise InputError(f"app version {quoted(self.version)} is malformed")
        if not _RUNTIME.fullmatch(self.runtime):
            raise InputError(f"app runtime {quoted(self.runtime)} is not python3, python3.N, node, nodeN or container")
        if self.language is not Language.CONTAINER:
            _check_path(self.entrypoint)
        elif self.entrypoint:
            raise InputError(
                f"entrypoint {quoted(self.entrypoint)} of a container app: its image says what runs",
                hint="leave entrypoint out, and write ENTRYPOINT in the Containerfile",
            )
        if self.language is Language.NODE and not self.entrypoint.endswith(_NODE_ENTRY):
            raise InputError(f"entrypoint {quoted(self.entrypoint)} of a node app is no .js, .mjs or .cjs file")
        object.__setattr__(self, "network", _normal("network", (_check_destination(item) for item in self.network)))
        object.__setattr__(self, "purposes", _normal("purposes", (check_purpose(item) for item in self.purposes)))

    @property
    def language(self) -> Language:
        """The language that the runtime is of."""
        if self.runtime == "container":
            return Language.CONTAINER
        return Language.NODE if self.runtime.startswith("node") else Language.PYTHON

    def to_json(self) -> dict[str, object]:
        """Return the manifest as JSON members."""
        return {
            "manifest_version": VERSION,
            "name": self.name,
            "version": self.version,
            "entrypoint": self.entrypoint,
            "runtime": self.runtime,
            "resources": {item.name: getattr(self.resources, item.name) for item in fields(self.resources)},
            "network": list(self.network),
            "purposes": list(self.purposes),
        }


def _normal(name: str, values: Iterable[str]) -> tuple[str, ...]:
    """Sort a list and drop repeats, so that one manifest has one spelling."""
    normal = tuple(sorted(set(values)))
    if len(normal) > LIST_CAP:
        raise InputError(f"{name}: more than {LIST_CAP}")
    return normal


def _check_path(path: str) -> str:
    if len(path) > 255 or not all(_PATH_PART.fullmatch(part) for part in path.split("/")):
        raise InputError(f"entrypoint {quoted(path)} is not a relative path inside the bundle")
    return path


def _check_destination(text: str) -> str:
    try:
        return str(parse_destination(text))
    except InputError as error:
        raise InputError(f"network: {error.message}", hint=error.hint) from error


UNLABELLED: Final = Manifest(
    name="unlabelled-image",
    version="0",
    entrypoint="",
    runtime="container",
    resources=Resources(memory_mib=6 << 10, disk_mib=2 << 10, seconds=360_000, processes=1024),
)
"""What holds for an image without ``LABEL``, such as one that was made for iExec: the memory that iExec's generator gives,
the time that the deal's category gives, no network, no named purposes."""


def build_manifest(manifest: Manifest) -> bytes:
    """Write a manifest as canonical JSON."""
    return canonical_json(manifest.to_json())


def _parse_list(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > LIST_CAP:
        raise DecodeError(f"{name}: expected a list of at most {LIST_CAP} names")
    return tuple(parse_text(name, item, cap=260) for item in value)


def parse_manifest(document: bytes) -> Manifest:
    """Read the manifest of a bundle.

    Raises:
        DecodeError, TooLarge, InputError: a missing, unknown, oversized or unreadable member.
    """
    keys = ("manifest_version", "name", "version", "entrypoint", "runtime", "resources", "network", "purposes")
    given = check_keys("manifest", parse_json(document, cap=MANIFEST_CAP), required=keys)
    if given["manifest_version"] != VERSION or isinstance(given["manifest_version"], bool):
        raise DecodeError(f"manifest: version {quoted(given['manifest_version'])} is not {VERSION}")
    names = [item.name for item in fields(Resources)]
    resources = check_keys("resources", given["resources"], required=names)
    return Manifest(
        name=parse_text("name", given["name"], cap=64),
        version=parse_text("version", given["version"], cap=64),
        entrypoint=parse_text("entrypoint", given["entrypoint"], cap=255),
        runtime=parse_text("runtime", given["runtime"], cap=64),
        resources=Resources(**{name: parse_uint(name, resources[name]) for name in names}),
        network=_parse_list("network", given["network"]),
        purposes=_parse_list("purposes", given["purposes"]),
    )
