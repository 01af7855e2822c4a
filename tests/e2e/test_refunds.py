"""Tasks that cannot be done: each says why while it is open, ends unpaid, and gives the requester's money back.

All cases run at once in a category whose tasks end 20 seconds after the deal, because waiting is what costs time here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.e2e.test_hostile_apps import without_entry_point
from tests.support.network import RUN_PRICE, LiveNetwork, changes, wait_for

from cloister import DataProtector
from cloister.errors import RemoteError
from cloister.protocol.codec import Bytes32
from cloister.sdk.apps import App
from cloister.sdk.processing import Run
from cloister.sdk.protection import ProtectedData
from cloister.sdk.tasks import TaskView
from cloister.sealing.keys import build_content_key, generate_content_key
from cloister.storage.multiaddr import build_multiaddr

DATA_PRICE = 50_000_000
APP_PRICE = 30_000_000
BIG = os.urandom(1 << 20)
"""Large enough to lie in a file of its own in the store."""


@dataclass(frozen=True)
class Case:
    """One task that must fail: ``cause`` is what the requester is told."""

    cause: str
    words: str
    data: Callable[[LiveNetwork, DataProtector, App], ProtectedData | None]
    purpose: str | None = None
    broken_app: bool = False


def _expired(live: LiveNetwork, owner: DataProtector, app: App) -> ProtectedData:
    data = owner.protect_data({"case": "expired"}, name="expired")
    until = datetime.now(UTC) - timedelta(hours=1)
    owner.grant_access(data, app=app, price=DATA_PRICE, until=until, accesses=2)
    return data


def _not_yet(live: LiveNetwork, owner: DataProtector, app: App) -> ProtectedData:
    data = owner.protect_data({"case": "not yet"}, name="not yet")
    owner.grant_access(data, app=app, price=DATA_PRICE, valid_from=datetime.now(UTC) + timedelta(hours=1))
    return data


def _other_purpose(live: LiveNetwork, owner: DataProtector, app: App) -> ProtectedData:
    data = owner.protect_data({"case": "purpose"}, name="purpose")
    owner.grant_access(data, app=app, price=DATA_PRICE, purposes=["research"])
    return data


def _wrong_key(live: LiveNetwork, owner: DataProtector, app: App) -> ProtectedData:
    """The owner gives the SMS another key than the one that sealed the data."""
    honest = owner.protect_data({"case": "wrong key"}, name="honest")
    connection = owner.connection
    call = connection.dataprotector.create_dataset_with_schema(
        connection.address, "wrong key", "{}", build_multiaddr(honest.multiaddr), Bytes32(honest.checksum)
    )
    receipt = connection.sender.send(call, intent="wrong-key")
    address = connection.dataprotector.created_dataset(receipt)
    key = build_content_key(generate_content_key(os.urandom))
    connection.sms.push_dataset_secret(address, key, connection.signer)
    owner.grant_access(address, app=app, price=DATA_PRICE)
    return ProtectedData(address, "wrong key", connection.address, {}, honest.multiaddr, honest.checksum)


def _no_key(live: LiveNetwork, owner: DataProtector, app: App) -> ProtectedData:
    honest = owner.protect_data({"case": "no key"}, name="honest too")
    connection = owner.connection
    call = connection.dataprotector.create_dataset_with_schema(
        connection.address, "no key", "{}", build_multiaddr(honest.multiaddr), Bytes32(honest.checksum)
    )
    address = connection.dataprotector.created_dataset(connection.sender.send(call, intent="no-key"))
    owner.grant_access(address, app=app, price=DATA_PRICE)
    return ProtectedData(address, "no key", connection.address, {}, honest.multiaddr, honest.checksum)


def _stored_file(live: LiveNetwork, owner: DataProtector, name: str) -> tuple[ProtectedData, Path]:
    """Protected data and the file in which its ciphertext lies on disk."""
    folder = live.home / "networks" / live.name / "content" / "content"
    before = set(folder.iterdir())
    data = owner.protect_data(BIG + name.encode(), name=name)
    (path,) = set(folder.iterdir()) - before
    return data, path


def _tampered(live: LiveNetwork, owner: DataProtector, app: App) -> ProtectedData:
    data, path = _stored_file(live, owner, "tampered")
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(600_000)
        byte = file.read(1)
        file.seek(600_000)
        file.write(bytes([byte[0] ^ 1]))
    owner.grant_access(data, app=app, price=DATA_PRICE)
    return data


def _truncated(live: LiveNetwork, owner: DataProtector, app: App) -> ProtectedData:
    data, path = _stored_file(live, owner, "truncated")
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size // 2)
    owner.grant_access(data, app=app, price=DATA_PRICE)
    return data


CASES = {
    "expired": Case("TEE_SESSION_REFUSED", "access ended at", _expired),
    "not yet": Case("TEE_SESSION_REFUSED", "access opens at", _not_yet),
    "other purpose": Case("TEE_SESSION_REFUSED", "marketing", _other_purpose, purpose="marketing"),
    "no purpose": Case("TEE_SESSION_REFUSED", "names no purpose", _other_purpose),
    "wrong key": Case("PRE_COMPUTE_DATASET_DECRYPTION_FAILED", "does not open with its key", _wrong_key),
    "no key": Case("TEE_SESSION_REFUSED", "the dataset's key is not here", _no_key),
    "tampered": Case("PRE_COMPUTE_DATASET_DOWNLOAD_FAILED", "broke off", _tampered),
    "truncated": Case("PRE_COMPUTE_DATASET_DOWNLOAD_FAILED", "broke off", _truncated),
    "no entry point": Case("APP_IMAGE_REFUSED", "gone.py", lambda *_: None, broken_app=True),
}


@pytest.fixture(scope="module")
def priced(live: LiveNetwork, bundle: Path) -> App:
    """The probe for 0.03 RLC a run."""
    developer = live.newcomer()
    app = developer.apps.deploy(bundle, name="priced")
    developer.apps.publish(app.address, price=APP_PRICE)
    return app


@pytest.fixture(scope="module")
def broken(live: LiveNetwork, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> App:
    """An app without its entry point."""
    developer = live.newcomer()
    made = without_entry_point(bundle, tmp_path_factory.mktemp("broken") / "broken.bundle")
    app = developer.apps.deploy(made, name="broken")
    developer.apps.publish(app.address, price=APP_PRICE)
    return app


def _follow(
    live: LiveNetwork, requester: DataProtector, runs: dict[str, Run]
) -> tuple[dict[str, set[str]], dict[str, TaskView]]:
    """Watch until all ended and were claimed; returns the causes that were told on the way, and the last views."""
    told: dict[str, set[str]] = {name: set() for name in runs}
    views: dict[str, TaskView] = {}
    last_block = time.monotonic()

    def all_ended() -> bool:
        nonlocal last_block
        if time.monotonic() - last_block > 1:  # nothing else moves the chain's clock on while nobody sends anything
            live.rpc.call("evm_mine")
            last_block = time.monotonic()
        for name, run in runs.items():
            views[name] = view = requester.tasks.status(run.task_id, deal_id=run.deal_id)
            if view.detail:
                told[name].add(view.detail)
        return all(view.status in ("FAILED", "COMPLETED") for view in views.values())

    wait_for("every task's end", all_ended, seconds=60)
    return told, views


def test_what_cannot_be_done_says_why_and_is_refunded(
    live: LiveNetwork, priced: App, broken: App, short: int, app: App
) -> None:
    owner = live.newcomer()
    requester = live.newcomer(stake="2 RLC")
    prices = {
        "data_max_price": DATA_PRICE,
        "app_max_price": APP_PRICE,
        "workerpool_max_price": RUN_PRICE,
        "category": short,
    }
    prepared = {
        name: (case.data(live, owner, broken if case.broken_app else priced), case) for name, case in CASES.items()
    }
    people = (owner, requester)
    before = live.balances(*people)
    runs = {
        name: requester.process_protected_data(
            data,
            app=broken if case.broken_app else priced,
            purpose=case.purpose,
            wait=False,
            **prices,  # type: ignore[arg-type]
        )
        for name, (data, case) in prepared.items()
    }
    patient = live.newcomer(stake="1 RLC")
    slow = patient.process_protected_data(prepared["expired"][0], app=priced, wait=False, **prices | {"category": 0})
    held = requester.account.balances()
    price = sum(RUN_PRICE + APP_PRICE + (0 if data is None else DATA_PRICE) for data, _ in prepared.values())
    assert held.locked == price, "the price is locked while the tasks are open"

    told, views = _follow(live, requester, runs)
    assert {name: view.status for name, view in views.items()} == dict.fromkeys(CASES, "FAILED")
    missing = {
        name: told[name]
        for name, case in CASES.items()
        if not any(case.cause in text and case.words in text for text in told[name])
    }
    assert missing == {}, "each requester is told the cause"

    after = live.balances(*people)
    assert changes(before, after)[0] == 0, "the owner is not paid for data that was not used"
    assert (after[1].stake, after[1].locked) == (held.stake + price, 0)
    with pytest.raises(RemoteError) as ended:
        runs["expired"].wait(5)
    assert ended.value.message.startswith(f"task {runs['expired'].task_id} ended as FAILED")
    assert ended.value.hint == "the price is refunded"
    assert ended.value.code == "task-failed"

    # Category 0 would have its end in 50 minutes: whoever waits is told as soon as the scheduler gives up.
    with pytest.raises(RemoteError) as given_up:
        slow.wait(60)
    assert given_up.value.code == "task-given-up"
    assert given_up.value.message.startswith(
        f"task {slow.task_id} was given up by its workerpool: TEE_SESSION_REFUSED: access"
    )
    deadline = patient.tasks.status(slow.task_id).final_deadline
    assert datetime.fromtimestamp(deadline, UTC).strftime("%Y-%m-%d %H:%M") in (given_up.value.hint or "")
    assert patient.account.balances().locked == RUN_PRICE + APP_PRICE + DATA_PRICE, "locked until then"

    run = requester.process_protected_data(None, app=app, workerpool_max_price=RUN_PRICE, timeout=60)
    assert run.result.names()
