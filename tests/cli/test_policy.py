"""Owners' rules and evidence on the command line; everything but the standing policy works without a network."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.cli.conftest import Town
from tests.support.genuine import FOLDER, genuine
from tests.support.network import environment
from tests.support.sms_world import MEASUREMENT, START, Platform
from tests.support.terminal import COMMAND, Terminal

from cloister.cli.main import cli
from cloister.errors import CloisterError, DecodeError

PASSES = {"kind": "simulated", "measurements": [MEASUREMENT.hex()]}
QUOTE = ("tdx", FOLDER / "dcap" / "tdx_quote", FOLDER / "dcap" / "tdx_quote_collateral.json")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Simulated evidence with its root, and rules."""
    machine = Platform()
    (tmp_path / "evidence").write_bytes(machine.evidence(bytes(64), issued_at=START))
    (tmp_path / "root.der").write_bytes(machine.root)
    pem = x509.load_der_x509_certificate(machine.root).public_bytes(Encoding.PEM)
    (tmp_path / "root.pem").write_bytes(pem)
    (tmp_path / "other.der").write_bytes(Platform().root)
    return tmp_path


def write(folder: Path, rules: object) -> Path:
    path = folder / "rules.json"
    path.write_text(rules if isinstance(rules, str) else json.dumps(rules))
    return path


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def explain(folder: Path, rules: object, *more: object) -> Result:
    words = ["--evidence", folder / "evidence", "--kind", "simulated", "--root", folder / "root.der", "--at", START + 5]
    return invoke("policy", "explain", write(folder, rules), *words, *more)


def refusal(code: int, *words: object) -> CloisterError:
    """The error with which a command ends; ``main`` makes its message and exit code out of it."""
    error = invoke(*words).exception
    assert isinstance(error, CloisterError), error
    assert error.exit_code == code
    return error


def document(result: Result) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def test_evidence_that_passes_ends_with_zero(files: Path) -> None:
    told = explain(files, PASSES)
    assert told.exit_code == 0
    assert told.stdout.splitlines()[0] == "✓ simulated enclave"
    assert told.stdout.splitlines()[-1] == "this evidence passes"
    value = document(explain(files, {**PASSES, "distinct": "vendor"}, "--json"))
    assert (value["passes"], value["code"], value["at"], value["distinct"]) == (True, None, START + 5, "vendor")
    assert value["tree"]["ok"]


def test_evidence_that_is_refused_ends_with_the_policys_code(files: Path) -> None:
    rules = {
        "any_of": [{"kind": "tdx"}, {"kind": "simulated", "measurements": ["set:next"]}],
        "sets": {"next": ["ab" * 32]},
    }
    told = explain(files, rules)
    assert told.exit_code == 77
    assert f"    ✗ measurement: {MEASUREMENT.hex()}; wanted: {'ab' * 32} (next) [measurement-unknown]" in told.stdout
    assert "→ add it, or run image next" in told.stdout
    assert told.stdout.splitlines()[-1] == "this evidence is refused: measurement-unknown"
    machine = explain(files, rules, "--json")
    value = document(machine)
    assert machine.exit_code == 77
    assert (value["passes"], value["code"], value["remedy"]) == (
        False,
        "measurement-unknown",
        "add it, or run image next",
    )


def test_time_is_the_askers(files: Path) -> None:
    rules = write(files, PASSES)
    words = ["policy", "explain", rules, "--evidence", files / "evidence", "--kind", "simulated", "--json"]
    for moment in (START + 601, "2026-09-22T12:00:00+02:00"):
        late = invoke(*words, "--root", files / "root.pem", "--at", moment)
        assert (late.exit_code, document(late)["code"]) == (77, "evidence-stale")


def test_roots_are_named_or_nothing_is_believed(files: Path, terminal: Terminal) -> None:
    rules = write(files, PASSES)
    words = ["policy", "explain", rules, "--evidence", files / "evidence", "--kind", "simulated"]
    error = terminal.refusal(2, *words)
    assert error["message"] == "simulated has no vendor's root"
    assert error["hint"] == "name the network's root certificate: --root FILE"
    words += ["--at", str(START)]
    assert refusal(76, *words, "--root", files / "other.der").code == "untrusted-root"
    terminal.run(*words, "--root", files / "root.pem")


@pytest.mark.parametrize(
    ("code", "rules", "says"),
    [
        (65, '{"any_of": [', "not valid json"),
        (65, '{"kind": "tpm", "kind": "tdx"}', "twice"),
        (65, {"any_of": [{"kind": "tdx", "tcb": {"grace_days": "30"}}]}, "any_of[0].tcb.grace_days is a text"),
        (65, {"kind": "tdx", "debug": True}, "debug is unknown"),
    ],
)
def test_rules_that_cannot_be_read(files: Path, code: int, rules: object, says: str) -> None:
    assert says in refusal(code, "policy", "check", write(files, rules)).message


def test_check_prints_the_one_form_and_its_hash(files: Path) -> None:
    upper = {"measurements": [MEASUREMENT.hex().upper()], "kind": "simulated"}
    first, second = (document(invoke("policy", "check", write(files, each), "--json")) for each in (upper, PASSES))
    assert first == second
    assert first["policy"] == {**PASSES, "version": 1}
    assert first["gaps"] == []
    gaps = invoke("policy", "check", write(files, {"kind": "tdx"}), "--json")
    assert document(gaps)["gaps"] == ["measurements", "registers.rtmr1", "registers.rtmr2"]


def test_words_that_do_not_fit_together(files: Path) -> None:
    rules = write(files, PASSES)
    for words in ([], ["--kind", "simulated"], ["--evidence", rules], ["--receipt", rules, "--kind", "tdx"]):
        assert refusal(2, "policy", "explain", rules, *words).message == "name what to judge"
    assert "no file at /nowhere" in refusal(66, "policy", "check", "/nowhere").message
    assert "no file at /nowhere" in refusal(66, "evidence", "show", "/nowhere", "--kind", "tdx").message


def test_evidence_shows_what_the_hardware_said(files: Path, terminal: Terminal) -> None:
    words = ["evidence", "show", files / "evidence", "--kind", "simulated", "--root", files / "root.pem", "--at", START]
    value = document(invoke(*words, "--json"))
    assert value["verified"] is True
    assert value["measurement"] == MEASUREMENT.hex()
    assert value["warning"] == "SIMULATED: not confidential against the host"
    assert "SIMULATED" in terminal.run(*words).stderr
    (files / "evidence").write_bytes((files / "evidence").read_bytes()[:-1])
    refusal(65, *words)


def test_a_genuine_quote_is_shown_and_judged(files: Path) -> None:
    genuine("dcap/tdx_quote")
    kind, quote, collateral = QUOTE
    words = ["--kind", kind, "--collateral", collateral, "--at", "2025-06-20"]
    shown = document(invoke("evidence", "show", quote, *words, "--json"))
    assert shown["tcb"]["status"] == "UpToDate"
    rules = {
        "kind": "tdx",
        "measurements": [shown["measurement"]],
        "registers": {"rtmr1": [shown["registers"]["rtmr1"]], "rtmr2": [shown["registers"]["rtmr2"]]},
        "platforms": [shown["platform"]],
        "attributes": {"sept_ve_disable": True},
    }
    assert invoke("policy", "explain", write(files, rules), "--evidence", quote, *words).exit_code == 0
    rules["registers"].pop("rtmr2")
    refused = invoke("policy", "explain", write(files, rules), "--evidence", quote, *words, "--json")
    assert (refused.exit_code, document(refused)["code"]) == (77, "no-reference-values")


def test_a_genuine_report_is_shown_with_its_certificates(files: Path) -> None:
    genuine("snp/report-milan.bin")
    folder = FOLDER / "snp"
    chain = ["--certificate", folder / "vcek-milan.der", "--certificate", folder / "ask_ark_milan.pem"]
    words = ["--kind", "snp", *chain, "--at", "2024-06-20", "--json"]
    shown = document(invoke("evidence", "show", folder / "report-milan.bin", *words))
    assert shown["vendor"] == "amd"
    rules = {"kind": "snp", "measurements": [shown["measurement"]]}
    judged = invoke("policy", "explain", write(files, rules), "--evidence", folder / "report-milan.bin", *words)
    assert (judged.exit_code, document(judged)["code"]) == (77, "debug-enabled")


def test_genuine_evidence_of_an_azure_guest_is_shown(files: Path) -> None:
    genuine("vtpm/evidence-v1.json")
    path = FOLDER / "vtpm" / "evidence-v1.json"
    words = ["--kind", "snp-vtpm", "--certificate", FOLDER / "vtpm" / "vcek.pem", "--at", "2025-06-20", "--json"]
    shown = invoke("evidence", "show", path, *words)
    assert shown.exit_code == 0, shown.output
    assert document(shown)["kind"] == "snp-vtpm"


def test_a_standing_policy_is_set_shown_and_lifted(town: Town, tmp_path: Path) -> None:
    terminal = town.terminal
    (tmp_path / "data").write_text("rows")
    data = terminal.json("data", "protect", tmp_path / "data", "--as", "hospital")["address"]
    rules = write(tmp_path, {"kind": "tdx", "measurements": "any", "registers": {"rtmr1": "any", "rtmr2": "any"}})
    nothing = terminal.run("policy", "show", data, "--json", code=66).error
    assert nothing["code"] == "no-standing-policy"
    assert nothing["message"].startswith("the data's owner has set no standing policy")
    stranger = terminal.run("policy", "set", data, rules, "--as", "bob", "--json", code=77)
    assert "belongs to" in stranger.error["message"]
    before = int(time.time())
    first = terminal.json("policy", "set", data, rules, "--as", "hospital")
    assert (first["version"], first["owner"]) == (1, town.address("hospital"))
    assert first["issued_at"] >= before
    assert terminal.json("policy", "show", data) == first
    assert terminal.json("policy", "set", data, rules, "--as", "hospital")["version"] == 2
    lifted = terminal.json("policy", "clear", data, "--as", "hospital")
    assert (lifted["policy"], lifted["version"]) == (None, 3)
    write(tmp_path, {"kind": "tdx"})
    locked = terminal.run("policy", "set", data, rules, "--as", "hospital", "--json", code=2)
    assert "reference values are missing" in locked.error["message"]


def test_rules_in_a_grant_hold_at_release_and_explain_the_receipt(town: Town, source: Path, tmp_path: Path) -> None:
    run, terminal = town.terminal.json, town.terminal
    (tmp_path / "data").write_text("rows of a grant with rules")
    data = run("data", "protect", tmp_path / "data", "--as", "hospital")["address"]
    app = run("iapp", "deploy", source, "--as", "bob")["address"]
    rules = write(tmp_path, {"kind": "simulated", "measurements": "any", "min_svn": 1})
    grant = run("access", "grant", data, "--app", app, "--hardware", rules, "--as", "hospital")
    assert grant["policy"]["version"] == 2
    assert grant["policy"]["hardware"] == {"kind": "simulated", "measurements": "any", "min_svn": 1, "version": 1}
    run("account", "deposit", "0.5 RLC", "--as", "researcher")
    words = ("--workerpool-price", "0.02 RLC", "-o", tmp_path / "out", "--as", "researcher", "--timeout", "60")
    started = run("run", app, "--data", data, *words)
    receipt = tmp_path / "receipt.cose"
    with receipt.open("wb") as file:
        subprocess.run(
            [*COMMAND, "result", "open", started["task_id"], "--as", "researcher", "--cat", "receipt.cose"],
            env=environment(terminal.home),
            stdout=file,
            check=True,
        )
    home = {"CLOISTER_HOME": str(terminal.home)}
    words = ["policy", "explain", str(rules), "--receipt", str(receipt)]
    passed = CliRunner().invoke(cli, [*words, "--json"], env=home)
    assert (passed.exit_code, document(passed)["passes"]) == (0, True), passed.output
    assert abs(document(passed)["at"] - time.time()) < 300
    write(tmp_path, {"any_of": [{"kind": "tdx"}, {"kind": "simulated", "measurements": "any", "min_svn": 99}]})
    refused = CliRunner().invoke(cli, words, env=home)
    assert refused.exit_code == 77
    assert refused.stdout.endswith("this evidence is refused: svn-too-low\n")
    receipt.write_bytes(receipt.read_bytes()[:-1])
    assert isinstance(CliRunner().invoke(cli, words, env=home).exception, DecodeError)
