"""A network's folder: held by one process, and cleared only when nobody holds it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloister.errors import Conflict
from cloister.network.state import NetworkState, running_process


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_HOME", str(tmp_path))


def test_a_folder_has_one_holder() -> None:
    holder = NetworkState("demo")
    holder.hold()
    assert running_process("demo") == os.getpid()
    with pytest.raises(Conflict, match="the network demo is up already"):
        NetworkState("demo").hold()
    holder.release()
    assert running_process("demo") is None


def test_clearing_leaves_nothing_behind() -> None:
    state = NetworkState("demo")
    state.path("services", "sms.sqlite").write_text("secret")
    state.path("network.json").write_text("{}")
    state.clear()
    assert [entry.name for entry in state.folder.iterdir()] == ["up.lock"]
    assert running_process("demo") is None


def test_a_network_that_runs_is_not_cleared() -> None:
    holder = NetworkState("demo")
    holder.hold()
    holder.path("network.json").write_text("{}")
    with pytest.raises(Conflict):
        NetworkState("demo").clear()
    assert holder.path("network.json").exists()
    holder.release()
