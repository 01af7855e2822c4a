"""An indexer behind real HTTP over a real chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.deployed import DeployedChain, deployed
from tests.support.indexer_world import IndexerWorld

__all__ = ["deployed"]


@pytest.fixture
def world(deployed: DeployedChain, tmp_path: Path, database_url: str) -> Iterator[IndexerWorld]:
    with IndexerWorld(deployed, tmp_path, database_url=database_url).serving() as running:
        yield running
