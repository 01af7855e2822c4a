"""Enclaves as virtual machines: a measured boot of one image, the agent in it, and one port between it and the host.

The host can start, starve and end such a machine. Whether it could also read its memory depends on the hardware: with
TDX or SEV-SNP it cannot; with a TPM alone it can, and the evidence says which of them it is.
"""

from __future__ import annotations

import os
import re
import secrets
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from cloister.errors import UnavailableError, quoted
from cloister.worker.programs import find_program
from cloister.worker.runtimes.process import HostProcess, open_channel
from cloister.worker.runtimes.runtime import EnclaveProcess, EnclaveSpec
from cloister.worker.runtimes.view import ENVIRONMENT
from cloister.worker.vm.image import VARIABLES, Image
from cloister.worker.vm.qemu import (
    KVM_DEVICE,
    Accelerator,
    Launch,
    VmOptions,
    build_command,
    choose_accelerator,
    find_qemu,
    open_parts,
)
from cloister.worker.vm.swtpm import Swtpm, find_swtpm

ENDED = b"cloister: the agent ended with "
_SIGNS = ("Kernel panic", "cloister: the boot failed", "cloister: the agent did not start")
_ESCAPES = re.compile(r"\x1b\[[0-9;=?]*[A-Za-z]")
"""The firmware clears a screen that is not there."""
_FIRST_USER = 1_900_000_000
_USERS = 1 << 24
_POLL_SECONDS = 0.1
_CONSOLE_TAIL = 16_000
_CONSOLE_LINE = 300


class VmRuntime:
    """Implements ``Runtime``. ``state`` is the folder of an enrolled TPM; every machine gets a copy of it.

    ``launch`` comes back when the agent has said its first word, which takes seconds with KVM and half a minute without.

    Raises:
        ConfigurationError: QEMU, swtpm or setpriv is missing, or KVM was asked for and does not work.
    """

    def __init__(
        self,
        image: Image,
        state: Path,
        options: VmOptions = VmOptions(),  # noqa: B008  frozen
        *,
        announce: Callable[[str], None] = lambda text: None,
    ) -> None:
        find_qemu()
        find_swtpm()
        self._setpriv, self._prlimit = (find_program(name, "util-linux") for name in ("setpriv", "prlimit"))
        self._image = image
        self._state = state
        self._options = options
        self._announce = announce
        self.accelerator: Accelerator = choose_accelerator(options)
        self._closed = threading.Event()
        # The kernel ends a machine when the thread that started it ends, so one thread starts all and outlives them.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="machine-starter")

    @property
    def quick(self) -> bool:
        """With KVM; without, a boot keeps a processor busy for half a minute."""
        return self.accelerator is Accelerator.KVM

    def launch(self, spec: EnclaveSpec) -> EnclaveProcess:
        """Boot a machine and wait until its agent is ready."""
        return self.boot(spec)[0]

    def boot(self, spec: EnclaveSpec, *, report: bool = False) -> tuple[VmProcess, socket.socket | None]:
        """The same; with ``report``, the machine also has the port on which it tells what the TPM says of its boot."""
        started = time.monotonic()
        try:
            starting = self._starter.submit(self._start, spec, report=report)
        except RuntimeError as error:  # the executor's word for being shut down
            raise UnavailableError("no machine is started any more") from error
        process, port = starting.result()
        try:
            process.wait_ready(self._options.boot_seconds, self._closed)
        except BaseException:
            process.kill()
            if port is not None:
                port.close()
            raise
        self._announce(f"virtual machine ready after {time.monotonic() - started:.1f} s ({self.accelerator})")
        return process, port

    def close(self) -> None:
        """Let go of the starting thread; machines that still run, or boot, end."""
        self._closed.set()
        self._starter.shutdown()

    def _start(self, spec: EnclaveSpec, *, report: bool) -> tuple[VmProcess, socket.socket | None]:
        """Start QEMU and its TPM. What is opened here is closed here, on every way out, but for what the process owns."""
        if self._closed.is_set():
            raise UnavailableError("no machine is started any more")
        user = _FIRST_USER + secrets.randbelow(_USERS) if os.geteuid() == 0 else None
        with ExitStack() as own, ExitStack() as inherited:
            try:
                folder = Path(tempfile.mkdtemp(prefix="cloister-vm-"))  # 0700
                own.callback(shutil.rmtree, folder, ignore_errors=True)
                variables = folder / "variables"
                shutil.copyfile(self._image.folder / VARIABLES, variables)
                variables.chmod(0o600)
                if user is not None:
                    for path in (variables, folder):
                        os.chown(path, user, user)
                tpm = Swtpm.start(self._state, user=user)
                own.callback(tpm.stop)
                channel = _pair(own, inherited)
                port = _pair(own, inherited) if report else None
                kernel, initramfs, firmware = open_parts(self._image)
                for handle in (kernel, initramfs, firmware):
                    inherited.callback(os.close, handle)
                launch = Launch(
                    kernel=kernel,
                    initramfs=initramfs,
                    firmware=firmware,
                    variables=variables,
                    tpm=tpm.socket,
                    channel=channel[1].fileno(),
                    report=None if port is None else port[1].fileno(),
                )
                process = subprocess.Popen(
                    [*self._confine(user), *build_command(self._options, self.accelerator, self._image, launch)],
                    env=ENVIRONMENT,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=launch.descriptors,
                    cwd=folder,
                    start_new_session=True,
                )
            except OSError as error:
                raise UnavailableError(f"the virtual machine did not start: {error.strerror}") from error
            kept = own.pop_all()
        return VmProcess(process, channel[0], spec, kept, self), None if port is None else port[0]

    def _confine(self, user: int | None) -> list[str]:
        """Ends with this thread, gains no rights; as root, runs as a user of its own that exists nowhere else."""
        command = [self._prlimit, "--core=0:0", "--", self._setpriv, "--pdeathsig", "KILL", "--no-new-privs"]
        if user is not None:
            command += ["--reuid", str(user), "--regid", str(user), "--inh-caps=-all"]
            if self.accelerator is Accelerator.KVM:
                command += ["--groups", str(KVM_DEVICE.stat().st_gid)]
            else:
                command += ["--clear-groups"]
        return [*command, "--"]


class VmProcess(HostProcess):
    """A machine; its ``pid`` is QEMU's. ``owned`` is what it has of this host: its folder, its TPM."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: socket.socket,
        spec: EnclaveSpec,
        owned: ExitStack,
        starter: VmRuntime,
    ) -> None:
        # As long as this machine is wanted, so is the thread that started it.
        super().__init__(process, channel, spec, words=process.stdout, starter=starter)
        self._owned = owned

    def wait_ready(self, seconds: float, closed: threading.Event) -> None:
        """Wait for the agent's first byte, and leave it where it is.

        Raises:
            UnavailableError: the machine ended, or took longer, or nobody wants it any more.
        """
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        while not (poll.poll(_POLL_SECONDS * 1000) and self._has_word()):
            if self._process.poll() is not None:
                raise UnavailableError(
                    f"the virtual machine ended before its agent was ready: {quoted(self.start_problem() or 'no reason')}"
                )
            if closed.is_set():
                raise UnavailableError("the virtual machine is not wanted any more")
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the virtual machine's agent is not ready after {seconds:g} s: "
                    f"{quoted(self.start_problem() or 'its console is empty')}"
                )

    def _has_word(self) -> bool:
        with suppress(BlockingIOError, ConnectionError):
            if self._channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                return True
            time.sleep(_POLL_SECONDS)  # QEMU is gone or going: its end is seen next
        return False

    def _keep(self, said: bytes, data: bytes) -> bytes:
        """The last of what the console said: why a machine did not boot, and how its agent ended."""
        return (said + data)[-_CONSOLE_TAIL:]

    def start_problem(self) -> str:
        """The line of the console that says why: a panic, the boot's own word, or the last one."""
        if self._process.poll() is not None:
            self._listener.join(1.0)
        console = _ESCAPES.sub("", self._said.decode(errors="replace"))
        lines = [line.strip() for line in console.splitlines() if line.strip()]
        telling = [line for line in lines if any(sign in line for sign in _SIGNS)]
        return (telling or lines[-1:] or [""])[0][-_CONSOLE_LINE:]

    def wait(self, timeout: float | None = None) -> int | None:
        """The agent's exit code where the machine told it, else QEMU's."""
        code = super().wait(timeout)
        if code is None:
            return None
        self._listener.join(1.0)
        _, found, rest = self._said.rpartition(ENDED)
        if found:
            with suppress(ValueError):
                return int(rest.split(b"\n")[0].strip()[:8])
        return code

    def _clean(self) -> None:
        """End the TPM and remove the machine's folder; the channel stays open for what is still in it."""
        self._owned.pop_all().close()


def _pair(own: ExitStack, inherited: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two ends of a socket: ours lives on with the process, theirs is closed here once QEMU has it."""
    ours, theirs = open_channel()
    inherited.callback(theirs.close)
    return ours, theirs
