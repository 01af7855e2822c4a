"""Proving that a deployed app is a given source: the source is built anew, and its digest is the one on chain.

An app is a bundle or a container image; what an image has for a digest is that of its manifest. What differs is told when
they do. What is proved is equality of code; whether the code does what its author says is for a reader of the source, and
that an enclave ran it is what a receipt proves.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any

from cloister.enclave.bundle import BLOCK, LIBRARY_DIRECTORY, unpack_bundle
from cloister.enclave.images.archive import looks_like_archive
from cloister.enclave.images.image import unpack_image
from cloister.enclave.images.tree import Directory, File, Node
from cloister.errors import DecodeError, Denied, InputError, NotFound, UnavailableError, VerificationError
from cloister.generator.archive import BuiltBundle
from cloister.generator.bundle import build_bundle
from cloister.generator.packages import COMPILER_NAME
from cloister.protocol.bundles import Language, Manifest
from cloister.protocol.codec import Bytes32

_COMPILER_CAP = 100
_SHORT = 16
_PIECE = 1 << 20
_IMAGE_NOTE = (
    "another base image behind the same tag, another program that builds, or anything that a RUN line fetches gives "
    "another image"
)


class Where(StrEnum):
    """On which side a file is."""

    HERE = "only here"
    DEPLOYED = "only deployed"
    BOTH = "different"


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file that is not the same on both sides: sizes in bytes, digests as 16 hex digits of SHA-256, None where it is
    not.
    """

    name: str
    where: Where
    size_here: int | None = None
    size_deployed: int | None = None
    digest_here: str | None = None
    digest_deployed: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestDifference:
    """A member of the manifest that is not the same on both sides."""

    member: str
    here: object
    deployed: object


@dataclass(frozen=True, slots=True)
class Verification:
    """What came of comparing a source with a deployed bundle. ``matches`` is the proof: both are the same bytes.

    ``compiler_here`` and ``compiler_deployed`` name the Pythons that compiled the libraries; ``libraries`` are the packages
    whose versions differ, as (name, here, deployed).
    """

    checksum: Bytes32
    digest: Bytes32
    manifest_differences: tuple[ManifestDifference, ...] = ()
    files: tuple[FileDifference, ...] = ()
    libraries: tuple[tuple[str, str | None, str | None], ...] = ()
    compiler_here: str | None = None
    compiler_deployed: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def matches(self) -> bool:
        """Whether the deployed app is this source."""
        return self.checksum == self.digest

    @property
    def only_compiled_differ(self) -> bool:
        """Whether all that differs is what another Python made of the same library sources. It proves less: compiled
        files may hold other code than their sources.
        """
        return (
            not self.matches
            and bool(self.files)
            and not self.manifest_differences
            and all(item.name.endswith((".pyc", f"/{COMPILER_NAME}")) for item in self.files)
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return {
            "matches": self.matches,
            "checksum": self.checksum,
            "digest": self.digest,
            "only_compiled_differ": self.only_compiled_differ,
            "manifest": [asdict(item) for item in self.manifest_differences],
            "files": [asdict(item) for item in self.files],
            "libraries": [
                {"name": name, "here": here, "deployed": deployed} for name, here, deployed in self.libraries
            ],
            "compiler": {"here": self.compiler_here, "deployed": self.compiler_deployed},
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared. ``files``: size and SHA-256 of each; ``start``: how an image is started."""

    manifest: Manifest
    files: Mapping[str, tuple[int, str]]
    compiler: str | None = None
    start: Mapping[str, object] = field(default_factory=dict)


def verify_source(
    folder: Path,
    checksum: Bytes32,
    fetch: Callable[[], Iterable[bytes]],
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Build ``folder`` and compare it with the deployed app of ``checksum``, which ``fetch`` downloads: only where the
    digests differ, and then it is proved to be the deployed one before it is read.

    A bundle of another Python is built again with that Python where it is on this machine.

    Raises:
        VerificationError: what storage has is not what is deployed. DecodeError: what is deployed is neither a bundle nor
        an image. whatever ``build_bundle`` raises.
    """
    folder = folder.resolve()
    with tempfile.TemporaryDirectory(prefix="cloister-verify-") as temporary:
        work = Path(temporary)
        built = build_bundle(folder, work / "here.bundle", tell=tell)
        if built.digest == checksum:
            return Verification(checksum, built.digest)
        tell("the digests differ: fetching what is deployed to say what differs")
        try:
            deployed = _open(fetch(), work / "deployed", checksum)
        except (NotFound, InputError, UnavailableError, Denied) as error:
            return Verification(checksum, built.digest, notes=(f"what differs is not known: {error.message}",))
        here = _open_built(built, work / "here")
        notes = [_IMAGE_NOTE] if built.manifest.language is Language.CONTAINER else []
        if deployed.compiler is not None and deployed.compiler != here.compiler:
            tell(f"the deployed libraries were compiled by {deployed.compiler}: building again with it")
            try:
                built = build_bundle(
                    folder, work / "again.bundle", runtime=deployed.manifest.runtime, compiler=deployed.compiler
                )
            except NotFound as error:
                notes.append(f"{error.message}: its compiled libraries cannot be made here")
            else:
                if built.digest == checksum:
                    return Verification(checksum, built.digest, notes=(f"built with {deployed.compiler}",))
                here = _open_built(built, work / "again")
        return compare_sides(here, deployed, built.digest, checksum, tuple(notes))


def compare_manifests(here: Manifest, deployed: Manifest) -> tuple[ManifestDifference, ...]:
    """The members that differ, those of ``resources`` one by one."""
    return _different(_flat(here.to_json()), _flat(deployed.to_json()))


def _different(mine: Mapping[str, object], theirs: Mapping[str, object]) -> tuple[ManifestDifference, ...]:
    return tuple(
        ManifestDifference(name, mine.get(name), theirs.get(name))
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    )


def _open(chunks: Iterable[bytes], staging: Path, checksum: Bytes32) -> Side:
    """Unpack what is deployed, proving that it is."""
    try:
        return open_side(chunks, staging, checksum)
    except VerificationError as error:
        raise VerificationError(
            "storage does not hold what was deployed: its bytes have another digest than the one on chain",
            hint="ask the app's owner to deploy it again",
            code="bundle-digest",
        ) from error
    except DecodeError as error:
        raise DecodeError(
            f"what is deployed is neither a bundle nor an image: {error.message}",
            hint="cloister iapp show ADDRESS tells what it is",
        ) from error


def _open_built(built: BuiltBundle, staging: Path) -> Side:
    with built.path.open("rb") as file:
        return open_side(iter(lambda: file.read(_PIECE), b""), staging, built.digest)


def open_side(chunks: Iterable[bytes], staging: Path, digest: Bytes32) -> Side:
    """Unpack a bundle or an image's archive into ``staging``, a new folder, and prove that it is the one of ``digest``.

    Raises:
        DecodeError, TooLarge, VerificationError, NotFound: as ``unpack_bundle`` and ``unpack_image``.
    """
    stream = iter(chunks)
    start = b""
    for chunk in stream:
        start += chunk
        if len(start) >= BLOCK:
            break
    whole = chain([start], stream)
    if looks_like_archive(start[:BLOCK]):
        image = unpack_image(whole, staging, expected_digest=digest.raw)
        settings = {
            "image.entrypoint": list(image.entrypoint),
            "image.command": list(image.command),
            "image.directory": image.directory,
        }
        settings |= {f"image.environment.{name}": value for name, value in image.environment.items()}
        layers = image.root.layers
        files = dict(_image_files("", layers.tree.root, lambda node: layers.path(node.content)))
        return Side(image.manifest, files, start=settings)
    bundle = unpack_bundle(whole, staging, expected_digest=digest.raw)
    compiler = bundle.library / COMPILER_NAME
    named = compiler.read_bytes()[:_COMPILER_CAP].decode("utf-8", "replace").strip() if compiler.is_file() else None
    return Side(bundle.manifest, dict(_bundle_files(bundle.root)), named)


def _bundle_files(root: Path) -> Iterator[tuple[str, tuple[int, str]]]:
    """Executable or not follows from the content where a bundle was built here; in another's it may not, and then it
    counts.
    """
    for path in root.rglob("*"):
        if path.is_file():
            status = path.stat()
            mark = "" if bool(status.st_mode & 0o100) == _is_program(path) else " (executable bit)"
            yield path.relative_to(root).as_posix(), (status.st_size, _hash(path) + mark)


def _image_files(above: str, node: Directory, path: Callable[[File], Path]) -> Iterator[tuple[str, tuple[int, str]]]:
    """Modes count, and where symbolic links lead."""
    waiting: list[tuple[str, Node]] = [(f"{above}/{name}", child) for name, child in node.children.items()]
    while waiting:
        name, here = waiting.pop()
        if isinstance(here, Directory):
            waiting += [(f"{name}/{inner}", child) for inner, child in here.children.items()]
        elif isinstance(here, File):
            yield name, (here.content.size, f"{_hash(path(here))} mode {here.content.mode:o}")
        else:
            digest = hashlib.sha256(here.target.encode("utf-8", "surrogateescape")).hexdigest()
            yield name, (0, f"{digest} link")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare_sides(
    here: Side, deployed: Side, digest: Bytes32, checksum: Bytes32, notes: tuple[str, ...] = ()
) -> Verification:
    """Name what is not the same; ``digest`` is that of what is here, ``checksum`` of what is deployed."""
    differences = []
    for name in sorted(here.files.keys() | deployed.files.keys()):
        left, right = here.files.get(name), deployed.files.get(name)
        if left == right:
            continue
        where = Where.BOTH if left and right else Where.HERE if left else Where.DEPLOYED
        difference = FileDifference(name, where)
        if left is not None:
            difference = replace(difference, size_here=left[0], digest_here=_short(left[1]))
        if right is not None:
            difference = replace(difference, size_deployed=right[0], digest_deployed=_short(right[1]))
        differences.append(difference)
    return Verification(
        checksum,
        digest,
        (*compare_manifests(here.manifest, deployed.manifest), *_different(here.start, deployed.start)),
        tuple(differences),
        _libraries(here.files, deployed.files),
        here.compiler,
        deployed.compiler,
        notes,
    )


def _short(digest: str) -> str:
    """Enough of a digest to tell two apart, and the mark behind it."""
    return digest[:_SHORT] + digest[64:]


def _is_program(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith((b"#!", b"\x7fELF"))


def _libraries(
    mine: Mapping[str, object], theirs: Mapping[str, object]
) -> tuple[tuple[str, str | None, str | None], ...]:
    here, deployed = _versions(mine), _versions(theirs)
    return tuple(
        (name, here.get(name), deployed.get(name))
        for name in sorted(here.keys() | deployed.keys())
        if here.get(name) != deployed.get(name)
    )


def _versions(files: Mapping[str, object]) -> dict[str, str]:
    """Python packages by the names of their records, ``lib/<name>-<version>.dist-info/…``."""
    found = {}
    for name in files:
        parts = name.split("/")
        if len(parts) > 2 and parts[0] == LIBRARY_DIRECTORY and parts[1].endswith(".dist-info"):
            package, _, version = parts[1].removesuffix(".dist-info").rpartition("-")
            found[package] = version
    return found


def _flat(document: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": content for inner, content in value.items()}
        else:
            flat[name] = value
    return flat
