"""Enclaves as bubblewrap sandboxes: no daemon, no image, ready in a fraction of a second.

The agent sees the system's libraries, the Python runtime, the few libraries it uses and its own rooms of this
package, all read-only, and a private memory file system. It has no network and no other process in sight.

As root, the sandbox is started under a user id of its own that exists nowhere else: a process of the real root would
own
``/proc/sys`` even inside namespaces, and the kernel would not let the agent build its inner sandbox. The paths that
this user may not reach are shown to it through a staging mount.
"""

from __future__ import annotations

import compileall
import logging
import os
import secrets
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from cloister.errors import ConfigurationError, UnavailableError, quoted
from cloister.worker.programs import find_program
from cloister.worker.runtimes.runtime import EnclaveProcess, EnclaveSpec

AGENT_PARTS = (
    *("__init__.py", "errors.py", "version.py", "protocol", "sealing", "datasets", "attestation", "iapp", "enclave"),
)
SYSTEM_LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime")
NODE_PREFIX = "/opt/node"
"""Where the agent looks for a Node of the operator's own (``enclave.filesystem``)."""
_PACKAGE_TARGET = "/opt/cloister-agent"
_LIBRARY_TARGET = "/opt/cloister-libraries"
_FIRST_USER = 1_900_000_000
_USERS = 1 << 24
_STDERR_CAP = 2000
_BUFFER = 4 << 20
_PROBE_SECONDS = 20.0
_CAPABILITIES = ("--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")

log = logging.getLogger(__name__)


class BubblewrapRuntime:
    """Implements ``Runtime``.

    ``node_prefix`` is the folder of a Node (with ``bin/node`` in it) for iApps that ask for one, where the host has none
    in ``/usr``.

    Raises:
        ConfigurationError: bubblewrap is missing, or there is no Node in ``node_prefix``.
    """

    def __init__(self, *, node_prefix: Path | None = None) -> None:
        if node_prefix is not None and not (node_prefix / "bin" / "node").is_file():
            raise ConfigurationError(f"there is no bin/node in {node_prefix}", hint="name the folder of a Node release")
        self._node_prefix = None if node_prefix is None else node_prefix.resolve()
        self._bwrap = find_program("bwrap", "bubblewrap")
        self._check_namespaces()
        self._setpriv = self._find_setpriv()
        self._package = Path(__file__).resolve().parent.parent.parent
        self._compile_agent()
        # The kernel ends a sandbox when the thread that started it ends, so one thread starts all and outlives them.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="enclave-starter")

    @property
    def quick(self) -> bool:
        """A fraction of a second of one processor."""
        return True

    def _check_namespaces(self) -> None:
        """Start the smallest sandbox there is.

        Raises:
            ConfigurationError: this host does not allow it, with bubblewrap's own words.
        """
        probe = [self._bwrap, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "/bin/true"]
        done = subprocess.run(
            probe, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_PROBE_SECONDS
        )
        if done.returncode != 0:
            raise ConfigurationError(
                f"bubblewrap cannot start a sandbox here: {quoted(done.stderr.strip() or 'no reason given')}",
                hint="allow user namespaces: sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1, "
                "kernel.apparmor_restrict_unprivileged_userns=0",
            )

    def _find_setpriv(self) -> str | None:
        """The program that changes the user id, when this is a root that may use it. A container's root often may not:

        it is confined as it is, and its iApps run without ``/proc``.
        """
        if os.geteuid() != 0:
            return None
        setpriv = find_program("setpriv", "util-linux")
        probe = [self._bwrap, "--dev-bind", "/", "/", "--unshare-pid", *_CAPABILITIES, "--", setpriv]
        done = subprocess.run(
            [*probe, *_user_arguments(_FIRST_USER), "/bin/true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PROBE_SECONDS,
        )
        if done.returncode == 0:
            return setpriv
        log.warning("enclaves run as this root: it may not change the user id or mount")
        return None

    def _compile_agent(self) -> None:
        """Compile the agent once: it sees its own code read-only, and would do it anew at every start."""
        for name in AGENT_PARTS:
            path = self._package / name
            if path.is_dir():
                compileall.compile_dir(path, quiet=2)
            else:
                compileall.compile_file(path, quiet=2)

    def launch(self, spec: EnclaveSpec) -> EnclaveProcess:
        """Start an agent in a sandbox; it says ``ready`` when it is."""
        return self._starter.submit(self._launch, spec).result()

    def close(self) -> None:
        """Let go of the starting thread; enclaves that still run end with it."""
        self._starter.shutdown()

    def _launch(self, spec: EnclaveSpec) -> EnclaveProcess:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        stage = Path(tempfile.mkdtemp(prefix="cloister-stage-")) if self._setpriv else None
        try:
            for end in (ours, theirs):
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
            process = subprocess.Popen(
                self._command(spec, theirs.fileno(), stage),
                env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            if stage is not None:
                stage.rmdir()
            raise UnavailableError(f"the enclave did not start: {error.strerror}") from error
        finally:
            theirs.close()
        return BubblewrapProcess(process, ours, spec, stage, self)

    def _command(self, spec: EnclaveSpec, channel: int, stage: Path | None) -> list[str]:
        binds = self._binds()
        if stage is None or self._setpriv is None:
            return [self._bwrap, *_sandbox(spec, binds), "--", *_agent(channel)]
        user = _FIRST_USER + secrets.randbelow(_USERS)
        staged = [(str(stage / str(number)), target) for number, (_, target) in enumerate(binds)]
        # The pid namespace is what ends them all: a dying root without capabilities may not signal another user.
        outer = [self._bwrap, "--dev-bind", "/", "/", "--tmpfs", str(stage), "--unshare-pid", "--die-with-parent"]
        for (source, _), (place, _) in zip(binds, staged, strict=True):
            outer += ["--ro-bind", source, place]
        outer += [*_CAPABILITIES, "--", self._setpriv, *_user_arguments(user)]
        return [*outer, self._bwrap, *_sandbox(spec, staged), "--", *_agent(channel)]

    def _binds(self) -> list[tuple[str, str]]:
        """Source and target of everything that is not the system's own, read-only."""
        binds = [(str(self._package / name), f"{_PACKAGE_TARGET}/cloister/{name}") for name in AGENT_PARTS]
        libraries = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        binds += [(path, f"{_LIBRARY_TARGET}/{number}") for number, path in enumerate(libraries)]
        prefix = Path(sys.base_prefix)
        if not prefix.is_relative_to("/usr"):
            binds.append((str(prefix), str(prefix)))
        if self._node_prefix is not None:
            binds.append((str(self._node_prefix), NODE_PREFIX))
        for source, _ in binds:
            if not Path(source).exists():
                raise ConfigurationError(f"{source}, a part of the agent, is missing", hint="install cloister again")
        return binds


def _user_arguments(user: int) -> list[str]:
    arguments = ["--reuid", str(user), "--regid", str(user), "--clear-groups", "--no-new-privs", "--inh-caps=-all"]
    return [*arguments, "--"]


def _sandbox(spec: EnclaveSpec, binds: list[tuple[str, str]]) -> list[str]:
    arguments = ["--unshare-all", "--die-with-parent", "--new-session", "--hostname", "enclave"]
    arguments += ["--ro-bind", "/usr", "/usr"]
    for link in SYSTEM_LINKS:
        path = Path(link)
        if path.is_symlink():
            arguments += ["--symlink", str(path.readlink()), link]
        elif path.is_dir():
            arguments += ["--ro-bind", link, link]
    for file in SYSTEM_FILES:
        if Path(file).is_file():
            arguments += ["--ro-bind", str(Path(file).resolve()), file]
    for source, target in binds:
        arguments += ["--ro-bind", source, target]
    arguments += ["--dev", "/dev", "--remount-ro", "/dev", "--proc", "/proc"]
    arguments += ["--perms", "0755", "--size", str(spec.scratch_bytes), "--tmpfs", "/tmp"]  # noqa: S108
    return [*arguments, "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108


def _agent(channel: int) -> list[str]:
    libraries = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    path = ":".join([_PACKAGE_TARGET, *(f"{_LIBRARY_TARGET}/{number}" for number in range(len(libraries)))])
    python = f"{sys.base_prefix}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    # env sets the one variable after bubblewrap, which does not read it.
    options = ["-s", "-S", "-P", "-B", "-m", "cloister.enclave.agent", str(channel)]
    return ["/usr/bin/env", f"PYTHONPATH={path}", python, *options]


class BubblewrapProcess:
    """Implements ``EnclaveProcess``."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        spec: EnclaveSpec,
        stage: Path | None,
        starter: BubblewrapRuntime,
    ) -> None:
        self._process = process
        # As long as this enclave is wanted, so is the thread that started it.
        self._starter = starter
        self._channel = channel
        self._spec = spec
        self._stage = stage
        self._lock = threading.Lock()
        self._said = b""
        self._listener = threading.Thread(target=self._listen, name="enclave-stderr", daemon=True)
        self._listener.start()

    @property
    def channel(self) -> socket.socket:
        return self._channel

    @property
    def spec(self) -> EnclaveSpec:
        return self._spec

    def _listen(self) -> None:
        """Keep the first words on stderr and drop the rest: they tell why a sandbox could not be built."""
        stderr = self._process.stderr
        if stderr is None:
            return
        with stderr:
            while data := os.read(stderr.fileno(), 4096):
                self._said = (self._said + data)[:_STDERR_CAP]

    def start_problem(self) -> str:
        """Why it did not start, in the sandbox's own words."""
        self._listener.join(1.0)
        return self._said.decode(errors="replace").strip()

    def wait(self, timeout: float | None = None) -> int | None:
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        self._clean()
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._channel.close()
        self._clean()

    def _clean(self) -> None:
        with self._lock:
            if self._stage is not None:
                with suppress(OSError):
                    self._stage.rmdir()
                self._stage = None
