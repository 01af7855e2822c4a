"""The launcher of the inner sandbox under gVisor: it takes bubblewrap's command line, and does with it what gVisor's
kernel can.

Run as a program of its own, ``jail.py ENVIRONMENT_FD [bubblewrap's options] -- COMMAND``, so that nothing of the agent's
memory is in it. ``ENVIRONMENT_FD`` has the iApp's environment as a JSON object; its own is empty.

gVisor of 2022 has no bubblewrap's ground: ``mount`` in a user namespace is refused, mounts cannot be made private or
read-only again, there is no ``pivot_root``. What it has is enough for the same walls by other means:

| bubblewrap | here |
|---|---|
| user namespace | a user id of its own, no capability, ``no_new_privs``, the same filter; for root of an image, that too |
| mount namespace and ``pivot_root`` | a fresh tree and ``chroot``; no descriptor leads out of it |
| remount read-only | what is read-only belongs to root, and what others may write there is taken from them |
| pid, ipc, uts, network namespaces | the same |

Standard library only, none of this package. An option that it does not know is refused.

Source: bwrap(1), mount(2), pid_namespaces(7), credentials(7).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import stat
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NoReturn

ROOT = "/jail"
"""Where the tree of the iApp is built: an empty folder of the enclave's read-only root."""
MAPPED = 100_000
"""What this kernel knows an iApp's user or group 0 as; to the iApp it is 0."""
SCRATCH = "/tmp"  # noqa: S108  # the enclave's own memory

_NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_PID, _NEW_NET = 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_BIND = 1, 2, 4, 8, 32, 4096
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 24, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITIES = 41
_CAPABILITY_VERSION = 0x20080522
_INSTRUCTION = 8
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_MAX_LINKS = 40
_HANDLES = 1024
_NAMESPACES = {
    "--unshare-all": _NEW_NET | _NEW_PID | _NEW_IPC | _NEW_UTS,
    "--unshare-net": _NEW_NET,
    "--unshare-pid": _NEW_PID,
    "--unshare-ipc": _NEW_IPC,
    "--unshare-uts": _NEW_UTS,
    # Users are told apart by their ids, and control groups are not to be seen.
    "--unshare-user": 0,
    "--unshare-cgroup": 0,
}
_WITH_ONE = ("--tmpfs", "--dev", "--proc", "--remount-ro", "--dir")
_WITH_TWO = ("--ro-bind", "--symlink", "--ro-bind-data")

_libc = ctypes.CDLL(None, use_errno=True)


class JailError(Exception):
    """Why the sandbox cannot be built; its text goes to stderr."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to put into the tree. ``mode`` and ``size`` are those given before it."""

    what: str
    arguments: tuple[str, ...]
    mode: int = 0o755
    size: int | None = None

    @property
    def target(self) -> str:
        return self.arguments[-1]


@dataclass(slots=True)
class Plan:
    """A command line, understood."""

    user: int = -1
    group: int = -1
    namespaces: int = 0
    hostname: str | None = None
    directory: str = "/"
    info: int | None = None
    filter: int | None = None
    gate: int | None = None
    """It waits for a byte there before it becomes the command."""
    dies_with_parent: bool = False
    new_session: bool = False
    own: list[int] = field(default_factory=list)
    """Descriptors that are not for the command."""
    steps: list[Step] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    @property
    def owner(self) -> tuple[int, int]:
        """User and group as this kernel knows them."""
        return kernel_ids(self.user, self.group)


def kernel_ids(user: int, group: int) -> tuple[int, int]:
    """What the agent must give a file to, for it to be this user's and group's in the sandbox."""
    return user or MAPPED, group or MAPPED


def parse_plan(arguments: list[str]) -> Plan:
    """Understand bubblewrap's options.

    Raises:
        JailError: one is unknown, lacks its value, or what must be said is not.
    """
    plan, mode, size = Plan(), None, None
    words = iter(arguments)
    for word in words:
        if word == "--":
            plan.command = list(words)
        elif word in _NAMESPACES:
            plan.namespaces |= _NAMESPACES[word]
        elif word == "--share-net":
            plan.namespaces &= ~_NEW_NET
        elif word == "--die-with-parent":
            plan.dies_with_parent = True
        elif word == "--new-session":
            plan.new_session = True
        elif word == "--perms":
            mode = int(_next(words, word), 8)
        elif word == "--size":
            size = int(_next(words, word))
        elif word in (*_WITH_ONE, *_WITH_TWO):
            count = 2 if word in _WITH_TWO else 1
            plan.steps.append(Step(word, tuple(_next(words, word) for _ in range(count)), mode or 0o755, size))
            mode = size = None
        else:
            _set_value(plan, word, words)
    if not plan.command or plan.user < 0 or plan.group < 0 or not plan.namespaces & _NEW_PID:
        raise JailError("a command, a user, a group, and a pid namespace must be given")
    return plan


def _set_value(plan: Plan, word: str, words: Iterator[str]) -> None:
    match word:
        case "--uid":
            plan.user = int(_next(words, word))
        case "--gid":
            plan.group = int(_next(words, word))
        case "--hostname":
            plan.hostname = _next(words, word)
        case "--chdir":
            plan.directory = _next(words, word)
        case "--info-fd":
            plan.info = int(_next(words, word))
        case "--block-fd":
            plan.gate = int(_next(words, word))
        case "--cap-drop":
            _next(words, word)  # all are, always
        case "--seccomp":
            plan.filter = int(_next(words, word))
        case _:
            raise JailError(f"unknown option {word}")


def _next(words: Iterator[str], option: str) -> str:
    try:
        return next(words)
    except StopIteration:
        raise JailError(f"{option} lacks a value") from None


def build_tree(plan: Plan, root: str = ROOT) -> None:
    """Put every step of the plan under ``root``, in order. In the new pid namespace, as ``/proc`` shows it.

    Raises:
        JailError: a step cannot be done.
    """
    sealed = {step.target for step in plan.steps if step.what == "--remount-ro"}
    _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=16777216")
    for step in plan.steps:
        place = find_place(root, step.target)
        match step.what:
            case "--ro-bind":
                _bind_read_only(step.arguments[0], place)
            case "--ro-bind-data":
                _write_file(place, int(step.arguments[0]))
            case "--symlink":
                os.makedirs(os.path.dirname(place), exist_ok=True)  # noqa: PTH103, PTH120  # starts with few modules
                os.symlink(step.arguments[0], place)  # noqa: PTH211
            case "--tmpfs":
                _mount_memory(step, place, plan, writable=step.target not in sealed)
            case "--dir":
                _make_folder(place)
            case "--dev":
                _mount_devices(place)
            case "--proc":
                _make_folder(place)
                _mount("proc", place, "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
            case "--remount-ro":
                pass  # done by ownership, see above


def find_place(root: str, target: str) -> str:
    """Where ``target`` of the tree is, seen from outside. Links are followed as they would be inside it, so that a tree
    of a stranger's making leads nowhere else.

    Raises:
        JailError: it is not absolute, or its links do not end.
    """
    if not target.startswith("/"):
        raise JailError(f"{target} is not absolute")
    left, found, links = target.split("/")[::-1], "", 0
    while left:
        name = left.pop()
        if name in ("", "."):
            continue
        if name == "..":
            found = found.rpartition("/")[0]
            continue
        place = f"{root}{found}/{name}"
        if not os.path.islink(place):  # noqa: PTH114
            found = f"{found}/{name}"
            continue
        links += 1
        if links > _MAX_LINKS:
            raise JailError(f"the links of {target} do not end")
        text = os.readlink(place)  # noqa: PTH115
        if text.startswith("/"):
            found = ""
        left += text.split("/")[::-1]
    return root + found


def _bind_read_only(source: str, place: str) -> None:
    folder = os.path.isdir(source)  # noqa: PTH112
    _make_folder(place if folder else os.path.dirname(place))  # noqa: PTH120
    if not folder and not os.path.exists(place):  # noqa: PTH110
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644))
    if source.startswith(SCRATCH + "/"):
        # The agent's own memory. Everything else comes read-only from the host.
        _show_only(source)
    _mount(source, place, None, _MS_BIND)
    flags = _MS_BIND | _MS_REMOUNT | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    _libc.mount(None, place.encode(), None, ctypes.c_ulong(flags), None)  # newer gVisor does; older refuses


def _show_only(path: str) -> None:
    """Let others than the owner read, and not write, what lies there."""
    places = [path]
    if os.path.isdir(path):  # noqa: PTH112
        for folder, folders, files in os.walk(path):
            places += [f"{folder}/{name}" for name in (*folders, *files)]
    for place in places:
        mode = os.lstat(place).st_mode
        if stat.S_ISLNK(mode):
            continue
        run = 0o555 if stat.S_ISDIR(mode) or mode & 0o100 else 0o444
        os.chmod(place, (stat.S_IMODE(mode) & 0o700) | run)  # noqa: PTH101


def _write_file(place: str, descriptor: int) -> None:
    content = _read_all(descriptor)
    _make_folder(os.path.dirname(place))  # noqa: PTH120
    handle = os.open(place, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    os.write(handle, content)
    os.close(handle)


def _mount_memory(step: Step, place: str, plan: Plan, *, writable: bool) -> None:
    _make_folder(place)
    options = f"mode={step.mode:04o}" if writable else "mode=0755"
    if writable:
        options += ",uid={},gid={}".format(*plan.owner)
    options += f",size={4096 if step.size is None else step.size}"
    _mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV, options)


def _mount_devices(place: str) -> None:
    _make_folder(place)
    _mount("tmpfs", place, "tmpfs", _MS_NOSUID, "mode=0755,size=65536")
    for name in _DEVICES:
        if os.path.exists(f"/dev/{name}"):  # noqa: PTH110
            os.close(os.open(f"{place}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
            _mount(f"/dev/{name}", f"{place}/{name}", None, _MS_BIND)
    for name, text in _DEVICE_LINKS.items():
        os.symlink(text, f"{place}/{name}")  # noqa: PTH211
    _make_folder(f"{place}/shm")


def _make_folder(place: str) -> None:
    os.makedirs(place, mode=0o755, exist_ok=True)  # noqa: PTH103


def _mount(source: str, place: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [None if text is None else text.encode() for text in (source, place, kind, options)]
    if _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]) != 0:
        raise JailError(f"cannot mount {source} at {place}: {_reason()}")


def _reason() -> str:
    return os.strerror(ctypes.get_errno())


def _read_all(descriptor: int) -> bytes:
    content = b""
    while data := os.read(descriptor, 1 << 16):
        content += data
    return content


def run(arguments: list[str]) -> int:
    """Build the sandbox, run the command in it, return how it ended: its exit code, or 128 and the signal."""
    os.umask(0o022)
    environment: dict[str, str] = json.loads(_read_all(int(arguments[0])))
    plan = parse_plan(arguments[1:])
    plan.own += [int(step.arguments[0]) for step in plan.steps if step.what == "--ro-bind-data"]
    plan.own += [int(arguments[0]), *(handle for handle in (plan.info, plan.filter, plan.gate) if handle is not None)]
    program = b"" if plan.filter is None else _read_all(plan.filter)
    if plan.dies_with_parent:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if _libc.unshare(ctypes.c_int(plan.namespaces)) != 0:
        raise JailError(f"no namespaces: {_reason()}")
    if plan.hostname is not None and plan.namespaces & _NEW_UTS:
        _libc.sethostname(plan.hostname.encode(), len(plan.hostname))
    built, building = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(built)
        _as_child(lambda: _init(plan, environment, program, building))
    os.close(building)
    # Who hears of the process may look at its tree.
    if plan.info is not None and os.read(built, 1):
        # Open as long as this program runs: where there are no handles of processes, its end tells of theirs.
        os.write(plan.info, json.dumps({"child-pid": init}).encode())
    # The iApp's pipes are the iApp's: when its processes close them, they are closed.
    for handle in range(_HANDLES):
        if handle not in (2, plan.info):
            with suppress(OSError):
                os.close(handle)
    return _wait_for(init)


def _init(plan: Plan, environment: dict[str, str], program: bytes, building: int) -> int:
    """The first process of the namespace: all others end with it."""
    if plan.dies_with_parent:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    build_tree(plan)
    os.write(building, b"\n")
    os.close(building)
    child = os.fork()
    if child == 0:
        _as_child(lambda: _become(plan, environment, program))
    os.closerange(0, _HANDLES)
    return _wait_for(child)


def _become(plan: Plan, environment: dict[str, str], program: bytes) -> int:
    """Give up everything and become the command."""
    if plan.gate is not None:
        os.read(plan.gate, 1)
    for handle in plan.own:
        os.close(handle)
    if plan.new_session:
        os.setsid()
    _become_user(plan)
    os.chdir(plan.directory)
    if plan.dies_with_parent:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if plan.filter is not None:
        code = ctypes.create_string_buffer(program, len(program))
        # struct sock_fprog: count, padding, pointer.
        header = struct.pack("HxxxxxxP", len(program) // _INSTRUCTION, ctypes.addressof(code))
        holder = ctypes.create_string_buffer(header, len(header))
        _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(holder))
    os.execvpe(plan.command[0], plan.command, environment)  # noqa: S606


def _become_user(plan: Plan) -> None:
    """Enter the tree as its user, for good."""
    user, group = plan.owner
    mapped = (user, group) != (plan.user, plan.group)
    if not mapped:
        os.chroot(ROOT)
    _drop_bounding()
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    if mapped:
        # Not possible from within another root; and then it takes the new namespace's own right to enter one.
        if _libc.unshare(ctypes.c_int(_NEW_USER)) != 0:
            raise JailError(f"no namespace for the user: {_reason()}")
        _prctl(_PR_SET_DUMPABLE, 1)  # or its own files in /proc would not be its own
        for name, text in (("gid_map", f"{plan.group} {group} 1"), ("uid_map", f"{plan.user} {user} 1")):
            handle = os.open(f"{ROOT}/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
            os.write(handle, text.encode())
            os.close(handle)
        os.chroot(ROOT)
        _drop_bounding()
    # struct __user_cap_header_struct, and two of __user_cap_data_struct.
    header = ctypes.create_string_buffer(struct.pack("II", _CAPABILITY_VERSION, 0))
    if _libc.capset(header, ctypes.create_string_buffer(24)) != 0:
        raise JailError(f"capabilities stay: {_reason()}")
    if os.getresuid() != (plan.user,) * 3 or os.getresgid() != (plan.group,) * 3:
        raise JailError("the user did not change")


def _drop_bounding() -> None:
    for number in range(_CAPABILITIES):
        _libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0)  # without CAP_SETPCAP it stays, and is of no use


def _as_child(work: object) -> NoReturn:
    """Do the work of a fork's child, and never return into its parent's."""
    code = 1
    try:
        code = work()  # type: ignore[operator]
    except (OSError, JailError) as error:
        os.write(2, f"jail: {error}\n".encode())
    finally:
        os._exit(code)


def _wait_for(child: int) -> int:
    """Wait for one child, and bury all others that end meanwhile."""
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _prctl(option: int, first: int, second: int = 0) -> None:
    arguments = [ctypes.c_ulong(value) for value in (first, second, 0, 0)]
    if _libc.prctl(ctypes.c_int(option), *arguments) != 0:
        raise JailError(f"the kernel refused prctl option {option}: {_reason()}")


if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1:]))
    except (OSError, ValueError, IndexError, JailError) as error:
        sys.stderr.write(f"jail: {error}\n")
        sys.exit(1)
