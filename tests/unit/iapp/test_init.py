"""``cloister iapp init``: a project appears whole or not at all, and every template is fit to begin with."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import as_file, files
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloister.cli.iapp.init import init
from cloister.errors import CloisterError, Conflict, InputError, NotFound
from cloister.generator.init import TEMPLATES, Project, init_project
from cloister.generator.requirements import load_lock
from cloister.generator.settings import load_settings
from cloister.protocol.bundles import Language

PRESENT = [name for name in TEMPLATES if (files("cloister.generator") / "templates" / name / "iapp.toml").is_file()]


def test_the_list_and_the_folders_are_the_same() -> None:
    with as_file(files("cloister.generator") / "templates") as templates:
        assert {entry.name for entry in templates.iterdir() if entry.is_dir()} == set(TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_becomes_a_whole_project(tmp_path: Path, template: str) -> None:
    made = init_project("some-app", template, tmp_path / "here")
    assert made == Project("some-app", template, tmp_path / "here", made.files)
    assert set(made.files) >= {".gitignore", "README.md", "iapp.toml", "mock/run.toml", "tests/test_app.py"}
    manifest = load_settings(made.folder).manifest
    assert manifest.name == "some-app"
    contents = {name: (made.folder / name).read_bytes() for name in made.files}
    for name, content in contents.items():
        assert b"__NAME__" not in content, name
        for place in (Path(__file__).parents[3], Path.home(), tmp_path):
            assert f"{place}/".encode() not in content, name
        if name.endswith((".txt", ".in", ".json")):
            assert b"://" not in content, f"{name} names an index or a registry"
    assert contents["README.md"].startswith(b"# some-app\n")
    assert b"```sh\ncloister iapp test" in contents["README.md"]
    if manifest.language is Language.PYTHON:
        load_lock(made.folder)  # every package at one version with its hashes, or nothing to install
    assert [path.name for path in tmp_path.iterdir()] == ["here"], "no draft stays behind"


@pytest.mark.parametrize("name", ["", "Hello", "a b", "../x", "-a", "a" * 65, "ä"])
def test_a_name_that_no_iapp_may_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not a name of a-z"):
        init_project(name, folder=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_template_is_refused_with_the_list(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no template \.\./evil") as refusal:
        init_project("app", "../evil", tmp_path / "x")
    assert refusal.value.hint == f"there is: {', '.join(TEMPLATES)}"


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    empty, full, file, link = (tmp_path / name for name in ("empty", "full", "file", "link"))
    empty.mkdir()
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    file.write_text("mine")
    link.symlink_to(empty)
    with pytest.raises(Conflict, match=r"is not empty: it has notes\.txt"):
        init_project("app", folder=full)
    for taken in (file, link):
        with pytest.raises(Conflict, match="is no folder"):
            init_project("app", folder=taken)
    with pytest.raises(InputError, match="cannot be made"):
        init_project("app", folder=file / "below")
    assert (full / "notes.txt").read_text() == file.read_text() == "mine"
    assert init_project("app", folder=empty).folder == empty
    assert (init_project("app", folder=tmp_path / "a" / "b" / "c").folder / "main.py").is_file()


def test_of_many_at_once_one_makes_it_and_it_is_whole(tmp_path: Path) -> None:
    def attempt(template: str) -> Project | CloisterError:
        try:
            return init_project("app", template, tmp_path / "x")
        except CloisterError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        ends = list(pool.map(attempt, ["hello-world", "javascript"] * 8))
    (made,) = [end for end in ends if isinstance(end, Project)]
    assert {type(end) for end in ends} == {Project, Conflict}
    found = sorted(path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file())
    assert tuple(found) == made.files
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_without_a_terminal_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(init, [], input="")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("  cd hello-world\n  cloister iapp test\n  cloister iapp deploy\n")
    assert (tmp_path / "hello-world" / "main.py").is_file()


def test_on_a_terminal_name_and_template_are_asked_and_asked_again(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cloister.cli.main", "iapp", "init", "--folder", "made"]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, b"Not A Name\nmy-app\n99\n7\n")
    told = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        told += piece
    os.close(ours)
    assert process.wait(20) == 0, told
    text = told.decode()
    assert "is not a name of a-z" in text
    assert "neither a template nor a number from 1 to 8" in text
    assert all(line in text for line in TEMPLATES.values())
    assert load_settings(tmp_path / "made").manifest.name == "my-app"
    assert (tmp_path / "made" / "main.mjs").is_file()
