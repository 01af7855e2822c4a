"""One live network for all tests of this folder; networks that are killed are made by their own tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.anvil import find_anvil
from tests.support.network import LiveNetwork, live_network, write_app

from cloister import DataProtector
from cloister.generator.bundle import build_bundle
from cloister.sdk.apps import App
from cloister.sdk.protection import ProtectedData

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests on the shared network go to one process, the others to one a module; without the chain's program none runs."""
    binary = find_anvil()
    for item in items:
        if HERE in item.path.parents:
            shared = "live" in getattr(item, "fixturenames", ())
            if item.get_closest_marker("xdist_group") is None:
                item.add_marker(pytest.mark.xdist_group("network" if shared else f"network-{item.path.stem}"))
            if binary is None:
                item.add_marker(pytest.mark.skip(reason="anvil is not installed"))


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """A network with its worker."""
    with live_network(tmp_path_factory.mktemp("home")) as network:
        yield network


@pytest.fixture(autouse=True)
def _own_home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test ever touches the home folder of whoever runs it."""
    if "live" in request.fixturenames:
        assert os.environ["CLOISTER_HOME"] == str(request.getfixturevalue("live").home)
    else:
        monkeypatch.setenv("CLOISTER_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe, built."""
    return build_bundle(write_app(tmp_path_factory.mktemp("app"))).path


@pytest.fixture(scope="session")
def app(live: LiveNetwork, bundle: Path) -> App:
    """The probe, deployed by the company and offered free of charge."""
    company = live.connect("company")
    deployed = company.apps.deploy(bundle, name="probe")
    company.apps.publish(deployed.address)
    return deployed


@pytest.fixture(scope="session")
def short(live: LiveNetwork) -> int:
    """A category whose tasks end 20 seconds after the deal."""
    return live.short_category(2)


@pytest.fixture(scope="session")
def owner(live: LiveNetwork) -> DataProtector:
    """Somebody with data."""
    return live.newcomer()


@pytest.fixture(scope="session")
def data(owner: DataProtector) -> ProtectedData:
    """Protected data that many tests use."""
    return owner.protect_data({"email": "alice@example.org", "age": 41}, name="contact")


@pytest.fixture
def requester(live: LiveNetwork) -> DataProtector:
    """Somebody with one RLC staked."""
    return live.newcomer(stake="1 RLC")
