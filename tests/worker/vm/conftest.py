"""One image and one booted machine for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.machines import built_image, need_machines

from cloister.network.tpmroot import load_tpm_root
from cloister.worker.runtimes.runtime import EnclaveSpec, Platform
from cloister.worker.runtimes.vm import VmProcess, VmRuntime
from cloister.worker.vm.image import Image
from cloister.worker.vm.measure import BootMeasurement, read_boot
from cloister.worker.vm.swtpm import Swtpm

SPEC = EnclaveSpec(Platform("tpm"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Machines are heavy: one process runs all of these, one after the other."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("vm"))


@pytest.fixture(scope="session")
def image() -> Image:
    return built_image()


@pytest.fixture(scope="session")
def factory_tpm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a TPM that nobody enrolled."""
    need_machines()
    state = tmp_path_factory.mktemp("tpm")
    Swtpm.start_in_place(state).stop()
    return state


@dataclass(frozen=True)
class Booted:
    """A machine whose agent is ready."""

    runtime: VmRuntime
    process: VmProcess
    measured: BootMeasurement
    root: bytes
    """The certificate of the network's TPM root."""


@pytest.fixture(scope="session")
def booted(image: Image, factory_tpm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    root = load_tpm_root(tmp_path_factory.mktemp("tpmroot"), "machines")
    runtime = VmRuntime(image, root.state)
    process, port = runtime.boot(SPEC, report=True)
    assert port is not None
    with port:
        measured = read_boot(image, port, 0.0)
    yield Booted(runtime, process, measured, root.root)
    process.kill()
    runtime.close()


@pytest.fixture(scope="session")
def measured(booted: Booted) -> BootMeasurement:
    """What the booted machine's TPM held when its agent was ready."""
    return booted.measured
