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
    """A sandbox or a container, whose evidence is simulated, or a measured virtual machine with a TPM of the network's own."""

    BUBBLEWRAP = "bubblewrap"
    OCI = "oci"
    VM = "vm"

    @property
    def kind(self) -> EvidenceKind:
        """The evidence that such enclaves give."""
        return EvidenceKind.TPM if self is EnclaveChoice.VM else EvidenceKind.SIMULATED


def choice_of(kind: str) -> EnclaveChoice:
    """The choice that a network's description stands for, when nobody says more."""
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
    spec = EnclaveSpec(Platform(EvidenceKind.SIMULATED.value, root.platform))
    if choice is EnclaveChoice.OCI:
        from cloister.worker.runtimes.oci import OciRuntime

        return OciRuntime(node_prefix=settings.node_prefix), spec
    return BubblewrapRuntime(node_prefix=settings.node_prefix), spec


def describe_runtime(runtime: Runtime, choice: EnclaveChoice) -> str:
    """What the worker starts, in words: for containers, the engine and the kernel below it."""
    chosen = getattr(runtime, "chosen", None)
    return choice.value if chosen is None else f"{choice.value}, {chosen}"


def note_runtime(state: NetworkState, text: str) -> None:
    """Leave for ``cloister status`` what the worker said of its enclaves when it started."""
    place = state.path("worker", "enclaves")
    fresh = place.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(place)


def noted_runtime(state: NetworkState) -> str | None:
    """What the worker said last; None when it never did."""
    try:
        return state.path("worker", "enclaves").read_text()[:300]
    except OSError:
        return None


def machines_folder() -> Path:
    """Where this machine keeps the image of its virtual machines, for all networks."""
    return home_folder() / "vm"


def _tpm_root(state: NetworkState) -> TpmRoot:
    return load_tpm_root(state.path("tpmroot", "x").parent, state.name)
