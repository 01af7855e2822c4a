"""podman and docker: what is here of them, and the command lines with which they start one container.

Nothing here starts anything. No image is ever pulled: podman gets a folder as its root, docker an image that was made from
the same folder.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cloister.errors import ConfigurationError, quoted
from cloister.worker.runtimes.oci_guard import LABEL

GVISOR = "runsc"
GVISOR_VERSION = "#1 SMP Sun Jan 10 15:06:54 PST 2016"
"""What gVisor's kernel says of itself in ``/proc/version``, in every release so far; the agent goes by the same words."""
CHANNEL_TARGET = "/run/cloister"
FOLDERS = ("dev", "etc", "jail", "opt", "proc", "run/cloister", "sys", "tmp", "usr", "var")
FILES = ("passwd", "group", "hostname", "hosts", "resolv.conf", "mtab")
"""What the root folder of an enclave is made of; the rest is mounted, and the engines mount over these files of ``/etc``."""
_GVISOR_CAPABILITIES = (
    *("SYS_ADMIN", "SYS_CHROOT", "SETUID", "SETGID", "SETPCAP", "KILL"),
    # To write and read what is the iApp's.
    *("CHOWN", "DAC_OVERRIDE", "FOWNER"),
)
"""What the agent needs of gVisor's kernel to build the inner sandbox. They mean nothing to this host's."""
_FIRST_USER = 1_900_000_000
_INNER_USER = 1000
_OPEN_FILES = 4096
_PROCESSES = 16_384
_HOST_TASKS = 16_384

Find = Callable[[str], str | None]
Run = Callable[[list[str]], tuple[int | None, str]]
"""Runs a command, and gives its exit code (None: it did not end) and its words."""


class Engine(StrEnum):
    """What starts containers."""

    PODMAN = "podman"
    DOCKER = "docker"


@dataclass(frozen=True, slots=True)
class Isolation:
    """An engine and the OCI runtime below it. ``program`` is the engine's path, ``runtime`` the name it knows the other by."""

    engine: Engine
    program: str
    runtime: str
    root: bool = True
    """Whether the engine is used by root; docker's always is."""

    @property
    def gvisor(self) -> bool:
        return self.runtime == GVISOR

    def __str__(self) -> str:
        return f"{self.engine.value} with {'gVisor (runsc)' if self.gvisor else self.runtime}"


@dataclass(frozen=True, slots=True)
class Container:
    """What to start. ``root`` is a folder (podman) or the digest of an image (docker); ``binds`` are source and target,
    read-only; sizes are bytes. ``trusted``: it is the agent, which gets what it needs to build its inner sandbox.
    """

    name: str
    root: str
    binds: tuple[tuple[str, str], ...]
    command: tuple[str, ...]
    scratch_bytes: int
    memory_bytes: int
    limited: bool = True
    trusted: bool = True
    user: int = field(default=_FIRST_USER)
    """The first of 65,536 user ids of this host that exist nowhere else; where there is no gVisor, and for podman's root."""


def find_isolations(find: Find, run: Run, *, root: bool) -> list[Isolation]:
    """What is here, the better first: gVisor before a plain kernel, podman before docker. ``find`` gives a program's path."""
    found: list[Isolation] = []
    podman = find("podman")
    if podman is not None:
        runtimes = [name for name in (GVISOR, "crun", "runc") if find(name) is not None]
        found += [Isolation(Engine.PODMAN, podman, name, root) for name in runtimes]
    docker = find("docker")
    if docker is not None:
        code, said = run([docker, "info", "--format", "{{range $name, $_ := .Runtimes}}{{$name}} {{end}}"])
        found += [
            Isolation(Engine.DOCKER, docker, name) for name in (GVISOR, "runc") if code == 0 and name in said.split()
        ]
    return sorted(found, key=lambda each: not each.gvisor)


def build_start(isolation: Isolation, container: Container) -> list[str]:
    """The command that starts a container, and stays for as long as it runs.

    Raises:
        ConfigurationError: a path that the engine cannot be told.
    """
    arguments = [isolation.program]
    if isolation.engine is Engine.PODMAN:
        arguments += ["--runtime", isolation.runtime]
        if isolation.gvisor:
            # The second: the one socket that is mounted may be connected to, and none be made.
            arguments += ["--runtime-flag", "network=none", "--runtime-flag", "host-uds=open"]
        arguments += ["run", "--http-proxy=false", "--no-hosts", "--read-only-tmpfs=false", "--systemd=false"]
    else:
        arguments += ["run", "--runtime", isolation.runtime, "--pull", "never"]
    arguments += ["--rm", "--name", container.name, "--label", LABEL, "--hostname", "enclave"]
    arguments += ["--network", "none", "--ipc", "none", "--log-driver", "none", "--read-only", "--stop-timeout", "0"]
    arguments += ["--security-opt", "no-new-privileges", "--cap-drop", "all"]
    arguments += _user(isolation, container)
    arguments += _limits(container)
    arguments += ["--tmpfs", f"/tmp:rw,nosuid,nodev,mode=1777,size={container.scratch_bytes}"]  # noqa: S108  its own
    for source, target in container.binds:
        if "," in source or "," in target:
            raise ConfigurationError(f"a comma in {quoted(source)}", hint="move it to a path without one")
        arguments += ["--mount", f"type=bind,source={source},target={target},readonly"]
    arguments += ["--workdir", "/tmp"]  # noqa: S108  the container's own
    if isolation.engine is Engine.PODMAN:
        arguments += ["--rootfs"]
    return [*arguments, container.root, *container.command]


def _user(isolation: Isolation, container: Container) -> list[str]:
    """Who it runs as, and with what rights over its own kernel."""
    if isolation.gvisor:
        # On this host, runsc runs it as nobody in a namespace without anything. Root is root of gVisor's kernel alone.
        rights = _GVISOR_CAPABILITIES if container.trusted else ()
        return ["--user", "0:0", *(word for name in rights for word in ("--cap-add", name))]
    # Nested user namespaces, mounts and a fresh /proc, for the agent's inner sandbox; the agent filters its own calls.
    options = ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
    if isolation.engine is Engine.DOCKER:
        user = container.user + _INNER_USER
        return [*options, "--security-opt", "systempaths=unconfined", "--user", f"{user}:{user}"]
    options += ["--security-opt", "unmask=ALL", "--user", f"{_INNER_USER}:{_INNER_USER}"]
    if isolation.root:
        mapping = f"0:{container.user}:65536"
        options += ["--uidmap", mapping, "--gidmap", mapping]
    return options


def _limits(container: Container) -> list[str]:
    """Of what the watchdog in the agent counts, a second line; and of what it cannot count, the only one."""
    options = ["--ulimit", "core=0:0"]
    for name, which, wanted in (
        ("nofile", resource.RLIMIT_NOFILE, _OPEN_FILES),
        ("nproc", resource.RLIMIT_NPROC, _PROCESSES),
    ):
        hard = resource.getrlimit(which)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        options += ["--ulimit", f"{name}={value}:{value}"]
    if container.limited:
        memory = str(container.memory_bytes)
        return [*options, "--memory", memory, "--memory-swap", memory, "--pids-limit", str(_HOST_TASKS)]
    return [*options, "--pids-limit", "-1"]  # without a word, podman sets one


def make_root(folder: Path, links: list[tuple[str, str]], targets: list[tuple[str, str]]) -> Path:
    """The root folder of enclaves: empty places for what is mounted, and the system's links. ``targets`` are sources and
    places of the mounts.
    """
    folder.mkdir(mode=0o755)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / "etc" / name).touch()
    (folder / "run" / ".containerenv").touch()
    for text, link in links:
        (folder / link.lstrip("/")).symlink_to(text)
    for source, target in targets:
        place = folder / target.lstrip("/")
        if Path(source).is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
    for place in (folder, *(path for path in folder.rglob("*") if not path.is_symlink())):
        place.chmod(0o755 if place.is_dir() else 0o644)  # whatever this process's umask is
    return folder
