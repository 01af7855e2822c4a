"""Fixtures of the tests that talk to a real chain."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.anvil import anvil, running_anvil, still_anvil
from tests.support.http import peer
from tests.support.marketplace import Marketplace, build_marketplace

__all__ = ["anvil", "peer", "still_anvil"]


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marketplace]:
    """The contracts on a chain of their own, for the whole session."""
    with running_anvil() as node:
        yield build_marketplace(node, tmp_path_factory.mktemp("market"))
