"""The libraries of a Python iApp: exactly the wheels of the lock, unpacked and compiled the same way everywhere."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from cloister.enclave.bundle import LIBRARY_TARGET
from cloister.errors import QUOTE_CAP, InputError, UnavailableError, quoted
from cloister.generator.interpreters import Interpreter, find_interpreter, last_words, run_pip
from cloister.generator.sources import is_noise, walk

COMPILER_NAME = ".compiled-by"
"""A file of the bundle that says which Python compiled its libraries."""
_COMPILE_SECONDS = 1800
# The paths in these records are those of the building machine, and which records there are is up to pip's version.
_LIBRARY_NOISE = (
    "*.dist-info/RECORD",
    "*.dist-info/direct_url.json",
    "*.dist-info/REQUESTED",
    "*.dist-info/INSTALLER",
    "bin/*",
    "share/*",
    "etc/*",
    "include/*",
    "man/*",
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

_COMPILER = r"""
import importlib.util, marshal, pathlib, sys
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
    content = importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + marshal.dumps(code, 2)
    cached.write_bytes(content)
"""
"""Writes unchecked-hash compiled files (PEP 552): the enclave checks the digest of the whole bundle instead."""


class Install(Protocol):
    """Installs the libraries of a lock as ``install_packages`` does, and raises what it raises."""

    def __call__(
        self,
        lock: Path,
        library: Path,
        interpreter: Interpreter,
        exclude: tuple[str, ...],
        *,
        compiler: str | None = None,
    ) -> dict[str, Path]: ...


def install_packages(
    lock: Path, library: Path, interpreter: Interpreter, exclude: tuple[str, ...], *, compiler: str | None = None
) -> dict[str, Path]:
    """Install the wheels of ``lock`` into ``library`` and compile them; returns the files by their names in there.

    Nothing is built, so nothing of a dependency runs. ``compiler``: compile with exactly this Python (as
    :attr:`Interpreter.name` names it), whichever installs.

    Raises:
        InputError: the lock's hashes are not those of the packages, or a file of a package may not be in a bundle.
        UnavailableError: they cannot be had. NotFound: no such compiler.
    """
    compiling = interpreter if compiler is None else find_interpreter(interpreter.runtime, exactly=compiler)
    _install(lock, library, interpreter)
    for name, path in list(walk(library, library)):
        if any(fnmatchcase(name, pattern) for pattern in (*_LIBRARY_NOISE, *_TEST_SUITES, *exclude)):
            path.unlink()
    _compile(library, compiling)
    (library / COMPILER_NAME).write_text(compiling.name + "\n", "utf-8")
    return dict(_files(library, library))


def _install(lock: Path, library: Path, interpreter: Interpreter) -> None:
    command = ["install", "--quiet", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile"]
    done = run_pip(interpreter, [*command, "--target", str(library), "--requirement", str(lock)])
    if done.returncode == 0:
        library.mkdir(exist_ok=True)
        return
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr:
        reason = "a package does not match its hash"
    elif "No matching distribution found" in done.stderr:
        reason = f"{last_words(done)} ({interpreter.runtime} on this machine)"
    else:
        reason = last_words(done)
    raise UnavailableError(
        f"the dependencies in {lock} cannot be installed: {reason}",
        hint="lock them again where they are to run: cloister iapp lock",
    )


def _compile(library: Path, interpreter: Interpreter) -> None:
    # Sets in constants are laid out by string hashes: fix them. The folder is empty: a program given as text imports
    # from where it is started.
    with tempfile.TemporaryDirectory(prefix="cloister-compile-") as empty:
        try:
            done = subprocess.run(
                [interpreter.path, "-s", "-S", "-W", "ignore", "-c", _COMPILER, str(library), LIBRARY_TARGET],
                env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"},
                cwd=empty,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMPILE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"compiling took longer than {_COMPILE_SECONDS} seconds") from error
    if done.returncode != 0:
        raise InputError(f"the libraries do not compile: {quoted(done.stderr.strip()[-QUOTE_CAP:])}")


def _files(root: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file, compiled ones included, which :func:`walk` passes over."""
    yield from walk(root, folder)
    for cache in sorted(folder.rglob("__pycache__")):
        for path in sorted(cache.iterdir()):
            if path.suffix == ".pyc" and not is_noise(path.stem):
                yield path.relative_to(root).as_posix(), path
