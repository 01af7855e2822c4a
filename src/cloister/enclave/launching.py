"""The program that builds the inner sandbox: bubblewrap, or under gVisor, which has no ground for it, ``jail``."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cloister.enclave import jail
from cloister.enclave.causes import Cause, TaskError

GVISOR_VERSION = "#1 SMP Sun Jan 10 15:06:54 PST 2016"
"""What gVisor's kernel says of itself in ``/proc/version``, in every release so far."""
_VERSION = Path("/proc/version")


@dataclass(frozen=True, slots=True)
class Launcher:
    """How the sandbox is started. Both understand bubblewrap's options.

    The iApp's environment reaches either on a descriptor: an app chooses much of it, and the launcher itself, which runs
    outside the sandbox, would be moved by it. ``tree`` is where ``jail`` builds, None for bubblewrap.
    ``unlimited``: resource limits that this kernel does not know.
    """

    program: tuple[str, ...]
    tree: str | None = None
    unlimited: frozenset[int] = frozenset()

    def command(self, environment: Mapping[str, str], give: Callable[[bytes], str]) -> list[str]:
        """How it begins. ``give`` makes a descriptor, as text, from which its argument is read."""
        if self.tree is not None:
            return [*self.program, give(json.dumps(dict(environment)).encode())]
        words = ["--clearenv"]
        for name, value in environment.items():
            words += ["--setenv", name, value]
        return [*self.program, "--args", give("".join(f"{word}\0" for word in words).encode(errors="surrogateescape"))]

    def owner(self, user: int, group: int) -> tuple[int, int] | None:
        """What the agent gives an image's files to, for them to be this user's inside; None where they are so already."""
        return None if self.tree is None else jail.kernel_ids(user, group)

    def root(self, init: int) -> str:
        """Where the agent sees the iApp's files, when ``init`` is the sandbox's first process."""
        return f"/proc/{init}/root" if self.tree is None else self.tree


def find_launcher() -> Launcher:
    """What works here.

    Raises:
        TaskError: there is none.
    """
    if is_gvisor():
        # By its path and apart from everything: what is started here holds nothing of the agent.
        program = (sys.executable, "-I", "-S", "-B", jail.__file__)
        return Launcher(program, tree=jail.ROOT, unlimited=frozenset({resource.RLIMIT_MSGQUEUE}))
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise TaskError(Cause.SANDBOX_FAILED, "bubblewrap is missing inside the enclave")
    return Launcher((bwrap,))


def is_gvisor() -> bool:
    """Whether this kernel is gVisor's."""
    try:
        return GVISOR_VERSION in _VERSION.read_text()
    except OSError:
        return False


def open_exit_handle(pid: int, info: int) -> int:
    """A descriptor that is readable once the launcher ``pid`` has ended; the caller closes it.

    Where the kernel has no handles of processes, it is the reading end ``info`` of a pipe that the launcher holds open.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return os.dup(info)
