"""Every store, behind one interface."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloister.services.application import BackgroundServer, build_application
from cloister.services.gateway.http import GatewayPart
from cloister.services.gateway.settings import GatewaySettings
from cloister.storage.content import ContentStore
from cloister.storage.kubo import KuboStore
from cloister.storage.local import LocalStore
from cloister.storage.unixfs import Layout

CAP = 64 * 1024 * 1024


@dataclass(frozen=True)
class Stage:
    """A store with the directory that its content ends in."""

    store: ContentStore
    root: Path
    version: str


LAYOUTS = {"v0": Layout(), "v1": Layout(1, raw_leaves=True)}


@pytest.fixture(params=["local-v0", "local-v1", "gateway-v0", "gateway-v1"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    kind, version = request.param.split("-")
    root = tmp_path / "store"
    if kind == "local":
        local = LocalStore(root, layout=LAYOUTS[version], max_file=CAP)
        yield Stage(local, root, version)
        local.close()
        return
    part = GatewayPart(GatewaySettings(root, max_file=CAP))
    with BackgroundServer(build_application([part])) as server:
        store = KuboStore(server.url, server.url, layout=LAYOUTS[version])
        yield Stage(store, root, version)
        store.close()
