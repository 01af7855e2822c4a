"""Enclaves as containers: podman or docker, and below them gVisor where it is installed.

gVisor is a kernel of its own in a process without rights: a hole in Linux that an iApp knows is not there to be used. The
agent sees what it sees in a bubblewrap sandbox (``view``), has no network, and is reached by one socket that is mounted
into its container and closed to all others once it has connected. No image is pulled, no registry is asked.

Containers are nobody's children, so three things see to it that none is left: ``kill``, a guard that outlives this process
(``oci_guard``), and a sweep at the start.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from cloister.errors import UnavailableError, quoted
from cloister.worker.runtimes import oci_guard
from cloister.worker.runtimes.oci_choice import Chosen, choose_isolation, engine_environment, load_root
from cloister.worker.runtimes.oci_engine import CHANNEL_TARGET, Container, Isolation, build_start, make_root
from cloister.worker.runtimes.oci_guard import find_containers, remove_containers
from cloister.worker.runtimes.process import HostProcess, widen
from cloister.worker.runtimes.runtime import EnclaveProcess, EnclaveSpec
from cloister.worker.runtimes.view import (
    ENVIRONMENT,
    agent_command,
    check_node,
    compile_agent,
    own_binds,
    system_binds,
    system_links,
)

_NAME = "cloister-"
_OWNED = re.compile(r"cloister-(?:oci-)?([0-9]{1,10})-([0-9]{1,20})-.*")
_SOCKET = "agent"
_START_SECONDS = 60.0
_GUARD_SECONDS = 30.0
_POLL_SECONDS = 0.1
_USERS = 1 << 8
_FIRST_USER = 1_900_000_000
_MEMORY_SHARE = 4 / 5
"""Of this machine's memory, the most that one enclave may take, whatever its manifest says."""

log = logging.getLogger("cloister.worker")


class OciRuntime:
    """Implements ``Runtime``. ``node_prefix`` as for bubblewrap.

    Raises:
        ConfigurationError: this machine starts no container that is fit for an enclave.
    """

    def __init__(self, *, node_prefix: Path | None = None) -> None:
        self._node_prefix = check_node(node_prefix)
        self._binds = [*system_binds(), *own_binds(self._node_prefix)]
        compile_agent()
        owner = _owner(os.getpid())
        self._names = f"{_NAME}{owner}-"
        self._numbers = itertools.count(1)
        self._closed = False
        with ExitStack() as undo:
            self._folder = Path(tempfile.mkdtemp(prefix=f"{_NAME}oci-{owner}-"))
            undo.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder.chmod(0o711)
            root = make_root(self._folder / "root", system_links(), self._binds)
            self.chosen: Chosen = choose_isolation(root, f"{self._names}trial-{self._folder.name[-8:].strip('_-')}")
            self._root = load_root(self.chosen.isolation, root)
            sweep(self.chosen.isolation)
            self._guard = self._start_guard()
            undo.pop_all()
        log.info("enclaves are containers: %s", self.chosen)

    @property
    def quick(self) -> bool:
        """About a second of one processor."""
        return True

    def launch(self, spec: EnclaveSpec) -> EnclaveProcess:
        """Start an agent in a container and wait until it has connected."""
        self._check_open()
        number = next(self._numbers)
        name = f"{self._names}{number}"
        place = self._folder / f"channel-{number}"
        user = _FIRST_USER + 65_536 * (number % _USERS)
        with ExitStack() as undo:
            listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            undo.callback(shutil.rmtree, place, ignore_errors=True)
            try:
                self._listen(listener, place, user)
                command = build_start(self.chosen.isolation, self._container(name, place, spec, user))
                process = subprocess.Popen(
                    command,
                    env=engine_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                raise UnavailableError(f"the container did not start: {error.strerror}") from error
            undo.callback(self._discard, process, name)
            channel = _accept(listener, process)
            undo.callback(channel.close)
            self._check_open()  # closed meanwhile: nobody would end this one
            undo.pop_all()
        listener.close()
        shutil.rmtree(place, ignore_errors=True)  # nobody else may knock
        return OciProcess(process, channel, spec, name, self)

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("no container is started any more")

    def remove(self, name: str) -> None:
        """End a container and whatever the engine keeps of it."""
        remove_containers(self.chosen.isolation.program, [name])

    def close(self) -> None:
        """End every container that this runtime started and that still runs."""
        self._closed = True
        program = self.chosen.isolation.program
        remove_containers(program, find_containers(program, self._names))
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._guard.wait(_GUARD_SECONDS)

    def _container(self, name: str, place: Path, spec: EnclaveSpec, user: int) -> Container:
        return Container(
            name=name,
            root=self._root,
            binds=(*self._binds, (str(place), CHANNEL_TARGET)),
            command=tuple(agent_command(f"{CHANNEL_TARGET}/{_SOCKET}", environment=ENVIRONMENT)),
            scratch_bytes=spec.scratch_bytes,
            memory_bytes=int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _MEMORY_SHARE),
            limited=self.chosen.limited,
            user=user,
        )

    def _listen(self, listener: socket.socket, place: Path, user: int) -> None:
        """Make the socket on which this one agent knocks, for it alone as far as users can be told apart."""
        place.mkdir(mode=0o711)
        place.chmod(0o711)
        handle = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{handle}/{_SOCKET}")  # however long the path of temporary files is
        finally:
            os.close(handle)
        isolation = self.chosen.isolation
        if isolation.gvisor:
            (place / _SOCKET).chmod(0o600)
        elif isolation.root and os.geteuid() == 0:
            inner = user + 1000
            os.chown(place / _SOCKET, inner, inner)
            (place / _SOCKET).chmod(0o600)
        else:
            (place / _SOCKET).chmod(0o666)
        listener.listen(1)

    def _discard(self, process: subprocess.Popen[bytes], name: str) -> None:
        self.remove(name)
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()

    def _start_guard(self) -> subprocess.Popen[bytes]:
        guard = [sys.executable, "-I", "-S", oci_guard.__file__, self.chosen.isolation.program, self._names]
        return subprocess.Popen(
            [*guard, str(self._folder)],
            env=engine_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )


class OciProcess(HostProcess):
    """A container; ``pid`` is that of the engine's command that stays beside it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        spec: EnclaveSpec,
        name: str,
        starter: OciRuntime,
    ) -> None:
        super().__init__(process, channel, spec, words=process.stderr, starter=starter)
        self._runtime = starter
        self._name = name

    def _end(self) -> None:
        # A command that ended by itself has removed its container; one that could not start it, or was killed, perhaps not.
        if self._process.poll() is None or not 0 <= self._process.returncode < 125:
            self._runtime.remove(self._name)
        super()._end()


def sweep(isolation: Isolation) -> None:
    """Remove containers and folders whose worker is gone. A guard does that at once; this is for when the machine went down
    with both.
    """
    left = [name for name in find_containers(isolation.program, _NAME) if _is_orphan(name)]
    if left:
        log.warning("removing %d containers of workers that are gone", len(left))
        remove_containers(isolation.program, left)
    for folder in Path(tempfile.gettempdir()).glob(f"{_NAME}oci-*"):
        if _is_orphan(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _is_orphan(name: str) -> bool:
    match = _OWNED.fullmatch(name)
    return match is not None and _owner(int(match.group(1))) != f"{match.group(1)}-{match.group(2)}"


def _owner(pid: int) -> str:
    """A process by its number and the moment it started, since numbers are used again; empty when it is not there."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    # The name in parentheses may hold anything, parentheses too.
    return f"{pid}-{stat[stat.rfind(b')') + 2 :].split()[19].decode()}"


def _accept(listener: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket:
    """Wait for the agent.

    Raises:
        UnavailableError: the container ended, or took too long.
    """
    deadline = time.monotonic() + _START_SECONDS
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while not poll.poll(_POLL_SECONDS * 1000):
        if process.poll() is not None:
            words = b"" if process.stderr is None else process.stderr.read(2000)
            said = words.decode(errors="replace").strip()
            raise UnavailableError(
                f"the container did not start: {quoted(said or f'it ended with {process.returncode}')}"
            )
        if time.monotonic() > deadline:
            raise UnavailableError(f"the container's agent did not connect within {_START_SECONDS:g} s")
    channel, _ = listener.accept()
    widen(channel)
    return channel
