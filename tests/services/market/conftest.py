"""A market behind real HTTP over a real chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.deployed import DeployedChain, deployed
from tests.support.market_world import MarketWorld

__all__ = ["deployed"]


@pytest.fixture
def world(
    deployed: DeployedChain, tmp_path: Path, database_url: str, request: pytest.FixtureRequest
) -> Iterator[MarketWorld]:
    with MarketWorld(deployed, tmp_path, label=request.node.name, database_url=database_url).serving() as running:
        yield running
