"""``cloister iapp test`` and ``cloister iapp mock`` as they are typed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.generator.conftest import Project
from tests.support.network import environment
from tests.support.terminal import COMMAND, Terminal

HELLO = """
from cloister.datasets.reader import ProtectedDataReader
with ProtectedDataReader() as data:
    write("hello.txt", f"Hello, {data.read('name')}")
done("hello.txt")
print("said hello")
"""


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


def test_a_mock_is_made_and_an_app_tested_on_it(terminal: Terminal, project: Project) -> None:
    folder = project(HELLO)
    made = terminal.json("iapp", "mock", "--project", folder, "--field", "name=string", "--field", "a.age=i128")
    assert made["named_in_run_toml"] is True
    name = json.loads((folder / "mock" / "data.json").read_text())["name"]
    told = terminal.json("iapp", "test", folder)
    assert told["ok"] is True
    assert (told["cause"], told["exit_code"], told["stdout"]) == (None, 0, "said hello\n")
    assert {file["name"] for file in told["files"]} == {"hello.txt", "computed.json"}
    assert (folder / "output" / "hello.txt").read_text() == f"Hello, {name}"
    assert told["enclave"] == "simulated"
    assert told["receipt_verified"] is True
    assert told["limits"]["seconds"] == 20
    assert told["timings"]["whole command"] > 0
    person = terminal.run("iapp", "test", folder, "--verbose")
    for text in (f"Hello, {name}", "said hello", "hello.txt", "20 s", "whole command"):
        assert text in person.stdout
    assert "SIMULATED: not confidential against the host" in person.stderr


def test_a_failure_names_its_cause_says_what_to_do_and_leaves_no_old_result(
    terminal: Terminal, project: Project
) -> None:
    folder = project('write("x.txt", "x"); done("x.txt")')
    terminal.run("iapp", "test", folder)
    assert (folder / "output" / "x.txt").exists()
    project('write("x.txt", "x")')
    answer = terminal.run("iapp", "test", folder, code=1)
    assert "failed: POST_COMPUTE_COMPUTED_FILE_NOT_FOUND" in answer.stderr
    assert "iapp.write()" in answer.stderr
    assert not (folder / "output" / "x.txt").exists()
    (folder / "mock").mkdir()
    (folder / "mock" / "run.toml").write_text('[expect]\ncause = "POST_COMPUTE_COMPUTED_FILE_NOT_FOUND"')
    assert "as mock/run.toml expects" in terminal.run("iapp", "test", folder).stdout


def test_options_take_the_place_of_single_settings(terminal: Terminal, project: Project, tmp_path: Path) -> None:
    code = """
    write("seen.json", json.dumps([sys.argv[1:], os.environ.get("IEXEC_REQUESTER_SECRET_1"),
          os.environ.get("IEXEC_APP_DEVELOPER_SECRET"), os.environ.get("IEXEC_BULK_SLICE_SIZE")]))
    done("seen.json")
    """
    folder = project("\n".join(line.strip() for line in code.splitlines()), run="args = 'a'\n[secrets]\n1 = 'file'")
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text('{"a": 1}')
    (tmp_path / "s").write_text("typed")
    out = tmp_path / "out"
    terminal.run("iapp", "test", folder, "-o", out, "--args", "b", "--secret", "1=@s", "--app-secret", "@s")
    assert json.loads((out / "seen.json").read_text()) == [["b"], "typed", "typed", None]
    terminal.run("iapp", "test", folder, "-o", out, "--data", "one.json", "--data", "two.json", "--keep")
    assert json.loads((out / "seen.json").read_text()) == [["a"], "file", None, "2"]
    assert {path.name for path in (folder / ".cloister" / "kept").iterdir()} == {
        "data-1.sealed",
        "data-2.sealed",
        "result",
    }
    assert (
        "never given on the command line"
        in terminal.run("iapp", "test", folder, "--app-secret", "typed", code=2).stderr
    )
    assert "hint:" in terminal.run("iapp", "test", tmp_path / "nowhere", code=66).stderr


def test_watching_runs_again_on_save_survives_nonsense_and_ends_cleanly(
    terminal: Terminal, project: Project, tmp_path: Path
) -> None:
    folder = project('write("x", "first"); done("x")')
    process = subprocess.Popen(
        [*COMMAND, "iapp", "test", str(folder), "--watch", "--json"],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["ok"] is True
        project("def (")
        told = json.loads(process.stdout.readline())
        assert (told["ok"], told["cause"]) == (False, "APP_COMPUTE_FAILED")
        assert "SyntaxError" in told["stderr"]
        settings = (folder / "iapp.toml").read_text()
        (folder / "iapp.toml").write_text("name = [")
        time.sleep(1.0)
        (folder / "iapp.toml").write_text(settings)
        project('write("x", "again"); done("x")')
        while not json.loads(process.stdout.readline())["ok"]:
            pass
        assert (folder / "output" / "x").read_text() == "again"
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.wait()


def test_a_mock_never_takes_the_place_of_what_it_is_made_from(
    terminal: Terminal, project: Project, tmp_path: Path
) -> None:
    folder = project("", run="")
    real = folder / "mock" / "people.csv"
    real.write_text("name,age\nXanthippe,77\n")
    assert "real data" in terminal.run("iapp", "mock", real, "-p", folder, code=73).stderr
    assert "Xanthippe" in real.read_text()
    terminal.run("iapp", "mock", real, "-p", folder, "--name", "mocked", "--copies", 2, "--rows", 5)
    assert len((folder / "mock" / "mocked-2.csv").read_text().splitlines()) == 6
    assert (folder / "mock" / "mocked-1.csv").read_text() != (folder / "mock" / "mocked-2.csv").read_text()
    assert "in one way" in terminal.run("iapp", "mock", real, "--field", "a=bool", "-p", folder, code=2).stderr
    assert "iapp.toml" in terminal.run("iapp", "mock", real, "-p", tmp_path, code=66).stderr


def test_a_schema_of_the_chain_is_mocked(terminal: Terminal, project: Project, tmp_path: Path) -> None:
    folder = project("")
    (tmp_path / "schema.json").write_text('{"photo":"image/png","who":{"name":"string"}}')
    terminal.run("iapp", "mock", "--schema", "schema.json", "-p", folder, "--name", "photos")
    assert (folder / "mock" / "photos.zip").read_bytes().startswith(b"PK")
    assert 'data = "photos.zip"' in (folder / "mock" / "run.toml").read_text()


def test_without_pyarrow_a_table_says_what_to_install(project: Project, tmp_path: Path) -> None:
    folder = project("")
    (tmp_path / "pyarrow.py").write_text("raise ImportError('none here')")
    done = subprocess.run(
        [sys.executable, "-m", "cloister.cli.main", "iapp", "mock", "-p", str(folder), "--table", "t:age=int64"],
        env=environment(tmp_path) | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert "mock tables need pyarrow" in done.stderr
    assert "cloister[dataframe]" in done.stderr
