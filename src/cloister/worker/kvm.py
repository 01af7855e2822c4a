"""Whether hardware virtualization works here: makes a virtual machine of one page and lets it run three instructions.

``/dev/kvm`` may be there, and even make machines, where no instruction of theirs ever runs: on clouds without nested
virtualization, for one. So the only answer that counts is a processor that came to its HLT. Runs as a program of its own
(``python -m cloister.worker.kvm``), because a broken KVM may not come back.

Source: the kernel's Documentation/virt/kvm/api.rst; numbers are those of x86-64.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import struct
import sys
from pathlib import Path
from typing import Final

API_VERSION: Final = 12
_GET_API_VERSION, _CREATE_VM, _GET_VCPU_MMAP_SIZE, _CREATE_VCPU, _RUN = 0xAE00, 0xAE01, 0xAE04, 0xAE41, 0xAE80
_SET_USER_MEMORY_REGION, _SET_REGS, _GET_SREGS, _SET_SREGS = 0x4020AE46, 0x4090AE82, 0x8138AE83, 0x4138AE84
_SREGS_SIZE: Final = 312
_EXIT_HLT: Final = 5
_EXIT_REASON_OFFSET: Final = 8
_PAGE: Final = 4096
_CODE: Final = bytes.fromhex("9bdbe3f4")
"""fwait, fninit, hlt: a KVM that emulates what it cannot run stops before the last."""


class KvmUnusable(Exception):
    """KVM does not run machines here; the text says at which step it ends."""


def run_machine(device: Path = Path("/dev/kvm")) -> None:
    """Make a machine and run ``_CODE`` in it.

    Raises:
        KvmUnusable: at any step.
    """
    try:
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise KvmUnusable(f"{device} does not open: {error.strerror}") from error
    step = "is no KVM"
    try:
        version = fcntl.ioctl(kvm, _GET_API_VERSION, 0)
        if version != API_VERSION:
            raise KvmUnusable(f"KVM speaks version {version} and not {API_VERSION}")
        step = "makes no machine"
        machine = fcntl.ioctl(kvm, _CREATE_VM, 0)
        if platform.machine() != "x86_64":
            return
        step = "runs no machine"
        reason = _run(kvm, machine)
    except OSError as error:
        raise KvmUnusable(f"{device} {step}: {error.strerror}") from error
    finally:
        os.close(kvm)
    if reason != _EXIT_HLT:
        raise KvmUnusable(f"{device} stops at code that this processor should run (exit reason {reason})")


def _run(kvm: int, machine: int) -> int:
    """Run a processor in real mode from address 0; answers why it stopped."""
    memory = mmap.mmap(-1, _PAGE)
    memory[: len(_CODE)] = _CODE
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, _PAGE, address))
    processor = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    shared = mmap.mmap(processor, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE, 0))
    special = bytearray(_SREGS_SIZE)
    fcntl.ioctl(processor, _GET_SREGS, special)
    special[:8] = bytes(8)  # base of the code segment
    special[12:14] = bytes(2)  # its selector
    fcntl.ioctl(processor, _SET_SREGS, bytes(special))
    registers = bytearray(18 * 8)
    registers[-8:] = struct.pack("<Q", 2)  # flags: the bit that is always set; rip and all others are 0
    fcntl.ioctl(processor, _SET_REGS, bytes(registers))
    fcntl.ioctl(processor, _RUN, 0)
    (reason,) = struct.unpack_from("<I", shared, _EXIT_REASON_OFFSET)
    return int(reason)


def main() -> int:
    """Print ``ok`` or why not."""
    try:
        run_machine(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/dev/kvm"))
    except KvmUnusable as error:
        print(error)
        return 1
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
