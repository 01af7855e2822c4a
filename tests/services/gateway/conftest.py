"""A gateway on a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.services.gateway.desk import MAX_FILE, Desk

from cloister.services.application import BackgroundServer, build_application
from cloister.services.gateway.http import GatewayPart
from cloister.services.gateway.settings import GatewaySettings


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    root = tmp_path / "store"
    part = GatewayPart(GatewaySettings(root, max_file=MAX_FILE, quota=3 * MAX_FILE, max_files=20))
    with BackgroundServer(build_application([part])) as server:
        yield Desk(server.url, part, root)
