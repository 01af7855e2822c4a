"""The inner sandbox: one iApp, alone, inside the enclave.

Bubblewrap makes new user, pid, ipc, uts, cgroup and network namespaces (the network is empty; an iApp whose manifest
names hosts shares the enclave's, in which there is nobody but the agent), the file system of ``filesystem``, and loads
the filter of ``seccomp``. Resource limits and a watchdog bound memory, processes, files and time. The iApp may be
hostile: nothing it does makes ``run_sandboxed`` hang, and every end has a named cause.

An app that is a container image has the image as its root instead, in memory of its own. The sandbox stands before it is
filled, and the gate opens after that.

Its outputs are read through a directory handle taken before its first instruction ran; the handle keeps the small file
system alive after all its processes are dead, so nothing changes while it is read.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO

from cloister.enclave.capture import Tail
from cloister.enclave.causes import Cause, TaskError
from cloister.enclave.companions import Companion
from cloister.enclave.filesystem import (
    OUTPUT,
    SCRATCH,
    FileCount,
    Mount,
    Root,
    can_mount_proc,
    masked_directories,
    root_arguments,
    system_arguments,
    writable_arguments,
)
from cloister.enclave.launching import Launcher, find_launcher, open_exit_handle
from cloister.enclave.processes import proportional_bytes, resident_bytes, signal_all, tree_of
from cloister.enclave.seccomp import Profile, build_filter

IAPP_USER = 1000
_START_SECONDS = 20.0
_START_POLL_SECONDS = 0.001
_POLL_SECONDS = 0.025
_DRAIN_SECONDS = 2.0
_KILL_SECONDS = 10.0
_MAX_INODES_BEYOND = 64
_PIECE = 1 << 16
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that an iApp may take. Bytes and seconds; ``grace_seconds`` lie between SIGTERM and SIGKILL.

    ``address_space`` limits what it may reserve, as a backstop: the watchdog counts the memory that is really used.
    V8 reserves many times that, so it runs without.
    """

    memory_bytes: int
    disk_bytes: int
    seconds: float
    processes: int
    output_files: int = 1000
    open_files: int = 1024
    grace_seconds: float = 2.0
    address_space: bool = True


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """What to run, with what in sight. ``environment`` is the whole of it: nothing of the agent's own is added.

    ``companions`` go on beside it. ``inherited`` are descriptors that the iApp gets under the same numbers; the agent's
    copies are closed once it has them. ``root`` takes the place of the enclave's own file system. ``online``: it shares the
    enclave's own network, where a companion listens.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    mounts: tuple[Mount, ...]
    working_directory: str
    limits: Limits
    companions: tuple[Companion, ...] = ()
    inherited: tuple[int, ...] = ()
    online: bool = False
    root: Root | None = None


@dataclass(frozen=True, slots=True)
class SandboxRun:
    """How it ended. ``cause`` is None when the iApp exited with 0; ``output`` is a directory handle that the caller
    closes.
    """

    cause: Cause | None
    message: str
    exit_code: int
    stdout: str
    stderr: str
    output: int
    seconds: float
    peak_memory_bytes: int


def run_sandboxed(spec: SandboxSpec) -> SandboxRun:
    """Run an iApp to its end, whatever that is.

    Raises:
        TaskError: the sandbox itself could not be built.
    """
    launcher = find_launcher()
    with ExitStack() as stack:
        for companion in spec.companions:
            stack.callback(companion.close)
        handles = _Handles(stack)
        handles.give(spec.inherited)
        command = launcher.command(spec.environment, handles.data)
        command += [*_arguments(spec, handles), "--", *spec.command]
        process = subprocess.Popen(
            command,
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pass_fds=handles.inherited,
            start_new_session=True,
            preexec_fn=_Rlimits(spec.limits, launcher.unlimited),  # noqa: PLW1509  the agent has one thread
        )
        handles.close_inherited()
        supervised = _Supervised(process, spec, handles, launcher)
        stack.callback(supervised.close)
        supervised.open_gate()
        return supervised.watch()


class _Handles:
    """Descriptors that bubblewrap reads, the one on which it says who runs, and the gate: it waits for a byte there before
    it becomes the iApp.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._inherited: list[int] = []
        self.info, self.info_for_bwrap = os.pipe2(os.O_CLOEXEC)
        self.gate_for_bwrap, self.gate = os.pipe2(os.O_CLOEXEC)
        for own in (self.info, self.gate):
            stack.callback(os.close, own)
        self._inherited += [self.info_for_bwrap, self.gate_for_bwrap]
        stack.callback(self.close_inherited)

    @property
    def inherited(self) -> tuple[int, ...]:
        return tuple(self._inherited)

    def give(self, descriptors: tuple[int, ...]) -> None:
        """Descriptors for the iApp itself."""
        self._inherited += descriptors

    def data(self, content: bytes) -> str:
        """A descriptor, as text, from which ``content`` can be read once."""
        descriptor = os.memfd_create("cloister", os.MFD_CLOEXEC)
        self._inherited.append(descriptor)
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return str(descriptor)

    def close_inherited(self) -> None:
        while self._inherited:
            os.close(self._inherited.pop())


class _Rlimits:
    """Set between fork and exec, so that they hold for bubblewrap and all below it."""

    def __init__(self, limits: Limits, unlimited: frozenset[int]) -> None:
        wide = ((resource.RLIMIT_AS, 2 * limits.memory_bytes + (4 << 30)),) if limits.address_space else ()
        wanted = (
            *wide,
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 2 * limits.disk_bytes),
            (resource.RLIMIT_NOFILE, limits.open_files),
            # Above the limit that the watchdog names, so that reaching it is seen and not only felt.
            (resource.RLIMIT_NPROC, 2 * limits.processes + 16),
            (resource.RLIMIT_MSGQUEUE, 0),
            (resource.RLIMIT_MEMLOCK, 1 << 16),
        )
        self._limits = tuple(pair for pair in wanted if pair[0] not in unlimited)

    def __call__(self) -> None:
        for which, value in self._limits:
            hard = resource.getrlimit(which)[1]
            allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(which, (allowed, allowed))


def _arguments(spec: SandboxSpec, handles: _Handles) -> list[str]:
    root = spec.root
    user, group = (IAPP_USER, IAPP_USER) if root is None else (root.user, root.group)
    arguments = ["--unshare-all", *(["--share-net"] if spec.online else [])]
    arguments += ["--unshare-user", "--uid", str(user), "--gid", str(group), "--cap-drop", "ALL"]
    arguments += ["--hostname", "iapp", "--die-with-parent", "--new-session", "--info-fd", str(handles.info_for_bwrap)]
    arguments += ["--block-fd", str(handles.gate_for_bwrap)]
    arguments += _system(handles) if root is None else root_arguments(root, spec.limits.disk_bytes)
    for mount in spec.mounts:
        arguments += ["--ro-bind", str(mount.source), mount.target]
    if can_mount_proc():
        arguments += ["--proc", "/proc"]
    arguments += writable_arguments(spec.limits.disk_bytes, scratch=root is None)
    arguments += ["--remount-ro", "/"] if root is None else ["--perms", "0755", "--dir", spec.working_directory]
    arguments += ["--chdir", spec.working_directory]
    profile = Profile.IAPP_ONLINE if spec.online else Profile.IAPP
    return [*arguments, "--seccomp", handles.data(build_filter(profile, platform.machine()))]


def _system(handles: _Handles) -> list[str]:
    """The enclave's own libraries and runtimes, with accounts for one user."""
    arguments = system_arguments()
    for directory in masked_directories():
        arguments += ["--tmpfs", directory, "--remount-ro", directory]
    for content, target in _ACCOUNTS:
        arguments += ["--ro-bind-data", handles.data(content), target]
    return arguments


_ACCOUNTS = (
    (f"iapp:x:{IAPP_USER}:{IAPP_USER}::/tmp:/bin/sh\n".encode(), "/etc/passwd"),
    (f"iapp:x:{IAPP_USER}:\n".encode(), "/etc/group"),
)


class _Supervised:
    """One running sandbox: its pipes, its watchdog and its end."""

    def __init__(
        self, process: subprocess.Popen[bytes], spec: SandboxSpec, handles: _Handles, launcher: Launcher
    ) -> None:
        self._process = process
        self._launcher = launcher
        self._limits = spec.limits
        self._root = spec.root
        self._companions = spec.companions
        self._info, self._gate = handles.info, handles.gate
        self._tails = {"stdout": Tail(), "stderr": Tail()}
        self._init: int | None = None
        self._output = -1
        self._scratch = -1
        self._given = 0
        self._peak = 0
        given = 0 if spec.root is None else spec.root.entries
        self._files = FileCount(at_most=11 * spec.limits.output_files + _MAX_INODES_BEYOND + given)
        self._cause: Cause | None = None
        self._message = ""

    def open_gate(self) -> None:
        """Wait until the sandbox stands, take hold of its writable places, and let the iApp start."""
        deadline = time.monotonic() + _START_SECONDS
        self._init = self._hear_init(deadline)
        root = self._await_root(self._launcher.root(self._init), deadline)
        try:
            flags = _FOLDER | os.O_NOFOLLOW
            self._output = os.open(OUTPUT[1:], flags, dir_fd=root)
            if self._root is None:
                self._scratch = os.open(SCRATCH[1:], flags, dir_fd=root)
            else:
                self._root.write(root, owner=self._launcher.owner(self._root.user, self._root.group))
                self._scratch = os.dup(root)
                self._given = self._root.entries
            os.write(self._gate, b"\n")
        except OSError as error:
            raise TaskError(Cause.SANDBOX_FAILED, f"the sandbox cannot be reached: {error.strerror}") from error
        finally:
            os.close(root)

    def _hear_init(self, deadline: float) -> int:
        """The process id of the sandbox's init, which its launcher says as JSON, in pieces."""
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._info, selectors.EVENT_READ)
            while not said.rstrip().endswith(b"}"):
                piece = os.read(self._info, 4096) if selector.select(max(0.0, deadline - time.monotonic())) else b""
                if not piece:
                    raise TaskError(Cause.SANDBOX_FAILED, f"the sandbox did not start: {self._start_problem()}")
                said += piece
        return int(json.loads(said)["child-pid"])

    def _await_root(self, place: str, deadline: float) -> int:
        """A descriptor of the sandbox's root. Bubblewrap changes to it when everything is mounted, and then waits at the
        gate: so it stands as soon as the output's folder is in sight there.
        """
        here = os.stat("/")  # noqa: PTH116
        while self._process.poll() is None and time.monotonic() < deadline:
            with ExitStack() as stack, suppress(OSError):
                root = os.open(place, _FOLDER)
                stack.callback(os.close, root)
                there = os.fstat(root)
                if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino) and _has_output(root):
                    stack.pop_all()
                    return root
            time.sleep(_START_POLL_SECONDS)
        raise TaskError(Cause.SANDBOX_FAILED, f"the sandbox did not start: {self._start_problem()}")

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        if pipe is None:
            raise TaskError(Cause.SANDBOX_FAILED, "the sandbox has no pipes")
        return pipe

    def _start_problem(self) -> str:
        self._process.kill()
        _, stderr = self._process.communicate(timeout=_START_SECONDS)
        return stderr.decode(errors="replace").strip()[-300:] or "no reason given"

    def watch(self) -> SandboxRun:
        """Read what it prints and hold it to its limits until it ends."""
        started = time.monotonic()
        deadline = started + self._limits.seconds
        exit_handle = open_exit_handle(self._process.pid, self._info)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(exit_handle, selectors.EVENT_READ, None)
                for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
                    selector.register(self._pipe(pipe), selectors.EVENT_READ, self._tails[name])
                for companion in self._companions:
                    companion.begin(selector)
                self._loop(selector, deadline)
                ended = time.monotonic()
                for companion in self._companions:
                    companion.close()
                self._drain(selector)
        finally:
            os.close(exit_handle)
        exit_code = self._process.wait()
        self._name_cause(exit_code)
        output, self._output = self._output, -1
        return SandboxRun(
            cause=self._cause,
            message=self._message,
            exit_code=exit_code,
            stdout=self._tails["stdout"].text(),
            stderr=self._tails["stderr"].text(),
            output=output,
            seconds=ended - started,
            peak_memory_bytes=self._peak,
        )

    def _loop(self, selector: selectors.BaseSelector, deadline: float) -> None:
        """Serve pipes and limits until the process has ended or was killed."""
        look = time.monotonic() + _POLL_SECONDS
        kill_at: float | None = None
        while True:
            now = time.monotonic()
            wake = min(look, deadline if kill_at is None else kill_at)
            for key, events in selector.select(max(0.0, wake - now)):
                if key.data is None:
                    return
                if isinstance(key.data, Tail):
                    self._read(selector, key)
                else:
                    key.data(key, events)
            now = time.monotonic()
            if kill_at is not None and now >= kill_at:
                self.kill()
                return
            if now >= look:
                look = now + _POLL_SECONDS
                for companion in self._companions:
                    companion.tick(now)
                if self._cause is None and self._break_limit():
                    self.kill()
                    return
            if self._cause is None and now >= deadline:
                self._cause = Cause.APP_COMPUTE_TIMEOUT
                self._message = f"the iApp ran longer than {self._limits.seconds:g} seconds"
                kill_at = now + self._limits.grace_seconds
                self._terminate()

    @staticmethod
    def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> bool:
        data = os.read(key.fd, _PIECE)
        if data:
            key.data.write(data)
            return True
        selector.unregister(key.fileobj)
        return False

    def _drain(self, selector: selectors.BaseSelector) -> None:
        """Read what is left in the pipes. All writers are dead, so this ends; a clock stands by all the same."""
        until = time.monotonic() + _DRAIN_SECONDS
        while time.monotonic() < until:
            found = selector.select(0.0 if self._process.poll() is not None else 0.01)
            ready = [key for key, _ in found if isinstance(key.data, Tail)]
            if not ready and self._process.poll() is not None:
                return
            for key in ready:
                self._read(selector, key)

    def _break_limit(self) -> bool:
        """Whether the iApp is over a limit; then the cause is named."""
        if self._init is None:
            return False
        # The sandbox's own init is no process of the iApp's.
        pids = [pid for pid in tree_of(self._init) if pid != self._init]
        if len(pids) > self._limits.processes:
            return self._blame(
                Cause.APP_PROCESSES_EXCEEDED, f"the iApp has more than {self._limits.processes} processes"
            )
        memory = resident_bytes(pids)
        if memory > self._limits.memory_bytes:
            memory = proportional_bytes(pids)
        self._peak = max(self._peak, memory)
        if memory > self._limits.memory_bytes:
            return self._blame(Cause.APP_MEMORY_EXCEEDED, f"the iApp uses more than {_mib(self._limits.memory_bytes)}")
        for handle in (self._output, self._scratch):
            given = self._given if handle == self._scratch else 0
            if self._files.count(handle) - given > 10 * self._limits.output_files + _MAX_INODES_BEYOND:
                return self._blame(
                    Cause.APP_OUTPUT_FILES_EXCEEDED,
                    f"the iApp made more than {10 * self._limits.output_files} files; at most "
                    f"{self._limits.output_files} may be results",
                )
        return False

    def _blame(self, cause: Cause, message: str) -> bool:
        self._cause, self._message = cause, message
        return True

    def _name_cause(self, exit_code: int) -> None:
        if self._cause is not None or exit_code == 0:
            return
        if any(_is_full(handle) for handle in (self._output, self._scratch)):
            self._blame(Cause.APP_DISK_EXCEEDED, f"the iApp filled its disk of {_mib(self._limits.disk_bytes)}")
        elif self._says_out_of_memory():
            self._blame(Cause.APP_MEMORY_EXCEEDED, f"the iApp asked for more than {_mib(self._limits.memory_bytes)}")
        else:
            self._blame(Cause.APP_COMPUTE_FAILED, f"the iApp exited with code {exit_code}")

    def _says_out_of_memory(self) -> bool:
        """Whether it ended with Python's or V8's own words for it."""
        said = self._tails["stderr"].text().rstrip()
        return said.rpartition("\n")[2].startswith("MemoryError") or "JavaScript heap out of memory" in said[-8000:]

    def _terminate(self) -> None:
        if self._init is not None:
            signal_all([pid for pid in tree_of(self._init) if pid != self._init], signal.SIGTERM)

    def kill(self) -> None:
        """End every process of the sandbox: its init cannot refuse, and the kernel ends a pid namespace with its
        init.
        """
        if self._init is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_SECONDS)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """End what still runs and give back every handle that was not handed over."""
        self.kill()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        for handle in (self._output, self._scratch):
            if handle >= 0:
                os.close(handle)
        self._output = self._scratch = -1


def _has_output(root: int) -> bool:
    with suppress(FileNotFoundError):
        return stat.S_ISDIR(os.stat(OUTPUT[1:], dir_fd=root, follow_symlinks=False).st_mode)
    return False


def _is_full(handle: int) -> bool:
    usage = os.fstatvfs(handle)
    return usage.f_bavail * usage.f_frsize < 16 * usage.f_frsize


def _mib(size: int) -> str:
    return f"{size / (1 << 20):g} MiB"
