"""What the tasks of a local network run in, and what their evidence rests on."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from cloister.attestation.evidence import EvidenceKind
from cloister.enclave.measurement import measure_agent
from cloister.network.state import NetworkState
from cloister.network.testroot import load_test_root
from cloister.network.tpmroot import TpmRoot, load_tpm_root
from cloister.sdk.home import home_folder
from cloister.sdk.receipts import KindValues, ReferenceValues, reference_values_of
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime
from cloister.worker.runtimes.runtime import EnclaveSpec, Platform, Runtime
from cloister.worker.settings import WorkerSettings

Announce = Callable[[str], None]


class EnclaveChoice(StrEnum):
    """A sandbox whose evidence is simulated, or a measured virtual machine with a TPM of the network's own."""

    BUBBLEWRAP = "bubblewrap"
    VM = "vm"

    @property
    def kind(self) -> EvidenceKind:
        """The evidence that such enclaves give."""
        return EvidenceKind.TPM if self is EnclaveChoice.VM else EvidenceKind.SIMULATED


def choice_of(kind: str) -> EnclaveChoice:
    """The choice that a network's description stands for."""
    return EnclaveChoice.VM if kind == EvidenceKind.TPM else EnclaveChoice.BUBBLEWRAP


def reference_values(
    state: NetworkState, choice: EnclaveChoice, announce: Announce = lambda text: None
) -> ReferenceValues:
    """What evidence on this network rests on: its own root, and the agent or the image as installed here.

    Raises:
        ConfigurationError: this machine cannot build or boot the image; the hint says what to install.
    """
    if choice is EnclaveChoice.VM:
        from cloister.worker.vm.kept import keep_image
        from cloister.worker.vm.qemu import VmOptions

        kept = keep_image(machines_folder(), VmOptions(), announce)
        root = _tpm_root(state).root
        return reference_values_of(KindValues(EvidenceKind.TPM, (root,), frozenset({kept.measurement})))
    test = load_test_root(state.path("testroot", "x").parent, state.name)
    return reference_values_of(KindValues(EvidenceKind.SIMULATED, (test.root,), frozenset({measure_agent()})))


def build_runtime(state: NetworkState, choice: EnclaveChoice, settings: WorkerSettings) -> tuple[Runtime, EnclaveSpec]:
    """What the worker starts, and what it hands to each enclave.

    Raises:
        ConfigurationError: this machine cannot run it.
    """
    if choice is EnclaveChoice.VM:
        from cloister.worker.runtimes.vm import VmRuntime
        from cloister.worker.vm.kept import keep_image
        from cloister.worker.vm.qemu import VmOptions

        kept = keep_image(machines_folder(), VmOptions())
        return VmRuntime(kept.image, _tpm_root(state).state), EnclaveSpec(Platform(EvidenceKind.TPM.value))
    root = load_test_root(state.path("testroot", "x").parent, state.name)
    runtime = BubblewrapRuntime(node_prefix=settings.node_prefix)
    return runtime, EnclaveSpec(Platform(EvidenceKind.SIMULATED.value, root.platform))


def machines_folder() -> Path:
    """Where this machine keeps the image of its virtual machines, for all networks."""
    return home_folder() / "vm"


def _tpm_root(state: NetworkState) -> TpmRoot:
    return load_tpm_root(state.path("tpmroot", "x").parent, state.name)
