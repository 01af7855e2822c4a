"""Starting networks in a world that is not tidy: foreign chains, taken ports, damaged and foreign state."""

from __future__ import annotations

import json
import socket
import sqlite3
from pathlib import Path

import pytest
from tests.support.anvil import Anvil, free_port
from tests.support.network import live_network, write_app

from cloister import DataProtector
from cloister.errors import CloisterError, ConfigurationError, Conflict, DecodeError, NotFound
from cloister.generator.bundle import build_bundle
from cloister.network.local import LocalNetwork, LocalOptions
from cloister.network.state import running_process


def test_a_chain_that_runs_already_is_used_and_left_alone(tmp_path: Path) -> None:
    anvil = Anvil()
    anvil.start()
    try:
        url = f"http://127.0.0.1:{anvil.port}"
        with live_network(tmp_path / "home", "foreign", rpc_url=url) as live:
            assert live.network.description.rpc_url == url
            company = live.connect("company")
            app = company.apps.deploy(build_bundle(write_app(tmp_path / "app")).path, name="probe")
            company.apps.publish(app.address)
            requester = live.newcomer(stake="1 RLC")
            run = requester.process_protected_data(None, app=app, workerpool_max_price="0.02 RLC", timeout=60)
            assert json.loads(run.result.read("answer.json"))["task"] == run.task_id
            hub = live.network.description.contracts.hub
        assert anvil.process is not None
        assert anvil.process.poll() is None, "a chain that is not ours goes on"
        with live_network(tmp_path / "home", "foreign", rpc_url=url) as again:
            assert again.network.description.contracts.hub == hub, "the second start finds the contracts"
            assert again.connect("company").apps.show(app.address) == app
    finally:
        anvil.kill()


def test_a_second_start_of_the_same_network_is_refused(live: object) -> None:
    with pytest.raises(Conflict, match="the network local is up already") as refused:
        LocalNetwork(LocalOptions(port=0, chain_port=0)).start()
    assert refused.value.hint == "cloister down --name local"
    assert running_process("local") is not None, "the first one goes on"


@pytest.mark.parametrize("which", ["port", "chain_port"])
def test_a_taken_port_is_named(which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        network = LocalNetwork(LocalOptions(**({"port": 0, "chain_port": 0} | {which: port})))  # type: ignore[arg-type]
        with pytest.raises(CloisterError, match=str(port)) as refused:
            network.start()
        assert refused.value.hint
        assert running_process("local") is None, "nothing is held after a start that failed"
    network = LocalNetwork(LocalOptions(port=0, chain_port=0))
    network.start()
    network.stop()


def _accounts(tmp_path: Path) -> Path:
    """The accounts of a network that was never started otherwise."""
    from cloister.network.accounts import load_accounts
    from cloister.sdk.home import network_folder

    path = network_folder("local") / "accounts.json"
    load_accounts(path)
    assert path.stat().st_mode & 0o777 == 0o600
    return path


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"hospital": 5}', b'{"hospital": "0x12"}', b"\xff\xfe", b'{"hospital": null}'],
)
def test_a_damaged_account_file_is_named_and_its_content_is_not(content: bytes, tmp_path: Path) -> None:
    path = _accounts(tmp_path)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is damaged") as refused:
        LocalNetwork(LocalOptions(port=0, chain_port=0)).start()
    assert str(path) in refused.value.message
    assert refused.value.hint == "restore it, or remove the network's folder to begin anew"
    assert "0x12" not in refused.value.message
    assert refused.value.__cause__ is None, "a parser's error would carry the keys"
    with pytest.raises(ConfigurationError, match="is damaged"):
        DataProtector.connect("local", wallet="hospital")


def test_an_account_file_without_a_role_is_refused(tmp_path: Path) -> None:
    path = _accounts(tmp_path)
    keys = json.loads(path.read_text())
    del keys["sms"]
    path.write_text(json.dumps(keys))
    with pytest.raises(CloisterError, match="sms"):
        LocalNetwork(LocalOptions(port=0, chain_port=0)).start()


def test_an_account_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = _accounts(tmp_path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match=r"accounts\.json may be read by others") as refused:
        LocalNetwork(LocalOptions(port=0, chain_port=0)).start()
    assert refused.value.hint == f"chmod 600 {path}"


def test_a_database_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    network = LocalNetwork(LocalOptions(port=0, chain_port=0))
    network.start()
    network.stop()
    path = tmp_path / "home" / "networks" / "local" / "services" / "market.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("update market_revision set version_num = 'v9999'")
    database.close()
    with pytest.raises(CloisterError) as refused:
        LocalNetwork(LocalOptions(port=0, chain_port=0)).start()
    assert "bug" not in refused.value.message
    assert "v9999" in refused.value.message
    assert refused.value.hint
    with sqlite3.connect(path) as database:
        assert database.execute("select version_num from market_revision").fetchone() == ("v9999",)
    database.close()


@pytest.mark.parametrize("content", [b"", b"not gzip", b"\x1f\x8b\x08\x00broken"])
def test_a_damaged_checkpoint_of_the_chain_is_named(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "networks" / "local" / "chain"
    folder.mkdir(parents=True)
    (folder / "chain.json.gz").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"checkpoint cannot be read: .*chain\.json\.gz"):
        LocalNetwork(LocalOptions(port=0, chain_port=0)).start()
    assert (folder / "chain.json.gz").read_bytes() == content


def test_contracts_of_another_version_are_refused(tmp_path: Path) -> None:
    anvil = Anvil()
    anvil.start()
    try:
        url = f"http://127.0.0.1:{anvil.port}"
        with live_network(tmp_path / "home", rpc_url=url) as live:
            hub = live.network.description.contracts.hub
            live.rpc.call("anvil_setCode", str(hub), "0x600160005500")
        with pytest.raises(Conflict, match="the contracts of network local are not this version's") as refused:
            LocalNetwork(LocalOptions(port=0, rpc_url=url)).start()
        assert refused.value.hint is not None
        assert "--name OTHER" in refused.value.hint
    finally:
        anvil.kill()


def test_a_chain_that_does_not_answer_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(CloisterError, match=url) as refused:
        LocalNetwork(LocalOptions(port=0, rpc_url=url)).start()
    assert refused.value.exit_code == 75


def test_networks_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no network named nowhere on this machine") as refused:
        DataProtector.connect("nowhere")
    assert refused.value.hint == "cloister up"
    with pytest.raises(CloisterError, match="not a network name: \\.\\./elsewhere"):
        DataProtector.connect("../elsewhere")
    description = tmp_path / "home" / "networks" / "broken" / "network.json"
    description.parent.mkdir(parents=True)
    for content in ("{", "[]", "{}", '{"version": 99}', "\0"):
        description.write_text(content)
        with pytest.raises(DecodeError):
            DataProtector.connect("broken")
    description.write_bytes(b"\xff")
    with pytest.raises(DecodeError, match=r"network\.json is damaged"):
        DataProtector.connect("broken")
