"""Building a container iApp: from a folder with a Containerfile to one archive of an OCI image layout.

The app's digest on chain is the digest of the image's manifest, so the archive around it may be written anew: sorted,
without times, with this image only. What the manifest of the iApp says stands in a label of the image, under the same
digest. ``enclave.images`` reads it.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from cloister.enclave.bundle import BLOCK
from cloister.enclave.images.archive import MAX_ARCHIVE, Blobs, looks_like_archive, receive_blobs
from cloister.enclave.images.image import read_image, this_machine
from cloister.errors import DecodeError, InputError, NotFound, RemoteError, TooLarge, quoted
from cloister.files import sync_folder
from cloister.generator.archive import BuiltBundle
from cloister.generator.image_builders import Builder, BuildRequest, find_builder
from cloister.generator.settings import SETTINGS_NAME, Settings
from cloister.generator.sources import OUTSIDE, walk
from cloister.protocol.bundles import LABEL, Manifest, build_manifest
from cloister.protocol.codec import Bytes32, canonical_json
from cloister.protocol.images import (
    DOCUMENT_CAP,
    ImageManifest,
    choose_manifest,
    is_index,
    parse_config,
    parse_document,
    parse_image_manifest,
)

SUFFIX = ".oci.tar"
FILE_NAMES = ("Containerfile", "Dockerfile")
ARGUMENTS_VARIABLE = "CLOISTER_BUILD_ARGS"
"""More build arguments, as ``NAME=value`` words of a shell; they win over those of ``iapp.toml``."""

_PIECE = 1 << 20
_NEEDED = ("requirements.in", "requirements.txt", "README.md")
"""What is outside of a bundle and may be needed by a build."""
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
"""Of a manifest that does not say its own."""
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_EXECUTABLE = (b"#!", b"\x7fELF")


def build_image(
    folder: Path, settings: Settings, output: Path, *, max_bytes: int = MAX_ARCHIVE, builder: Builder | None = None
) -> BuiltBundle:
    """Build the container iApp in ``folder`` into ``output``.

    Raises:
        NotFound: no Containerfile. InputError: it does not build, or a build argument is malformed. ConfigurationError: no
        program that builds is installed. TooLarge: over ``max_bytes``. UnavailableError: it takes too long.
    """
    builder = builder or find_builder()
    file = _find_file(folder, settings)
    arguments = {**settings.container.arguments, **_given_arguments()}
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".cloister-image-", dir=output.parent) as temporary:
        work = Path(temporary)
        _copy_context(folder, work / "context")
        shutil.copyfile(file, work / "Containerfile")
        label = f"{LABEL}={build_manifest(settings.manifest).decode()}"
        request = BuildRequest(work / "context", work / "Containerfile", label, arguments, settings.container.network)
        archive = builder.build(request, work)
        size = archive.stat().st_size
        if size > max_bytes:
            raise TooLarge(f"the image has {size} bytes; at most {max_bytes}", hint="start from a smaller base image")
        return _write_anew(archive, work, output, settings.manifest)


def is_image(path: Path) -> bool:
    """Whether a file is an archive of a container image, as far as its first bytes tell."""
    with path.open("rb") as file:
        return looks_like_archive(file.read(BLOCK))


def load_image(path: Path) -> BuiltBundle:
    """What an archive on disk is: the image that its index names, proved as far as manifest and configuration go.

    Raises:
        NotFound: no such file. InputError: it cannot be read. DecodeError: it is no archive of one image for this machine.
    """
    try:
        with tarfile.open(path, "r:", encoding="utf-8") as archive:
            members = {member.name.removeprefix("./"): member for member in archive if member.isfile()}
            listed = _read_member(archive, members, "index.json")
            digest = _find_named(listed, lambda name: _read_member(archive, members, f"blobs/sha256/{name}"))
            document = parse_document(_read_member(archive, members, f"blobs/sha256/{digest}"))
            parts = parse_image_manifest(document)
            raw = _read_member(archive, members, f"blobs/sha256/{parts.config.digest}")
    except FileNotFoundError as error:
        raise NotFound(f"no image at {path}") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except tarfile.TarError as error:
        raise DecodeError(f"{path} is no archive of an image: {quoted(str(error))}") from error
    config = parse_config(parse_document(raw), machine=this_machine(), layers=len(parts.layers))
    return BuiltBundle(path, Bytes32(f"0x{digest}"), path.stat().st_size, config.manifest)


def read_published(chunks: Iterable[bytes], digest: Bytes32) -> Manifest:
    """What the image of ``digest`` says of itself, in an archive from somewhere: every part of it is proved.

    Raises:
        DecodeError, TooLarge: no such archive. VerificationError: another image. NotFound: it is for other machines.
    """
    with tempfile.TemporaryDirectory(prefix="cloister-image-") as temporary:
        blobs = receive_blobs(chunks, Path(temporary) / "blobs")
        return read_image(blobs, digest.raw)[1].manifest


def _find_file(folder: Path, settings: Settings) -> Path:
    if settings.container.file is not None:
        path = folder / settings.container.file
        if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
            raise NotFound(f"{quoted(settings.container.file)} of {SETTINGS_NAME} is not in {folder}")
        return path
    for name in FILE_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise NotFound(f"no {' or '.join(FILE_NAMES)} in {folder}", hint='runtime = "container" is built from one')


def _given_arguments() -> Mapping[str, str]:
    text = os.environ.get(ARGUMENTS_VARIABLE, "")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"{ARGUMENTS_VARIABLE} does not parse: {quoted(str(error))}") from error
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InputError(f"{ARGUMENTS_VARIABLE} holds {quoted(word)}", hint="write it as NAME=value")
        found[name] = value
    return found


def _copy_context(folder: Path, target: Path) -> None:
    """What a build may see: the author's files, without times and with the modes that their content asks for."""
    target.mkdir()
    for name, path in walk(folder, folder, tuple(item for item in OUTSIDE if item not in _NEEDED), hidden=False):
        copy = target / name
        copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        shutil.copyfile(path, copy, follow_symlinks=False)
        with copy.open("rb") as file:
            copy.chmod(0o755 if file.read(4).startswith(_EXECUTABLE) else 0o644)
    for place in sorted(target.rglob("*"), reverse=True):
        if place.is_dir():
            place.chmod(0o755)
        os.utime(place, (0, 0))


def _write_anew(archive: Path, work: Path, output: Path, manifest: Manifest) -> BuiltBundle:
    """Take the one image out of what a program wrote, and write it as this project does."""
    try:
        with archive.open("rb") as file:
            blobs = receive_blobs(iter(lambda: file.read(_PIECE), b""), work / "blobs")
        with tarfile.open(archive, "r:", encoding="utf-8") as opened:
            members = {member.name.removeprefix("./"): member for member in opened if member.isfile()}
            listed = _read_member(opened, members, "index.json")
        digest = _find_named(listed, blobs.read)
        parts, config = read_image(blobs, bytes.fromhex(digest))
    except tarfile.TarError as error:
        raise DecodeError(f"the built image is no archive: {quoted(str(error))}") from error
    except RemoteError as error:
        hint = "docker before version 25 writes no OCI layout: use podman or buildah"
        raise InputError(f"the built image cannot be used: {error.message}", hint=hint) from error
    if config.manifest != manifest:
        raise InputError(
            f"the image's label {LABEL} is not what {SETTINGS_NAME} says",
            hint="remove that LABEL from the Containerfile",
        )
    partial = work / "partial.tar"
    with partial.open("w+b") as target:
        _write_layout(target, digest, parts, blobs, work / "blobs")
        target.flush()
        os.fsync(target.fileno())
    partial.chmod(0o644)
    partial.replace(output)
    sync_folder(output.parent)
    return BuiltBundle(output, Bytes32(f"0x{digest}"), output.stat().st_size, manifest)


def _write_layout(file: IO[bytes], digest: str, parts: ImageManifest, blobs: Blobs, folder: Path) -> None:
    raw = blobs.read(digest)
    kind = parse_document(raw).get("mediaType", _MANIFEST_TYPE)
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": kind, "digest": f"sha256:{digest}", "size": len(raw)}],
    }
    names = dict.fromkeys((digest, parts.config.digest, *(layer.digest for layer, _ in parts.layers)))
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8") as archive:
        for name, content in (("oci-layout", _LAYOUT), ("index.json", canonical_json(index))):
            archive.addfile(_entry(name, len(content)), io.BytesIO(content))
        for name in names:
            with (folder / name).open("rb") as blob:
                archive.addfile(_entry(f"blobs/sha256/{name}", os.fstat(blob.fileno()).st_size), blob)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, 0o644
    return entry


def _read_member(archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str) -> bytes:
    member = members.get(name)
    content = None if member is None else archive.extractfile(member)
    if member is None or content is None or member.size > DOCUMENT_CAP:
        raise DecodeError(f"the archive has no {quoted(name)} that can be read")
    return content.read()


def _find_named(index: bytes, read: Callable[[str], bytes]) -> str:
    """The digest of the one image that an archive's index names, through an index for several machines if need be."""
    listed = parse_document(index).get("manifests")
    if not isinstance(listed, list) or not listed:
        raise DecodeError("the archive's index names no image")
    for described in _candidates(listed):
        digest = str(described.get("digest", "")).removeprefix("sha256:")
        document = parse_document(read(digest))
        return choose_manifest(document, this_machine()).digest if is_index(document) else digest
    raise DecodeError(f"the archive's index names {len(listed)} images, and none for linux/{this_machine()}")


def _candidates(listed: list[object]) -> Iterator[dict[str, object]]:
    """What fits this machine; a single image that names no platform does."""
    for item in listed:
        if not isinstance(item, dict):
            continue
        place = item.get("platform")
        if len(listed) == 1 or (isinstance(place, dict) and place.get("architecture") == this_machine()):
            yield item
