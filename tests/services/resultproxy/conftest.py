"""A result proxy over real HTTP and a real chain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.services.resultproxy.desk import Desk, opened
from tests.support.deployed import DeployedChain, deployed

__all__ = ["deployed"]


@pytest.fixture(scope="module")
def desk(
    deployed: DeployedChain, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("resultproxy")
    with opened(deployed, folder, label=f"results {request.module.__name__}", max_result=1024 * 1024) as running:
        yield running
