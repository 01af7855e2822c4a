"""``mock/run.toml``: what is not understood is refused by name, and secrets are never repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloister.errors import CloisterError
from cloister.generator.mock.run import name_in_run
from cloister.generator.rehearsal.settings import load_mock_run


def _write(folder: Path, text: str) -> Path:
    (folder / "mock").mkdir(exist_ok=True)
    path = folder / "mock" / "run.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("args = 3", "args must be a text"),
        ("agrs = 'x'", "unknown setting agrs"),
        ("data = 'a'\nbulk = ['b']", "both set"),
        ("bulk = 'a'", "bulk must be a list"),
        ("callback = 1", "callback must be true or false"),
        ("max_result_bytes = -1", "number of bytes"),
        ("purpose = 'Two Words'", "purpose"),
        ("[secrets]\n0 = 'x'", "not a number from 1"),
        ("[secrets]\n1 = 2", "secret 1 must be a text"),
        ("[expect]\nfile = ['x']", "unknown setting file"),
        ("args = ", "does not parse"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(tmp_path: Path, text: str, problem: str) -> None:
    _write(tmp_path, text)
    with pytest.raises(CloisterError, match=problem) as refused:
        load_mock_run(tmp_path)
    assert "run.toml" in refused.value.message


def test_a_secret_is_in_no_message_and_no_repr(tmp_path: Path) -> None:
    _write(tmp_path, f"[secrets]\n1 = '{'hush' * 2000}'")
    with pytest.raises(CloisterError, match="longer than 4096") as refused:
        load_mock_run(tmp_path)
    assert "hush" not in refused.value.message
    _write(tmp_path, "app_secret = 'hush'\n[secrets]\n1 = 'hush'")
    assert "hush" not in repr(load_mock_run(tmp_path))


def test_without_a_file_nothing_is_set(tmp_path: Path) -> None:
    mock = load_mock_run(tmp_path)
    assert (mock.args, mock.data, mock.bulk, mock.expect) == (None, None, None, None)


@pytest.mark.parametrize(
    "text",
    ["", "# mine\nargs = 'x'", "args = 'x'\n\n[secrets]\n1 = 's'\n", "[expect]\nfiles = ['data = 1']\n"],
)
def test_a_mock_is_named_and_all_else_stays(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path, text)
    before = load_mock_run(tmp_path)
    assert name_in_run(tmp_path, ["a.json"], replace=False)
    after = load_mock_run(tmp_path)
    assert after.data == "a.json"
    assert (after.args, after.secrets, after.expect) == (before.args, before.secrets, before.expect)
    assert all(line in path.read_text() for line in text.splitlines())
    assert not name_in_run(tmp_path, ["b.json", "c.json"], replace=False)
    assert name_in_run(tmp_path, ["b.json", "c.json"], replace=True)
    assert load_mock_run(tmp_path).bulk == ("b.json", "c.json")
    assert name_in_run(tmp_path, ["d.json"], replace=True)
    assert (load_mock_run(tmp_path).data, load_mock_run(tmp_path).bulk) == ("d.json", None)
    assert load_mock_run(tmp_path).args == before.args
