"""One stage for all rehearsals, with an enclave that starts while a test looks at its result."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cloister.generator.rehearsal import Rehearsal, Stage, rehearse

Project = Callable[..., Path]
Rehearse = Callable[..., Rehearsal]

WRITE = """
import json, os, sys, time
OUT = os.environ["IEXEC_OUT"]
def write(name, text):
    with open(f"{OUT}/{name}", "w") as file:
        file.write(text)
def done(name):
    write("computed.json", json.dumps({"deterministic-output-path": f"{OUT}/{name}"}))
"""
"""What an iApp without any library begins with."""


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    with Stage(warm=True) as opened:
        yield opened


@pytest.fixture
def project(tmp_path: Path) -> Project:
    def make(code: str, *, run: str | None = None, more: str = "", **resources: int) -> Path:
        """A project of one file. ``more`` are lines of ``iapp.toml``, ``run`` is ``mock/run.toml``."""
        folder = tmp_path / "project"
        folder.mkdir(exist_ok=True)
        limits: Mapping[str, int] = {"memory_mib": 128, "disk_mib": 16, "seconds": 20, "processes": 16} | resources
        settings = {"name": '"tiny"', "version": '"1.0.0"', "entrypoint": '"main.py"', "runtime": '"python3"'}
        given = dict(line.split(" = ", 1) for line in more.splitlines() if line)
        lines = [f"{key} = {value}" for key, value in (settings | given).items()]
        lines += ["[resources]", *(f"{key} = {value}" for key, value in limits.items())]
        (folder / "iapp.toml").write_text("\n".join(lines))
        (folder / "main.py").write_text(WRITE + code)
        if run is not None:
            (folder / "mock").mkdir(exist_ok=True)
            (folder / "mock" / "run.toml").write_text(run)
        return folder

    return make


@pytest.fixture
def run(stage: Stage, project: Project) -> Rehearse:
    def rehearsed(code: str, *, how: Mapping[str, Any] | None = None, **options: Any) -> Rehearsal:
        return rehearse(project(code, **options), stage=stage, **(how or {}))

    return rehearsed
