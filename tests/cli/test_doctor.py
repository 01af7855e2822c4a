"""``cloister doctor`` on this machine, and on machines made of files and small programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.terminal import Terminal

from cloister.attestation.evidence import EvidenceKind
from cloister.worker.doctor import PROBES, Diagnosis, diagnose
from cloister.worker.findings import State
from cloister.worker.machine import Machine

NAMES = {
    *("kvm", "tdx", "snp", "sgx", "tpm", "swtpm", "qemu", "ovmf", "bubblewrap", "namespaces", "landlock"),
    *("podman", "docker", "runsc", "containers", "node", "anvil"),
}
TOOLS = ("qemu-system-x86_64", "swtpm", "bwrap", "unshare", "podman", "docker", "runsc", "node", "anvil")


class Workshop:
    """A machine with nothing in it; tests put files, devices (as files) and programs there."""

    def __init__(self, folder: Path) -> None:
        self.root, self.programs = folder / "root", folder / "bin"
        self.root.mkdir()
        self.programs.mkdir()

    def file(self, path: str, content: str = "") -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)

    def flags(self, *names: str) -> None:
        self.file("/proc/cpuinfo", f"processor\t: 0\nflags\t\t: fpu {' '.join(names)}\n")

    def program(self, name: str, script: str) -> None:
        place = self.programs / name
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)

    def vm_tools(self) -> None:
        self.program("qemu-system-x86_64", "echo QEMU emulator version 9.9")
        self.program("swtpm", "echo TPM emulator version 0.9")
        self.file("/usr/share/OVMF/OVMF_CODE_4M.fd")

    def diagnose(self) -> Diagnosis:
        return diagnose(Machine(self.root, str(self.programs)))


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_this_machine(terminal: Terminal) -> None:
    """What is said of the machine that runs the tests is true of it, and the words for people say the same."""
    done = terminal.run("doctor", "--json", code=0 if diagnose().evidence is not None else 75)
    found = done.json
    assert {each["name"] for each in found["findings"]} == NAMES
    assert len(PROBES) == len(NAMES)
    for each in found["findings"]:
        assert each["state"] in ("works", "absent", "broken")
        assert each["seen"]
        assert each["gives"]
        assert (each["advice"] is None) == (each["state"] == "works"), each
    assert {each["name"] for each in found["runtimes"]} == {"bubblewrap", "oci", "vm"}
    text = terminal.run("doctor", code=done.code).stdout
    for each in found["findings"]:
        assert each["what"] in text
        assert each["seen"].split()[0] in text
    assert f"strongest evidence here: {found['evidence'] or 'none'}" in text
    states = {each["name"]: each["state"] for each in found["findings"]}
    import shutil

    assert (states["node"] == "absent") == (shutil.which("node") is None)
    assert (states["kvm"] == "absent") == (not Path("/dev/kvm").exists())


def test_the_verdict_on_kvm_is_the_vm_runtimes_own() -> None:
    import shutil

    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed: nothing to compare with")
    from cloister.worker.vm.qemu import probe_kvm

    assert diagnose().finding("kvm").works == (probe_kvm() is None)


def test_an_empty_machine_can_do_nothing_and_says_what_to_install(workshop: Workshop) -> None:
    found = workshop.diagnose()
    assert found.evidence is None
    assert not any(each.works for each in found.runtimes)
    for name, package in {
        "qemu": "qemu-system-x86",
        "swtpm": "swtpm",
        "ovmf": "ovmf",
        "bubblewrap": "bubblewrap",
    }.items():
        finding = found.finding(name)
        assert finding.state is State.ABSENT
        assert finding.advice == f"apt install {package}"


def test_nothing_runs_is_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch, workshop: Workshop) -> None:
    from click.testing import CliRunner

    from cloister.cli.doctor import NothingRuns, doctor

    monkeypatch.setenv("PATH", str(workshop.programs))
    answer = CliRunner().invoke(doctor, ["--json"])
    assert isinstance(answer.exception, NothingRuns)
    assert (answer.exception.code, answer.exception.exit_code) == ("no-runtime", 75)
    assert '"evidence": null' in answer.stdout


def test_programs_that_hang_shout_or_fail(workshop: Workshop) -> None:
    workshop.program("bwrap", "echo 'bwrap: No permissions to create new namespace' >&2; exit 1")
    workshop.program("node", "exec /bin/sleep 60")
    workshop.program("podman", "/usr/bin/head -c 500000 /dev/zero | /usr/bin/tr '\\0' x; exit 3")
    workshop.program("swtpm", "printf '\\033[2J\\n'; exit 1")
    workshop.file("/proc/sys/kernel/unprivileged_userns_clone", "0\n")
    found = diagnose(Machine(workshop.root, str(workshop.programs), seconds=1.0))
    bubblewrap = found.finding("bubblewrap")
    assert bubblewrap.state is State.BROKEN
    assert "No permissions to create new namespace" in bubblewrap.seen
    assert bubblewrap.advice == "sysctl -w kernel.unprivileged_userns_clone=1"
    assert "did not end within" in found.finding("node").seen
    assert len(found.finding("podman").seen) < 200
    assert "\033" not in found.finding("swtpm").seen
    assert found.evidence is None


def test_tdx(workshop: Workshop) -> None:
    workshop.flags("tdx_host_platform")
    assert workshop.diagnose().finding("tdx").state is State.BROKEN
    assert "kvm_intel.tdx=1" in (workshop.diagnose().finding("tdx").advice or "")
    workshop.file("/sys/module/kvm_intel/parameters/tdx", "Y\n")
    found = workshop.diagnose()
    assert found.finding("tdx").works
    # A host that could, but has nothing to start a guest with.
    assert found.evidence is None


def test_a_tdx_guest_gets_evidence_by_configfs(workshop: Workshop) -> None:
    workshop.flags("tdx_guest", "hypervisor")
    assert workshop.diagnose().finding("tdx").state is State.BROKEN
    (workshop.root / "sys/kernel/config/tsm/report").mkdir(parents=True)
    found = workshop.diagnose()
    assert found.finding("tdx").works
    assert found.evidence is EvidenceKind.TDX
    assert "confidential against the host" in found.worth


def test_snp(workshop: Workshop) -> None:
    workshop.flags("sev_snp")
    workshop.file("/sys/module/kvm_amd/parameters/sev_snp", "N\n")
    broken = workshop.diagnose().finding("snp")
    assert broken.state is State.BROKEN
    assert "kvm_amd.sev_snp=1" in (broken.advice or "")
    workshop.file("/sys/module/kvm_amd/parameters/sev_snp", "Y\n")
    workshop.file("/dev/sev")
    assert workshop.diagnose().finding("snp").works


def test_sgx_and_tpm(workshop: Workshop) -> None:
    workshop.flags("sgx")
    assert workshop.diagnose().finding("sgx").state is State.BROKEN
    workshop.file("/dev/sgx_enclave")
    workshop.file("/sys/class/tpm/tpm0/tpm_version_major", "1\n")
    found = workshop.diagnose()
    assert found.finding("sgx").works
    assert found.finding("tpm").seen == "a TPM 1.x, too old"
    workshop.file("/dev/tpmrm0")
    workshop.file("/sys/class/tpm/tpm0/tpm_version_major", "2\n")
    assert workshop.diagnose().finding("tpm").seen == "/dev/tpmrm0, version 2"


def test_a_device_that_is_no_kvm(workshop: Workshop) -> None:
    workshop.file("/dev/kvm", "nothing of the kind")
    finding = workshop.diagnose().finding("kvm")
    assert finding.state is State.BROKEN
    assert "is no KVM" in finding.seen


def test_the_strongest_evidence_follows_the_runtimes(workshop: Workshop) -> None:
    workshop.program("bwrap", "exit 0")
    first = workshop.diagnose()
    assert first.evidence is EvidenceKind.SIMULATED
    assert first.worth.startswith("SIMULATED")
    workshop.vm_tools()
    second = workshop.diagnose()
    assert second.evidence is EvidenceKind.TPM
    assert "not encrypted" in second.worth
    assert {each.name: each.works for each in second.runtimes} == {"bubblewrap": True, "oci": False, "vm": True}
    (workshop.programs / "swtpm").unlink()
    third = {each.name: each for each in workshop.diagnose().runtimes}
    assert (third["vm"].works, third["vm"].why) == (False, "needs swtpm")


def test_a_probe_that_fails_is_reported_and_stops_no_other(workshop: Workshop) -> None:
    # A program that is no program at all.
    (workshop.programs / "node").write_bytes(b"\x7fELF nothing")
    (workshop.programs / "node").chmod(0o755)
    found = workshop.diagnose()
    assert found.finding("node").state is State.BROKEN
    assert len(found.findings) == len(NAMES)


def test_looking_changes_nothing_and_hands_nothing_on(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    before = sorted(workshop.root.rglob("*"))
    for tool in TOOLS:
        workshop.program(tool, 'test -z "$SECRET" || exit 9; echo 1')
    found = workshop.diagnose()
    assert sorted(workshop.root.rglob("*")) == before
    assert found.finding("docker").seen == "1"


def test_containers_are_tried_and_named(workshop: Workshop) -> None:
    absent = workshop.diagnose().finding("containers")
    assert (absent.state, absent.advice) == (State.ABSENT, "apt install podman runsc")
    workshop.program("podman", "echo stands")
    assert "neither podman with runsc, crun or runc" in workshop.diagnose().finding("containers").seen
    workshop.program("crun", "echo crun 1")
    assert workshop.diagnose().finding("containers").seen == "started one: podman with crun"
    verdict = next(each for each in workshop.diagnose().runtimes if each.name == "oci")
    assert verdict.works


def test_a_runsc_that_is_not_gvisor_is_refused_and_nothing_takes_its_place(workshop: Workshop) -> None:
    workshop.program("podman", "echo Linux version 6.1 of this very host")
    workshop.program("crun", "echo crun 1")
    workshop.program("runsc", "echo runsc 1")
    found = workshop.diagnose().finding("containers")
    assert found.state is State.BROKEN
    assert "what is called runsc is not gVisor" in found.seen
    assert found.advice == "remove runsc to do without gVisor"


def test_control_groups_that_refuse_are_said(workshop: Workshop) -> None:
    refuse = 'case "$*" in *--memory*) echo "crun: no such controller" >&2; exit 126;; esac; echo stands'
    workshop.program("podman", refuse)
    workshop.program("crun", "echo crun 1")
    assert workshop.diagnose().finding("containers").seen == "started one: podman with crun, without control groups"
