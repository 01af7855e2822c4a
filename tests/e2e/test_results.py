"""What an app is given and what comes back: arguments, secrets, logs, plain results, several tasks, callbacks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.support.network import LiveNetwork, wait_for, write_app

from cloister import DataProtector
from cloister.chain.calls import Call
from cloister.errors import Conflict, Denied, InputError, VerificationError
from cloister.generator.bundle import build_bundle
from cloister.protocol.codec import Address, keccak256
from cloister.sdk.apps import App
from cloister.sdk.processing import Run
from cloister.sdk.progress import Progress
from cloister.sdk.protection import ProtectedData
from cloister.sdk.updates import AppUpdates
from cloister.sdk.wallet import Wallet


def start(requester: DataProtector, data: ProtectedData | None, app: App, **options: object) -> Run:
    settings = {"workerpool_max_price": "0.02 RLC", "timeout": 60, **options}
    return requester.process_protected_data(data, app=app, **settings)  # type: ignore[arg-type]


def test_secrets_reach_only_the_app(
    live: LiveNetwork, bundle: Path, owner: DataProtector, requester: DataProtector
) -> None:
    developer = live.newcomer()
    app = developer.apps.deploy(bundle, name="with a secret")
    developer.apps.push_secret(app.address, "the developer's")
    with pytest.raises(Conflict):
        developer.apps.push_secret(app.address, "another")
    developer.apps.publish(app.address)
    run = start(requester, None, app, secrets={1: "the first", 3: "the third ünd last"})
    assert json.loads(run.result.read("answer.json"))["secrets"] == {
        "IEXEC_APP_DEVELOPER_SECRET": "the developer's",
        "IEXEC_APP_DEVELOPER_SECRET_1": "the developer's",
        "IEXEC_REQUESTER_SECRET_1": "the first",
        "IEXEC_REQUESTER_SECRET_3": "the third ünd last",
    }
    # Somebody else's run of the same app has none of the first requester's.
    other = live.newcomer(stake="1 RLC")
    seen = json.loads(start(other, None, app).result.read("answer.json"))["secrets"]
    assert set(seen) == {"IEXEC_APP_DEVELOPER_SECRET", "IEXEC_APP_DEVELOPER_SECRET_1"}
    params = requester.connection.hub.deal(run.deal_id, block="latest")
    assert params is not None
    assert "the first" not in params.params
    with pytest.raises(InputError, match="secret slots count from 1, got 0"):
        start(requester, None, app, secrets={0: "zero"})


def test_a_plain_result_is_public_and_its_logs_are_the_requesters(
    live: LiveNetwork, app: App, requester: DataProtector
) -> None:
    run = start(requester, None, app, args="look here", encrypt_result=False)
    stranger = live.newcomer()
    for reader in (requester, stranger):
        result = reader.get_result_from_completed_task(run.task_id)
        assert not result.encrypted
        assert json.loads(result.read("answer.json"))["args"] == ["here"]
    (logs,) = wait_for("the logs", lambda: requester.tasks.logs(run.task_id))
    assert (logs.stdout, logs.stderr) == ("the app says look here\n", "and complains\n")
    assert logs.worker == live.connect("worker").connection.address
    with pytest.raises(Denied):
        stranger.tasks.logs(run.task_id)


def test_logs_of_a_task_on_protected_data_reach_nobody(
    app: App, owner: DataProtector, data: ProtectedData, requester: DataProtector
) -> None:
    owner.grant_access(data, app=app, user=requester.connection.address)
    run = start(requester, data, app)
    (logs,) = wait_for("the logs", lambda: requester.tasks.logs(run.task_id))
    assert logs.stdout == ""
    assert logs.stderr == "[cloister] what the app printed is withheld: the task was given protected data or secrets\n"
    assert run.result.names() == ["answer.json", "computed.json"], "no stdout.txt: it may hold the owner's data"


TELLING = """
import time
from cloister import iapp
print("the data is", iapp.read("email"))
for step in (1, 2):
    iapp.progress(step / 4, f"step {step} for {iapp.read('email')}")
    time.sleep(1.1)
iapp.progress(1, "done")
iapp.write("answer.json", {"ok": True})
"""


def test_a_running_app_is_heard_by_its_requester_and_logs_are_read_where_the_owner_allows(
    live: LiveNetwork, owner: DataProtector, data: ProtectedData, requester: DataProtector, tmp_path: Path
) -> None:
    company = live.connect("company")
    app = company.apps.deploy(build_bundle(write_app(tmp_path / "telling", code=TELLING)).path, name="telling")
    company.apps.publish(app.address)
    grant = owner.grant_access(data, app=app, user=requester.connection.address, logs=True)
    assert grant.policy is not None
    assert grant.policy.logs
    heard: list[Progress] = []
    run = start(DataProtector(requester.connection, on_status=heard.append), data, app)
    running = [event for event in heard if event.step == "TASK_EXECUTION" and event.fraction is not None]
    said = dict.fromkeys((event.fraction, event.detail) for event in running if "step" in event.detail)
    told = {(number / 4, f"step {number} for alice@example.org") for number in (1, 2)}
    assert said, "heard while it ran; of two that came between two looks the newer is told"
    assert set(said) <= told
    assert heard[-1].finished
    # What the scheduler shows everybody is of one size and says nothing; others who watch see no progress.
    kept = requester.connection.scheduler.progress(run.task_id)
    assert [entry.number for entry in kept] == list(range(1, len(kept) + 1))
    assert len({len(entry.update) for entry in kept}) == 1
    assert not any(b"alice" in entry.update for entry in kept)
    for stranger in (live.newcomer(), live.connect(None)):
        updates = AppUpdates(stranger.connection, run.task_id, pause=0)
        assert updates.newest() is None
    mine = AppUpdates(requester.connection, run.task_id, pause=0).newest()
    assert mine is not None
    assert (mine.fraction, mine.message) == (1, "done")
    contribution = requester.connection.hub.contribution(
        run.task_id, live.connect("worker").connection.address, block="latest"
    )
    assert mine.enclave == contribution.enclave_challenge
    # The owner allowed logs, so the requester reads them; host and scheduler still do not.
    assert run.result.read("stdout.txt") == b"the data is alice@example.org\n"
    usage = json.loads(run.result.read("usage.json"))
    assert usage["exit_code"] == 0
    assert usage["seconds"] > 2
    assert usage["peak_memory_bytes"] > 1 << 20
    (logs,) = wait_for("the logs", lambda: requester.tasks.logs(run.task_id))
    assert logs.stdout == ""
    owner.revoke_access(grant)


def test_an_encrypted_result_opens_only_for_its_beneficiary_with_the_key(
    live: LiveNetwork, app: App, requester: DataProtector, tmp_path: Path
) -> None:
    run = start(requester, None, app)
    me = requester.connection.address
    with pytest.raises(VerificationError, match=f"only {me} can open this result") as refused:
        live.newcomer().get_result_from_completed_task(run.task_id)
    assert refused.value.hint == "use the beneficiary's wallet"
    with pytest.raises(VerificationError, match=f"only {me} can open this result"):
        live.connect(None).get_result_from_completed_task(run.task_id)

    key = live.home / "wallets" / me.lower() / "result.key"
    assert key.stat().st_mode & 0o077 == 0
    kept = key.read_bytes()
    key.unlink()
    again = live.connect(Wallet(requester.connection.signer))
    with pytest.raises(VerificationError, match="the result is sealed to key") as lost:
        again.get_result_from_completed_task(run.task_id)
    assert lost.value.hint == "use the machine, or the wallet folder, that made the request"
    key.write_bytes(kept)
    result = again.get_result_from_completed_task(run.task_id)
    saved = result.save(tmp_path / "out")
    assert {path.name for path in saved} >= {"answer.json", "computed.json"}
    assert (tmp_path / "out" / "answer.json").read_bytes() == run.result.read("answer.json")


def test_two_tasks_run_at_the_same_time(app: App, requester: DataProtector) -> None:
    runs = [start(requester, None, app, args=f"sleep 2 {number}", wait=False) for number in (1, 2)]
    both = wait_for(
        "both tasks running",
        lambda: all(requester.tasks.status(r.task_id, deal_id=r.deal_id).stage == "RUNNING" for r in runs),
    )
    assert both
    receipts = []
    for number, run in enumerate(runs, 1):
        assert json.loads(run.result.read("answer.json"))["args"] == ["2", str(number)]
        receipts.append(run.receipt.verify().claims)
    first, second = receipts
    assert first.started_at <= second.finished_at, "neither waited for the other"
    assert second.started_at <= first.finished_at
    assert requester.account.balances().locked == 0


def test_the_second_category_runs_too(app: App, requester: DataProtector) -> None:
    run = start(requester, None, app, category=1)
    deal = requester.connection.hub.deal(run.deal_id, block="latest")
    assert deal is not None
    assert deal.category == 1
    assert json.loads(run.result.read("answer.json"))["task"] == run.task_id


def _keeper(live: LiveNetwork) -> Address:
    """A contract that answers ``receiveResult(bytes32,bytes)`` by keeping what it was called with, word by word.

    Slots 0.. hold the call data behind the selector: task id, offset, length, first word.
    """
    body = b"".join(bytes([0x60, 4 + 32 * slot, 0x35, 0x60, slot, 0x55]) for slot in range(4)) + b"\x00"
    deploy = bytes([0x60, len(body), 0x80, 0x60, 11, 0x60, 0, 0x39, 0x60, 0, 0xF3]) + body
    connection = live.newcomer().connection
    receipt = connection.sender.send(Call(None, deploy), intent="keeper")  # type: ignore[arg-type]
    address = live.rpc.call("eth_getTransactionReceipt", receipt.transaction)["contractAddress"]  # type: ignore[index,call-overload]
    return Address(str(address))


def test_a_callback_task_calls_the_contract(live: LiveNetwork, app: App, requester: DataProtector) -> None:
    keeper = _keeper(live)
    run = start(requester, None, app, args="callback " + "cd" * 32, callback=keeper, encrypt_result=False)
    task = requester.connection.hub.task(run.task_id, block="latest")
    assert task is not None
    assert task.result_digest.raw == keccak256(b"\xcd" * 32)
    words = wait_for("the callback", lambda: _words(live, keeper) if _words(live, keeper)[0].strip("0x") else None)
    assert words[0] == run.task_id
    assert words[2] == f"0x{32:064x}"
    assert words[3] == "0x" + "cd" * 32
    with pytest.raises(InputError, match="Task result stored on ethereum, download not supported"):
        requester.get_result_from_completed_task(run.task_id)


def _words(live: LiveNetwork, address: Address) -> list[str]:
    return [str(live.rpc.call("eth_getStorageAt", address, hex(slot), "latest")) for slot in range(4)]
