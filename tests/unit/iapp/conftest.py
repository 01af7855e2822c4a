"""The environment of a task, without a task: what a developer sets in a test of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.datasets.packing import pack

ADDRESS = "0x" + "ab" * 20


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``inside(value, IEXEC_…=…)`` is a task with that protected data and those variables; gives the results' folder."""

    def enter(value: object = None, arguments: tuple[str, ...] = (), **variables: str) -> Path:
        for name in [name for name in os.environ if name.startswith(("IEXEC_", "CLOISTER_"))]:
            monkeypatch.delenv(name)
        incoming, outgoing = tmp_path / "iexec_in", tmp_path / "iexec_out"
        incoming.mkdir(exist_ok=True)
        outgoing.mkdir(exist_ok=True)
        name = "0x" + "0" * 40 if value is None else ADDRESS
        if value is not None:
            (incoming / name).write_bytes(b"".join(pack(value).chunks))
        given = {
            "IEXEC_TASK_ID": "0x" + "11" * 32,
            "IEXEC_DEAL_ID": "0x" + "22" * 32,
            "IEXEC_TASK_INDEX": "3",
            "IEXEC_BOT_SIZE": "2",
            "IEXEC_BOT_FIRST_INDEX": "2",
            "IEXEC_IN": str(incoming),
            "IEXEC_OUT": str(outgoing),
            "IEXEC_DATASET_ADDRESS": name,
            "IEXEC_DATASET_FILENAME": name,
            "IEXEC_INPUT_FILES_NUMBER": "0",
            "IEXEC_INPUT_FILES_FOLDER": str(incoming),
        }
        for variable, text in (given | variables).items():
            monkeypatch.setenv(variable, text)
        monkeypatch.setattr(sys, "argv", ["main.py", *arguments])
        return outgoing

    return enter
