"""What this machine can do for enclaves: each probe tries the thing itself, bounded in time, and says what is missing.

A device that is there and does not work is the common case on clouds, so nothing is believed for its name. Nothing is
changed on the machine, and no probe raises. The advice names Debian's packages; other systems have them under similar names.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cloister.attestation.evidence import EvidenceKind
from cloister.worker.machine import Machine, short

_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_VERSION: Final = 1
_FIRMWARE: Final = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/ovmf/OVMF.fd")
_TSM: Final = "/sys/kernel/config/tsm/report"
_CONTAINERS: Final = "containers; no runtime of this release uses them"
_YES: Final = frozenset({"1", "Y", "y"})


class State(StrEnum):
    """``works`` was tried; ``absent`` is not here; ``broken`` is here and does not work."""

    WORKS = "works"
    ABSENT = "absent"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ``what`` it is, its ``state`` and what was seen, what it ``gives``, and what to do when it is missed.

    ``advice`` is None when it works, or when nothing that can be installed would help.
    """

    name: str
    what: str
    state: State
    seen: str
    gives: str
    advice: str | None = None

    @property
    def works(self) -> bool:
        return self.state is State.WORKS

    def to_json(self) -> dict[str, object]:
        """As JSON."""
        return {
            "name": self.name,
            "what": self.what,
            "state": str(self.state),
            "seen": self.seen,
            "gives": self.gives,
            "advice": self.advice,
        }


@dataclass(frozen=True, slots=True)
class RuntimeVerdict:
    """Whether a runtime of the worker can start enclaves here; ``why`` says what is missing, or what it rests on."""

    name: str
    works: bool
    why: str

    def to_json(self) -> dict[str, object]:
        """As JSON."""
        return {"name": self.name, "works": self.works, "why": self.why}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything found. ``evidence``: the strongest kind that enclaves here can show, and what it is worth."""

    findings: tuple[Finding, ...]
    runtimes: tuple[RuntimeVerdict, ...]
    evidence: EvidenceKind | None
    worth: str

    def finding(self, name: str) -> Finding:
        """One line by its name."""
        return next(each for each in self.findings if each.name == name)

    def to_json(self) -> dict[str, object]:
        """As JSON."""
        return {
            "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
            "findings": [each.to_json() for each in self.findings],
            "runtimes": [each.to_json() for each in self.runtimes],
            "evidence": None if self.evidence is None else str(self.evidence),
            "worth": self.worth,
        }


def diagnose(machine: Machine | None = None) -> Diagnosis:
    """Probe everything, several things at once; takes some seconds."""
    looked_at = machine or Machine()
    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="probe") as pool:
        pending = [pool.submit(_guarded, probe, looked_at) for probe in PROBES]
        findings = tuple(each.result() for each in pending)
    by_name = {each.name: each for each in findings}
    runtimes = _judge_runtimes(by_name)
    evidence, worth = _judge_evidence(by_name, runtimes)
    return Diagnosis(findings, runtimes, evidence, worth)


def _guarded(probe: Probe, machine: Machine) -> Finding:
    try:
        return probe(machine)
    except Exception as error:  # noqa: BLE001  (a doctor who stumbles over one organ still reports on the others)
        name = probe.__name__.removeprefix("_probe_")
        return Finding(name, name, State.BROKEN, f"the probe failed: {type(error).__name__}", "unknown")


Probe = Callable[[Machine], Finding]


def _probe_kvm(machine: Machine) -> Finding:
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


def _probe_tdx(machine: Machine) -> Finding:
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


def _probe_snp(machine: Machine) -> Finding:
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


def _probe_sgx(machine: Machine) -> Finding:
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


def _probe_tpm(machine: Machine) -> Finding:
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


def _probe_swtpm(machine: Machine) -> Finding:
    head = ("swtpm", "swtpm, a TPM in software")
    gives = "measured boot of VM enclaves"
    return _program(machine, head, gives, "swtpm", ("--version",), "apt install swtpm")


def _probe_qemu(machine: Machine) -> Finding:
    head = ("qemu", "QEMU")
    gives = "VM enclaves, with KVM or (slowly) without"
    return _program(machine, head, gives, "qemu-system-x86_64", ("--version",), "apt install qemu-system-x86")


def _probe_ovmf(machine: Machine) -> Finding:
    head = ("ovmf", "OVMF, firmware for virtual machines")
    gives = "the first link of the measured boot"
    found = next((path for path in _FIRMWARE if machine.has(path)), None)
    if found is None:
        return Finding(*head, State.ABSENT, "no OVMF_CODE file", gives, "apt install ovmf")
    return Finding(*head, State.WORKS, found, gives)


def _probe_bubblewrap(machine: Machine) -> Finding:
    head = ("bubblewrap", "bubblewrap, a sandbox")
    gives = "the default runtime, and the inner sandbox of iApps in every runtime"
    program = machine.program("bwrap")
    if program is None:
        return Finding(*head, State.ABSENT, "bwrap is not installed", gives, "apt install bubblewrap")
    ran = machine.run(program, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "/bin/true")
    if ran.code == 0:
        return Finding(*head, State.WORKS, "started a sandbox", gives)
    return Finding(*head, State.BROKEN, f"starts no sandbox: {short(ran.said)}", gives, _namespace_advice(machine))


def _probe_namespaces(machine: Machine) -> Finding:
    head = ("namespaces", "user namespaces")
    gives = "sandboxes without root"
    program = machine.program("unshare")
    if program is None:
        return Finding(*head, State.ABSENT, "cannot be tried: unshare is missing", gives, "apt install util-linux")
    ran = machine.run(program, "--user", "--map-root-user", "--pid", "--fork", "true")
    if ran.code == 0:
        return Finding(*head, State.WORKS, "made one", gives)
    return Finding(*head, State.BROKEN, short(ran.said), gives, _namespace_advice(machine))


def _namespace_advice(machine: Machine) -> str:
    """The one setting that forbids it here, or all that may."""
    settings = {
        "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
        "kernel.unprivileged_userns_clone": ("0", "1"),
        "user.max_user_namespaces": ("0", "10000"),
    }
    wrong = [
        f"sysctl -w {name}={good}"
        for name, (bad, good) in settings.items()
        if machine.text("/proc/sys/" + name.replace(".", "/", 1)) == bad
    ]
    if wrong:
        return "; ".join(wrong)
    if machine.has("/.dockerenv") or machine.has("/run/.containerenv"):
        return (
            "this is a container: start it with --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
        )
    return "allow user namespaces in this system's security policy"


def _probe_landlock(machine: Machine) -> Finding:
    head = ("landlock", "Landlock")
    gives = "one more wall around files, from inside a sandbox; not required"
    call = ctypes.CDLL(None, use_errno=True).syscall
    version = call(_LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_VERSION) if sys.platform == "linux" else -1
    if version >= 1:
        return Finding(*head, State.WORKS, f"ABI {version}", gives)
    loaded = machine.text("/sys/kernel/security/lsm")
    advice = f"kernel parameter lsm=landlock{',' + loaded if loaded else ',…'}; Linux 5.13 or later"
    return Finding(*head, State.ABSENT, "not in this kernel, or not enabled", gives, advice)


def _probe_podman(machine: Machine) -> Finding:
    head = ("podman", "podman")
    return _program(
        machine,
        head,
        _CONTAINERS,
        "podman",
        ("info", "--format", "{{.Version.Version}}"),
        "not needed; apt install podman",
    )


def _probe_docker(machine: Machine) -> Finding:
    head = ("docker", "docker")
    found = _program(
        machine,
        head,
        _CONTAINERS,
        "docker",
        ("version", "--format", "{{.Server.Version}}"),
        "not needed; apt install docker.io",
    )
    if found.state is State.BROKEN:
        advice = "not needed; systemctl start docker; adduser $USER docker, then log in again"
        return Finding(found.name, found.what, found.state, found.seen, found.gives, advice)
    return found


def _probe_runsc(machine: Machine) -> Finding:
    head = ("runsc", "gVisor (runsc)")
    gives = "a kernel of its own around containers; no runtime of this release uses it"
    advice = "not needed; apt install runsc from gVisor's repository (gvisor.dev/docs/user_guide/install)"
    return _program(machine, head, gives, "runsc", ("--version",), advice)


def _probe_node(machine: Machine) -> Finding:
    head = ("node", "Node.js")
    return _program(machine, head, "iApps written in JavaScript", "node", ("--version",), "apt install nodejs")


def _probe_anvil(machine: Machine) -> Finding:
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


def _program(
    machine: Machine, head: tuple[str, str], gives: str, name: str, arguments: tuple[str, ...], advice: str
) -> Finding:
    """A program that must answer a harmless question."""
    found = machine.program(name)
    if found is None:
        return Finding(*head, State.ABSENT, "not installed", gives, advice)
    ran = machine.run(found, *arguments)
    if ran.code == 0:
        return Finding(*head, State.WORKS, short(ran.said), gives)
    return Finding(*head, State.BROKEN, short(ran.said), gives, advice)


PROBES: Final[tuple[Probe, ...]] = (
    _probe_kvm,
    _probe_tdx,
    _probe_snp,
    _probe_sgx,
    _probe_tpm,
    _probe_swtpm,
    _probe_qemu,
    _probe_ovmf,
    _probe_bubblewrap,
    _probe_namespaces,
    _probe_landlock,
    _probe_podman,
    _probe_docker,
    _probe_runsc,
    _probe_node,
    _probe_anvil,
)


def _judge_runtimes(found: Mapping[str, Finding]) -> tuple[RuntimeVerdict, ...]:
    bubblewrap, missing = found["bubblewrap"], [name for name in ("qemu", "swtpm", "ovmf") if not found[name].works]
    vm = (
        f"needs {', '.join(found[name].what.split(',')[0] for name in missing)}"
        if missing
        else f"q35 with {'KVM' if found['kvm'].works else 'emulation (TCG): boots in some seconds, runs slowly'}"
    )
    return (
        RuntimeVerdict("bubblewrap", bubblewrap.works, bubblewrap.seen),
        RuntimeVerdict("vm", not missing, vm),
    )


def _judge_evidence(
    found: Mapping[str, Finding], runtimes: tuple[RuntimeVerdict, ...]
) -> tuple[EvidenceKind | None, str]:
    """The strongest evidence that an enclave started here can show."""
    works = {each.name: each.works for each in runtimes}
    for kind, name in ((EvidenceKind.TDX, "tdx"), (EvidenceKind.SNP, "snp")):
        hosts = found[name].works and "guests" in found[name].seen
        if found[name].works and (not hosts or (works["vm"] and found["kvm"].works)):
            return kind, "confidential against the host: memory is encrypted, and the hardware's vendor vouches for it"
    if works["vm"]:
        return (
            EvidenceKind.TPM,
            "the boot chain is measured and proven; memory is not encrypted, so the host can read it",
        )
    if works["bubblewrap"]:
        return EvidenceKind.SIMULATED, "SIMULATED: not confidential against the host"
    return None, "no enclave can be started here"
