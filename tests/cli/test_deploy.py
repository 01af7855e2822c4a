"""Deploying, showing, listing and verifying iApps on a live network, and what a broken-off deployment leaves behind."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.cli.conftest import Town
from tests.support.network import environment
from tests.support.terminal import COMMAND


@pytest.fixture
def project(source: Path, tmp_path: Path) -> Path:
    """A project of its own: the record is kept in it."""
    folder = tmp_path / "project"
    shutil.copytree(source, folder)
    shutil.rmtree(folder / ".cloister", ignore_errors=True)
    settings = folder / "iapp.toml"
    # Another version is another bundle: the network is shared by tests that deploy the same source.
    settings.write_text(settings.read_text().replace('version = "1.0.0"', f'version = "1.{time.time_ns()}"'))
    return folder


def test_deploy_offers_gives_the_secret_and_remembers(town: Town, project: Path, tmp_path: Path) -> None:
    run = town.terminal.json
    secret = tmp_path / "secret.txt"
    secret.write_text("only the enclave gets this")
    words = ("iapp", "deploy", project, "--price", "0.01 RLC", "--app-secret", f"@{secret}", "--as", "alice")
    app = run(*words)
    assert app["secret"] is True
    assert run("order", "show", "app", app["order_hash"])["order"]["appprice"] == "10000000"
    (kept,) = json.loads((project / ".cloister" / "deployments.json").read_text())["deployments"]
    assert kept["address"] == app["address"]
    assert (kept["order_hash"], kept["secret"], kept["network"]) == (app["order_hash"], True, "local")
    assert "only the enclave" not in json.dumps(kept)

    again = run(*words)
    assert again == app, "one app, one order, one secret"
    secret.write_text("another")
    refused = town.terminal.refusal(73, *words)
    assert "has another secret already" in refused["message"]
    assert "another\n" not in json.dumps(refused)

    shown = run("iapp", "show", app["address"])
    assert shown["manifest"]["name"] == "probe"
    assert shown["proof"] == "what storage has is what the chain names"
    assert [(offer["order_hash"], offer["price"]) for offer in shown["offers"]] == [(app["order_hash"], 10_000_000)]
    text = town.terminal.run("iapp", "show", app["address"]).stdout
    assert "nothing: no network" in text
    assert "0.01 RLC a run for anyone" in text

    mine = {each["address"]: each for each in run("iapp", "list", "--folder", project, "--as", "alice")}
    assert mine[app["address"]]["deployed_here"]["checksum"] == app["checksum"]
    assert mine[app["address"]]["offers"]
    seen = run("iapp", "list", "--folder", project)
    assert [each["address"] for each in seen] == [app["address"]], "the record needs no wallet"


def test_verify_proves_or_tells_what_differs(town: Town, project: Path, tmp_path: Path) -> None:
    app = town.terminal.json("iapp", "deploy", project, "--no-publish", "--as", "alice")["address"]
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(project, elsewhere)
    proved = town.terminal.json("iapp", "verify", app, elsewhere)
    assert proved["matches"] is True
    assert "byte for byte" in town.terminal.run("iapp", "verify", app, elsewhere).stdout
    (elsewhere / "main.py").write_text("print('something else')\n")
    answer = town.terminal.run("iapp", "verify", app, elsewhere, "--json", code=76)
    assert [(item["name"], item["where"]) for item in answer.json["files"]] == [("src/main.py", "different")]
    text = town.terminal.run("iapp", "verify", app, elsewhere, code=76).stdout
    assert "is NOT the source" in text
    assert "src/main.py" in text


def test_what_looks_like_a_secret_is_not_uploaded_unasked(town: Town, project: Path) -> None:
    run = town.terminal
    (project / "settings.py").write_text("password = 'hunter2!'\n")
    words = ("iapp", "deploy", project, "--no-publish", "--as", "alice")
    refused = run.run(*words, "--json", code=77)
    assert refused.error["code"] == "secret-in-source"
    assert "settings.py:1" in refused.error["message"]
    assert "hunter2" not in refused.stderr + refused.stdout
    built = run.run("iapp", "build", project, "--json")
    assert built.json["leaks"] == [{"path": "settings.py", "line": 1, "kind": "literal given to a name of a secret"}], (
        "building only warns"
    )
    assert "settings.py:1" in built.stderr
    assert run.json(*words, "--allow-secrets")["leaks"]
    inline = run.refusal(2, *words, "--allow-secrets", "--app-secret", "in the open")
    assert "never given on the command line" in inline["message"]
    asked = run.refusal(2, *words, "--allow-secrets", "--app-secret", "prompt")
    assert "no terminal" in asked["message"]


@pytest.mark.nightly
def test_a_deployment_killed_anywhere_is_finished_by_the_same_command(
    town: Town, project: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("only the enclave gets this")
    words = ["iapp", "deploy", str(project), "--app-secret", f"@{secret}", "--as", "alice", "--json"]
    for pause in (0.9, 1.3, 1.7, 2.1):
        process = subprocess.Popen(
            [*COMMAND, *words],
            env=environment(town.terminal.home),
            cwd=town.terminal.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    app = town.terminal.run(*words).json
    (kept,) = json.loads((project / ".cloister" / "deployments.json").read_text())["deployments"]
    assert (kept["address"], kept["secret"], kept["order_hash"]) == (app["address"], True, app["order_hash"])
    offers = town.terminal.json("iapp", "show", app["address"])["offers"]
    assert [offer["order_hash"] for offer in offers] == [app["order_hash"]]
    mine = [each for each in town.terminal.json("iapp", "list", "--as", "alice") if each["checksum"] == app["checksum"]]
    assert [each["address"] for each in mine] == [app["address"]]


def test_on_a_terminal_it_asks(town: Town, project: Path) -> None:
    (project / "mock").mkdir()
    (project / "mock" / "run.toml").write_text('app_secret = "a mock one"\n')
    (project / "settings.py").write_text("password = 'hunter2!'\n")
    words = ["iapp", "deploy", str(project), "--price", "0.01 RLC", "--as", "alice"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *words],
        env=environment(town.terminal.home) | {"TERM": "dumb"},
        cwd=town.terminal.home,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = ""
    answers = iter([("deploy all the same?", "y"), ("a run to anyone?", "y"), ("empty for none)", "s3cret-of-the-app")])
    question, answer = next(answers)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            chunk = os.read(ours, 4096).decode(errors="replace")
        except OSError:  # the other side is closed
            break
        seen += chunk
        if question and question in seen:
            os.write(ours, f"{answer}\n".encode())
            question, answer = next(answers, ("", ""))
    process.wait(20)
    os.close(ours)
    assert process.returncode == 0, seen
    assert "settings.py:1" in seen
    assert "s3cret-of-the-app" not in seen
    assert "hunter2" not in seen
    (kept,) = json.loads((project / ".cloister" / "deployments.json").read_text())["deployments"]
    assert (kept["secret"], kept["order_hash"] is not None) == (True, True)
