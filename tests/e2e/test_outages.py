"""Parts killed in the middle of a task: it completes all the same, is paid once, and the next one runs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.network import RUN_PRICE, LiveNetwork, live_network, process_exists, wait_for, wait_for_stage
from tests.support.terminal import Terminal, network_process

from cloister import DataProtector
from cloister.errors import CloisterError, UnavailableError
from cloister.generator.bundle import build_bundle
from cloister.network.composition import Composition, load_backends
from cloister.sdk.apps import App


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """A network whose parts may be killed."""
    with live_network(tmp_path_factory.mktemp("fragile")) as network:
        yield network


@pytest.fixture(autouse=True)
def _at_home(fragile: LiveNetwork, _own_home: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_HOME", str(fragile.home))


@pytest.fixture(scope="module")
def probe(fragile: LiveNetwork, bundle: Path) -> App:
    """The probe on that network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOISTER_HOME", str(fragile.home))
        company = fragile.connect("company")
        app = company.apps.deploy(bundle, name="probe")
        company.apps.publish(app.address)
        return app


def children(pid: int, word: str) -> list[int]:
    """Child processes of ``pid`` whose command line holds ``word``."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            status = (folder / "status").read_text()
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"\nPPid:\t{pid}\n" in status and word in command:
            found.append(int(folder.name))
    return found


def completes(requester: DataProtector, app: App) -> None:
    """The next task runs."""
    run = requester.process_protected_data(None, app=app, workerpool_max_price="0.02 RLC", timeout=90)
    assert json.loads(run.result.read("answer.json"))["task"] == run.task_id


def test_a_worker_killed_in_the_middle_of_a_task(fragile: LiveNetwork, probe: App) -> None:
    owner, requester = fragile.newcomer(), fragile.newcomer(stake="1 RLC")
    data = owner.protect_data({"n": 1}, name="killed worker")
    owner.grant_access(data, app=probe, price="0.05 RLC")
    run = requester.process_protected_data(
        data, app=probe, args="sleep 2", data_max_price="0.05 RLC", workerpool_max_price="0.02 RLC", wait=False
    )
    wait_for_stage(requester, run, "RUNNING")
    time.sleep(0.5)
    worker = fragile.network.worker_process
    assert worker is not None
    enclaves = children(worker, "bwrap")
    os.kill(worker, signal.SIGKILL)
    wait_for("a new worker", lambda: fragile.network.worker_process not in (None, worker))
    assert json.loads(run.wait(90).result.read("answer.json"))["data"] == {"n": 1}
    assert not [pid for pid in enclaves if process_exists(pid)], "no enclave outlives its worker"
    after = requester.account.balances()
    assert (after.stake, after.locked) == (10**9 - 50_000_000 - RUN_PRICE, 0)
    assert owner.account.balances().stake == 50_000_000
    completes(requester, probe)


def test_a_chain_killed_in_the_middle_of_a_task(fragile: LiveNetwork, probe: App) -> None:
    requester = fragile.newcomer(stake="1 RLC")
    time.sleep(1)  # the newcomer's money is in a checkpoint
    run = requester.process_protected_data(None, app=probe, args="sleep 2", workerpool_max_price="0.02 RLC", wait=False)
    wait_for_stage(requester, run, "RUNNING")
    url = fragile.network.description.rpc_url
    (chain,) = children(os.getpid(), f"--port\0{url.rpartition(':')[2]}")
    os.kill(chain, signal.SIGKILL)
    told = wait_for("what users are told", lambda: _failure(requester.account.balances))
    assert isinstance(told, UnavailableError)
    assert url in told.message

    def finished() -> bool:
        try:
            return requester.tasks.status(run.task_id, deal_id=run.deal_id).status == "COMPLETED"
        except UnavailableError:
            return False

    wait_for("the task's end", finished, seconds=60)
    assert json.loads(run.result.read("answer.json"))["task"] == run.task_id
    after = requester.account.balances()
    assert (after.stake, after.locked) == (10**9 - RUN_PRICE, 0)
    completes(requester, probe)


def _failure(action: Callable[[], object]) -> CloisterError | None:
    try:
        action()
    except CloisterError as error:
        return error
    return None


def test_an_enclave_killed_in_the_middle_of_a_task(fragile: LiveNetwork, probe: App) -> None:
    requester = fragile.newcomer(stake="1 RLC")
    run = requester.process_protected_data(None, app=probe, args="sleep 2", workerpool_max_price="0.02 RLC", wait=False)
    wait_for_stage(requester, run, "RUNNING")
    worker = fragile.network.worker_process
    assert worker is not None
    time.sleep(0.7)
    for pid in children(worker, "bwrap"):
        os.kill(pid, signal.SIGKILL)
    assert json.loads(run.wait(90).result.read("answer.json"))["task"] == run.task_id
    after = requester.account.balances()
    assert (after.stake, after.locked) == (10**9 - RUN_PRICE, 0)
    completes(requester, probe)


def test_sms_storage_market_and_scheduler_away_in_the_middle_of_a_task(fragile: LiveNetwork, probe: App) -> None:
    owner, requester = fragile.newcomer(), fragile.newcomer(stake="1 RLC")
    origin = fragile.network.description.origin
    early = requester.process_protected_data(
        None, app=probe, args="sleep 2", workerpool_max_price="0.02 RLC", wait=False
    )
    wait_for_stage(requester, early, "RUNNING")
    late = requester.process_protected_data(None, app=probe, workerpool_max_price="0.02 RLC", wait=False)
    fragile.network._composition.stop()  # type: ignore[union-attr]
    told = wait_for("what users are told", lambda: _failure(lambda: owner.protect_data(b"patient", name="patient")))
    assert isinstance(told, UnavailableError)
    assert origin in told.message
    assert requester.account.balances().stake == 10**9 - 2 * RUN_PRICE, "the chain has the money and goes on"
    time.sleep(3)
    services = Composition(load_backends(fragile.name))
    services.start(int(origin.rpartition(":")[2]))
    fragile.network._composition = services
    for run in (early, late):
        assert json.loads(run.wait(90).result.read("answer.json"))["task"] == run.task_id
    after = requester.account.balances()
    assert (after.stake, after.locked) == (10**9 - 2 * RUN_PRICE, 0)
    data = owner.protect_data(b"patient", name="patient")
    connection = owner.connection
    assert connection.datasets.balance_of(connection.address, block="latest") == 1
    assert data.owner == connection.address
    completes(requester, probe)


def test_a_network_killed_as_a_whole_goes_on_where_it_was(tmp_path: Path, bundle: Path) -> None:
    home = tmp_path / "whole"
    home.mkdir()
    terminal = Terminal(home)
    with network_process(terminal) as (process, announced):
        app = terminal.json("iapp", "deploy", bundle, "--as", "company")["address"]
        staked = terminal.json("account", "deposit", "1 RLC", "--as", "bob")["stake"]
        started = terminal.json(
            *("run", app, "--args", "sleep 3", "--workerpool-price", "0.02 RLC", "--detach", "--as", "bob")
        )
        task = started["task_id"]
        wait_for(
            "the task running",
            lambda: terminal.json("task", "status", task, "--deal", started["deal_id"])["stage"] == "RUNNING",
        )
        time.sleep(1.2)  # the chain's checkpoint follows its blocks within a second
        process.kill()
        process.wait()
    error = terminal.refusal(75, "task", "status", task)
    assert announced["network"]["rpc_url"] in error["message"]
    assert terminal.refusal(75, "status")["hint"] == "cloister up"
    assert terminal.refusal(66, "down")["message"] == "no network named local runs here"
    with network_process(terminal) as (_, again):
        assert again["network"]["contracts"] == announced["network"]["contracts"]
        watched = terminal.run("task", "watch", task, "--deal", started["deal_id"], "--timeout", "80", "--json").stdout
        assert json.loads(watched.splitlines()[-1])["status"] == "COMPLETED"
        printed = terminal.run("result", "open", task, "--cat", "answer.json", "--as", "bob").stdout
        assert json.loads(printed)["task"] == task
        balances = terminal.json("account", "balances", "--as", "bob")
        assert (balances["stake"], balances["locked"]) == (staked - RUN_PRICE, 0)
        terminal.json("run", app, "--workerpool-price", "0.02 RLC", "--as", "bob", "--timeout", "60")


def test_bundle_is_small(bundle: Path) -> None:
    """The probe needs nothing but the standard library, so these tests measure the system and not a download."""
    assert bundle.stat().st_size < 100_000
    assert build_bundle(bundle.parent.parent).digest == build_bundle(bundle.parent.parent).digest
