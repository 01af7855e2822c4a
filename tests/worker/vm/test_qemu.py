"""QEMU's command line: what a machine has, and above all what it does not have."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
from pathlib import Path

import pytest
from tests.support.machines import need_machines

from cloister.errors import CloisterError, ConfigurationError, InputError
from cloister.worker.vm import qemu
from cloister.worker.vm.image import COMMAND_LINE, Image, Manifest
from cloister.worker.vm.qemu import (
    Accelerator,
    Confidential,
    Launch,
    VmOptions,
    build_command,
    choose_accelerator,
    probe_kvm,
)

IMAGE = Image(Path("/nowhere"), Manifest(COMMAND_LINE, (), {}, {}, "python3.11"))
LAUNCH = Launch(
    kernel=10, initramfs=11, firmware=12, variables=Path("/run/a,b/variables"), tpm=Path("/run/tpm"), channel=13
)


@pytest.fixture(autouse=True)
def machines() -> None:
    need_machines()


def values(command: list[str], option: str) -> list[str]:
    return [command[number + 1] for number, word in enumerate(command) if word == option]


@pytest.mark.parametrize("confidential", [None, *Confidential])
@pytest.mark.parametrize("accelerator", list(Accelerator))
def test_there_is_no_network_and_nothing_by_default(
    accelerator: Accelerator, confidential: Confidential | None
) -> None:
    command = build_command(VmOptions(confidential=confidential), accelerator, IMAGE, LAUNCH)
    assert values(command, "-nic") == ["none"]
    assert "-nodefaults" in command
    assert "-no-user-config" in command
    devices = [device.split(",")[0] for device in values(command, "-device")]
    assert devices == ["tpm-crb", "virtio-serial-pci", "virtserialport"]
    assert not [
        word for word in command if word.startswith(("-net", "-vnc", "-qmp", "-gdb", "-virtfs", "-usb", "-fsdev"))
    ]
    assert values(command, "-monitor") == ["none"]
    assert values(command, "-append") == [COMMAND_LINE]
    (sandbox,) = values(command, "-sandbox")
    assert sandbox == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def test_a_host_without_protection_boots_from_flash() -> None:
    command = build_command(VmOptions(), Accelerator.TCG, IMAGE, LAUNCH)
    code, variables = values(command, "-drive")
    assert "readonly=on" in code
    assert "/proc/self/fd/12" in code
    assert variables.endswith("file=/run/a,,b/variables")
    assert values(command, "-object") == []


def test_tdx_and_snp_get_their_guest_object() -> None:
    tdx = build_command(VmOptions(confidential=Confidential.TDX), Accelerator.KVM, IMAGE, LAUNCH)
    assert values(tdx, "-object") == ["tdx-guest,id=guest"]
    assert "confidential-guest-support=guest" in values(tdx, "-machine")[0]
    assert values(tdx, "-bios") == ["/proc/self/fd/12"]
    assert values(tdx, "-drive") == []
    snp = build_command(VmOptions(confidential=Confidential.SNP), Accelerator.KVM, IMAGE, LAUNCH)
    guest = next(value for value in values(snp, "-object") if value.startswith("sev-snp-guest"))
    options = dict(part.split("=") for part in guest.split(",")[1:])
    assert options["kernel-hashes"] == "on"
    policy = int(options["policy"], 16)
    assert policy & 1 << 17  # reserved, must be one
    assert not policy & 1 << 19  # no debugging


@pytest.mark.parametrize(
    "options",
    [
        {"memory_mib": 1024},
        {"memory_mib": 1 << 30},
        {"processors": 0},
        {"processors": 65},
        {"boot_seconds": 0},
        {"confidential": Confidential.TDX, "accelerator": Accelerator.TCG},
    ],
)
def test_options_that_make_no_machine_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        VmOptions(**options)  # type: ignore[arg-type]


def test_kvm_is_found_by_running_code() -> None:
    problem = probe_kvm()
    if problem is None:
        assert choose_accelerator(VmOptions()) is Accelerator.KVM
        return
    assert choose_accelerator(VmOptions()) is Accelerator.TCG
    with pytest.raises(ConfigurationError, match="KVM does not work here"):
        choose_accelerator(VmOptions(accelerator=Accelerator.KVM))
    with pytest.raises(ConfigurationError, match="KVM does not work here"):
        choose_accelerator(VmOptions(confidential=Confidential.SNP))


def test_the_probe_runs_to_its_end_where_code_is_translated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same few instructions, without KVM: so it is KVM that a failed probe is about."""
    real = qemu.find_qemu()
    wrapper = tmp_path / "bin" / qemu.PROGRAM
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\nfor word; do shift; case "$word" in q35,accel=kvm) word=q35,accel=tcg;; host) word=max;; esac\n'
        f'set -- "$@" "$word"; done\nexec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(qemu, "KVM_DEVICE", Path("/dev/null"))
    probe_kvm.cache_clear()
    try:
        assert probe_kvm() is None
    finally:
        probe_kvm.cache_clear()


def test_qemu_takes_the_command_line(tmp_path: Path) -> None:
    """QEMU itself parses every option, connects its port, and ends at the first file that is not there."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        launch = dataclasses.replace(LAUNCH, tpm=None, channel=theirs.fileno())
        command = build_command(VmOptions(), Accelerator.TCG, IMAGE, launch)
        done = subprocess.run(
            command,
            cwd=tmp_path,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert "/proc/self/fd/12" in done.stderr or "/run/a,b/variables" in done.stderr, done.stderr


def test_without_qemu_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CloisterError) as caught:
        qemu.find_qemu()
    assert caught.value.hint == "apt-get install qemu-system-x86"
