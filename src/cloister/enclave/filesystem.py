"""What an iApp sees of the file system: the arguments with which bubblewrap builds it.

An app that is a container image brings a root of its own (``Root``): memory of its size and the app's disk, which the agent
fills before the app begins and in which the app may write.

A read-only root with the Python runtime and the system's libraries, the bundle, the inputs; a fresh ``/proc`` of its
own processes; and three size-capped writable places: ``/iexec_out``, ``/tmp`` and ``/dev/shm``.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime")
SHARED_MEMORY_BYTES = 64 << 20
OUTPUT = "/iexec_out"
NODE_PREFIX = "/opt/node"
"""Where an operator's own Node is shown; one that is installed in ``/usr`` is seen there."""
SCRATCH = "/tmp"  # noqa: S108  # the sandbox's own, empty and private


@dataclass(frozen=True, slots=True)
class Mount:
    """``source`` as the agent sees it, read-only at ``target`` in the sandbox."""

    source: Path
    target: str


class Root(Protocol):
    """A root file system of the iApp's own, in place of the enclave's."""

    @property
    def size(self) -> int:
        """Bytes of memory that it takes."""
        ...

    @property
    def user(self) -> int:
        """The user id that the iApp has in it."""
        ...

    @property
    def group(self) -> int: ...

    @property
    def entries(self) -> int:
        """How many files, folders and links it has."""
        ...

    def write(self, root: int, *, owner: tuple[int, int] | None) -> None:
        """Write it into the folder of this descriptor, once. ``owner``: the user and group that it
        is given to, where they are others than the agent's own. May raise OSError.
        """
        ...


def system_arguments() -> list[str]:
    """Bind the system's libraries and the runtimes, read-only."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for link in SYSTEM_LINKS:
        path = Path(link)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), link]
        elif path.is_dir():
            arguments += ["--ro-bind", link, link]
    for file in SYSTEM_FILES:
        if Path(file).is_file():
            arguments += ["--ro-bind", str(Path(file).resolve()), file]
    prefix = Path(sys.base_prefix)
    if not prefix.is_relative_to("/usr"):
        arguments += ["--ro-bind", str(prefix), str(prefix)]
    if Path(NODE_PREFIX).is_dir():
        arguments += ["--ro-bind", NODE_PREFIX, NODE_PREFIX]
    return arguments


def masked_directories() -> list[str]:
    """Packages and certificate authorities that the host happens to have: not measured, so an iApp must not see them."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    names = {f"{sys.base_prefix}/lib/{version}/site-packages", "/usr/lib/python3/dist-packages"}
    names |= {f"/usr/local/lib/{version}/dist-packages", f"/usr/local/lib/{version}/site-packages"}
    names |= {f"{prefix}/lib/node_modules" for prefix in ("/usr", "/usr/local", NODE_PREFIX)}
    names |= {"/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/usr/share/pki"}
    return sorted(name for name in names if Path(name).is_dir())


def can_mount_proc() -> bool:
    """Whether a fresh ``/proc`` may be mounted in a user namespace here.

    The kernel allows it only where the present one is not covered in part; a container's usually is. An iApp then runs
    without any.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    points = [line.split(" ")[4] for line in mounts if len(line.split(" ")) > 4]
    return "/proc" in points and not any(point.startswith("/proc/") for point in points)


def root_arguments(root: Root, disk_bytes: int) -> list[str]:
    """Mount an empty root that holds ``root`` and ``disk_bytes`` more."""
    return ["--perms", "0755", "--size", str(root.size + disk_bytes), "--tmpfs", "/"]


def writable_arguments(disk_bytes: int, *, scratch: bool = True) -> list[str]:
    """Mount the writable places. Without ``scratch`` the root is one of them, and ``/tmp`` lies there."""
    arguments = ["--dev", "/dev"]
    places = [("/dev/shm", SHARED_MEMORY_BYTES), (OUTPUT, disk_bytes)]  # noqa: S108
    for target, size in (*places, *([(SCRATCH, disk_bytes)] if scratch else [])):
        arguments += ["--perms", "0700", "--size", str(size), "--tmpfs", target]
    return [*arguments, "--remount-ro", "/dev"]


class FileCount:
    """How many files an iApp made in a file system of its own. Some kernels (gVisor) do not count; there they are looked for,
    in every twentieth call, and up to ``at_most``.
    """

    def __init__(self, *, at_most: int) -> None:
        self._at_most = at_most
        self._calls: dict[int, int] = {}
        self._found: dict[int, int] = {}

    def count(self, handle: int) -> int:
        """Files and folders below the directory ``handle``, the root of its file system."""
        usage = os.fstatvfs(handle)
        if usage.f_files:
            return usage.f_files - usage.f_ffree
        calls = self._calls[handle] = self._calls.get(handle, -1) + 1
        if calls % 20 == 0:
            self._found[handle] = self._look(handle, self._at_most)
        return self._found[handle]

    def _look(self, handle: int, room: int) -> int:
        count = 0
        with os.scandir(handle) as entries:
            for entry in entries:
                count += 1
                if count >= room:
                    break
                if entry.is_dir(follow_symlinks=False):
                    # What is gone by now is not counted; what has become a link is not followed.
                    with suppress(OSError):
                        below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
                        try:
                            count += self._look(below, room - count)
                        finally:
                            os.close(below)
        return count
