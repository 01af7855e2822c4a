"""An app that is a container image: proved against the digest on chain, unpacked, and what it says of its program."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloister.enclave.filesystem import OUTPUT
from cloister.enclave.images.accounts import find_account
from cloister.enclave.images.archive import MAX_ARCHIVE, Blobs, receive_blobs
from cloister.enclave.images.layers import MAX_ENTRIES, MAX_UNPACKED, Layers
from cloister.enclave.images.root import COVERED, ImageRoot
from cloister.errors import DecodeError, TooLarge, VerificationError, quoted
from cloister.protocol.bundles import Manifest
from cloister.protocol.images import (
    ImageConfig,
    ImageManifest,
    architecture_of,
    choose_manifest,
    is_index,
    parse_config,
    parse_document,
    parse_image_manifest,
)

HOST_NAME = "iapp"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What a container gets whose image names none."""
_HOSTS = f"127.0.0.1\tlocalhost {HOST_NAME}\n::1\tlocalhost\n"


@dataclass(frozen=True, slots=True)
class Image:
    """An unpacked image whose digest matched.

    ``entrypoint`` and ``command`` are the command line: arguments take the place of ``command``. ``environment`` is the
    image's, with what every container has. ``directory`` is where it starts.
    """

    manifest: Manifest
    digest: bytes
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: dict[str, str]
    directory: str
    root: ImageRoot

    def has_room(self, folder: str) -> bool:
        """Whether something can be shown below ``folder``: it is a real folder of the image, or nothing is there."""
        found = self.root.layers.tree.find(folder)
        return found is None or "/" + "/".join(found[0]) == folder


def unpack_image(
    chunks: Iterable[bytes],
    staging: Path,
    *,
    expected_digest: bytes,
    max_bytes: int = MAX_ARCHIVE,
    max_unpacked: int = MAX_UNPACKED,
    max_entries: int = MAX_ENTRIES,
) -> Image:
    """Take an OCI archive into ``staging``, a new directory, and prove that it has the image of ``expected_digest``: the
    SHA-256 of its manifest, or of an index that has a manifest for this machine.

    On any failure ``staging`` is removed.

    Raises:
        DecodeError: not such an archive, or something in it that is not run. TooLarge: more bytes, files or layers than
        allowed. VerificationError: another image. NotFound: it is for other machines. OSError: there is no room.
    """
    staging.mkdir(mode=0o700)
    try:
        blobs = receive_blobs(chunks, staging / "blobs", max_bytes=max_bytes)
        manifest, config = read_image(blobs, expected_digest)
        folder = staging / "files"
        folder.mkdir(mode=0o700)
        layers = Layers(folder, max_bytes=max_unpacked, max_entries=max_entries)
        for position, (layer, packing) in enumerate(manifest.layers):
            layers.apply(blobs.open_layer(layer, packing))
            # The same layer may come again: some tools write an empty one for every step.
            if all(later.digest != layer.digest for later, _ in manifest.layers[position + 1 :]):
                blobs.drop(layer.digest)
        return _finish(config, layers, expected_digest)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def this_machine() -> str:
    """The processor in the words of images."""
    return architecture_of(platform.machine())


def read_image(blobs: Blobs, digest: bytes) -> tuple[ImageManifest, ImageConfig]:
    """Read manifest and configuration of the image ``digest`` for this machine; each is what its digest and size say.

    Raises:
        VerificationError, DecodeError, TooLarge, NotFound: as ``unpack_image``.
    """
    machine = this_machine()
    document = parse_document(_read_named(blobs, digest))
    if is_index(document):
        chosen = choose_manifest(document, machine)
        document = parse_document(blobs.read(chosen.digest, chosen.size))
        if is_index(document):
            raise DecodeError("the image's index names another index")
    manifest = parse_image_manifest(document)
    if sum(layer.size for layer, _ in manifest.layers) > MAX_ARCHIVE:
        raise TooLarge(f"the image's layers are larger than {MAX_ARCHIVE} bytes")
    raw = blobs.read(manifest.config.digest, manifest.config.size)
    return manifest, parse_config(parse_document(raw), machine=machine, layers=len(manifest.layers))


def _read_named(blobs: Blobs, digest: bytes) -> bytes:
    try:
        return blobs.read(digest.hex())
    except VerificationError as error:
        raise VerificationError(
            f"the archive does not hold the image {digest.hex()} that the chain names", code="image-digest"
        ) from error


def _finish(config: ImageConfig, layers: Layers, digest: bytes) -> Image:
    tree = layers.tree
    account = find_account(layers, config.user)
    for covered in COVERED:
        tree.remove(tuple(covered[1:].split("/")))
    if "tmp" not in tree.root.children:
        tree.make_directory("/tmp", 0o1777)  # noqa: S108  # in the image
    for volume in config.volumes:
        tree.make_directory(volume)
    place = "/" + "/".join(tree.make_directory(config.directory or "/"))
    if any(place.startswith(f"{covered}/") for covered in COVERED if covered != OUTPUT):
        raise DecodeError(f"the image starts in {quoted(place)}, which is the sandbox's own", code="image-path")
    layers.add_text("/etc/hosts", _HOSTS)
    return Image(
        manifest=config.manifest,
        digest=digest,
        entrypoint=config.entrypoint,
        command=config.command,
        environment={"PATH": _PATH, "HOME": account.home, "HOSTNAME": HOST_NAME, **config.environment},
        directory=place,
        root=ImageRoot(layers, account.user, account.group),
    )
