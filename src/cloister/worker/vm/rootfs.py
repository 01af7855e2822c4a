"""What lies in the image: files of Debian packages, the agent, the Python libraries that it imports, and their bytecode.

No login, no init system, no network tool, no package manager. ``dash`` is there for iApps that call a shell; nothing
reaches it from outside.
"""

from __future__ import annotations

import base64
import hashlib
import lzma
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from cloister.errors import ConfigurationError, UnavailableError, VerificationError, quoted
from cloister.worker.runtimes.view import AGENT_PARTS
from cloister.worker.vm.packages import Package, package_files
from cloister.worker.vm.tree import Tree

PYTHON = "python3.11"
AGENT_TARGET = "opt/cloister-agent"
LIBRARY_TARGET = "opt/cloister-libraries"
MODULE_TARGET = "opt/cloister-modules"
DISTRIBUTIONS = ("cffi", "coincurve", "cryptography", "pycparser", "pycryptodome")
"""What the agent imports from outside the standard library, and what these import themselves."""
MODULES = ("configfs", "tsm", "tdx-guest", "sev-guest")
"""Kernel modules in the order in which they are loaded. Everything else that is needed is built into Debian's kernel."""
INIT = f"""#!/usr/bin/{PYTHON} -IB
import sys
sys.path[:0] = ["/{AGENT_TARGET}", "/{LIBRARY_TARGET}"]
from cloister.enclave.boot import main
main()
"""
_FOLDERS = ("dev", "newroot", "opt", "proc", "run", "sys")
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "usr/bin/python3": PYTHON}
_MERGED = ("bin", "sbin", "lib", "lib64")
_UNWANTED = (
    "etc",
    "usr/share",
    "usr/lib/binfmt.d",
    "usr/lib/sysctl.d",
    "usr/lib/systemd",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/x86_64-linux-gnu/audit",
    f"usr/lib/{PYTHON}/__phello__",
    f"usr/lib/{PYTHON}/idlelib",
    f"usr/lib/{PYTHON}/lib2to3",
    f"usr/lib/{PYTHON}/pydoc_data",
    f"usr/lib/{PYTHON}/turtledemo",
    f"usr/lib/{PYTHON}/sitecustomize.py",
    f"usr/lib/{PYTHON}/EXTERNALLY-MANAGED",
)
_LIBRARY_NOISE = tuple(
    f"Crypto/{part}" for part in ("Cipher", "IO", "Math", "Protocol", "PublicKey", "SelfTest", "Signature")
)
"""What nobody imports of a library whose hash functions are needed: every megabyte is measured at every boot."""
_NOISE_ENDINGS = (".pyi", ".pyc", ".rst", ".txt", ".h", ".c", "py.typed", "RECORD", "INSTALLER", "REQUESTED")
_MOST_FILE = 64 << 20
_COMPILE_SECONDS = 300.0

COMPILER = """
import importlib.util, marshal, pathlib, sys, _imp
root = pathlib.Path(sys.argv[1])
for line in sys.stdin.read().splitlines():
    path = root / line
    source = path.read_bytes()
    try:
        code = compile(source, "/" + line, "exec", dont_inherit=True, optimize=0)
    except SyntaxError:
        continue
    folder = path.parent / "__pycache__"
    folder.mkdir(exist_ok=True)
    head = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + importlib.util.source_hash(source)
    # Version 2 has no back references: these depend on who else holds an object, and so on chance.
    (folder / f"{path.stem}.{sys.implementation.cache_tag}.pyc").write_bytes(head + marshal.dumps(code, 2))
"""
"""Runs in the image's own interpreter: another one of the same minor version may make other bytecode."""


def build_tree(
    debs: Mapping[Package, Path], root: Path, lock: Mapping[str, str] | None = None
) -> tuple[Tree, bytes, dict[str, str]]:
    """The image's file tree, the kernel, and name -> SHA-256 of what came from this installation.

    ``root`` is the package folder of the installation whose agent goes in; ``lock`` what these names and digests must be.

    Raises:
        ConfigurationError: a library is missing here or for another Python. VerificationError: an installed file is
            not what its distribution's RECORD says, or differs from the lock, or a package has another form.
    """
    tree = Tree()
    inputs = _add_agent(tree, root) | _add_libraries(tree)
    if lock is not None:
        _check_lock(inputs, lock)
    kernel = b""
    for package in sorted(debs):
        if package.name.startswith("linux-image-"):
            kernel = _add_kernel(tree, debs[package])
        else:
            _add_package(tree, debs[package])
    if not kernel:
        raise VerificationError("there is no kernel among the packages")
    for name, target in _LINKS.items():
        tree.add_link(name, target)
    for name in _FOLDERS:
        tree.add_folder(name)
    tree.add_folder("tmp", 0o1777)
    _compile(tree)
    tree.add_file("init", INIT.encode(), executable=True)
    return tree, kernel, inputs


def installed_inputs(root: Path) -> dict[str, str]:
    """Name -> SHA-256 of what an image takes from this installation; raises as ``build_tree`` does."""
    tree = Tree()
    return _add_agent(tree, root) | _add_libraries(tree)


def _check_lock(files: Mapping[str, str], lock: Mapping[str, str]) -> None:
    for name in sorted(files.keys() | lock.keys()):
        if files.get(name) != lock.get(name):
            here = "another one here" if name in files and name in lock else "it is on one side only"
            raise VerificationError(
                f"{name} differs from the lock: {here}",
                hint="install the release that the lock was made with",
                code="lock-mismatch",
            )


def _add_kernel(tree: Tree, deb: Path) -> bytes:
    kernel, modules = b"", {}
    with package_files(deb) as members:
        for member, file in members:
            path = PurePosixPath(member.name)
            name = path.name.removesuffix(".xz").removesuffix(".ko")
            if file is None or member.size > _MOST_FILE:
                continue
            if path.name.startswith("vmlinuz-"):
                kernel = file.read()
            elif "modules" in path.parts and name in MODULES and ".ko" in path.name:
                content = file.read()
                # The signature is below the compression, and the kernel checks it when it loads the module.
                modules[name] = lzma.decompress(content) if path.suffix == ".xz" else content
    if missing := [name for name in MODULES if name not in modules]:
        raise VerificationError(f"{deb.name} has no kernel module {missing[0]}")
    for number, name in enumerate(MODULES):
        tree.add_file(f"{MODULE_TARGET}/{number}-{name}.ko", modules[name])
    return kernel


def _add_package(tree: Tree, deb: Path) -> None:
    with package_files(deb) as members:
        for member, file in members:
            name = _merged(member.name)
            if not name or member.isdir() or _is_below(name, _UNWANTED) or name.endswith(".rst"):
                continue
            if member.issym():
                tree.add_link(name, member.linkname)
            elif file is not None and member.size <= _MOST_FILE:
                tree.add_file(name, file.read(), executable=bool(member.mode & stat.S_IXUSR))
            else:
                raise VerificationError(
                    f"{quoted(member.name)} in {deb.name} is of a kind that the image does not take"
                )


def _merged(name: str) -> str:
    """A package's name in a file system where /bin, /lib and the like are links into /usr."""
    parts = PurePosixPath(name).parts
    if ".." in parts or name.startswith("/"):
        raise VerificationError(f"a package holds {quoted(name)}")
    return "/".join(("usr", *parts) if parts and parts[0] in _MERGED else parts)


def _is_below(name: str, folders: Iterable[str]) -> bool:
    return any(name == folder or name.startswith(f"{folder}/") for folder in folders)


def _add_agent(tree: Tree, root: Path) -> dict[str, str]:
    inputs = {}
    for part in AGENT_PARTS:
        place = root / part
        if not place.exists():
            raise ConfigurationError(f"{part}, a part of the agent, is missing", hint="install cloister again")
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            name = f"cloister/{path.relative_to(root).as_posix()}"
            content = path.read_bytes()
            tree.add_file(f"{AGENT_TARGET}/{name}", content)
            inputs[name] = hashlib.sha256(content).hexdigest()
    return inputs


def _add_libraries(tree: Tree) -> dict[str, str]:
    here = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if here != PYTHON:
        raise ConfigurationError(
            f"the image has {PYTHON} and the libraries here are for {here}",
            hint=f"build it from an environment of {PYTHON}",
        )
    inputs = {}
    for name in DISTRIBUTIONS:
        try:
            found = distribution(name)
        except PackageNotFoundError as error:
            raise ConfigurationError(f"{name} is not installed", hint="install cloister again") from error
        for file, content in _recorded_files(found):
            tree.add_file(f"{LIBRARY_TARGET}/{file}", content, executable=file.endswith(".so"))
            inputs[file] = hashlib.sha256(content).hexdigest()
    return inputs


def _recorded_files(found: Distribution) -> Iterable[tuple[str, bytes]]:
    """Name and content of what a distribution installed, each proved by its RECORD."""
    for file in sorted(found.files or (), key=str):
        name = file.as_posix()
        if (
            ".." in file.parts
            or _is_below(name, _LIBRARY_NOISE)
            or name.endswith(_NOISE_ENDINGS)
            or ".dist-info/" in name
        ):
            continue
        if file.hash is None or file.hash.mode != "sha256":
            raise VerificationError(f"{name} of {found.name} has no SHA-256 in its RECORD")
        content = Path(str(found.locate_file(file))).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        if digest != file.hash.value:
            raise VerificationError(
                f"{name} of {found.name} was changed after it was installed", hint=f"install {found.name} again"
            )
        yield name, content


def _compile(tree: Tree) -> None:
    """Add bytecode for every source file, made by the interpreter that will read it."""
    names = [name for name, _ in tree.files() if name.endswith(".py")]
    with tempfile.TemporaryDirectory(prefix="cloister-image-") as folder:
        root = Path(folder)
        tree.write_to(root)
        libraries = root / "usr/lib/x86_64-linux-gnu"
        python = root / "usr/bin" / PYTHON
        loader = [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries), "--argv0", str(python)]
        try:
            done = subprocess.run(
                [*loader, str(python), "-S", "-s", "-B", "-P", "-c", COMPILER, str(root)],
                input="\n".join(names),
                env={"PYTHONHASHSEED": "0", "PYTHONHOME": str(root / "usr"), "LC_ALL": "C"},
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_COMPILE_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"the image's own Python did not run here: {type(error).__name__}") from error
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise UnavailableError(f"the image's own Python did not compile it: {quoted(said[0])}")
        for name in names:
            source = PurePosixPath(name)
            cached = source.parent / "__pycache__" / f"{source.stem}.cpython-311.pyc"
            if (root / cached).is_file():
                tree.add_file(cached.as_posix(), (root / cached).read_bytes())
