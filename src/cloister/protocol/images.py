"""The JSON of a container image: index, manifest, configuration, as OCI writes them and as Docker's second schema does.

Source: OCI image-spec 1.1 (image-index.md, manifest.md, config.md, descriptor.md); Docker image manifest v2, schema 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from cloister.errors import DecodeError, NotFound, TooLarge, quoted
from cloister.protocol.bundles import LABEL, UNLABELLED, Language, Manifest, parse_manifest
from cloister.protocol.codec import parse_json

DOCUMENT_CAP = 4 << 20
MAX_LAYERS = 127
MAX_MANIFESTS = 256
MAX_VARIABLES = 1000
TEXT_CAP = 128 << 10
"""Characters of environment, entry point and arguments, each."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CONFIGS = ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")


class Packing(StrEnum):
    """How a layer's tar is packed."""

    PLAIN = "plain"
    GZIP = "gzip"


_LAYERS = {
    "application/vnd.oci.image.layer.v1.tar": Packing.PLAIN,
    "application/vnd.oci.image.layer.v1.tar+gzip": Packing.GZIP,
    "application/vnd.docker.image.rootfs.diff.tar": Packing.PLAIN,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": Packing.GZIP,
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob by digest (hex of SHA-256), size in bytes and media type."""

    digest: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """What an image is made of."""

    config: Descriptor
    layers: tuple[tuple[Descriptor, Packing], ...]


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says of the program in it. ``environment`` is in the image's order, names without repeats."""

    manifest: Manifest
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str]
    directory: str
    user: str
    volumes: tuple[str, ...]


def architecture_of(machine: str) -> str:
    """A processor, as ``os.uname`` names it, in the words of images: ``amd64`` or ``arm64``."""
    return _MACHINES.get(machine, machine)


def is_index(document: dict[str, object]) -> bool:
    """Whether it lists images instead of being one.

    Raises:
        DecodeError: it could be read as both, or as neither.
    """
    kind = document.get("mediaType")
    many, one = "manifests" in document, "layers" in document or "config" in document
    if many == one:
        raise DecodeError("the image's document is neither an index nor a manifest")
    if document.get("schemaVersion") != 2:
        raise DecodeError(f"the image's document has the schema {quoted(document.get('schemaVersion'))} instead of 2")
    if kind is not None and kind not in (_INDEXES if many else _MANIFESTS):
        raise DecodeError(f"the image's document has the type {quoted(kind)}")
    return many


def parse_document(raw: bytes) -> dict[str, object]:
    """Read an index, a manifest or a configuration.

    Raises:
        DecodeError, TooLarge: not a JSON object within the cap.
    """
    value = parse_json(raw, cap=DOCUMENT_CAP)
    if not isinstance(value, dict):
        raise DecodeError("the image's document is not a JSON object")
    return value


def choose_manifest(index: dict[str, object], machine: str) -> Descriptor:
    """The manifest for Linux on ``machine``; where several fit, the first, as other programs choose.

    Raises:
        NotFound: the index has none. DecodeError: malformed.
    """
    listed = _list(index, "manifests", MAX_MANIFESTS)
    offered = []
    for item in listed:
        if not isinstance(item, dict):
            raise DecodeError("an image index holds an entry that is no object")
        place = item.get("platform")
        if not isinstance(place, dict):
            continue
        name = f"{place.get('os')}/{place.get('architecture')}"
        if name == f"linux/{machine}" and item.get("mediaType") in _MANIFESTS:
            return _descriptor(item)
        offered.append(quoted(name))
    raise NotFound(
        f"the image is not for linux/{machine}, only for {', '.join(offered[:8]) or 'nothing that it names'}",
        code="image-platform",
    )


def parse_image_manifest(document: dict[str, object]) -> ImageManifest:
    """Read a manifest.

    Raises:
        DecodeError: malformed, or a layer of a kind that is not read. TooLarge: too many layers.
    """
    config = _descriptor(document.get("config"))
    if config.media_type not in _CONFIGS:
        raise DecodeError(f"the image's configuration has the type {quoted(config.media_type)}")
    layers = []
    for item in _list(document, "layers", MAX_LAYERS):
        layer = _descriptor(item)
        packing = _LAYERS.get(layer.media_type)
        if packing is None:
            what = "zstd, which is not read" if layer.media_type.endswith("zstd") else quoted(layer.media_type)
            raise DecodeError(f"a layer of the image is packed as {what}", hint="push the image with gzip layers")
        layers.append((layer, packing))
    return ImageManifest(config, tuple(layers))


def parse_config(document: dict[str, object], *, machine: str, layers: int) -> ImageConfig:
    """Read a configuration.

    Raises:
        DecodeError: malformed. TooLarge: too much of something. NotFound: another platform.
    """
    place = (document.get("os"), document.get("architecture"))
    if place != ("linux", machine):
        raise NotFound(
            f"the image is for {quoted(place[0])}/{quoted(place[1])}, this enclave is linux/{machine}",
            code="image-platform",
        )
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict) or len(_list(rootfs, "diff_ids", MAX_LAYERS)) != layers:
        raise DecodeError("the image's configuration is of other layers than its manifest")
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise DecodeError("the image's configuration has no object config")
    return ImageConfig(
        manifest=_manifest(config.get("Labels")),
        entrypoint=_words(config, "Entrypoint"),
        command=_words(config, "Cmd"),
        environment=_environment(_words(config, "Env")),
        directory=_text(config, "WorkingDir"),
        user=_text(config, "User"),
        volumes=_volumes(config.get("Volumes")),
    )


def _manifest(labels: object) -> Manifest:
    """The iApp's manifest, or what holds for an image without one."""
    if not isinstance(labels, dict) or LABEL not in labels:
        return UNLABELLED
    label = labels[LABEL]
    if not isinstance(label, str):
        raise DecodeError(f"the image's label {LABEL} is not text")
    manifest = parse_manifest(label.encode("utf-8", "surrogatepass"))
    if manifest.language is not Language.CONTAINER:
        raise DecodeError(f"the image's manifest asks for the runtime {quoted(manifest.runtime)}, not for container")
    return manifest


def _descriptor(value: object) -> Descriptor:
    if not isinstance(value, dict):
        raise DecodeError("an image names a part that is no descriptor")
    digest, size, kind = value.get("digest"), value.get("size"), value.get("mediaType")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise DecodeError(f"an image names a part by {quoted(digest)} instead of a sha256 digest")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not isinstance(kind, str):
        raise DecodeError(f"an image names the part {digest} without its size or type")
    return Descriptor(digest.removeprefix("sha256:"), size, kind)


def _list(document: dict[str, object], name: str, most: int) -> list[object]:
    value = document.get(name)
    if not isinstance(value, list):
        raise DecodeError(f"the image's {name} is not a list")
    if len(value) > most:
        raise TooLarge(f"the image has {len(value)} {name}; at most {most}")
    return value


def _words(config: dict[str, object], name: str) -> tuple[str, ...]:
    value = config.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise DecodeError(f"the image's {name} is not a list of texts")
    if len(value) > MAX_VARIABLES or sum(map(len, value)) > TEXT_CAP:
        raise TooLarge(f"the image's {name} has more than {MAX_VARIABLES} texts or {TEXT_CAP} characters")
    return tuple(value)


def _environment(pairs: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise DecodeError(f"the image's Env holds {quoted(pair)}, which is no variable")
        found[name] = value
    return found


def _text(config: dict[str, object], name: str) -> str:
    value = config.get(name) or ""
    if not isinstance(value, str) or len(value) > 4096 or "\0" in value:
        raise DecodeError(f"the image's {name} is not text of at most 4096 characters")
    return value


def _volumes(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > MAX_LAYERS:
        raise DecodeError("the image's Volumes are not an object of folders")
    return tuple(name for name in value if len(name) <= 4096 and "\0" not in name)
