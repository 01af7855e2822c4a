"""The filters, run by a small interpreter of classic BPF: for processors that this machine is not, too."""

from __future__ import annotations

import errno
import struct

import pytest

from cloister.enclave.seccomp import Profile, build_filter
from cloister.errors import ConfigurationError

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NUMBERS = {
    "read": (0, 63),
    "execve": (59, 221),
    "clone": (56, 220),
    "ptrace": (101, 117),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "mount": (165, 40),
    "unshare": (272, 97),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "ioctl": (16, 29),
    "io_uring_setup": (425, 425),
    "clone3": (435, 435),
    "process_vm_readv": (310, 270),
    "init_module": (175, 105),
    "userfaultfd": (323, 282),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "setsockopt": (54, 208),
}
MACHINES = list(AUDIT)


def run(program: bytes, data: bytes) -> int:
    """Interpret the instructions that the assembler emits (bpf(4)); loads are little-endian words."""
    code = [struct.unpack_from("HBBI", program, start) for start in range(0, len(program), 8)]
    position, accumulator = 0, 0
    while True:
        operation, yes, no, value = code[position]
        position += 1
        if operation == 0x06:
            return int(value)
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
            continue
        holds = {
            0x15: accumulator == value,
            0x25: accumulator > value,
            0x35: accumulator >= value,
            0x45: bool(accumulator & value),
        }[operation]
        position += yes if holds else no


def decide(profile: Profile, machine: str, call: str | int, *arguments: int, audit: int | None = None) -> int:
    number = NUMBERS[call][MACHINES.index(machine)] if isinstance(call, str) else call
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, AUDIT[machine] if audit is None else audit, 0, *padded)
    return run(build_filter(profile, machine), data)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("profile", list(Profile))
def test_jumps_stay_inside(profile: Profile, machine: str) -> None:
    program = build_filter(profile, machine)
    count = len(program) // 8
    assert len(program) % 8 == 0
    assert count < 4096
    for position in range(count):
        operation, yes, no, _ = struct.unpack_from("HBBI", program, position * 8)
        if operation not in (0x06, 0x20):
            assert position + 1 + max(yes, no) < count
    assert struct.unpack_from("H", program, (count - 1) * 8)[0] == 0x06


@pytest.mark.parametrize("machine", MACHINES)
def test_iapp(machine: str) -> None:
    for call in ("read", "execve"):
        assert decide(Profile.IAPP, machine, call) == ALLOW
    for call in ("ptrace", "mount", "unshare", "bpf", "keyctl", "io_uring_setup", "process_vm_readv", "userfaultfd"):
        assert decide(Profile.IAPP, machine, call) == ERRNO | errno.EPERM, call
    assert decide(Profile.IAPP, machine, "clone3") == ERRNO | errno.ENOSYS
    assert decide(Profile.IAPP, machine, "clone", 0x3D0F00) == ALLOW
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decide(Profile.IAPP, machine, "clone", namespace | 17) == ERRNO | errno.EPERM
    for family in (1, 2, 10, 16, 17, 40):
        assert decide(Profile.IAPP, machine, "socket", family) == ERRNO | errno.EACCES
    assert decide(Profile.IAPP, machine, "socketpair", 1) == ALLOW
    assert decide(Profile.IAPP, machine, "socketpair", 2) == ERRNO | errno.EACCES
    assert decide(Profile.IAPP, machine, "connect") == ERRNO | errno.EPERM
    assert decide(Profile.IAPP, machine, "ioctl", 0, 0x5401) == ALLOW
    assert decide(Profile.IAPP, machine, "ioctl", 0, 0x5412) == ERRNO | errno.EPERM
    # The kernel takes the low half of the argument; so must the filter.
    assert decide(Profile.IAPP, machine, "ioctl", 0, 0x1_0000_5412) == ERRNO | errno.EPERM


REFUSED = ERRNO | errno.EACCES
STREAM, DATAGRAM, RAW, SEQUENCE, CLOEXEC, NONBLOCK = 1, 2, 3, 5, 0x80000, 0x800


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("profile", [Profile.IAPP_ONLINE, Profile.AGENT_START])
def test_tcp_is_all_that_a_network_gives(profile: Profile, machine: str) -> None:
    for family in (2, 10):
        for flags in (0, CLOEXEC, NONBLOCK, CLOEXEC | NONBLOCK):
            for protocol in (0, 6):
                assert decide(profile, machine, "socket", family, STREAM | flags, protocol) == ALLOW
        for kind in (0, DATAGRAM, RAW, 4, SEQUENCE, 6, 10, STREAM | 0x10, STREAM | 0x100000):
            assert decide(profile, machine, "socket", family, kind, 0) == REFUSED, kind
        # MPTCP, SCTP, SMC and UDP-Lite are streams, or claim to be.
        for protocol in (1, 17, 132, 136, 256, 262, 255):
            assert decide(profile, machine, "socket", family, STREAM, protocol) == REFUSED, protocol
    for family in (3, 17, 21, 38, 40, 43, 44):
        assert decide(profile, machine, "socket", family, STREAM, 0) == REFUSED, family
    assert decide(profile, machine, "connect") == ALLOW
    assert decide(profile, machine, "setsockopt", 3, 6, 1) == ALLOW
    assert decide(profile, machine, "setsockopt", 3, 1, 31) == ALLOW
    assert decide(profile, machine, "setsockopt", 3, 6, 31) == ERRNO | errno.EPERM


@pytest.mark.parametrize("machine", MACHINES)
def test_an_iapp_with_a_network_differs_in_nothing_else(machine: str) -> None:
    for family in (1, 16):
        assert decide(Profile.IAPP_ONLINE, machine, "socket", family, STREAM, 0) == REFUSED
    for call in ("bind", "listen", "accept", "accept4"):
        assert decide(Profile.IAPP_ONLINE, machine, call) == ERRNO | errno.EPERM
    mine = {"socket", "connect", "setsockopt"}
    for call in set(NUMBERS) - mine:
        for first in (0, 1, 2, 0x20000, 0x3D0F00):
            given = (machine, call, first, 0x5412)
            assert decide(Profile.IAPP_ONLINE, *given) == decide(Profile.IAPP, *given), call


@pytest.mark.parametrize("machine", MACHINES)
def test_agent_may_build_a_sandbox_and_no_more(machine: str) -> None:
    for call in ("mount", "unshare", "clone3"):
        assert decide(Profile.AGENT, machine, call) == ALLOW
    for call in ("ptrace", "bpf", "keyctl", "io_uring_setup", "init_module"):
        assert decide(Profile.AGENT, machine, call) == ERRNO | errno.EPERM
    assert decide(Profile.AGENT, machine, "socket", 16) == ALLOW
    for family in (2, 10, 17, 40):
        assert decide(Profile.AGENT, machine, "socket", family) == ERRNO | errno.EACCES


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize("machine", MACHINES)
def test_unknown_calls_and_other_modes(profile: Profile, machine: str) -> None:
    assert decide(profile, machine, 463) == ERRNO | errno.ENOSYS
    assert decide(profile, machine, 10_000) == ERRNO | errno.ENOSYS
    assert decide(profile, machine, "read", audit=0x40000003) == KILL
    if machine == "x86_64":
        assert decide(profile, machine, 0x40000000) == KILL
        assert decide(profile, machine, 0x40000000 | 101) == KILL


def test_unknown_processor() -> None:
    with pytest.raises(ConfigurationError, match="riscv64"):
        build_filter(Profile.IAPP, "riscv64")
