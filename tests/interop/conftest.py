"""One live network for all flows of iExec's clients. They start at once, a few at a time; each test waits for its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop.bundles import build_app
from tests.interop.flows import CLIENTS, Flows, missing
from tests.support.anvil import find_anvil
from tests.support.network import LiveNetwork, live_network

from cloister.storage.kubo import KuboStore

HERE = Path(__file__).parent
APPS = HERE / "apps"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder that needs the network goes to one process; what is missing on this machine is named."""
    lack = missing() or ("" if find_anvil() else "anvil is not installed")
    for item in items:
        if HERE in item.path.parents and "formats" not in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("interop"))
            if lack:
                item.add_marker(pytest.mark.skip(reason=lack))


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """A network with its worker."""
    with live_network(tmp_path_factory.mktemp("home")) as network:
        yield network


@pytest.fixture(scope="session")
def apps(live: LiveNetwork, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Every app of ``apps/``, built and uploaded; flows deploy them themselves."""
    gateway = live.network.description.services.gateway
    store = KuboStore(gateway, gateway)
    folder = tmp_path_factory.mktemp("bundles")
    ready = {}
    for settings in sorted(APPS.glob("*/iapp.toml")):
        name = settings.parent.name
        content = build_app(settings.parent, folder)
        stored = store.put([content])
        ready[name] = {"multiaddr": f"/ipfs/{stored.cid}", "checksum": "0x" + hashlib.sha256(content).hexdigest()}
    store.close()
    return ready


@pytest.fixture(scope="session")
def flows(
    request: pytest.FixtureRequest,
    live: LiveNetwork,
    apps: dict[str, dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Flows]:
    """The flows; those whose tests were chosen are under way."""
    running = Flows(live, tmp_path_factory.mktemp("flows"), apps, {"short": live.short_category(2)})
    chosen = [item.callspec.params["flow"] for item in request.session.items if _is_flow(item)]
    running.start(chosen)
    if any(item.path.name == "test_surface.py" for item in request.session.items):
        running.start_surface()
    try:
        yield running
    finally:
        running.stop()


def _is_flow(item: pytest.Item) -> bool:
    return CLIENTS.parent in item.path.parents and "flow" in getattr(getattr(item, "callspec", None), "params", {})
