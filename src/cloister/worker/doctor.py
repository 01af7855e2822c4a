"""What this machine can do for enclaves: each probe tries the thing itself, bounded in time, and says what is missing.

A device that is there and does not work is the common case on clouds, so nothing is believed for its name. Nothing is
changed on the machine, and no probe raises. The advice names Debian's packages; other systems have them under similar names.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from cloister.attestation.evidence import EvidenceKind
from cloister.worker import probes, probes_sandbox
from cloister.worker.findings import Finding, Probe, State
from cloister.worker.machine import Machine

PROBES: Final[tuple[Probe, ...]] = (
    probes.probe_kvm,
    probes.probe_tdx,
    probes.probe_snp,
    probes.probe_sgx,
    probes.probe_tpm,
    probes.probe_swtpm,
    probes.probe_qemu,
    probes.probe_ovmf,
    probes_sandbox.probe_bubblewrap,
    probes_sandbox.probe_namespaces,
    probes_sandbox.probe_landlock,
    probes_sandbox.probe_podman,
    probes_sandbox.probe_docker,
    probes_sandbox.probe_runsc,
    probes_sandbox.probe_containers,
    probes.probe_node,
    probes.probe_anvil,
)


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
        name = probe.__name__.removeprefix("probe_")
        return Finding(name, name, State.BROKEN, f"the probe failed: {type(error).__name__}", "unknown")


def _judge_runtimes(found: Mapping[str, Finding]) -> tuple[RuntimeVerdict, ...]:
    bubblewrap, missing = found["bubblewrap"], [name for name in ("qemu", "swtpm", "ovmf") if not found[name].works]
    vm = (
        f"needs {', '.join(found[name].what.split(',')[0] for name in missing)}"
        if missing
        else f"q35 with {'KVM' if found['kvm'].works else 'emulation (TCG): boots in some seconds, runs slowly'}"
    )
    return (
        RuntimeVerdict("bubblewrap", bubblewrap.works, bubblewrap.seen),
        RuntimeVerdict("oci", found["containers"].works, found["containers"].seen),
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
    if works["bubblewrap"] or works["oci"]:
        return EvidenceKind.SIMULATED, "SIMULATED: not confidential against the host"
    return None, "no enclave can be started here"
