"""A type checker knows what the library gives, through the lazy package too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

APP = """
from collections.abc import Iterator
from pathlib import Path
from typing import assert_type
from cloister import iapp

assert_type(iapp.read("a", type="string"), str)
assert_type(iapp.read("a", type="i128"), int)
assert_type(iapp.read("a"), bool | int | float | str | bytes)
assert_type(iapp.items(), Iterator[iapp.Item])
assert_type(next(iapp.items()).read("a", type="bool"), bool)
assert_type(iapp.write("a", {}), Path)
assert_type(iapp.secret(1), str)
assert_type(iapp.task.index, int)
iapp.raed("a")
iapp.secret("1")
"""


@pytest.mark.nightly
def test_what_a_checker_sees(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(tmp_path / "main.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    errors = [line.partition("error: ")[2] for line in done.stdout.splitlines() if "error: " in line]
    assert errors == [
        'Module has no attribute "raed"  [attr-defined]',
        'Argument 1 to "secret" has incompatible type "str"; expected "int"  [arg-type]',
    ], done.stdout
