"""What the agent forbids itself before it holds its first key."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct

from cloister.enclave.memory import lock_process
from cloister.enclave.seccomp import Profile, build_filter
from cloister.errors import LocalError

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_INSTRUCTION = 8


def harden() -> None:
    """No core dumps, no swap where the limit allows, no tracing by others of the same user, none of the kernel's
    dangerous doors. Of the network, which is empty, TCP is left until ``forbid_network``.

    Source: prctl(2), seccomp(2).

    Raises:
        LocalError: the kernel refused; an agent that is not hardened does not go on.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    lock_process()  # where it may not, keys are locked one by one all the same
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, _PR_SET_DUMPABLE, 0, 0)
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1, 0)
    _load_filter(libc, Profile.AGENT_START)


def forbid_network() -> None:
    """No sockets any more but local ones: the iApp names no hosts.

    Raises:
        LocalError: the kernel refused.
    """
    _load_filter(ctypes.CDLL(None, use_errno=True), Profile.AGENT)


def _load_filter(libc: ctypes.CDLL, profile: Profile) -> None:
    program = build_filter(profile, platform.machine())
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: count, padding, pointer.
    header = struct.pack("HxxxxxxP", len(program) // _INSTRUCTION, ctypes.addressof(code))
    holder = ctypes.create_string_buffer(header, len(header))
    _prctl(libc, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(holder))


def _prctl(libc: ctypes.CDLL, option: int, first: int, second: int) -> None:
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    if libc.prctl(ctypes.c_int(option), *arguments) != 0:
        raise LocalError(f"the kernel refused prctl option {option}: {os.strerror(ctypes.get_errno())}")
