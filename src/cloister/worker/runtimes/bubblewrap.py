"""Enclaves as bubblewrap sandboxes: no daemon, no image, ready in a fraction of a second.

The agent sees the system's libraries, the Python runtime, the few libraries it uses and its own rooms of this
package, all read-only, and a private memory file system. It has no network and no other process in sight.

As root, the sandbox is started under a user id of its own that exists nowhere else: a process of the real root would
own
``/proc/sys`` even inside namespaces, and the kernel would not let the agent build its inner sandbox. The paths that
this user may not reach are shown to it through a staging mount.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from cloister.errors import ConfigurationError, UnavailableError, quoted
from cloister.worker.programs import find_program
from cloister.worker.runtimes.process import HostProcess, open_channel
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

_FIRST_USER = 1_900_000_000
_USERS = 1 << 24
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
        self._node_prefix = check_node(node_prefix)
        self._bwrap = find_program("bwrap", "bubblewrap")
        self._check_namespaces()
        self._setpriv = self._find_setpriv()
        compile_agent()
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

    def launch(self, spec: EnclaveSpec) -> EnclaveProcess:
        """Start an agent in a sandbox; it says ``ready`` when it is."""
        return self._starter.submit(self._launch, spec).result()

    def close(self) -> None:
        """Let go of the starting thread; enclaves that still run end with it."""
        self._starter.shutdown()

    def _launch(self, spec: EnclaveSpec) -> EnclaveProcess:
        ours, theirs = open_channel()
        stage = Path(tempfile.mkdtemp(prefix="cloister-stage-")) if self._setpriv else None
        try:
            process = subprocess.Popen(
                self._command(spec, theirs.fileno(), stage),
                env=ENVIRONMENT,
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
        binds = own_binds(self._node_prefix)
        if stage is None or self._setpriv is None:
            return [self._bwrap, *_sandbox(spec, binds), "--", *agent_command(str(channel))]
        user = _FIRST_USER + secrets.randbelow(_USERS)
        staged = [(str(stage / str(number)), target) for number, (_, target) in enumerate(binds)]
        # The pid namespace is what ends them all: a dying root without capabilities may not signal another user.
        outer = [self._bwrap, "--dev-bind", "/", "/", "--tmpfs", str(stage), "--unshare-pid", "--die-with-parent"]
        for (source, _), (place, _) in zip(binds, staged, strict=True):
            outer += ["--ro-bind", source, place]
        outer += [*_CAPABILITIES, "--", self._setpriv, *_user_arguments(user)]
        return [*outer, self._bwrap, *_sandbox(spec, staged), "--", *agent_command(str(channel))]


def _user_arguments(user: int) -> list[str]:
    arguments = ["--reuid", str(user), "--regid", str(user), "--clear-groups", "--no-new-privs", "--inh-caps=-all"]
    return [*arguments, "--"]


def _sandbox(spec: EnclaveSpec, binds: list[tuple[str, str]]) -> list[str]:
    arguments = ["--unshare-all", "--die-with-parent", "--new-session", "--hostname", "enclave"]
    for text, link in system_links():
        arguments += ["--symlink", text, link]
    for source, target in [*system_binds(), *binds]:
        arguments += ["--ro-bind", source, target]
    arguments += ["--dev", "/dev", "--remount-ro", "/dev", "--proc", "/proc"]
    arguments += ["--perms", "0755", "--size", str(spec.scratch_bytes), "--tmpfs", "/tmp"]  # noqa: S108
    return [*arguments, "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108


class BubblewrapProcess(HostProcess):
    """A sandbox. ``stage`` is the empty folder over which its staging mounts were made."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        spec: EnclaveSpec,
        stage: Path | None,
        starter: BubblewrapRuntime,
    ) -> None:
        # As long as this enclave is wanted, so is the thread that started it.
        super().__init__(process, channel, spec, words=process.stderr, starter=starter)
        self._stage = stage

    def _clean(self) -> None:
        if self._stage is not None:
            with suppress(OSError):
                self._stage.rmdir()
            self._stage = None
