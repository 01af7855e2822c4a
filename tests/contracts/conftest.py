"""The token, the registries and DataProtector on an in-process chain, fresh for every test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boa
import pytest

CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"
REGISTRIES = CONTRACTS / "registries"


@dataclass(frozen=True, slots=True)
class Suite:
    """Deployed contracts and the code that reads entries."""

    deployer: str
    rlc: Any
    apps: Any
    datasets: Any
    workerpools: Any
    dataprotector: Any
    app_entry: Any
    dataset_entry: Any
    workerpool_entry: Any

    def app(self, address: str) -> Any:
        return self.app_entry.at(address)

    def dataset(self, address: str) -> Any:
        return self.dataset_entry.at(address)

    def workerpool(self, address: str) -> Any:
        return self.workerpool_entry.at(address)


def pytest_configure(config: pytest.Config) -> None:
    # An entry is a proxy, so its bytes are never those of the code that reads it.
    config.addinivalue_line("filterwarnings", "ignore:casted bytecode:UserWarning")


def deploy_suite() -> Suite:
    """Deploy everything on the current chain."""
    entries = {name: boa.load_partial(str(REGISTRIES / f"{name}.vy")) for name in ("App", "Dataset", "Workerpool")}
    registries = {
        name: boa.load(str(REGISTRIES / f"{name}Registry.vy"), entry.deploy_as_blueprint())
        for name, entry in entries.items()
    }
    return Suite(
        deployer=boa.env.eoa,
        rlc=boa.load(str(CONTRACTS / "Rlc.vy")),
        apps=registries["App"],
        datasets=registries["Dataset"],
        workerpools=registries["Workerpool"],
        dataprotector=boa.load(str(CONTRACTS / "DataProtector.vy"), registries["Dataset"]),
        app_entry=entries["App"],
        dataset_entry=entries["Dataset"],
        workerpool_entry=entries["Workerpool"],
    )


@pytest.fixture(scope="session")
def deployed() -> Suite:
    return deploy_suite()


@pytest.fixture
def suite(deployed: Suite) -> Iterator[Suite]:
    with boa.env.anchor():
        yield deployed


@pytest.fixture
def data_owner() -> str:
    return boa.env.generate_address("data_owner")


@pytest.fixture
def buyer() -> str:
    return boa.env.generate_address("buyer")


@pytest.fixture
def attacker() -> str:
    return boa.env.generate_address("attacker")
