"""What the tasks of a local network run in: the choice, and what the worker notes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.attestation.evidence import EvidenceKind
from cloister.network.enclaves import EnclaveChoice, choice_of, describe_runtime, note_runtime, noted_runtime
from cloister.network.state import NetworkState
from cloister.worker.runtimes.runtime import EnclaveProcess, EnclaveSpec


class Runtime:
    """One that never starts anything; ``chosen`` as the containers' has it."""

    quick = True

    def __init__(self, chosen: str | None = None) -> None:
        if chosen is not None:
            self.chosen = chosen

    def launch(self, spec: EnclaveSpec) -> EnclaveProcess:
        raise AssertionError(f"nothing is started here, {spec} neither")

    def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("choice", "kind"),
    [("bubblewrap", EvidenceKind.SIMULATED), ("oci", EvidenceKind.SIMULATED), ("vm", EvidenceKind.TPM)],
)
def test_a_container_is_no_more_evidence_than_a_sandbox(choice: str, kind: EvidenceKind) -> None:
    assert EnclaveChoice(choice).kind is kind


def test_a_description_alone_never_means_containers() -> None:
    assert choice_of("simulated") is EnclaveChoice.BUBBLEWRAP
    assert choice_of("tpm") is EnclaveChoice.VM


def test_what_the_worker_notes_is_what_status_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_HOME", str(tmp_path))
    state = NetworkState("noted")
    assert noted_runtime(state) is None
    note_runtime(state, describe_runtime(Runtime("podman with gVisor (runsc)"), EnclaveChoice.OCI))
    assert noted_runtime(state) == "oci, podman with gVisor (runsc)"
    note_runtime(state, describe_runtime(Runtime(), EnclaveChoice.VM))
    assert noted_runtime(state) == "vm"
    assert [path.name for path in (state.folder / "worker").iterdir()] == ["enclaves"]
