"""The demo as a user runs it, and the tutorial's Python, word for word."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLOISTER = Path(sys.executable).with_name("cloister")
SECONDS = 280


def run(command: list[str], home: Path, folder: Path) -> str:
    """Run a command with a home of its own; returns its standard output."""
    environment = os.environ | {"CLOISTER_HOME": str(home)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.xdist_group("demo")
def test_the_demo_tells_the_whole_story(tmp_path: Path) -> None:
    story = json.loads(run([str(CLOISTER), "demo", "--json", "-o", "opened"], tmp_path / "home", tmp_path))

    assert story["metrics"]["patients"] == 569
    assert story["metrics"]["confusion_matrix"] == [[51, 2], [3, 87]]
    assert story["metrics"]["accuracy"] == pytest.approx(138 / 143, abs=1e-6)
    assert story["earned"] == {
        "hospital": 50_000_000,
        "company": 30_000_000,
        "researcher": -100_000_000,
        "scheduler": 200_000,
        "worker": 19_800_000,
    }
    assert sum(story["earned"].values()) == 0
    assert story["simulated"] is True
    assert "may not use" in story["refusal"]
    opened = tmp_path / "opened"
    assert (opened / "confusion_matrix.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (opened / "model.joblib").stat().st_size > 1000
    assert json.loads((opened / "metrics.json").read_text()) == story["metrics"]


@pytest.mark.nightly
def test_the_tutorials_python_runs_as_it_stands(tmp_path: Path) -> None:
    home = tmp_path / "home"
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "story.py").write_text(code.group(1))
    (tmp_path / "apps").symlink_to(ROOT / "apps")
    environment = os.environ | {"CLOISTER_HOME": str(home)}
    network = subprocess.Popen(
        [str(CLOISTER), "up", "--json", "--port", "7391", "--chain-port", "7392"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert network.stdout is not None
        assert json.loads(network.stdout.readline())["network"]["name"] == "local"
        told = run([sys.executable, "story.py"], home, tmp_path)
    finally:
        network.terminate()
        network.wait(timeout=40)
    assert '"patients": 569' in told
    assert "receipt holds; SIMULATED: not confidential against the host" in told
    assert "the hospital earned 50000000 nRLC" in told
    assert "refused: " in told
