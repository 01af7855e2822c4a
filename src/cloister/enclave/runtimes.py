"""The runtimes that an iApp may ask for, as they are found inside the enclave: Python, which runs the agent too, and
Node where the host has it. A container image brings all that it runs on.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cloister.enclave.bundle import LIBRARY_TARGET, SOURCE_TARGET, Bundle
from cloister.enclave.causes import AppError, Cause
from cloister.enclave.filesystem import NODE_PREFIX, Mount, Root
from cloister.enclave.images.image import Image
from cloister.protocol.bundles import Language, Manifest

SUPPORT_TARGET = "/opt/cloister"
"""Where the sandbox shows the part of this package that an iApp may import: ``SUPPORT_ROOMS`` and ``cloister.errors``."""
SUPPORT_ROOMS = ("datasets", "iapp")
NODE_MODULES = "node_modules"
NODE_MODULES_TARGET = "/node_modules"
"""Where Node looks for packages last, from wherever a file of the iApp lies; for ``import`` there is no search path."""
NODE_PLACES = (f"{NODE_PREFIX}/bin/node", "/usr/bin/node", "/usr/local/bin/node")
_NODE_SECONDS = 20.0
_VERSION = re.compile(r"v([0-9]{1,3})\.[0-9]+\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """How to start an iApp. ``wide`` says that it reserves far more address space than it uses, so that only memory in
    use can be limited. ``arguments`` are for when the requester gives none. ``root`` is a file system of its own.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    mounts: tuple[Mount, ...]
    wide: bool = False
    arguments: tuple[str, ...] = ()
    directory: str = SOURCE_TARGET
    root: Root | None = None


def find_interpreter(app: Bundle | Image, support: tuple[Mount, ...]) -> Interpreter:
    """The runtime that the manifest asks for. ``support`` is what Python's iApps may import of this package.

    Raises:
        AppError: this enclave does not have it (``APP_RUNTIME_MISMATCH``).
    """
    if isinstance(app, Image):
        return _image(app, support)
    source = Mount(app.source, SOURCE_TARGET)
    match app.manifest.language:
        case Language.PYTHON:
            return _python(app, (source, *support))
        case Language.NODE:
            return _node(app, source)
        case Language.CONTAINER:
            raise AppError(Cause.APP_RUNTIME_MISMATCH, "the app asks for a container and is a bundle, not an image")


def _image(image: Image, support: tuple[Mount, ...]) -> Interpreter:
    return Interpreter(
        command=image.entrypoint,
        environment=image.environment,
        mounts=support if image.has_room(SUPPORT_TARGET) else (),
        wide=True,
        arguments=image.command,
        directory=image.directory,
        root=image.root,
    )


def _python(bundle: Bundle, support: tuple[Mount, ...]) -> Interpreter:
    here = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if bundle.manifest.runtime not in ("python3", here):
        raise _mismatch(bundle.manifest, here)
    library = (Mount(bundle.library, LIBRARY_TARGET),) if bundle.library.is_dir() else ()
    return Interpreter(
        command=(f"{sys.base_prefix}/bin/python3", "-s", "-B", f"{SOURCE_TARGET}/{bundle.manifest.entrypoint}"),
        environment={
            "PYTHONPATH": f"{LIBRARY_TARGET}:{SUPPORT_TARGET}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONNOUSERSITE": "1",
            "PYTHONHASHSEED": "0",
        },
        mounts=(*library, *support),
    )


def _node(bundle: Bundle, source: Mount) -> Interpreter:
    node = next((place for place in NODE_PLACES if Path(place).is_file()), None)
    if node is None:
        raise _mismatch(bundle.manifest, "no node")
    wanted = bundle.manifest.runtime.removeprefix("node")
    if wanted and wanted != (found := _node_version(node)):
        raise _mismatch(bundle.manifest, f"node{found}")
    modules = bundle.library / NODE_MODULES
    memory = bundle.manifest.resources.memory_mib
    return Interpreter(
        # V8 gives up by itself, and says so, before the watchdog has to end it.
        command=(
            node,
            f"--max-old-space-size={max(16, memory * 3 // 4)}",
            f"{SOURCE_TARGET}/{bundle.manifest.entrypoint}",
        ),
        environment={"NODE_ENV": "production", "NO_UPDATE_NOTIFIER": "1"},
        mounts=(source, Mount(modules, NODE_MODULES_TARGET)) if modules.is_dir() else (source,),
        wide=True,
    )


def _node_version(node: str) -> str:
    """The major version that a Node says it is; empty when it does not run."""
    try:
        done = subprocess.run(
            [node, "--version"],
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_NODE_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = _VERSION.fullmatch(done.stdout.strip())
    return match.group(1) if match else ""


def _mismatch(manifest: Manifest, here: str) -> AppError:
    return AppError(Cause.APP_RUNTIME_MISMATCH, f"the app needs {manifest.runtime} and this enclave has {here}")
