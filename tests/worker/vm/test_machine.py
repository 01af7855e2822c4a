"""A real machine: it boots to a ready agent, has no network, is measured, and ends when it is told to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.enclave.world import build_world
from tests.support.tcp import echo, serving
from tests.worker.vm.conftest import SPEC, Booted

from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import EvidenceKind
from cloister.attestation.policy import EnclavePolicy
from cloister.attestation.tpm.events import parse_event_log
from cloister.attestation.tpm.payload import APP_PCR, BOOT_PCRS, PCR_SIZE, build_boot_measurement
from cloister.errors import ConfigurationError, UnavailableError, VerificationError
from cloister.protocol.channel import Frame, build_frame
from cloister.worker.addresses import Addresses
from cloister.worker.connecting import Connector
from cloister.worker.runtimes.vm import VmRuntime
from cloister.worker.vm.image import COMMAND_LINE, INITRAMFS, MANIFEST, Image, load_image
from cloister.worker.vm.measure import BootMeasurement, expected_pcr9, read_boot, verify_boot
from cloister.worker.vm.qemu import VmOptions

LOOK_AROUND = """
import json, os
from pathlib import Path
seen = {
    "network": sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else ["lo"],
    "user": os.getuid(),
    "data": Path(os.environ["IEXEC_IN"], os.environ["IEXEC_DATASET_FILENAME"]).read_text(),
    "tpm": os.path.exists("/dev/tpmrm0") or os.path.exists("/dev/tpm0"),
    "writable": os.access("/usr", os.W_OK),
}
Path("/iexec_out/seen.json").write_text(json.dumps(seen))
Path("/iexec_out/computed.json").write_text(json.dumps({"deterministic-output-path": "/iexec_out/seen.json"}))
"""
SLOW = 200
"""Seconds for a boot without KVM on a machine that is busy with other things."""


def test_nothing_is_booted_without_a_tpm(image: Image, factory_tpm: Path, tmp_path: Path) -> None:
    runtime = VmRuntime(image, tmp_path)
    try:
        with pytest.raises(ConfigurationError, match="holds no TPM"):
            runtime.launch(SPEC)
    finally:
        runtime.close()


def test_a_boot_that_takes_too_long_is_ended(image: Image, factory_tpm: Path) -> None:
    runtime = VmRuntime(image, factory_tpm, VmOptions(boot_seconds=0.5))
    try:
        with pytest.raises(UnavailableError, match=r"not ready after 0\.5 s"):
            runtime.launch(SPEC)
    finally:
        runtime.close()
    assert not machines_of(os.getpid())


def test_closing_ends_a_boot(image: Image, factory_tpm: Path) -> None:
    runtime = VmRuntime(image, factory_tpm)
    caught: list[BaseException] = []

    def launch() -> None:
        try:
            runtime.launch(SPEC)
        except UnavailableError as error:
            caught.append(error)

    thread = threading.Thread(target=launch)
    thread.start()
    wait_until(lambda: machines_of(os.getpid()))
    runtime.close()
    thread.join(10)
    assert len(caught) == 1
    assert not machines_of(os.getpid())
    with pytest.raises(UnavailableError, match="any more"):
        runtime.launch(SPEC)


def test_a_machine_dies_with_its_host(image: Image, factory_tpm: Path) -> None:
    host = subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                f"""
                from pathlib import Path
                from cloister.worker.runtimes.runtime import EnclaveSpec, Platform
                from cloister.worker.runtimes.vm import VmRuntime
                from cloister.worker.vm.image import load_image
                VmRuntime(load_image(Path({str(image.folder)!r})), Path({str(factory_tpm)!r})).launch(
                    EnclaveSpec(Platform("tpm")))
                """
            ),
        ]
    )
    try:
        wait_until(lambda: len(machines_of(host.pid)) == 2)  # QEMU and its TPM
        children = machines_of(host.pid)
    finally:
        host.kill()
        host.wait()
    wait_until(lambda: not [pid for pid in children if is_alive(pid)])


@pytest.mark.timeout(SLOW + 60)
def test_a_boot_is_measured_as_the_image_says(image: Image, measured: BootMeasurement) -> None:
    assert measured.pcrs[9] == expected_pcr9(image)
    assert measured.pcrs[APP_PCR] == bytes(PCR_SIZE)
    assert measured.measurement == build_boot_measurement(measured.pcrs)
    assert measured.network == ("lo",)
    assert measured.kernel.startswith("6.12.")
    assert {event.pcr for event in measured.events} >= set(BOOT_PCRS)


@pytest.mark.timeout(SLOW + 60)
def test_a_task_runs_in_it_on_evidence_of_the_measured_boot(booted: Booted, tmp_path: Path) -> None:
    """Fetch, quote, appraise, open, run in the inner sandbox, seal: all of it, on the machine's own TPM."""
    assert booted.process.wait(0) is None
    user = int(Path(f"/proc/{booted.process.pid}/status").read_text().split("Uid:")[1].split()[0])
    assert user >= 1_900_000_000 if os.geteuid() == 0 else user == os.geteuid()
    world = build_world(MeasuredPlatform(booted), tmp_path / "app", LOOK_AROUND, data=b"of a patient")
    outcome = world.run(booted.runtime, booted.process)
    assert outcome.cause is None
    assert world.requests[0].evidence.kind == EvidenceKind.TPM
    seen = json.loads(world.files()["seen.json"])
    assert seen == {"network": ["lo"], "user": 1000, "data": "of a patient", "tpm": False, "writable": False}


TALK = """
import json, os, socket
from pathlib import Path
from urllib.parse import urlsplit
proxy = urlsplit(os.environ["HTTPS_PROXY"])
connection = socket.create_connection((proxy.hostname, proxy.port), 30)
connection.sendall(b"CONNECT rates.example.org:443 HTTP/1.1\\r\\n\\r\\n")
said = b""
while not said.endswith(b"\\r\\n\\r\\n"):
    said += connection.recv(1)
connection.sendall(b"x" * 300_000)
echoed = 0
while echoed < 300_000:
    echoed += len(connection.recv(1 << 16))
Path("/iexec_out/seen.json").write_text(json.dumps({"status": said.decode().split("\\r\\n")[0], "echoed": echoed}))
Path("/iexec_out/computed.json").write_text(json.dumps({"deterministic-output-path": "/iexec_out/seen.json"}))
"""


@pytest.mark.nightly
@pytest.mark.timeout(SLOW + 60)
def test_an_app_that_names_hosts_reaches_them_from_a_machine_without_a_network(booted: Booted, tmp_path: Path) -> None:
    process = booted.runtime.launch(SPEC)  # before the task's time begins
    with serving(echo) as server:
        world = build_world(MeasuredPlatform(booted), tmp_path / "app", TALK, network=("rates.example.org",))
        world.connector = Connector(Addresses(), {"rates.example.org": server.place})
        outcome = world.run(booted.runtime, process)
    assert outcome.cause is None, outcome.logs
    assert json.loads(world.files()["seen.json"]) == {
        "status": "HTTP/1.1 200 Connection established",
        "echoed": 300_000,
    }


@pytest.mark.nightly
@pytest.mark.timeout(SLOW + 60)
def test_a_changed_byte_changes_the_measurement_and_nothing_else(
    image: Image, factory_tpm: Path, measured: BootMeasurement, tmp_path: Path
) -> None:
    """A second boot, of an image with one other byte: firmware and kernel measure the same again, the initramfs not.

    Its agent refuses a simulated platform, which the measured command line forbids whatever the host says. Then the
    machine ends by itself.
    """
    changed = with_changed_initramfs(image, tmp_path)
    runtime = VmRuntime(changed, factory_tpm)
    try:
        process, port = runtime.boot(SPEC, report=True)
        assert port is not None
        with port:
            again = read_boot(changed, port, 0.0)
        assert [index for index in BOOT_PCRS if again.pcrs[index] != measured.pcrs[index]] == [9]
        assert again.pcrs[9] == expected_pcr9(changed)
        assert again.measurement != measured.measurement
        process.channel.sendall(build_frame(Frame("platform", {"platform": "simulated"}, b"\x82\x41\x00\x41\x00")))
        said = b""
        process.channel.settimeout(60)
        while data := process.channel.recv(65536):
            said += data
        assert b'"kind":"ready"' in said
        assert b"simulated" in said
        assert process.wait(60) == 1
        process.kill()
        process.kill()
        assert not is_alive(process.pid)
    finally:
        runtime.close()


def test_another_command_line_is_another_measurement(image: Image) -> None:
    manifest = dataclasses.replace(image.manifest, command_line=COMMAND_LINE.replace("=never", "=maybe"))
    assert expected_pcr9(dataclasses.replace(image, manifest=manifest)) != expected_pcr9(image)


def test_a_machine_that_says_other_than_its_image_is_not_believed(image: Image, measured: BootMeasurement) -> None:
    """The check of a report, on this boot's own report and an image that it is not of."""
    report = Frame(
        "boot",
        {
            "pcrs": {str(index): value.hex() for index, value in measured.pcrs.items()},
            "kernel": measured.kernel,
            "network": list(measured.network),
        },
        measured.log,
    )
    assert verify_boot(image, report, 1.0).measurement == measured.measurement
    other = dataclasses.replace(
        image, manifest=dataclasses.replace(image.manifest, command_line="console=ttyS0 cloister.simulated=yes")
    )
    with pytest.raises(VerificationError, match="PCR 9"):
        verify_boot(other, report, 1.0)
    forged = {**report.header["pcrs"], "4": "0" * 64}
    with pytest.raises(VerificationError):
        verify_boot(image, Frame("boot", {**report.header, "pcrs": forged}, report.body), 1.0)
    assert parse_event_log(report.body) == measured.events


class MeasuredPlatform:
    """What the SMS knows of a booted machine: the TPM root, and the measurement of its boot."""

    def __init__(self, booted: Booted) -> None:
        self.spec = SPEC
        self.collateral = Collateral(((EvidenceKind.TPM, booted.root),))
        self.policy = EnclavePolicy(
            EvidenceKind.TPM,
            frozenset({hashlib.sha256(booted.root).digest()}),
            frozenset({booted.measured.measurement}),
        )


def with_changed_initramfs(image: Image, folder: Path) -> Image:
    """The same image with one other letter in a comment of the agent, and a manifest that says so."""
    content = (image.folder / INITRAMFS).read_bytes()
    line = b"The first process of a virtual machine that is an enclave"
    assert line in content
    changed = content.replace(line, line.replace(b"first", b"fir5t"))
    for name in image.manifest.outputs:
        if name != INITRAMFS:
            shutil.copyfile(image.folder / name, folder / name)
    (folder / INITRAMFS).write_bytes(changed)
    outputs = {**image.manifest.outputs, INITRAMFS: hashlib.sha256(changed).hexdigest()}
    (folder / MANIFEST).write_bytes(dataclasses.replace(image.manifest, outputs=outputs).build())
    if os.geteuid() == 0:
        for path in folder.iterdir():
            path.chmod(0o644)
    return load_image(folder)


def machines_of(parent: int) -> list[int]:
    """Processes that this one started and that are a machine or its TPM, whatever wraps them."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        name, fields = stat[stat.find("(") + 1 : stat.rfind(")")], stat[stat.rfind(")") + 2 :].split()
        if int(fields[1]) == parent and fields[0] != "Z" and name.startswith(("qemu-system", "swtpm")):
            found.append(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rfind(")") + 2] != "Z"


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)
