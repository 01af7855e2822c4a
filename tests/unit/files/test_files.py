"""Durable files: whole or not at all, private, and the first of two creators wins."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloister.files import create_durably, write_durably


def test_a_file_is_written_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "key"
    write_durably(path, b"one")
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o077 == 0
    write_durably(path, [b"tw", b"o"])
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_a_source_that_breaks_leaves_what_was_there(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("the source broke")

    path = tmp_path / "key"
    write_durably(path, b"whole")
    with pytest.raises(ValueError, match="the source broke"):
        write_durably(path, broken())
    assert path.read_bytes() == b"whole"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_a_target_that_is_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(OSError, match="key"):
        write_durably(tmp_path / "key", b"one")
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_of_many_creators_one_wins_and_all_read_its_content(tmp_path: Path) -> None:
    path = tmp_path / "key"
    contents = [f"creator {number}".encode() * 100 for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda content: create_durably(path, content), contents))
    assert sum(made) == 1
    assert path.read_bytes() == contents[made.index(True)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]
