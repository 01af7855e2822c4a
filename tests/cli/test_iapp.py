"""``cloister iapp`` on a live network: run, debug and logs, for one data and for many, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.cli.conftest import Town
from tests.support.network import write_app


@pytest.fixture(scope="module")
def project(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose app was deployed."""
    folder = write_app(tmp_path_factory.mktemp("project") / "app", name="watched")
    town.terminal.json("iapp", "deploy", folder, "--as", "company")
    return folder


def test_why_an_app_failed_is_told_with_its_name_and_what_to_do(town: Town, project: Path) -> None:
    words = ("iapp", "run", project, "--args", "crash", "--budget", "0.02 RLC", "--as", "researcher")
    person = town.terminal.run(*words, code=1)
    assert "the app failed: APP_COMPUTE_FAILED" in person.stderr
    assert "exited with code 3" in person.stderr
    assert "timeline" in person.stdout
    assert "app downloaded" in person.stdout
    task = re.search(r"^task +(0x[0-9a-f]{64})", person.stdout, re.MULTILINE)[1]  # type: ignore[index]

    debugged = town.terminal.json("iapp", "debug", task, "--as", "researcher")
    assert (debugged["view"]["status"], debugged["app_price"], debugged["workerpool_price"]) == (
        "COMPLETED",
        0,
        20_000_000,
    )
    assert debugged["failure"] == {"cause": "APP_COMPUTE_FAILED", "message": "the iApp exited with code 3"}
    assert [event["status"] for event in debugged["events"]].count("COMPUTED") == 1
    (log,) = debugged["logs"]
    assert "the app says crash" in log["stdout"]
    shown = town.terminal.run("iapp", "debug", task, "--as", "researcher")
    assert "COMPLETED" in shown.stdout
    assert "and complains" in shown.stdout
    assert "the app failed: APP_COMPUTE_FAILED" in shown.stderr
    assert "the app says crash" in town.terminal.run("iapp", "logs", task, "--as", "researcher").stdout

    stranger = town.terminal.json("iapp", "debug", task)
    assert (stranger["logs"], stranger["logs_withheld"]) == ([], "only the task's requester gets logs: add --as")
    refused = town.terminal.refusal(66, "iapp", "logs", task, "--as", "alice")
    assert "no logs of task" in refused["message"]


def test_logs_of_a_run_on_data_stay_inside_unless_the_owner_allows_them(
    town: Town, project: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "record.txt"
    secret.write_text("the patient's")
    run = town.terminal.json
    data = run("data", "protect", secret, "--as", "hospital")["address"]
    asked = ("iapp", "run", project, "--data", data, "--args", "pry", "--budget", "0.02 RLC", "--as", "researcher")
    run("access", "grant", data, "--app", project, "--user", "researcher", "--as", "hospital")
    silent = run(*asked)
    assert set(silent["files"]) == {"answer.json", "computed.json"}
    assert "withheld" in run("iapp", "debug", silent["task_id"], "--as", "researcher")["logs"][0]["stderr"]
    run("access", "grant", data, "--app", project, "--user", "researcher", "--logs", "--as", "hospital")
    heard = run(*asked)
    (log,) = run("iapp", "logs", heard["task_id"], "--as", "researcher")
    assert log["from"] == "the sealed result"
    assert "the data:" in log["stdout"]


def test_many_data_are_one_request(town: Town, project: Path, tmp_path: Path) -> None:
    run = town.terminal.json
    data = []
    for number in (1, 2):
        path = tmp_path / f"{number}.txt"
        path.write_text(f"record {number}")
        data.append(run("data", "protect", path, "--as", "hospital")["address"])
    many = [word for address in data for word in ("--data", address)]
    asked = (
        "iapp",
        "run",
        project,
        *many,
        "--workerpool-price",
        "0.02 RLC",
        "-o",
        tmp_path / "out",
        "--as",
        "researcher",
    )
    refused = town.terminal.refusal(77, *asked)
    assert refused["message"].startswith(f"no bulk access to {data[0]}")
    for address in data:
        run("access", "grant", address, "--app", project, "--bulk", "--as", "hospital")
    run("account", "deposit", "0.1 RLC", "--as", "researcher")
    (task,) = run(*asked)["tasks"]
    assert [(item["protected_data"], item["ok"]) for item in task["items"]] == [(address, True) for address in data]
    assert (tmp_path / "out" / "task-0" / "bulk.json").is_file()
    assert "budget" in town.terminal.refusal(2, *asked, "--budget", "1 RLC")["message"]


def test_what_a_folder_cannot_stand_for(town: Town, project: Path, tmp_path: Path) -> None:
    budget = ("--budget", "0.02 RLC", "--as", "researcher")
    inside = town.terminal.refusal(2, "iapp", "run", project, *budget, "-o", project / "results")
    assert "would be part of the app in" in inside["message"]
    nothing = town.terminal.refusal(66, "iapp", "run", tmp_path, *budget)
    assert nothing["message"] == f"nothing was deployed from {tmp_path} on this network"
    assert "neither an address nor a folder" in town.terminal.refusal(2, "iapp", "run", "hello", *budget)["message"]
    assert (
        "given twice"
        in town.terminal.refusal(2, "iapp", "run", project, "--secret", "1=@a", "--secret", "1=@b", *budget)["message"]
    )


def test_an_object_is_protected_by_its_members(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "contact.json"
    path.write_text('{"email": "a@b.c", "age": 41}')
    words = ("data", "protect", path, "--object", "--as", "hospital")
    assert town.terminal.json(*words)["schema"] == {"email": "string", "age": "i128"}
    path.write_text("[1]")
    assert "holds no object" in town.terminal.refusal(2, *words)["message"]
