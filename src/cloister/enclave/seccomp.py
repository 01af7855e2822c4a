"""System call filters: a small assembler for seccomp's classic BPF, and the filters that are built with it.

``iapp``: what an iApp may not do. ``agent``: the same without the calls that the agent's own sandbox launcher needs. An
iApp whose manifest names hosts is held by ``iapp-online``, which leaves it TCP sockets and ``connect``: its network is the
enclave's own, where nobody is but the agent. A filter holds for all children, so the agent begins with ``agent-start``,
which leaves TCP too, and takes it from itself (``agent``) as soon as it knows that the iApp has no use for it.

Kernel interfaces whose bugs have broken sandboxes before, and every call newer than this table, are refused. An unknown
processor, or a call in another processor mode (i386, x32), ends the process.

Source: Linux uapi headers (linux/seccomp.h, linux/filter.h, asm/unistd.h), seccomp(2).
"""

from __future__ import annotations

import errno
import struct
import sys
from dataclasses import dataclass
from enum import StrEnum

from cloister.errors import ConfigurationError

_LOAD, _EQUAL, _GREATER, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NR, _ARCH, _ARG0, _ARG1, _ARG2 = 0, 4, 16, 24, 32
_X32_BIT = 0x40000000
_NEWEST_KNOWN = 462
"""mseal, Linux 6.10. From 424 on, all processors number their calls alike."""

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_STREAMS = (0x1, 0x801, 0x80001, 0x80801)
"""SOCK_STREAM, with and without SOCK_NONBLOCK and SOCK_CLOEXEC."""
_TCP, _TCP_ULP = 6, 31
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C


class Profile(StrEnum):
    """Whom a filter is for."""

    IAPP = "iapp"
    IAPP_ONLINE = "iapp-online"
    AGENT = "agent"
    AGENT_START = "agent-start"

    @property
    def is_iapp(self) -> bool:
        """Whether it is for an iApp."""
        return self in (Profile.IAPP, Profile.IAPP_ONLINE)

    @property
    def is_online(self) -> bool:
        """Whether it leaves TCP sockets."""
        return self in (Profile.IAPP_ONLINE, Profile.AGENT_START)


@dataclass(frozen=True, slots=True)
class _Architecture:
    audit: int
    column: int
    x32: bool


_ARCHITECTURES = {
    "x86_64": _Architecture(audit=0xC000003E, column=0, x32=True),
    "aarch64": _Architecture(audit=0xC00000B7, column=1, x32=False),
}

# Numbers: (x86_64, aarch64); None where the call does not exist.
_ALWAYS: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "syslog": (103, 116),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "personality": (135, 92),
    "vhangup": (153, 58),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "memfd_secret": (447, 447),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
}
# The agent's launcher (bubblewrap) needs these to build the inner sandbox; an iApp has no use for them.
_IAPP_ONLY: dict[str, tuple[int | None, int | None]] = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
}
_CONNECT = "connect"
_SOCKET, _SOCKETPAIR, _CLONE, _IOCTL, _SETSOCKOPT = (41, 198), (53, 199), (56, 220), (16, 29), (54, 208)
_CLONE3 = 435


class _Assembler:
    """Collects instructions; a jump names a label that is placed later, at most 255 instructions ahead."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str | None, str | None, int]] = []
        self._labels: dict[str, int] = {}

    def load(self, offset: int) -> None:
        self._code.append((_LOAD, None, None, offset))

    def jump(self, test: int, value: int, *, yes: str | None = None, no: str | None = None) -> None:
        self._code.append((test, yes, no, value))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def answer(self, action: int) -> None:
        self._code.append((_RETURN, None, None, action))

    def build(self) -> bytes:
        """Resolve the labels to ``struct sock_filter[]``."""
        out = bytearray()
        for position, (code, yes, no, value) in enumerate(self._code):
            jumps = [0 if label is None else self._labels[label] - position - 1 for label in (yes, no)]
            out += struct.pack("HBBI", code, *jumps, value)
        return bytes(out)


def build_filter(profile: Profile, machine: str) -> bytes:
    """Assemble the filter of ``profile`` for a machine as ``os.uname`` names it.

    Raises:
        ConfigurationError: no table for this processor.
    """
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None or sys.byteorder != "little":
        raise ConfigurationError(
            f"no system call table for processor {machine}", hint="run the worker on x86_64 or aarch64"
        )
    column = architecture.column
    code = _Assembler()
    code.load(_ARCH)
    code.jump(_EQUAL, architecture.audit, no="kill")
    code.load(_NR)
    if architecture.x32:
        code.jump(_GREATER_EQUAL, _X32_BIT, yes="kill")
    denied = dict(_ALWAYS)
    if profile.is_iapp:
        denied |= _IAPP_ONLY
        if profile.is_online:
            del denied[_CONNECT]
        # Its flags lie in memory, where a filter cannot read; C libraries fall back to clone.
        code.jump(_EQUAL, _CLONE3, yes="unknown")
    code.jump(_GREATER, _NEWEST_KNOWN, yes="unknown")
    for numbers in denied.values():
        number = numbers[column]
        if number is not None:
            code.jump(_EQUAL, number, yes="deny")
    code.jump(_EQUAL, _SOCKET[column], yes="socket")
    code.jump(_EQUAL, _SOCKETPAIR[column], yes="socketpair")
    code.jump(_EQUAL, _IOCTL[column], yes="ioctl")
    if profile.is_online:
        code.jump(_EQUAL, _SETSOCKOPT[column], yes="setsockopt")
    if profile.is_iapp:
        code.jump(_EQUAL, _CLONE[column], yes="clone")
    code.answer(_ALLOW)
    _append_argument_checks(code, profile)
    code.label("deny")
    code.answer(_ERRNO | errno.EPERM)
    code.label("no-network")
    code.answer(_ERRNO | errno.EACCES)
    code.label("unknown")
    code.answer(_ERRNO | errno.ENOSYS)
    code.label("kill")
    code.answer(_KILL)
    return code.build()


def _append_argument_checks(code: _Assembler, profile: Profile) -> None:
    code.label("socket")
    code.load(_ARG0)
    if not profile.is_iapp:
        # Bubblewrap brings up the loopback device of the empty network over netlink.
        code.jump(_EQUAL, _AF_NETLINK, yes="allow")
        code.jump(_EQUAL, _AF_UNIX, yes="allow")
    if profile.is_online:
        code.jump(_EQUAL, _AF_INET, yes="stream")
        code.jump(_EQUAL, _AF_INET6, yes="stream")
    code.jump(_GREATER_EQUAL, 0, yes="no-network")
    if profile.is_online:
        _append_stream_checks(code)
    code.label("socketpair")
    code.load(_ARG0)
    code.jump(_EQUAL, _AF_UNIX, yes="allow", no="no-network")
    code.label("ioctl")
    code.load(_ARG1)
    code.jump(_EQUAL, _TIOCSTI, yes="deny")
    code.jump(_EQUAL, _TIOCLINUX, yes="deny", no="allow")
    code.label("clone")
    code.load(_ARG0)
    code.jump(_ANY_BIT, _NEW_NAMESPACES, yes="deny")
    code.label("allow")
    code.answer(_ALLOW)


def _append_stream_checks(code: _Assembler) -> None:
    """TCP and nothing else: no datagrams, no raw sockets, no other protocol over streams, no protocol on top of TCP."""
    code.label("stream")
    code.load(_ARG1)
    for kind in _STREAMS:
        code.jump(_EQUAL, kind, yes="protocol")
    code.jump(_GREATER_EQUAL, 0, yes="no-network")
    code.label("protocol")
    code.load(_ARG2)
    code.jump(_EQUAL, 0, yes="allow")
    code.jump(_EQUAL, _TCP, yes="allow", no="no-network")
    code.label("setsockopt")
    code.load(_ARG1)
    code.jump(_EQUAL, _TCP, no="allow")
    code.load(_ARG2)
    code.jump(_EQUAL, _TCP_ULP, yes="deny", no="allow")
