"""One runtime and one simulated platform for all enclave tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.enclave.world import TestPlatform, World, build_world

from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime


@pytest.fixture(scope="session")
def runtime() -> Iterator[BubblewrapRuntime]:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    started = BubblewrapRuntime()
    yield started
    started.close()


@pytest.fixture(scope="session")
def platform() -> TestPlatform:
    return TestPlatform()


@pytest.fixture
def world(platform: TestPlatform, tmp_path: Path) -> Callable[..., World]:
    def make(code: str, **options: object) -> World:
        return build_world(platform, tmp_path / "iapp", code, **options)

    return make
