"""What goes wrong on the command line: exit codes, errors for people and for machines, and never a traceback."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tests.cli.conftest import Town
from tests.support.network import process_exists, wait_for, write_app
from tests.support.terminal import Terminal, network_process

from cloister.cli.iapp import COMMANDS as IAPP_COMMANDS
from cloister.cli.main import COMMANDS

NOBODY = "0x000000000000000000000000000000000000dEaD"
NO_HASH = "0x" + "ab" * 32
SUBCOMMANDS = [
    *((name,) for name in COMMANDS),
    *(("data", verb) for verb in ("protect", "list", "show", "transfer")),
    *(("access", verb) for verb in ("grant", "list", "revoke")),
    *(("iapp", verb) for verb in IAPP_COMMANDS),
    *(("task", verb) for verb in ("status", "watch", "logs", "claim")),
    *(("order", verb) for verb in ("list", "show", "cancel")),
    *(("account", verb) for verb in ("balances", "deposit", "withdraw")),
    ("result", "open"),
    ("receipt", "verify"),
    ("network", "describe"),
]


def test_every_command_explains_itself(terminal: Terminal) -> None:
    from click.testing import CliRunner

    from cloister.cli.main import cli

    listed = terminal.run("--help").stdout
    assert all(name in listed for name in COMMANDS)
    runner = CliRunner()
    for words in SUBCOMMANDS:
        answer = runner.invoke(cli, [*words, "--help"])
        assert answer.exit_code == 0, words
        assert answer.output.startswith("Usage: cli " + " ".join(words)), words
        assert len(answer.output.splitlines()) > 4, words
    assert terminal.run("--version").stdout.startswith("cloister, version ")
    assert "Usage:" in terminal.run("data", code=2).stdout


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (2, ["nonsense"], "No such command 'nonsense'"),
        (2, ["data", "protect"], "Missing argument 'PATH'"),
        (2, ["task", "status", NO_HASH, "--nonsense"], "No such option"),
        (2, ["access", "grant", NOBODY, "--app", NOBODY, "--accesses", "0"], "0 is not in the range"),
        (66, ["status"], "no network named local on this machine"),
        (66, ["down"], "no network named local runs here"),
        (66, ["data", "list"], "no network named local on this machine"),
        (66, ["account", "balances", "--as", "hospital"], "the network local has no demo accounts on this machine"),
        (66, ["data", "protect", "/nowhere", "--as", "hospital"], "no file or folder at /nowhere"),
        (66, ["iapp", "build", "/nowhere"], "no iapp.toml in /nowhere"),
        (66, ["receipt", "verify", "/nowhere"], "no receipt at /nowhere"),
        (75, ["network", "describe", "-n", "http://127.0.0.1:9"], "http://127.0.0.1:9"),
        (2, ["status", "--name", "../../etc"], "not a network name: ../../etc"),
    ],
)
def test_on_a_machine_without_a_network(code: int, words: list[str], says: str, terminal: Terminal) -> None:
    if "--name" in words or words[0] in ("nonsense",) or code == 2:
        machine = terminal.run(*words, "--json", code=code)
        assert says in json.loads(machine.stderr.splitlines()[-1])["error"]["message"]
        return
    assert says in terminal.refusal(code, *words)["message"]


@pytest.mark.parametrize(
    ("code", "words", "says"),
    [
        (2, ["account", "balances"], "this needs a wallet"),
        (66, ["account", "balances", "--as", "nobody"], "no demo account named nobody"),
        (66, ["account", "balances", "--as", "/nowhere.key"], "no key file at /nowhere.key"),
        (2, ["account", "deposit", "lots", "--as", "bob"], "cannot read the amount lots"),
        (2, ["account", "deposit", "0", "--as", "bob"], "not a positive amount: 0"),
        (73, ["account", "deposit", "99999 RLC", "--as", "bob"], "deposit of 99999 RLC exceeds the wallet's"),
        (73, ["account", "withdraw", "99999 RLC", "--as", "bob"], "withdrawal of 99999 RLC exceeds the free stake"),
        (65, ["data", "show", "0xnonsense"], "0xnonsense"),
        (66, ["data", "show", NOBODY], f"no protected data at {NOBODY}"),
        (66, ["data", "transfer", NOBODY, NOBODY, "--as", "bob"], f"no protected data at {NOBODY}"),
        (66, ["iapp", "show", NOBODY], f"no app deployed at {NOBODY}"),
        (66, ["iapp", "publish", NOBODY, "--as", "company"], f"no app deployed at {NOBODY}"),
        (66, ["access", "grant", NOBODY, "--app", NOBODY, "--as", "bob"], f"no protected data at {NOBODY}"),
        (66, ["access", "revoke", NO_HASH, "--as", "bob"], NO_HASH),
        (2, ["access", "revoke", "--as", "bob"], "revoke one grant or all of one data's"),
        (66, ["run", NOBODY, "--as", "bob"], f"no app deployed at {NOBODY}"),
        (2, ["run", NOBODY, "--secret", "1=open", "--as", "bob"], "a secret is read from a file"),
        (2, ["run", NOBODY, "--secret", "open", "--as", "bob"], "a secret is given as NUMBER=@FILE"),
        (66, ["run", NOBODY, "--secret", "1=@/nowhere", "--as", "bob"], "no secret file at /nowhere"),
        (66, ["task", "status", NO_HASH], f"no task found for id {NO_HASH} on chain 421614"),
        (65, ["task", "watch", "0x12"], "expected 32 bytes of hex, got 1: 0x12"),
        (66, ["task", "claim", NO_HASH, "--as", "bob"], f"no task found for id {NO_HASH}"),
        (66, ["result", "open", NO_HASH, "--as", "bob"], f"no task found for id {NO_HASH}"),
        (66, ["order", "show", "app", NO_HASH], NO_HASH),
        (66, ["order", "cancel", "request", NO_HASH, "--as", "bob"], NO_HASH),
        (65, ["receipt", "verify", "{junk}"], ""),
        (73, ["up"], "the network local is up already"),
    ],
)
def test_on_a_live_network(code: int, words: list[str], says: str, town: Town, tmp_path: Path) -> None:
    junk = tmp_path / "junk.cose"
    junk.write_bytes(b"\xd2\x84 this is no receipt" * 10)
    words = [word.replace("{junk}", str(junk)) for word in words]
    answer = town.terminal.run(*words, "--json", code=code)
    assert answer.stdout == ""
    error = answer.error
    assert says in error["message"]
    assert error["code"]
    assert error["message"][0] == error["message"][0].lower()


def test_key_files_that_are_not_private_or_hold_no_key_are_refused(town: Town, tmp_path: Path) -> None:
    path = tmp_path / "my.key"
    path.write_text("0x" + "11" * 32)
    path.chmod(0o644)
    assert town.terminal.refusal(78, "account", "balances", "--as", path) == {
        "code": "configuration",
        "message": f"{path} may be read by others",
        "hint": f"chmod 600 {path}",
    }
    path.chmod(0o600)
    assert town.terminal.json("account", "balances", "--as", path)["stake"] == 0
    assert town.terminal.json("account", "balances", CLOISTER_WALLET=str(path))["wallet"] == 0
    for content in ("", "0x", "secret-but-no-key" * 4, "0x" + "00" * 32, "0x" + "ff" * 32):
        path.write_text(content)
        error = town.terminal.run("account", "balances", "--as", path, "--json", code=2).error
        assert "private key" in error["message"]
        assert "secret-but" not in error["message"]


def test_an_app_that_cannot_be_built_is_explained(terminal: Terminal, tmp_path: Path) -> None:
    folder = write_app(tmp_path / "app", entrypoint="start.py")
    error = terminal.refusal(66, "iapp", "build", folder)
    assert error["message"].startswith("the entry point start.py is not in")
    assert error["hint"] == "create the file, or name another one in iapp.toml"
    (folder / "iapp.toml").write_text("name = ")
    assert "iapp.toml does not parse" in terminal.refusal(2, "iapp", "build", folder)["message"]
    write_app(folder)
    with (folder / "iapp.toml").open("a") as file:
        file.write("\n[surprise]\n")
    assert "unknown setting surprise" in terminal.refusal(2, "iapp", "build", folder)["message"]


def test_up_down_and_up_again(terminal: Terminal) -> None:
    with network_process(terminal) as (process, first):
        assert terminal.json("status")["origin"] == first["network"]["origin"]
        assert terminal.json("down") == {"stopped": "local"}
        assert process.wait(10) == 0
    assert terminal.run("status", code=75).stderr.startswith("error: nothing answers at ")
    with network_process(terminal) as (process, second):
        assert second["accounts"] == first["accounts"]
        assert second["network"]["contracts"] == first["network"]["contracts"]
        assert second["network"]["workerpool"] == first["network"]["workerpool"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    log = (terminal.home / "up.log").read_text()
    assert "Traceback" not in log
    wait_for("no process of the network", lambda: not _children(terminal), seconds=10)


def _children(terminal: Terminal) -> list[int]:
    """Processes whose environment names this home."""
    found = []
    mark = f"CLOISTER_HOME={terminal.home}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and process_exists(int(folder.name)):
            try:
                environ = (folder / "environ").read_bytes()
            except OSError:
                continue
            if mark in environ.split(b"\0"):
                found.append(int(folder.name))
    return found


def test_a_network_that_cannot_start_says_why_without_a_traceback(terminal: Terminal) -> None:
    with network_process(terminal):
        pass
    market = terminal.home / "networks" / "local" / "services" / "market.sqlite"
    market.write_bytes(b"this is no database" * 500)
    error = terminal.refusal(78, "up", "--port", "0", "--chain-port", "0")
    assert error["message"] == "the database file of market is damaged"
    assert "DatabaseError" in (terminal.home / "networks" / "local" / "logs" / "services.log").read_text()
    assert not _children(terminal)
