"""One deployment for the whole session; every test runs on a snapshot of it."""

from __future__ import annotations

from collections.abc import Iterator

import boa
import pytest
from tests.contracts.hub.chain import Chain
from tests.contracts.hub.deployment import deploy_chain


@pytest.fixture(scope="session")
def deployed_chain() -> Chain:
    return deploy_chain()


@pytest.fixture
def chain(deployed_chain: Chain) -> Iterator[Chain]:
    with boa.env.anchor():
        yield deployed_chain
