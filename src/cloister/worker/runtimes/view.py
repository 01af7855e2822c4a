"""What an agent sees of this host, in a sandbox and in a container alike: the system's libraries, the Python runtime, the
few libraries that it uses and its own rooms of this package, all read-only.
"""

from __future__ import annotations

import compileall
import sys
import sysconfig
from pathlib import Path

from cloister.errors import ConfigurationError

AGENT_PARTS = (
    *("__init__.py", "errors.py", "version.py", "protocol", "sealing", "datasets", "attestation", "iapp", "enclave"),
)
SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime")
NODE_PREFIX = "/opt/node"
"""Where the agent looks for a Node of the operator's own (``enclave.filesystem``)."""
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
_PACKAGE_TARGET = "/opt/cloister-agent"
_LIBRARY_TARGET = "/opt/cloister-libraries"
_PACKAGE = Path(__file__).resolve().parent.parent.parent


def check_node(prefix: Path | None) -> Path | None:
    """The folder of an operator's own Node.

    Raises:
        ConfigurationError: there is none in it.
    """
    if prefix is None:
        return None
    if not (prefix / "bin" / "node").is_file():
        raise ConfigurationError(f"there is no bin/node in {prefix}", hint="name the folder of a Node release")
    return prefix.resolve()


def compile_agent() -> None:
    """Compile the agent once: it sees its own code read-only, and would do it anew at every start."""
    for name in AGENT_PARTS:
        path = _PACKAGE / name
        if path.is_dir():
            compileall.compile_dir(path, quiet=2)
        else:
            compileall.compile_file(path, quiet=2)


def system_links() -> list[tuple[str, str]]:
    """Text and place of the links in the root folder."""
    return [(str(Path(link).readlink()), link) for link in SYSTEM_LINKS if Path(link).is_symlink()]


def system_binds() -> list[tuple[str, str]]:
    """Source and target of what is the system's own."""
    folders = [(link, link) for link in SYSTEM_LINKS if Path(link).is_dir() and not Path(link).is_symlink()]
    files = [(str(Path(file).resolve()), file) for file in SYSTEM_FILES if Path(file).is_file()]
    return [("/usr", "/usr"), *folders, *files]


def own_binds(node_prefix: Path | None) -> list[tuple[str, str]]:
    """Source and target of everything that is not the system's own.

    Raises:
        ConfigurationError: a part is missing.
    """
    binds = [(str(_PACKAGE / name), f"{_PACKAGE_TARGET}/cloister/{name}") for name in AGENT_PARTS]
    binds += [(path, f"{_LIBRARY_TARGET}/{number}") for number, path in enumerate(_libraries())]
    prefix = Path(sys.base_prefix)
    if not prefix.is_relative_to("/usr"):
        binds.append((str(prefix), str(prefix)))
    if node_prefix is not None:
        binds.append((str(node_prefix), NODE_PREFIX))
    for source, _ in binds:
        if not Path(source).exists():
            raise ConfigurationError(f"{source}, a part of the agent, is missing", hint="install cloister again")
    return binds


def agent_command(channel: str, *, environment: dict[str, str] | None = None) -> list[str]:
    """How the agent is started inside. With ``environment``, that is all it has; else one variable is added to what it
    inherits.
    """
    path = ":".join([_PACKAGE_TARGET, *(f"{_LIBRARY_TARGET}/{number}" for number in range(len(_libraries())))])
    python = f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    # env sets the one variable after bubblewrap, which does not read it.
    settings = [] if environment is None else ["-i", *(f"{name}={value}" for name, value in environment.items())]
    options = ["-s", "-S", "-P", "-B", "-m", "cloister.enclave.agent", channel]
    return ["/usr/bin/env", *settings, f"PYTHONPATH={path}", python, *options]


def _libraries() -> list[str]:
    return list(dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib")))
