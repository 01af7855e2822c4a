"""One network, started by the command line, for all tests of this folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.anvil import find_anvil
from tests.support.network import write_app
from tests.support.terminal import Terminal, network_process

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here share one network, so they go to one process; without the chain's program there is none."""
    binary = find_anvil()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("town"))
            if binary is None:
                item.add_marker(pytest.mark.skip(reason="anvil is not installed"))


@dataclass(frozen=True)
class Town:
    """A network started by ``cloister up``: who lives there, and what it announced."""

    terminal: Terminal
    process: subprocess.Popen[str]
    announced: dict[str, Any]

    def address(self, role: str) -> str:
        """A demo account's address."""
        return str(self.announced["accounts"][role])


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A machine on which nothing was ever started."""
    return Terminal(tmp_path)


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """The network."""
    terminal = Terminal(tmp_path_factory.mktemp("town"))
    with network_process(terminal) as (process, announced):
        yield Town(terminal, process, announced)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of a small iApp."""
    return write_app(tmp_path_factory.mktemp("source") / "app")
