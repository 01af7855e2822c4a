"""What the tasks of a local network run in, and what their evidence rests on."""

from __future__ import annotations

from enum import StrEnum

from cloister.attestation.evidence import EvidenceKind
from cloister.enclave.measurement import measure_agent
from cloister.network.state import NetworkState
from cloister.network.testroot import load_test_root
from cloister.sdk.receipts import ReferenceValues
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime
from cloister.worker.runtimes.runtime import EnclaveSpec, Platform, Runtime
from cloister.worker.settings import WorkerSettings


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


def reference_values(state: NetworkState, choice: EnclaveChoice) -> ReferenceValues:
    """What evidence on this network rests on: its own root, and the agent as installed here."""
    root = load_test_root(state.path("testroot", "x").parent, state.name)
    return ReferenceValues(EvidenceKind.SIMULATED, (root.root,), frozenset({measure_agent()}))


def build_runtime(state: NetworkState, choice: EnclaveChoice, settings: WorkerSettings) -> tuple[Runtime, EnclaveSpec]:
    """What the worker starts, and what it hands to each enclave.

    Raises:
        ConfigurationError: this machine cannot run it.
    """
    root = load_test_root(state.path("testroot", "x").parent, state.name)
    runtime = BubblewrapRuntime(node_prefix=settings.node_prefix)
    return runtime, EnclaveSpec(Platform(EvidenceKind.SIMULATED.value, root.platform))
