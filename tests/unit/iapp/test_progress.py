"""Progress: one short line to whoever listens, and never a reason to wait or to fail."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister import iapp
from cloister.errors import InputError
from cloister.protocol.progress import ProgressMessage, parse_line

Inside = Callable[..., Path]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((0.4, "epoch 4 of 10"), {"fraction": 0.4, "message": "epoch 4 of 10"}),
        ((), {"fraction": None, "message": ""}),
        ((None, "a\nb\0"), {"fraction": None, "message": "a b "}),
        ((1 + 1e-9,), {"fraction": 1.0, "message": ""}),
        ((1 / 3,), {"fraction": 0.3333, "message": ""}),
        ((0, "x" * 300), {"fraction": 0.0, "message": "x" * 200}),
    ],
)
def test_lines(inside: Inside, arguments: tuple[object, ...], line: dict[str, object]) -> None:
    reading, writing = os.pipe()
    inside(CLOISTER_PROGRESS_FD=str(writing))
    iapp.progress(*arguments)  # type: ignore[arg-type]
    raw = os.read(reading, 4096)
    assert raw.endswith(b"\n")
    assert json.loads(raw) == line
    assert parse_line(raw[:-1]) == ProgressMessage(**line)  # type: ignore[arg-type]  # as the agent reads it
    os.close(reading)
    os.close(writing)


def test_a_line_is_never_longer_than_its_cap(inside: Inside) -> None:
    reading, writing = os.pipe()
    inside(CLOISTER_PROGRESS_FD=str(writing))
    iapp.progress(0.12345, "\U0001f40d" * 200)
    iapp.progress(0.5, "\\" * 200 + '"')
    lines = os.read(reading, 4096).splitlines(keepends=True)
    assert all(len(line) <= 512 for line in lines)
    assert set(json.loads(lines[0])["message"]) == {"\U0001f40d"}
    assert len(json.loads(lines[0])["message"]) > 100
    assert json.loads(lines[1])["message"] == "\\" * 200
    assert all(parse_line(line) for line in lines)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("wrong", [1.1, -0.1, float("nan"), float("inf"), "0.5", True, object()])
def test_fractions_that_are_none(inside: Inside, wrong: object) -> None:
    inside()
    with pytest.raises(InputError, match="a fraction of progress is a number from 0 to 1, got"):
        iapp.progress(wrong)  # type: ignore[arg-type]


def test_nobody_listens(inside: Inside, tmp_path: Path) -> None:
    inside()
    iapp.progress(0.1)
    inside(CLOISTER_PROGRESS_FD="none")
    iapp.progress(0.1)
    reading, writing = os.pipe()
    inside(CLOISTER_PROGRESS_FD=str(writing))
    os.close(reading)
    iapp.progress(0.1)  # a broken pipe
    os.close(writing)
    iapp.progress(0.1)  # a closed descriptor
    with (tmp_path / "mine").open("wb") as file:
        os.dup2(file.fileno(), writing)
        iapp.progress(0.1)  # a file of the iApp's own at that number
        os.close(writing)
    assert (tmp_path / "mine").read_bytes() == b""


def test_a_full_pipe_is_not_waited_for(inside: Inside) -> None:
    reading, writing = os.pipe()
    inside(CLOISTER_PROGRESS_FD=str(writing))
    for number in range(3000):
        iapp.progress(number / 3000, "x" * 200)
    assert os.read(reading, 1 << 20).startswith(b'{"fraction":0.0,')
    os.close(reading)
    os.close(writing)
