"""Probes of processors, chips and programs: each tries the thing itself, and says what it gives and what to do without it."""

from __future__ import annotations

import sys
from typing import Final

from cloister.worker.findings import Finding, State, ask_program
from cloister.worker.machine import Machine, short

_FIRMWARE: Final = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/ovmf/OVMF.fd")
_TSM: Final = "/sys/kernel/config/tsm/report"
_YES: Final = frozenset({"1", "Y", "y"})


def probe_kvm(machine: Machine) -> Finding:
    head = ("kvm", "KVM, hardware virtualization")
    gives = "virtual machines ten times faster; needed for TDX and SEV-SNP guests"
    if not machine.has("/dev/kvm"):
        virtual = "hypervisor" in machine.flags()
        advice = (
            "this is a virtual machine: ask its host for nested virtualization"
            if virtual
            else "enable VT-x or AMD-V in the firmware setup, then: modprobe kvm_intel (or kvm_amd)"
        )
        return Finding(*head, State.ABSENT, "no /dev/kvm", gives, advice)
    if not machine.may_use("/dev/kvm"):
        return Finding(
            *head,
            State.BROKEN,
            "/dev/kvm may not be opened by this user",
            gives,
            "adduser $USER kvm, then log in again",
        )
    device = str(machine.root / "dev/kvm")
    ran = machine.run(sys.executable, "-m", "cloister.worker.kvm", device)
    if ran.code == 0:
        return Finding(*head, State.WORKS, "ran a small machine", gives)
    seen = short(ran.said) if ran.code is not None else f"a small machine {ran.said}"
    return Finding(
        *head, State.BROKEN, seen, gives, "use a host, or an instance type, with working nested virtualization"
    )


def probe_tdx(machine: Machine) -> Finding:
    head = ("tdx", "Intel TDX")
    gives = "memory encrypted against the host; evidence signed by Intel's hardware"
    if machine.has("/dev/tdx_guest") or "tdx_guest" in machine.flags():
        return _guest(machine, head, gives, "tdx_guest")
    if (machine.text("/sys/module/kvm_intel/parameters/tdx") or "") in _YES:
        return Finding(*head, State.WORKS, "this host can start TDX guests", gives)
    if "tdx_host_platform" in machine.flags():
        advice = "kernel parameter: kvm_intel.tdx=1 nohibernate; TDX and SEAM loader enabled in the firmware setup"
        return Finding(*head, State.BROKEN, "the processor has it, the kernel does not use it", gives, advice)
    advice = "a Xeon of the 5th generation or later, Linux 6.16 or later, kernel parameter kvm_intel.tdx=1"
    return Finding(*head, State.ABSENT, "no TDX in this processor or kernel", gives, advice)


def probe_snp(machine: Machine) -> Finding:
    head = ("snp", "AMD SEV-SNP")
    gives = "memory encrypted against the host; evidence signed by AMD's hardware"
    if machine.has("/dev/sev-guest"):
        return _guest(machine, head, gives, "sev_guest")
    enabled = (machine.text("/sys/module/kvm_amd/parameters/sev_snp") or "") in _YES
    if enabled and machine.has("/dev/sev"):
        if not machine.may_use("/dev/sev"):
            return Finding(
                *head, State.BROKEN, "/dev/sev may not be opened by this user", gives, "chgrp kvm /dev/sev; chmod 660"
            )
        return Finding(*head, State.WORKS, "this host can start SEV-SNP guests", gives)
    if "sev_snp" in machine.flags():
        advice = (
            "kernel parameters: kvm_amd.sev_snp=1 iommu=nopt; SNP, SEV-ES ASIDs and RMP table in the firmware setup"
        )
        return Finding(*head, State.BROKEN, "the processor has it, the kernel does not use it", gives, advice)
    advice = "an EPYC 7003 or later, Linux 6.11 or later, kernel parameter kvm_amd.sev_snp=1"
    return Finding(*head, State.ABSENT, "no SEV-SNP in this processor or kernel", gives, advice)


def _guest(machine: Machine, head: tuple[str, str], gives: str, module: str) -> Finding:
    """This system runs inside a confidential guest: can it get evidence?"""
    if not machine.has(_TSM):
        return Finding(
            *head,
            State.BROKEN,
            "a confidential guest without a way to get evidence",
            gives,
            f"Linux 6.7 or later; modprobe {module}; mount -t configfs none /sys/kernel/config",
        )
    return Finding(*head, State.WORKS, "this system is such a guest, and configfs-tsm gives evidence", gives)


def probe_sgx(machine: Machine) -> Finding:
    head = ("sgx", "Intel SGX")
    gives = "enclaves of single programs; evidence of SGX is verified, no runtime here starts such enclaves"
    for device in ("/dev/sgx_enclave", "/dev/sgx/enclave"):
        if machine.has(device):
            if machine.may_use(device):
                return Finding(*head, State.WORKS, device, gives)
            return Finding(*head, State.BROKEN, f"{device} may not be opened by this user", gives, "adduser $USER sgx")
    if "sgx" in machine.flags():
        advice = "enable SGX in the firmware setup; Linux 5.11 or later"
        return Finding(*head, State.BROKEN, "the processor has it, there is no device", gives, advice)
    return Finding(
        *head, State.ABSENT, "no SGX in this processor", gives, "a Xeon Scalable of the 3rd generation or later"
    )


def probe_tpm(machine: Machine) -> Finding:
    head = ("tpm", "TPM 2.0 chip")
    gives = "proof of what this machine itself booted; VM enclaves bring a software TPM and do not need it"
    version = machine.text("/sys/class/tpm/tpm0/tpm_version_major")
    if not machine.has("/dev/tpmrm0"):
        seen = f"a TPM {version}.x, too old" if version == "1" else "no /dev/tpmrm0"
        advice = "enable the TPM (fTPM, PTT) in the firmware setup; in a virtual machine, ask its host for a vTPM"
        return Finding(*head, State.ABSENT, seen, gives, advice)
    if not machine.may_use("/dev/tpmrm0"):
        seen = "/dev/tpmrm0 may not be opened by this user"
        return Finding(*head, State.BROKEN, seen, gives, "adduser $USER tss, then log in again")
    return Finding(*head, State.WORKS, f"/dev/tpmrm0, version {version or 'unknown'}", gives)


def probe_swtpm(machine: Machine) -> Finding:
    head = ("swtpm", "swtpm, a TPM in software")
    gives = "measured boot of VM enclaves"
    return ask_program(machine, head, gives, "swtpm", ("--version",), "apt install swtpm")


def probe_qemu(machine: Machine) -> Finding:
    head = ("qemu", "QEMU")
    gives = "VM enclaves, with KVM or (slowly) without"
    return ask_program(machine, head, gives, "qemu-system-x86_64", ("--version",), "apt install qemu-system-x86")


def probe_ovmf(machine: Machine) -> Finding:
    head = ("ovmf", "OVMF, firmware for virtual machines")
    gives = "the first link of the measured boot"
    found = next((path for path in _FIRMWARE if machine.has(path)), None)
    if found is None:
        return Finding(*head, State.ABSENT, "no OVMF_CODE file", gives, "apt install ovmf")
    return Finding(*head, State.WORKS, found, gives)


def probe_node(machine: Machine) -> Finding:
    head = ("node", "Node.js")
    return ask_program(machine, head, "iApps written in JavaScript", "node", ("--version",), "apt install nodejs")


def probe_anvil(machine: Machine) -> Finding:
    head = ("anvil", "anvil, a chain in one process")
    gives = "local networks (cloister up)"
    found = machine.program("anvil")
    if found is None:
        # The package brings it along as a Node package, which no search path knows.
        here = next((path for path in _anvil_places() if machine.has(path)), None)
        if here is None:
            return Finding(
                *head, State.ABSENT, "not installed", gives, "npm install -g @foundry-rs/anvil, or foundryup"
            )
        found = here
    ran = machine.run(found, "--version")
    if ran.code == 0:
        return Finding(*head, State.WORKS, short(ran.said), gives)
    return Finding(*head, State.BROKEN, short(ran.said), gives, "npm install -g @foundry-rs/anvil")


def _anvil_places() -> tuple[str, ...]:
    from pathlib import Path

    home = Path(__file__).resolve().parents[3] / "node_modules" / ".bin" / "anvil"
    return (str(home), str(Path.home() / ".foundry" / "bin" / "anvil"))
