"""QEMU's command line for an enclave: firmware, kernel, initramfs, a TPM, one port to the host, and nothing else.

The same image gives the same measurement wherever the processor that the guest sees is of the same model: what else
firmware and kernel measure is fixed here, machine type, number of processors, width of physical addresses, order of
devices. Without KVM the model is QEMU's own and the same everywhere; with KVM it is the host's, and the firmware's PCR 0
follows it. Memory counts only below ``EVEN_MEMORY``, where it moves the place of the initramfs.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from cloister.errors import ConfigurationError, InputError
from cloister.worker.programs import find_program
from cloister.worker.vm.image import FIRMWARE, INITRAMFS, KERNEL, Image

PROGRAM = "qemu-system-x86_64"
KVM_DEVICE = Path("/dev/kvm")
_MACHINE_SWITCHES = "smm=off,usb=off,vmport=off,graphics=off,dump-guest-core=off,mem-merge=off"
MACHINE = "pc-q35-7.1"
CHANNEL_PORT = "cloister"
REPORT_PORT = "cloister.report"
EVEN_MEMORY = 2816
"""MiB from which QEMU puts 2 GiB below the devices' addresses, whatever the size."""
LEAST_MEMORY, MOST_MEMORY = EVEN_MEMORY, 1 << 20
MOST_PROCESSORS = 64
_ADDRESS_BITS = 40
_PROBE_SECONDS = 5.0
_PROBE_EXIT = 33
_PROBE_MEMORY = 16
_ROM = 1 << 16
# fwait, fninit, mov al 0x10, out 0xf4, hlt: a processor that emulates what it cannot run stops at the first.
_PROBE_CODE = bytes.fromhex("9bdbe3b010e6f4f4")


class Accelerator(StrEnum):
    """KVM runs the guest on the processor; TCG translates its code, ten times slower, and needs nothing."""

    KVM = "kvm"
    TCG = "tcg"


class Confidential(StrEnum):
    """Hardware that keeps the host out of the guest's memory; the measured boot is the same."""

    TDX = "tdx"
    SNP = "snp"


@dataclass(frozen=True, slots=True)
class VmOptions:
    """What a virtual machine takes of this host. ``memory_mib`` is the whole machine's, the unpacked image included.

    ``boot_seconds``: how long it may take until the agent is ready. ``accelerator``: None takes KVM where it works.
    ``confidential``: None where the host's hardware protects no guest.
    """

    memory_mib: int = 3072
    processors: int = 2
    boot_seconds: float = 240.0
    accelerator: Accelerator | None = None
    confidential: Confidential | None = None

    def __post_init__(self) -> None:
        if not LEAST_MEMORY <= self.memory_mib <= MOST_MEMORY:
            raise InputError(
                f"a machine has {LEAST_MEMORY} to {MOST_MEMORY} MiB, not {self.memory_mib}",
                hint="below that its measurement would depend on the size",
            )
        if not 1 <= self.processors <= MOST_PROCESSORS:
            raise InputError(f"a machine has 1 to {MOST_PROCESSORS} processors, not {self.processors}")
        if self.boot_seconds <= 0:
            raise InputError(f"a boot takes more than {self.boot_seconds:g} seconds")
        if self.confidential is not None and self.accelerator is Accelerator.TCG:
            raise InputError(f"{self.confidential} protects a guest of KVM only")


@dataclass(frozen=True, slots=True)
class Launch:
    """Where one machine finds its parts: descriptors that it inherits, and paths. ``report`` is only there to be measured."""

    kernel: int
    initramfs: int
    firmware: int
    variables: Path
    tpm: Path | None
    channel: int
    report: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the machine's process inherits."""
        own = (self.kernel, self.initramfs, self.firmware, self.channel)
        return own if self.report is None else (*own, self.report)


def build_command(options: VmOptions, accelerator: Accelerator, image: Image, launch: Launch) -> list[str]:
    """QEMU's arguments, its own name first. No shell reads them."""
    command = [find_qemu(), "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-no-reboot"]
    command += ["-nic", "none", "-m", str(options.memory_mib), "-smp", str(options.processors)]
    command += _machine(options, accelerator, launch)
    # Through descriptors: the files may lie where the machine's user cannot go.
    command += ["-kernel", f"/proc/self/fd/{launch.kernel}", "-initrd", f"/proc/self/fd/{launch.initramfs}"]
    command += ["-append", image.manifest.command_line]
    if launch.tpm is not None:
        command += ["-chardev", f"socket,id=tpm,path={_escaped(launch.tpm)}"]
        command += ["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]
    command += ["-device", "virtio-serial-pci,id=ports,max_ports=4"]
    command += _port("channel", launch.channel, CHANNEL_PORT)
    if launch.report is not None:
        command += _port("report", launch.report, REPORT_PORT)
    command += ["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]
    return [*command, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]


def _machine(options: VmOptions, accelerator: Accelerator, launch: Launch) -> list[str]:
    """Machine, processor and firmware; what a confidential guest is given of its host's hardware."""
    firmware = f"/proc/self/fd/{launch.firmware}"
    machine = f"{MACHINE},accel={accelerator},{_MACHINE_SWITCHES}"
    model = "max" if accelerator is Accelerator.TCG else "host"
    processor = ["-cpu", f"{model},phys-bits={_ADDRESS_BITS},host-phys-bits=off"]
    match options.confidential:
        case None:
            code = f"if=pflash,format=raw,unit=0,readonly=on,file={firmware}"
            variables = f"if=pflash,format=raw,unit=1,file={_escaped(launch.variables)}"
            return ["-machine", machine, *processor, "-drive", code, "-drive", variables]
        case Confidential.TDX:
            # The module's own machine type: TDX measures the firmware as it is loaded, and knows no variables in flash.
            machine = f"q35,accel=kvm,{_MACHINE_SWITCHES},kernel-irqchip=split"
            machine += ",confidential-guest-support=guest"
            return ["-machine", machine, "-cpu", "host", "-object", "tdx-guest,id=guest", "-bios", firmware]
        case Confidential.SNP:
            machine = f"q35,accel=kvm,{_MACHINE_SWITCHES},confidential-guest-support=guest"
            machine += ",memory-backend=memory"
            memory = f"memory-backend-memfd,id=memory,size={options.memory_mib}M,share=true"
            # Hashes of kernel, initramfs and command line go into the firmware's measured page. Policy: no debugging,
            # SMT allowed (AMD SNP ABI 4.3: bit 17 is reserved as one, bit 16 SMT, bit 19 debug).
            guest = "sev-snp-guest,id=guest,cbitpos=51,reduced-phys-bits=1,kernel-hashes=on,policy=0x30000"
            objects = ["-object", memory, "-object", guest]
            return ["-machine", machine, "-cpu", "EPYC-v4", *objects, "-bios", firmware]


def _port(name: str, descriptor: int, label: str) -> list[str]:
    device = f"virtserialport,bus=ports.0,chardev={name},name={label}"
    return ["-chardev", f"socket,id={name},fd={descriptor}", "-device", device]


def _escaped(path: Path) -> str:
    """A path in QEMU's option syntax, where a comma is written twice."""
    return str(path).replace(",", ",,")


def find_qemu() -> str:
    """The program.

    Raises:
        ConfigurationError: it is not installed.
    """
    return find_program(PROGRAM, "qemu-system-x86")


@lru_cache(maxsize=1)
def probe_kvm() -> str | None:
    """Why KVM cannot run a machine here; None when it can.

    The device being there says little: inside another virtual machine KVM may emulate what the processor does not run,
    and stop at the first instruction that its emulator does not know. So a few instructions are run.
    """
    if not KVM_DEVICE.exists():
        return f"there is no {KVM_DEVICE}"
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return f"{KVM_DEVICE} may not be opened"
    rom = bytearray(b"\xf4" * _ROM)
    rom[_ROM - 16 : _ROM - 16 + len(_PROBE_CODE)] = _PROBE_CODE
    with tempfile.TemporaryDirectory(prefix="cloister-kvm-") as folder:
        path = Path(folder) / "probe.rom"
        path.write_bytes(rom)
        command = [find_qemu(), "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"]
        command += ["-machine", "q35,accel=kvm", "-cpu", "host", "-m", str(_PROBE_MEMORY), "-bios", _escaped(path)]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-action", "panic=shutdown"]
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_PROBE_SECONDS
            )
        except subprocess.TimeoutExpired:
            return "KVM is there and does not run code"
    if done.returncode == _PROBE_EXIT:
        return None
    return "KVM is there and stops at code that this processor should run"


def choose_accelerator(options: VmOptions) -> Accelerator:
    """What the options name, or the fastest that works here.

    Raises:
        ConfigurationError: KVM was asked for, or is needed for a confidential guest, and does not work.
    """
    if options.accelerator is Accelerator.TCG:
        return Accelerator.TCG
    problem = probe_kvm()
    if problem is None:
        return Accelerator.KVM
    if options.accelerator is Accelerator.KVM or options.confidential is not None:
        raise ConfigurationError(f"KVM does not work here: {problem}")
    return Accelerator.TCG


def open_parts(image: Image) -> tuple[int, int, int]:
    """Descriptors of kernel, initramfs and firmware, read-only; the caller closes them."""
    handles: list[int] = []
    try:
        for name in (KERNEL, INITRAMFS, FIRMWARE):
            handles.append(os.open(image.folder / name, os.O_RDONLY | os.O_CLOEXEC))  # noqa: PERF401  closed on error
    except OSError:
        for handle in handles:
            os.close(handle)
        raise
    return handles[0], handles[1], handles[2]
