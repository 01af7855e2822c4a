"""A gateway on a socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.services.gateway.desk import MAX_FILE, Desk

from cloister.services.application import BackgroundServer, build_application
from cloister.services.gateway.http import GatewayPart
from cloister.services.gateway.settings import GatewaySettings


@contextmanager
def _serving(root: Path) -> Iterator[Desk]:
    part = GatewayPart(GatewaySettings(root, max_file=MAX_FILE, quota=3 * MAX_FILE, max_files=20))
    with BackgroundServer(build_application([part])) as server:
        yield Desk(server.url, part, root)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A gateway that tests share: they may not fill it, damage it or count what is in it."""
    with _serving(tmp_path_factory.mktemp("gateway") / "store") as running:
        yield running


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Desk]:
    """An empty gateway of one test's own."""
    with _serving(tmp_path / "store") as running:
        yield running
