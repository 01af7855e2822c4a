"""Building a bundle: from a folder with ``iapp.toml`` to one file whose SHA-256 is the app's digest.

The digest depends on the author's files, the manifest, the lock and, where there are Python libraries, on the exact
version of the Python that compiled them and on the platform that their wheels are for; the bundle says which
(``lib/.compiled-by``). It does not depend on where the folder lies, on who owns it, on modes, times, locale, umask or
pip's version. ``enclave.bundle`` unpacks it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cloister.enclave.bundle import LIBRARY_DIRECTORY, MAX_BUNDLE, SOURCE_DIRECTORY, read_manifest
from cloister.enclave.runtimes import NODE_MODULES
from cloister.errors import InputError, NotFound, quoted
from cloister.generator import node_modules
from cloister.generator.archive import BuiltBundle, write_bundle
from cloister.generator.images import SUFFIX as IMAGE_SUFFIX
from cloister.generator.images import build_image, is_image, load_image
from cloister.generator.interpreters import find_interpreter
from cloister.generator.locking import lock_folder
from cloister.generator.packages import Install, install_packages
from cloister.generator.requirements import LOCK_NAME, load_lock, load_wanted
from cloister.generator.settings import SETTINGS_NAME, Settings, load_settings
from cloister.generator.sources import source_files
from cloister.protocol.bundles import Language, Manifest
from cloister.protocol.codec import Bytes32

__all__ = ["SUFFIX", "BuiltBundle", "Settings", "build_bundle", "load_digest", "load_manifest", "load_settings"]

SUFFIX = ".bundle"
_PIECE = 1 << 20


def build_bundle(
    folder: Path,
    output: Path | None = None,
    *,
    max_bytes: int = MAX_BUNDLE,
    tell: Callable[[str], None] = lambda _: None,
    runtime: str | None = None,
    compiler: str | None = None,
    install: Install = install_packages,
) -> BuiltBundle:
    """Build the iApp in ``folder`` into ``output`` (default ``build/<name>.bundle`` inside the folder).

    Dependencies that were never locked are locked first, and ``tell`` is told so; a lock that is there is never changed.
    ``runtime`` and ``compiler`` (such as ``python3.11`` and ``cpython 3.11.7``) ask for exactly the Python of an earlier
    build. A ``python3`` in the settings becomes the exact one in the manifest as soon as there are libraries, which are
    compiled for it; ``install`` puts them somewhere and names them.

    Raises:
        NotFound: no folder, settings, entry point or interpreter, or a Node package that is not installed. InputError:
        bad settings, a path or link that may not be in a bundle, a lock that does not lock or is older than what it
        locks. TooLarge: over ``max_bytes`` or 100,000 files. UnavailableError: the dependencies cannot be installed.
    """
    folder = folder.resolve()
    settings = load_settings(folder)
    manifest = settings.manifest
    if manifest.language is Language.CONTAINER:
        return build_image(folder, settings, output or folder / "build" / f"{manifest.name}{IMAGE_SUFFIX}")
    output = output or folder / "build" / f"{manifest.name}{SUFFIX}"
    node = manifest.language is Language.NODE
    members = {
        f"{SOURCE_DIRECTORY}/{name}": path for name, path in source_files(folder, node_modules.OUTSIDE if node else ())
    }
    if f"{SOURCE_DIRECTORY}/{manifest.entrypoint}" not in members:
        raise NotFound(
            f"the entry point {quoted(manifest.entrypoint)} is not in {folder}",
            hint=f"create the file, or name another one in {SETTINGS_NAME}",
        )
    if node:
        for name, path in node_modules.package_files(folder, settings.exclude):
            members[f"{LIBRARY_DIRECTORY}/{NODE_MODULES}/{name}"] = path
        return write_bundle(manifest, members, output, max_bytes)
    interpreter = find_interpreter(manifest.runtime if manifest.runtime != "python3" else runtime or "python3")
    if not _needs_packages(folder, tell):
        return write_bundle(manifest, members, output, max_bytes)
    with tempfile.TemporaryDirectory(prefix="cloister-bundle-") as temporary:
        library = Path(temporary) / LIBRARY_DIRECTORY
        packages = install(folder / LOCK_NAME, library, interpreter, settings.exclude, compiler=compiler)
        members |= {f"{LIBRARY_DIRECTORY}/{name}": path for name, path in packages.items()}
        return write_bundle(replace(manifest, runtime=interpreter.runtime), members, output, max_bytes)


def load_manifest(bundle: Path) -> Manifest:
    """Read the manifest of a bundle, or of the archive of an image, on disk.

    Raises:
        NotFound: no such file. DecodeError: neither.
    """
    try:
        if is_image(bundle):
            return load_image(bundle).manifest
        with bundle.open("rb") as file:
            return read_manifest(iter(lambda: file.read(_PIECE), b""))
    except FileNotFoundError as error:
        raise NotFound(f"no bundle at {bundle}") from error
    except OSError as error:
        raise InputError(f"{bundle} cannot be read: {error.strerror}") from error


def load_digest(bundle: Path) -> Bytes32:
    """The app's digest on chain: of a bundle the SHA-256 of the file, of an image's archive the digest of its manifest.

    Raises:
        NotFound: no such file. DecodeError: an archive without an image for this machine.
    """
    try:
        if is_image(bundle):
            return load_image(bundle).digest
        with bundle.open("rb") as file:
            return Bytes32.from_raw(hashlib.file_digest(file, "sha256").digest())
    except FileNotFoundError as error:
        raise NotFound(f"no bundle at {bundle}") from error


def _needs_packages(folder: Path, tell: Callable[[str], None]) -> bool:
    """Whether there are libraries to install; what was never locked is locked."""
    if not (folder / LOCK_NAME).is_file():
        if not load_wanted(folder):
            return False
        lock = lock_folder(folder)
        tell(f"locked {len(lock.packages)} packages in {lock.path}: keep it with the source")
    return bool(load_lock(folder))
