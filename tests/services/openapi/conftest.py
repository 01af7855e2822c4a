"""A whole local network whose services are asked from outside: real databases, a real chain, one origin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.services.openapi.wire import Origin
from tests.support.network import LiveNetwork, live_network


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """The network; with its worker, who has nothing to do."""
    with live_network(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def origin(live: LiveNetwork) -> Origin:
    """Its origin, for bytes of the test's own making."""
    return Origin(live.network.description.origin)
