"""A software TPM (swtpm) as a process: one for each virtual machine, on a copy of an enrolled TPM's state.

A copy, because a machine that is killed must not leave a half-written TPM behind, and because nothing that one enclave
does to its TPM may reach the next. So all machines of a worker show the same TPM, and count as one platform.
The state holds the TPM's keys: whoever can read it can forge its quotes. That is the host, which this kind of evidence
does not keep out: see docs/attestation.md.
"""

from __future__ import annotations

import os
import shutil
import socket as socketlib
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from cloister.errors import ConfigurationError, UnavailableError, quoted
from cloister.worker.programs import find_program

STATE_FILES = ("tpm2-00.permall",)
"""What a TPM keeps without power. Its volatile state and lock are not part of a copy."""
_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_FOLDER = "cloister-tpm"
_SOCKET_NAME = "tpm"
_LONGEST_SOCKET_PATH = 107
_LOG_CAP = 2000
_GET_TEST_RESULT = bytes.fromhex("80010000000a0000017c")
"""TPM2_GetTestResult: the answer's bytes 6 to 9 are zero when the TPM works."""
_ACCEPTS = 0x10000
"""__SO_ACCEPTCON, the flag of a listening socket in /proc/net/unix."""


class Swtpm:
    """A running software TPM. ``socket`` is the unix socket at which it answers.

    Ended by ``stop``, when the connection to it closes, and when this process dies.
    """

    def __init__(self, socket: Path, process: subprocess.Popen[bytes], folder: Path) -> None:
        """Use ``start`` or ``start_in_place``."""
        self.socket = socket
        self._process = process
        self._folder = folder

    @classmethod
    def start(cls, state: Path, *, user: int | None = None) -> Self:
        """Start one for QEMU on a copy of the state folder ``state``: ``socket`` is its control channel.

        The machine's firmware starts the TPM up, with all registers as after power-on. ``user``: the user and group id
        that swtpm and the machine run under, when this process is root.

        Raises:
            ConfigurationError: swtpm is not installed, or the folder holds no state. UnavailableError: it did not start.
        """
        missing = [name for name in STATE_FILES if not (state / name).is_file()]
        if missing:
            raise ConfigurationError(f"{state} holds no TPM: {missing[0]} is missing", hint="enrol the TPM again")
        folder = _make_folder()
        try:
            for name in STATE_FILES:
                shutil.copyfile(state / name, folder / name)
                (folder / name).chmod(0o600)
            if user is not None:
                for path in (*folder.iterdir(), folder):
                    os.chown(path, user, user)
            socket = folder / _SOCKET_NAME
            process = _launch(folder, folder, ["--ctrl", f"type=unixio,path={socket},mode=0600", "--terminate"], user)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(socket, process, folder)

    @classmethod
    def start_in_place(cls, state: Path) -> Self:
        """Start one on the state folder ``state`` itself, which may be empty, and let it keep what it is told.

        ``socket`` takes raw TPM commands from one client at a time; the TPM was started up. Raises as ``start`` does.
        """
        folder = _make_folder()
        socket = folder / _SOCKET_NAME
        try:
            arguments = ["--server", f"type=unixio,path={socket},mode=0600", "--flags", "not-need-init,startup-clear"]
            process = _launch(state, folder, arguments, None)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        started = cls(socket, process, folder)
        try:
            _check_answers(socket)
        except BaseException:
            started.stop()
            raise
        return started

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def stop(self) -> None:
        """End it and remove what is not to be kept. May be called again."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def find_swtpm() -> str:
    """The program.

    Raises:
        ConfigurationError: it is not installed.
    """
    return find_program("swtpm", "swtpm")


def _make_folder() -> Path:
    """A folder (0700) for socket, log and copied state; those of owners that were killed are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}-*-*"):
        owner = left.name.split("-")[2]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDER}-{os.getpid()}-"))


def _launch(state: Path, folder: Path, channel: list[str], user: int | None) -> subprocess.Popen[bytes]:
    """Start swtpm and wait until its socket is there."""
    socket, log = folder / _SOCKET_NAME, folder / "log"
    if len(str(socket)) > _LONGEST_SOCKET_PATH:
        raise ConfigurationError(
            f"the folder for temporary files has too long a name for a socket: {quoted(str(folder))}"
        )
    command = [
        find_program("prlimit", "util-linux"),
        "--core=0:0",
        "--",
        find_program("setpriv", "util-linux"),
        "--pdeathsig",
        "KILL",
        "--no-new-privs",
    ]
    if user is not None:
        command += ["--reuid", str(user), "--regid", str(user), "--clear-groups", "--inh-caps=-all"]
    # The kernel's tie is made by setpriv: an owner that was killed before that is noticed by whom the child has got since.
    command += ["--", "/bin/sh", "-c", '[ "$PPID" = "$0" ] && exec "$@"', str(os.getpid())]
    command += [find_swtpm(), "socket", "--tpm2", "--tpmstate", f"dir={state},mode=0600", *channel]
    command += ["--log", f"file={log},level=1"]
    process = _start_tied(command)
    deadline = time.monotonic() + _START_SECONDS
    while not _listens(socket):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
            said = log.read_text(errors="replace")[:_LOG_CAP].strip() if log.is_file() else ""
            reason = "ended at once" if ended else f"is not there after {_START_SECONDS:g} s"
            raise UnavailableError(f"swtpm {reason}: {quoted(said or f'exit code {process.returncode}')}")
        time.sleep(0.005)
    return process


def _check_answers(path: Path) -> None:
    """Ask a TPM for anything: it listens before it has made itself, or found that its state is damaged."""
    with socketlib.socket(socketlib.AF_UNIX) as probe:
        probe.settimeout(_START_SECONDS)
        try:
            probe.connect(str(path))
            probe.sendall(_GET_TEST_RESULT)
            answer = probe.recv(64)
        except OSError as error:
            raise UnavailableError(f"swtpm does not answer: {error.strerror or error}") from error
    if answer[6:10] != bytes(4):
        raise UnavailableError(f"swtpm does not work: it answered {quoted(answer.hex() or 'nothing')}")


def _listens(socket: Path) -> bool:
    """Whether somebody listens there, told without connecting: a first connection would be taken for the machine's."""
    if not socket.is_socket():
        return False
    for line in Path("/proc/net/unix").read_text(errors="replace").splitlines():
        fields = line.split(maxsplit=7)  # address, references, protocol, flags, type, state, inode, path
        if len(fields) == 8 and fields[7] == str(socket):
            return bool(int(fields[3], 16) & _ACCEPTS)
    return False


def _start_tied(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a child in a thread that stays with it: the kernel ends the child when the thread that started it ends."""
    started: list[subprocess.Popen[bytes] | OSError] = []
    ready = threading.Event()

    def stay() -> None:
        try:
            process = subprocess.Popen(
                command,
                env={"PATH": os.defpath, "LANG": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            started.append(error)
            return
        else:
            started.append(process)
        finally:
            ready.set()
        # Watches without reaping, so that it never stands in the way of the owner's own wait.
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    threading.Thread(target=stay, name="swtpm-keeper", daemon=True).start()
    ready.wait()
    outcome = started[0]
    if isinstance(outcome, OSError):
        raise UnavailableError(f"swtpm did not start: {outcome.strerror}") from outcome
    return outcome
