"""Proving that a deployed app is a given source: the source is built anew, and its digest is the one on chain.

What differs is told when it is not. What is proved is equality of code; whether the code does what its author says is for
a reader of the source, and that an enclave ran it is what a receipt proves.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloister.enclave.bundle import LIBRARY_DIRECTORY, Bundle, unpack_bundle
from cloister.errors import DecodeError, NotFound, VerificationError
from cloister.generator.archive import BuiltBundle
from cloister.generator.bundle import build_bundle
from cloister.generator.packages import COMPILER_NAME
from cloister.protocol.bundles import Language, Manifest
from cloister.protocol.codec import Bytes32

_COMPILER_CAP = 100
_SHORT = 16
_IMAGE_NOTE = (
    "a container image is compared as a whole: another base image behind the same tag, another program that builds, or "
    "anything that a RUN line fetches gives another digest"
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


def verify_source(
    folder: Path,
    checksum: Bytes32,
    fetch: Callable[[], Iterable[bytes]],
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Verification:
    """Build ``folder`` and compare it with the deployed bundle of ``checksum``, which ``fetch`` downloads: only where the
    digests differ, and then it is proved to be the deployed one before it is read.

    A bundle of another Python is built again with that Python where it is on this machine.

    Raises:
        VerificationError: what storage has is not what is deployed. DecodeError: what is deployed is no bundle.
        whatever ``build_bundle`` and ``fetch`` raise.
    """
    folder = folder.resolve()
    with tempfile.TemporaryDirectory(prefix="cloister-verify-") as temporary:
        work = Path(temporary)
        built = build_bundle(folder, work / "here.bundle", tell=tell)
        if built.digest == checksum:
            return Verification(checksum, built.digest)
        if built.manifest.language is Language.CONTAINER:
            return Verification(checksum, built.digest, notes=(_IMAGE_NOTE,))
        tell("the digests differ: fetching the deployed bundle to say what differs")
        deployed = _unpack(fetch(), work / "deployed", checksum)
        here = _unpack_built(built, work / "here")
        notes: list[str] = []
        compiler = _compiler(deployed)
        if compiler is not None and compiler != _compiler(here):
            tell(f"the deployed libraries were compiled by {compiler}: building again with it")
            try:
                built = build_bundle(
                    folder, work / "again.bundle", runtime=deployed.manifest.runtime, compiler=compiler
                )
            except NotFound as error:
                notes.append(f"{error.message}: its compiled libraries cannot be made here")
            else:
                if built.digest == checksum:
                    return Verification(checksum, built.digest, notes=(f"built with {compiler}",))
                here = _unpack_built(built, work / "again")
        return _compare(here, deployed, built, checksum, tuple(notes))


def compare_manifests(here: Manifest, deployed: Manifest) -> tuple[ManifestDifference, ...]:
    """The members that differ, those of ``resources`` one by one."""
    mine, theirs = _flat(here.to_json()), _flat(deployed.to_json())
    return tuple(
        ManifestDifference(name, mine.get(name), theirs.get(name))
        for name in sorted(mine.keys() | theirs.keys())
        if mine.get(name) != theirs.get(name)
    )


def _unpack(chunks: Iterable[bytes], staging: Path, checksum: Bytes32) -> Bundle:
    try:
        return unpack_bundle(chunks, staging, expected_digest=checksum.raw)
    except VerificationError as error:
        raise VerificationError(
            "storage does not hold what was deployed: its bytes have another digest than the one on chain",
            hint="ask the app's owner to deploy it again",
            code="bundle-digest",
        ) from error
    except DecodeError as error:
        raise DecodeError(
            f"what is deployed is no bundle: {error.message}", hint="cloister iapp show ADDRESS tells what it is"
        ) from error


def _unpack_built(built: BuiltBundle, staging: Path) -> Bundle:
    with built.path.open("rb") as file:
        return unpack_bundle(iter(lambda: file.read(1 << 20), b""), staging, expected_digest=built.digest.raw)


def _compare(
    here: Bundle, deployed: Bundle, built: BuiltBundle, checksum: Bytes32, notes: tuple[str, ...]
) -> Verification:
    mine, theirs = _files(here), _files(deployed)
    differences = []
    for name in sorted(mine.keys() | theirs.keys()):
        left, right = mine.get(name), theirs.get(name)
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
        built.digest,
        compare_manifests(here.manifest, deployed.manifest),
        tuple(differences),
        _libraries(mine, theirs),
        _compiler(here),
        _compiler(deployed),
        notes,
    )


def _files(bundle: Bundle) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of each file. Executable or not follows from the content where the bundle was built as here; in
    another's it may not, so it counts as content.
    """
    found = {}
    for path in bundle.root.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            status = path.stat()
            mark = "" if bool(status.st_mode & 0o100) == _is_program(path) else " (executable bit)"
            found[path.relative_to(bundle.root).as_posix()] = (status.st_size, digest + mark)
    return found


def _short(digest: str) -> str:
    """Enough of a digest to tell two apart, and the mark behind it."""
    return digest[:_SHORT] + digest[64:]


def _is_program(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith((b"#!", b"\x7fELF"))


def _compiler(bundle: Bundle) -> str | None:
    path = bundle.library / COMPILER_NAME
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return file.read(_COMPILER_CAP).decode("utf-8", "replace").strip()


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
