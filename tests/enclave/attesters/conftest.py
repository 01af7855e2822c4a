"""One enrolled TPM for all tests here; each test boots a copy of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.enclave.attesters.machine import Machine, booted, require_swtpm

from cloister.network.tpmroot import TpmRoot, load_tpm_root


@pytest.fixture(scope="session")
def tpm_root(tmp_path_factory: pytest.TempPathFactory) -> TpmRoot:
    require_swtpm()
    return load_tpm_root(tmp_path_factory.mktemp("tpm"), "test network")


@pytest.fixture
def machine(tpm_root: TpmRoot, tmp_path: Path) -> Iterator[Machine]:
    with booted(tpm_root, tmp_path / "machine") as started:
        yield started
