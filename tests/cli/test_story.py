"""The main job on the command line: for machines (``--json``) and for people."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path

from tests.cli.conftest import Town
from tests.support.network import environment
from tests.support.terminal import COMMAND

PRICES = ("--data-price", "0.05 RLC", "--app-price", "0.03 RLC", "--workerpool-price", "0.02 RLC")
ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")


def test_what_up_announces(town: Town) -> None:
    network = town.announced["network"]
    assert set(town.announced["accounts"]) == {"hospital", "company", "researcher", "alice", "bob"}
    assert network["chain_id"] == 421614
    assert network["enclave_kind"] == "simulated"
    assert town.announced["ready_seconds"] > 0
    assert town.terminal.json("network", "describe").items() >= network.items()
    status = town.terminal.json("status")
    assert status["origin"] == network["origin"]
    assert set(status["parts"]) >= {"market", "sms", "scheduler", "indexer", "gateway"}
    assert set(status["parts"].values()) == {"ok"}
    assert f"network local at {network['origin']}" in town.terminal.run("status").stdout


def test_the_main_job_for_machines(town: Town, source: Path, tmp_path: Path) -> None:
    run = town.terminal.json
    researcher = town.address("researcher")
    record = tmp_path / "record.txt"
    record.write_text("the patient's record")

    data = run("data", "protect", record, "--name", "record", "--as", "hospital")
    assert (data["name"], data["owner"]) == ("record", town.address("hospital"))
    built = run("iapp", "build", source, "-o", tmp_path / "probe.bundle")
    assert built["digest"] == "0x" + hashlib.sha256((tmp_path / "probe.bundle").read_bytes()).hexdigest()
    app = run("iapp", "deploy", tmp_path / "probe.bundle", "--price", "0.03 RLC", "--as", "company")
    assert (app["checksum"], app["name"]) == (built["digest"], "probe")
    assert run("order", "show", "app", app["order_hash"])["order"]["app"] == app["address"]
    again = run("iapp", "deploy", source, "--price", "0.03 RLC", "--as", "company")
    same = ("address", "checksum", "order_hash")
    assert [again[name] for name in same] == [app[name] for name in same], "built from the folder it is the same app"
    grant = run(
        *("access", "grant", data["address"], "--app", app["address"], "--user", researcher),
        *("--price", "0.05 RLC", "--accesses", "3", "--purpose", "research", "--as", "hospital"),
    )
    assert (grant["price"], grant["remaining"], grant["user"]) == (50_000_000, 3, researcher)
    assert [g["order_hash"] for g in run("access", "list", data["address"])] == [grant["order_hash"]]

    before = run("account", "deposit", "0.5 RLC", "--as", "researcher")
    owner_before = run("account", "balances", "--as", "hospital")
    started = run(
        *("run", app["address"], "--data", data["address"], "--args", "look 1 2", "--purpose", "research"),
        *(*PRICES, "-o", tmp_path / "out", "--as", "researcher", "--timeout", "60"),
    )
    assert started["files"] == ["answer.json", "computed.json"]
    assert started["enclave"] == "simulated"
    answer = json.loads((tmp_path / "out" / "answer.json").read_text())
    assert answer["args"] == ["1", "2"]
    (content,) = answer["data"].values()
    assert content["sha256"] == hashlib.sha256(b"the patient's record").hexdigest()
    after = run("account", "balances", "--as", "researcher")
    assert (before["stake"] - after["stake"], after["locked"]) == (100_000_000, 0)
    assert run("account", "balances", "--as", "hospital")["stake"] - owner_before["stake"] == 50_000_000
    assert run("account", "balances", researcher) == after, "anybody may look"

    status = run("task", "status", started["task_id"])
    assert (status["status"], status["deal_id"]) == ("COMPLETED", started["deal_id"])
    lines = town.terminal.run("task", "watch", started["task_id"], "--json").stdout.splitlines()
    assert json.loads(lines[-1])["status"] == "COMPLETED"
    opened = run("result", "open", started["task_id"], "--as", "researcher", "-o", tmp_path / "again")
    assert opened["encrypted"] is True
    assert (tmp_path / "again" / "answer.json").read_bytes() == (tmp_path / "out" / "answer.json").read_bytes()
    printed = town.terminal.run("result", "open", started["task_id"], "--as", "researcher", "--cat", "answer.json")
    assert json.loads(printed.stdout) == answer

    _receipt(town, started["task_id"], data, app, tmp_path)

    revoked = run("access", "revoke", grant["order_hash"], "--as", "hospital")
    assert revoked[0]["grant"] == grant["order_hash"]
    error = town.terminal.refusal(
        77, "run", app["address"], "--data", data["address"], "--purpose", "research", *PRICES, "--as", "researcher"
    )
    assert error["code"] == "no-grant"
    assert f"{researcher} may not use {data['address']}" in error["message"]
    assert error["hint"] == "ask its owner for a grant: cloister access grant"
    assert run("account", "balances", "--as", "researcher") == after


def _receipt(town: Town, task: str, data: dict[str, str], app: dict[str, str], folder: Path) -> None:
    path = folder / "receipt.cose"
    with path.open("wb") as file:
        subprocess.run(
            [*COMMAND, "result", "open", task, "--as", "researcher", "--cat", "receipt.cose"],
            env=environment(town.terminal.home),
            stdout=file,
            check=True,
        )
    proven = town.terminal.json("receipt", "verify", path)
    assert proven["verified"] is True
    assert proven["task_id"] == task
    assert proven["app_digest"] == app["checksum"]
    assert proven["dataset"] == data["address"].lower()
    assert proven["dataset_checksum"] == data["checksum"]
    assert proven["warning"].startswith("SIMULATED: not confidential against the host")
    assert proven["chain"] is None
    history = town.terminal.json("data", "history", data["address"])
    assert history["complete"] is True
    assert [(entry["outcome"], entry["task_id"]) for entry in history["entries"]] == [("released", task)]
    quick = town.terminal.json("data", "history", data["address"], "--quick", "--as", "hospital")
    assert (quick["complete"], quick["entries"]) == (False, history["entries"])
    described = json.loads((town.terminal.home / "networks" / "local" / "network.json").read_text())
    assert town.terminal.json("receipt", "verify", path, "--rpc", described["rpc_url"])["chain"]["verified"] is True
    text = town.terminal.run("receipt", "verify", path, "--rpc", described["rpc_url"])
    assert "the receipt holds" in text.stdout
    assert "says the same at block" in text.stdout
    assert "what became of" in town.terminal.run("data", "history", data["address"]).stdout
    assert "SIMULATED: not confidential against the host" in text.stderr
    forged = bytearray(path.read_bytes())
    forged[len(forged) // 2] ^= 1
    path.write_bytes(forged)
    refused = subprocess.run(
        [*COMMAND, "receipt", "verify", str(path), "--json"],
        env=environment(town.terminal.home),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode in (65, 76), "it does not parse, or it does not verify"
    assert json.loads(refused.stderr)["error"]["message"]
    assert json.loads(refused.stderr)["error"]["part"]


def test_the_main_job_for_people(town: Town, source: Path, tmp_path: Path) -> None:
    """The same verbs, in text; addresses are read as a person would."""
    run = town.terminal.run
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "a.txt").write_text("first")

    shown = run("data", "protect", folder, "--as", "alice").stdout
    data = ADDRESS.search(shown)[0]  # type: ignore[index]
    assert "study" in shown
    assert "ciphertext" in shown
    app = ADDRESS.search(
        run("iapp", "deploy", source, "--name", "for people", "--no-publish", "--as", "company").stdout
    )[0]  # type: ignore[index]
    assert run("iapp", "publish", app, "--as", "company").stdout.startswith("published app order 0x")
    granted = run("access", "grant", data, "--app", app, "--accesses", "2", "--as", "alice").stdout
    assert "anyone" in granted
    grant = re.search(r"0x[0-9a-f]{64}", granted)[0]  # type: ignore[index]
    assert grant in run("access", "list", data).stdout
    run("account", "deposit", "1 RLC", "--as", "bob")
    started = run("run", app, "--data", data, "--workerpool-price", "0.02 RLC", "--detach", "--as", "bob")
    assert "SIMULATED: not confidential against the host" in started.stderr
    task, deal = re.findall(r"0x[0-9a-f]{64}", started.stdout)[:2]
    assert f"cloister task watch {task} --deal {deal}" in started.stdout
    assert "COMPLETED" in run("task", "watch", task, "--deal", deal, "--timeout", "60").stdout
    assert "COMPLETED" in run("task", "status", task).stdout
    opened = run("result", "open", task, "-o", tmp_path / "out", "--as", "bob").stdout
    assert "encrypted" in opened
    assert str(tmp_path / "out" / "answer.json") in opened

    plain = town.terminal.json("run", app, "--workerpool-price", "0.02 RLC", "--plain-result", "--as", "bob")
    logs = run("task", "logs", plain["task_id"], "--as", "bob").stdout
    assert "the app says look" in logs
    assert "and complains" in logs
    assert "in the open" in run("result", "open", plain["task_id"]).stdout
    error = town.terminal.refusal(77, "task", "logs", plain["task_id"], "--as", "alice")
    assert town.address("bob") in error["message"]

    assert data in run("data", "list").stdout
    assert data in run("data", "list", "--mine", "--as", "alice").stdout
    assert "study" in run("data", "show", data).stdout
    assert app in run("iapp", "list", "--as", "company").stdout
    assert "for people" in run("iapp", "show", app).stdout
    assert grant in run("order", "list", "dataset", "--dataset", data).stdout
    assert town.address("alice") in run("order", "show", "dataset", grant).stdout
    assert run("order", "cancel", "dataset", grant, "--as", "alice").stdout == f"closed {grant}\n"
    second = town.terminal.json("access", "grant", data, "--app", app, "--as", "alice")
    revoked = town.terminal.json("access", "revoke", "--all", data, "--as", "alice")
    assert second["order_hash"] in [entry["grant"] for entry in revoked]
    transferred = run("data", "transfer", data, town.address("bob"), "--as", "alice").stdout
    assert transferred == f"{data} now belongs to {town.address('bob')}\n"
    withdrawn = run("account", "withdraw", "0.5 RLC", "--as", "bob").stdout
    assert "0.46 RLC" in withdrawn
