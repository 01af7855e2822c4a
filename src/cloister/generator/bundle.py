"""Building a bundle: from a folder with ``iapp.toml`` to one file whose SHA-256 is the app's digest.

The same folder, locked dependencies and Python version give the same bytes: entries are sorted, times and owners are
zero, modes are fixed, and compiled code carries no time. A Node iApp takes its installed ``node_modules`` along.
``enclave.bundle`` unpacks it.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from cloister.enclave.bundle import (
    LIBRARY_DIRECTORY,
    LIBRARY_TARGET,
    MAX_BUNDLE,
    MAX_FILES,
    SOURCE_DIRECTORY,
    SOURCE_TARGET,
    check_member_name,
    read_manifest,
)
from cloister.enclave.runtimes import NODE_MODULES
from cloister.errors import QUOTE_CAP, DecodeError, InputError, NotFound, TooLarge, UnavailableError, quoted
from cloister.generator import node_modules
from cloister.protocol.bundles import MANIFEST_NAME, Language, Manifest, Resources, build_manifest
from cloister.protocol.codec import Bytes32

SETTINGS_NAME = "iapp.toml"
REQUIREMENTS_NAME = "requirements.txt"
SUFFIX = ".bundle"

_SETTINGS_CAP = 64 << 10
_PIP_SECONDS = 1800
_COMPILE_SECONDS = 1800
_PIECE = 1 << 20
_OUTSIDE = ("build", "__pycache__", SETTINGS_NAME, REQUIREMENTS_NAME, "requirements.in")
"""What lies beside the code and is not part of it, at the top of the folder."""
_NOISE = ("__pycache__", "*.pyc", "*.pyo", "*.orig", "*~")
# The paths in these records are those of the building machine.
_LIBRARY_NOISE = (
    "*.dist-info/RECORD",
    "*.dist-info/direct_url.json",
    "*.dist-info/REQUESTED",
    "*.dist-info/INSTALLER",
    "bin/*",
    "share/*",
    # Sources of compiled modules and static libraries: for building against, not for running.
    "*.pyi",
    "*.pyx",
    "*.pxd",
    "*.pxi",
    "*.a",
)
# Test suites that are known not to be imported by the package itself; others stay, since some are.
_TEST_SUITES = (
    "pandas/tests/*",
    "pyarrow/tests/*",
    "pyarrow/include/*",
    "sklearn/*/tests/*",
    "sklearn/tests/*",
    "scipy/*/tests/*",
    "joblib/test/*",
    "matplotlib/tests/*",
    "mpl_toolkits/*/tests/*",
)


@dataclass(frozen=True, slots=True)
class BuiltBundle:
    """A bundle on disk. ``digest`` is its SHA-256: the app's on-chain checksum."""

    path: Path
    digest: Bytes32
    size: int
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Settings:
    """``iapp.toml``: the manifest, and ``exclude``, patterns of dependency files that the app does without."""

    manifest: Manifest
    exclude: tuple[str, ...] = ()


def load_settings(folder: Path) -> Settings:
    """Read ``iapp.toml``.

    Raises:
        NotFound: there is none. InputError: a missing, unknown or malformed setting.
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
    known = {"name", "version", "entrypoint", "runtime", "network", "purposes", "resources", "exclude"}
    for key in settings:
        if key not in known:
            raise InputError(f"{path}: unknown setting {quoted(key)}", hint=f"known are {', '.join(sorted(known))}")
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
    names = {"memory_mib", "disk_mib", "seconds", "processes"}
    if not isinstance(resources, dict) or not set(resources) <= names:
        raise InputError(f"{path}: resources may hold {', '.join(sorted(names))}")
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


def build_bundle(folder: Path, output: Path | None = None, *, max_bytes: int = MAX_BUNDLE) -> BuiltBundle:
    """Build the iApp in ``folder`` into ``output`` (default ``build/<name>.bundle`` inside the folder).

    Raises:
        NotFound: no folder, settings or entry point, or a Node package that is not installed. InputError: bad settings,
        a path or link that may not be in a bundle, requirements without hashes. TooLarge: over ``max_bytes`` or 100,000
        files. UnavailableError: the dependencies cannot be installed.
    """
    folder = folder.resolve()
    settings = load_settings(folder)
    manifest = settings.manifest
    output = output or folder / "build" / f"{manifest.name}{SUFFIX}"
    node = manifest.language is Language.NODE
    interpreter = "" if node else _find_interpreter(manifest.runtime)
    sources = dict(_source_files(folder, node_modules.OUTSIDE if node else ()))
    if manifest.entrypoint not in sources:
        raise NotFound(
            f"the entry point {quoted(manifest.entrypoint)} is not in {folder}",
            hint=f"create the file, or name another one in {SETTINGS_NAME}",
        )
    with tempfile.TemporaryDirectory(prefix="cloister-bundle-") as temporary:
        stage = Path(temporary)
        _copy_files(sources, stage / SOURCE_DIRECTORY)
        if node:
            packages = dict(node_modules.package_files(folder, settings.exclude))
            _copy_files(packages, stage / LIBRARY_DIRECTORY / NODE_MODULES)
            return _write(stage, manifest, output, max_bytes)
        requirements = folder / REQUIREMENTS_NAME
        if requirements.is_file() and _needs_anything(requirements):
            library = stage / "site"
            _install(requirements, library, interpreter)
            _copy_files(dict(_library_files(library, settings.exclude)), stage / LIBRARY_DIRECTORY)
            shutil.rmtree(library)
        _compile(stage, interpreter)
        return _write(stage, manifest, output, max_bytes)


def load_manifest(bundle: Path) -> Manifest:
    """Read the manifest of a bundle on disk.

    Raises:
        NotFound: no such file. DecodeError: not a bundle.
    """
    try:
        with bundle.open("rb") as file:
            return read_manifest(iter(lambda: file.read(_PIECE), b""))
    except FileNotFoundError as error:
        raise NotFound(f"no bundle at {bundle}") from error
    except OSError as error:
        raise InputError(f"{bundle} cannot be read: {error.strerror}") from error


def _find_interpreter(runtime: str) -> str:
    """The Python that compiles and resolves wheels: it must be the one that runs the app in the enclave."""
    own = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if runtime in ("python3", own):
        return sys.executable
    found = shutil.which(runtime)
    if found is None:
        raise NotFound(f"{runtime}, which the app asks for, is not installed", hint=f"install it, or ask for {own}")
    return found


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file below ``root`` with its relative name; links and special files are refused."""
    for directory, names, files in os.walk(root, followlinks=False):
        here = Path(directory)
        for name in sorted(names + files):
            path = here / name
            relative = path.relative_to(root).as_posix()
            if path.is_symlink():
                raise InputError(f"{quoted(relative)} is a symbolic link", hint="a bundle holds files only: copy it")
            if path.is_file():
                yield relative, path
            elif not path.is_dir():
                raise InputError(f"{quoted(relative)} is neither a file nor a folder")
        hidden = [name for name in names if here == root and name.startswith(".")]
        names[:] = [name for name in names if name != "__pycache__" and name not in hidden]


def _source_files(folder: Path, outside: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name, path in _walk_sources(folder, (*_OUTSIDE, *outside)):
        try:
            check_member_name(name)
        except DecodeError as error:
            raise InputError(error.message) from error
        yield name, path


def _walk_sources(folder: Path, outside: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for entry in sorted(folder.iterdir()):
        if entry.name in outside or entry.name.startswith(".") or _is_noise(entry.name):
            continue
        if entry.is_symlink():
            raise InputError(f"{quoted(entry.name)} is a symbolic link", hint="a bundle holds files only: copy it")
        if entry.is_file():
            yield entry.name, entry
        elif entry.is_dir():
            for name, path in _walk(entry):
                if not _is_noise(name):
                    yield f"{entry.name}/{name}", path


def _library_files(library: Path, exclude: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    patterns = (*_LIBRARY_NOISE, *_TEST_SUITES, *exclude)
    for name, path in _walk(library):
        if not _is_noise(name) and not any(fnmatch(name, pattern) for pattern in patterns):
            yield name, path


def _is_noise(name: str) -> bool:
    return any(fnmatch(part, pattern) for part in name.split("/") for pattern in _NOISE)


def _copy_files(files: dict[str, Path], target: Path) -> None:
    for name, path in files.items():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _needs_anything(requirements: Path) -> bool:
    lines = [line.strip() for line in requirements.read_text("utf-8").splitlines()]
    return any(line and not line.startswith("#") for line in lines)


def _install(requirements: Path, library: Path, interpreter: str) -> None:
    """Install exactly the locked wheels; nothing is built, so nothing of a dependency runs."""
    if "--hash=" not in requirements.read_text("utf-8"):
        raise InputError(
            f"{requirements} has no hashes",
            hint="lock it: pip-compile --generate-hashes requirements.in",
        )
    command = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile", "--target", str(library)]
    try:
        done = subprocess.run(
            [*command, "--requirement", str(requirements)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"installing {requirements} took longer than {_PIP_SECONDS} seconds") from error
    if done.returncode != 0:
        told = [line for line in done.stderr.splitlines() if line.strip()]
        wrong_hash = "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
        reason = "a package does not match its hash" if wrong_hash else quoted(told[-1] if told else "no reason given")
        raise UnavailableError(f"the dependencies in {requirements} cannot be installed: {reason}")


_COMPILER = r"""
import importlib.util, marshal, pathlib, sys, _imp
root, target = pathlib.Path(sys.argv[1]), sys.argv[2]
for path in sorted(root.rglob("*.py")):
    source = path.read_bytes()
    try:
        code = compile(source, target + "/" + path.relative_to(root).as_posix(), "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        continue
    cached = pathlib.Path(importlib.util.cache_from_source(str(path)))
    cached.parent.mkdir(exist_ok=True)
    flags = (0b01).to_bytes(4, "little")
    # Version 2 of the format has no back references, whose presence depends on counts of the building process.
    cached.write_bytes(importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + marshal.dumps(code,
    2))
"""
"""Writes unchecked-hash compiled files (PEP 552): the enclave checks the digest of the whole bundle instead."""


def _compile(stage: Path, interpreter: str) -> None:
    # Sets in constants are laid out by string hashes: fix them.
    environment = {"PYTHONHASHSEED": "0", "PATH": os.environ.get("PATH", "")}
    for directory, target in ((SOURCE_DIRECTORY, SOURCE_TARGET), (LIBRARY_DIRECTORY, LIBRARY_TARGET)):
        if not (stage / directory).is_dir():
            continue
        done = subprocess.run(
            [interpreter, "-s", "-S", "-P", "-W", "ignore", "-c", _COMPILER, str(stage / directory), target],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMPILE_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise InputError(f"the code does not compile: {quoted(done.stderr.strip()[-QUOTE_CAP:])}")


def _write(stage: Path, manifest: Manifest, output: Path, max_bytes: int) -> BuiltBundle:
    """Write the archive beside its final name, then rename: a bundle is whole or not there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    members = sorted(
        (name, path)
        for directory in (LIBRARY_DIRECTORY, SOURCE_DIRECTORY)
        if (stage / directory).is_dir()
        for path in (stage / directory).rglob("*")
        if path.is_file()
        for name in [path.relative_to(stage).as_posix()]
    )
    if len(members) + 1 > MAX_FILES:
        raise TooLarge(f"the bundle has {len(members) + 1} files; at most {MAX_FILES}")
    total = sum(path.stat().st_size for _, path in members)
    _check_size(total, max_bytes)
    descriptor, name = tempfile.mkstemp(prefix=f".{output.name}-", dir=output.parent)
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            _write_archive(file, build_manifest(manifest), members)
            file.flush()
            size = file.tell()
            _check_size(size, max_bytes)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").digest()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(output)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return BuiltBundle(output, Bytes32.from_raw(digest), size, manifest)


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise TooLarge(f"the bundle has {size} bytes; at most {max_bytes}")


def _write_archive(file: IO[bytes], manifest: bytes, members: list[tuple[str, Path]]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(_entry(MANIFEST_NAME, len(manifest), executable=False), io.BytesIO(manifest))
        for name, path in members:
            with path.open("rb") as content:
                status = os.fstat(content.fileno())
                entry = _entry(name, status.st_size, executable=bool(status.st_mode & 0o100))
                try:
                    archive.addfile(entry, content)
                except ValueError as error:
                    raise InputError(f"{quoted(name)} is too long a path for a bundle") from error


def _entry(name: str, size: int, *, executable: bool) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o755 if executable else 0o644
    return entry
