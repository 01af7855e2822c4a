"""The first process of a virtual machine that is an enclave: it makes the system ready, starts the agent, and powers off.

It is in the measured image, with the kernel and the agent, and does what a host does for the other kinds of enclave:
mount, load the kernel's modules for evidence, give up what nobody needs, start the agent as a user without rights, and
carry bytes between the agent's socket and the one port that the machine has to its host. There is no login and no
network; a machine that has a network device all the same is not started.

The host may ask for a report of the boot through a second port: PCRs, event log, command line. All of it is public.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from cloister.protocol.channel import Frame, build_frame

AGENT_USER = 1000
CHANNEL_PORT = "cloister"
REPORT_PORT = "cloister.report"
EVENT_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
TSM_REPORTS = Path("/sys/kernel/config/tsm/report")
TPM_DEVICE = Path("/dev/tpmrm0")
PCRS = tuple(range(16))
ENDED = "cloister: the agent ended with"
"""Begins the line on the console that tells the agent's exit code."""

_MODULES = Path("/opt/cloister-modules")
_PYTHONPATH = "/opt/cloister-agent:/opt/cloister-libraries"
_PYTHON = "/usr/bin/python3.11"
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_MOVE = 32, 4096, 8192
_POWER_OFF = 0x4321FEDC
_PIECE = 1 << 18
_PORT_BUFFER = 4096
"""What the kernel's driver and QEMU hand over at once."""
_LEAVING_SECONDS = 1.0
_FINIT_MODULE = 313
_PR_CAPBSET_DROP = 24
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_MOST_EVENT_LOG = 1 << 20
_SETTINGS = {
    "kernel/kptr_restrict": "2",
    "kernel/dmesg_restrict": "1",
    "kernel/perf_event_paranoid": "3",
    "kernel/yama/ptrace_scope": "2",
    "kernel/io_uring_disabled": "2",
    "kernel/kexec_load_disabled": "1",
    "kernel/sysrq": "0",
    "kernel/modules_disabled": "1",
}
"""Written once the modules are in. One that this kernel does not know is left out."""

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> NoReturn:
    """Boot, run the agent to its end, power off. Whatever goes wrong is said on the console."""
    try:
        _prepare()
        code = _run_agent()
        _say(f"{ENDED} {code}")
    except BaseException as error:  # noqa: BLE001  a first process that ends is a kernel that panics
        _say(f"cloister: the boot failed: {type(error).__name__}: {error}")
    _power_off()


def _prepare() -> None:
    os.umask(0o022)
    _leave_first_root()
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("sysfs", "/sys", "sysfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("devtmpfs", "/dev", "devtmpfs", _MS_NOSUID | _MS_NOEXEC, "mode=0755")
    Path("/dev/shm").mkdir(exist_ok=True)  # noqa: S108
    _mount("tmpfs", "/dev/shm", "tmpfs", _MS_NOSUID | _MS_NODEV, "size=64m,mode=1777")  # noqa: S108
    _mount("tmpfs", "/run", "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=16m,mode=0755")
    # Ciphertext, plaintext, result and the unpacked app: the agent's, and nobody else's.
    private = f"size=75%,mode=0700,uid={AGENT_USER},gid={AGENT_USER}"
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, private)  # noqa: S108
    _mount("none", "/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY)
    _refuse_network()
    _raise_loopback()
    _load_modules()
    with suppress(OSError):
        _mount("securityfs", "/sys/kernel/security", "securityfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    with suppress(OSError):
        _mount("configfs", "/sys/kernel/config", "configfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _give_evidence_sources()
    for name, value in _SETTINGS.items():
        with suppress(OSError):
            Path("/proc/sys", name).write_text(value)
    for port in _ports(REPORT_PORT):
        _report(port)


def _leave_first_root() -> None:
    """Stand on a mount of the root instead of the root itself: pivot_root(2) refuses to leave the first one, and the
    agent's sandbox is built with it.
    """
    _mount("/", "/newroot", None, _MS_BIND)
    os.chdir("/newroot")
    _mount(".", "/", None, _MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def _refuse_network() -> None:
    devices = _network_devices()
    if devices != ["lo"]:
        raise OSError(f"this machine has network devices: {', '.join(devices)[:80]}")


def _raise_loopback() -> None:
    """Let the agent speak with its iApp over ``lo`` (netdevice(7)). Without it iApps that name hosts are refused by name."""
    request = struct.pack("16sh22x", b"lo", _IFF_UP)
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, request)


def _network_devices() -> list[str]:
    return sorted(os.listdir("/sys/class/net"))  # noqa: PTH208


def _load_modules() -> None:
    """Load what reads hardware evidence. On a machine without that hardware the kernel refuses, and that is an answer."""
    for path in sorted(_MODULES.iterdir()):
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _libc.syscall(_FINIT_MODULE, handle, b"", 0)
        finally:
            os.close(handle)


def _give_evidence_sources() -> None:
    """Let the agent's user, and nobody else, ask for evidence."""
    for path in (TPM_DEVICE, EVENT_LOG):
        if path.exists():
            os.chown(path, AGENT_USER, AGENT_USER)
            path.chmod(0o600 if path == TPM_DEVICE else 0o400)
    if not TSM_REPORTS.is_dir():
        return
    # What is made in configfs belongs to root, so the one entry that is needed is made here.
    entry = TSM_REPORTS / "agent"
    try:
        entry.mkdir()
        for path in (entry, *entry.iterdir()):
            os.chown(path, AGENT_USER, AGENT_USER)
    except OSError:
        # The module is there and no hardware behind it. The agent takes the folder for the hardware's sign.
        _libc.umount2(b"/sys/kernel/config", 0)


def _report(port: Path) -> None:
    """Tell the host what the TPM and the kernel say of this boot."""
    pcrs = {}
    for index in PCRS:
        with suppress(OSError):
            pcrs[str(index)] = Path(f"/sys/class/tpm/tpm0/pcr-sha256/{index}").read_text().strip().lower()
    log = b""
    with suppress(OSError), EVENT_LOG.open("rb") as file:
        log = file.read(_MOST_EVENT_LOG)
    header = {
        "pcrs": pcrs,
        "command_line": Path("/proc/cmdline").read_text().strip(),
        "network": _network_devices(),
        "kernel": os.uname().release,
        "tsm": TSM_REPORTS.is_dir(),
    }
    handle = os.open(port, os.O_RDWR | os.O_CLOEXEC)
    try:
        _write(handle, build_frame(Frame("boot", header, log)))
    finally:
        os.close(handle)


def _run_agent() -> int:
    """Start the agent and carry its bytes until it has ended. Returns its exit code."""
    ports = _ports(CHANNEL_PORT)
    if len(ports) != 1:
        raise OSError(f"this machine has {len(ports)} ports named {CHANNEL_PORT}")
    port = os.open(ports[0], os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    agent = os.fork()
    if agent == 0:
        _become_agent(theirs.fileno())
    theirs.close()
    threading.Thread(target=_to_agent, args=(port, ours, agent), daemon=True).start()
    outward = threading.Thread(target=_to_host, args=(port, ours))
    outward.start()
    code = _reap(agent)
    outward.join()
    # The last bytes may still be on their way; a host that has them all leaves.
    _wait_for(port, 0, _LEAVING_SECONDS)
    return code


def _become_agent(channel: int) -> NoReturn:
    """Give up all rights for good and become the agent. Nothing that is here comes back over ``exec``."""
    try:
        os.setsid()
        os.set_inheritable(channel, True)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir("/tmp")  # noqa: S108
        _drop_capabilities()
        os.setgroups([])
        os.setresgid(AGENT_USER, AGENT_USER, AGENT_USER)
        os.setresuid(AGENT_USER, AGENT_USER, AGENT_USER)
        options = ["-s", "-S", "-P", "-B", "-m", "cloister.enclave.agent", str(channel)]
        environment = {"PYTHONPATH": _PYTHONPATH, "PATH": "/usr/bin", "LANG": "C.UTF-8", "HOME": "/tmp"}  # noqa: S108
        os.execve(_PYTHON, [_PYTHON, *options], environment)  # noqa: S606
    except BaseException as error:  # noqa: BLE001
        _say(f"cloister: the agent did not start: {type(error).__name__}: {error}")
    os._exit(70)


def _drop_capabilities() -> None:
    """Empty the bounding set, so that no program can bring a capability back (capabilities(7))."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            return  # the first one that the kernel does not have


def _to_agent(port: int, agent_socket: socket.socket, agent: int) -> None:
    buffers = [bytearray(_PORT_BUFFER) for _ in range(_PIECE // _PORT_BUFFER)]
    with suppress(OSError):
        while (count := _read_port(port, buffers)) > 0:
            # All but the last buffer are full: readv stops at the first one that is not.
            full, rest = divmod(count, _PORT_BUFFER)
            agent_socket.sendall(b"".join(buffers[:full]) + buffers[min(full, len(buffers) - 1)][:rest])
    # The host is gone: so is the reason for the agent to be.
    with suppress(OSError):
        agent_socket.shutdown(socket.SHUT_WR)
    with suppress(OSError):
        os.kill(agent, signal.SIGTERM)


def _read_port(port: int, buffers: list[bytearray]) -> int:
    """Read what is there, in one call; 0 when the host has left.

    The driver hands out its own buffers one by one, a page each at most, so readv asks for many of that size. The
    descriptor does not block: it would keep back what it has until all are full.
    """
    while True:
        try:
            return os.readv(port, buffers)
        except BlockingIOError:
            _wait_for(port, select.POLLIN)


def _to_host(port: int, agent_socket: socket.socket) -> None:
    with suppress(OSError):
        while data := agent_socket.recv(_PIECE):
            _write(port, data)


def _wait_for(port: int, event: int, seconds: float | None = None) -> None:
    poll = select.poll()
    poll.register(port, event)
    poll.poll(None if seconds is None else seconds * 1000)


def _reap(agent: int) -> int:
    """Bury every child that comes, until it is the agent."""
    while True:
        pid, status = os.wait()
        if pid == agent:
            return os.waitstatus_to_exitcode(status)


def _ports(name: str) -> list[Path]:
    """The devices of the ports that the host gave this name."""
    with suppress(OSError):
        entries = sorted(Path("/sys/class/virtio-ports").iterdir())
        return [Path("/dev") / entry.name for entry in entries if (entry / "name").read_text().strip() == name]
    return []


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(handle, view) :]
        except BlockingIOError:
            _wait_for(handle, select.POLLOUT)


def _mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    encoded = None if kind is None else kind.encode()
    if _libc.mount(source.encode(), target.encode(), encoded, ctypes.c_ulong(flags), options.encode()) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"mount {target}: {os.strerror(error)}")


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"{text}\n".encode(errors="replace"))


def _power_off() -> NoReturn:
    os.sync()
    _libc.reboot(ctypes.c_int(_POWER_OFF))
    os._exit(1)
