"""Many protected data in one request: slices, what fails alone, what may not be asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.network import LiveNetwork, write_app
from tests.support.terminal import Terminal

from cloister import DataProtector
from cloister.errors import Conflict, Denied, InputError
from cloister.generator.bundle import build_bundle
from cloister.protocol.codec import Bytes32
from cloister.protocol.orders import OrderKind, sign_order
from cloister.protocol.units import parse_nrlc
from cloister.sdk.access import Grant
from cloister.sdk.apps import App
from cloister.sdk.bulk import BulkRequest
from cloister.sdk.protection import ProtectedData
from cloister.storage.multiaddr import build_multiaddr

PRICE = "0.02 RLC"

READER = '''
"""Adds up what it can read of a bulk slice."""
import json, os
from pathlib import Path

from cloister.datasets.reader import ProtectedDataReader

folder, out = Path(os.environ["IEXEC_IN"]), Path(os.environ["IEXEC_OUT"])
seen = {}
for number in range(1, int(os.environ["IEXEC_BULK_SLICE_SIZE"]) + 1):
    path = folder / os.environ[f"IEXEC_DATASET_{number}_FILENAME"]
    if path.exists():
        with ProtectedDataReader(path) as reader:
            seen[path.name] = reader.read("n")
    else:
        seen[path.name] = None
(out / "sum.json").write_text(json.dumps({"seen": seen, "index": os.environ["IEXEC_TASK_INDEX"]}, sort_keys=True))
(out / "bulk.json").write_text("[]")
(out / "computed.json").write_text(json.dumps({"deterministic-output-path": str(out / "sum.json")}))
'''


@pytest.fixture(scope="module")
def adder(live: LiveNetwork, tmp_path_factory: pytest.TempPathFactory) -> App:
    """An app that reads bulk slices, offered free of charge."""
    company = live.connect("company")
    source = write_app(tmp_path_factory.mktemp("adder"), name="adder", code=READER)
    deployed = company.apps.deploy(build_bundle(source).path, name="adder")
    company.apps.publish(deployed.address)
    return deployed


@pytest.fixture(scope="module")
def given(owner: DataProtector, adder: App) -> list[tuple[ProtectedData, Grant]]:
    """Five data with bulk access for anyone."""
    data = [owner.protect_data({"n": number}, name=f"bulk {number}") for number in range(5)]
    return [(each, owner.grant_access(each, app=adder, allow_bulk=True)) for each in data]


def test_slices_run_and_what_was_revoked_or_damaged_fails_alone(
    owner: DataProtector, requester: DataProtector, adder: App, given: list[tuple[ProtectedData, Grant]]
) -> None:
    late = owner.protect_data({"n": 100}, name="late")
    revoked = owner.grant_access(late, app=adder, allow_bulk=True)
    keyless = _without_key(owner)
    no_key = owner.grant_access(keyless, app=adder, allow_bulk=True)
    grants = [given[0][1], revoked, given[1][1], no_key, given[2][1]]
    request = requester.prepare_bulk_request(
        grants, app=adder, max_protected_data_per_task=3, workerpool_max_price=PRICE
    )
    assert request.slices == 2
    before = requester.inspect_bulk_request(request)
    assert before.status == "INITIALIZING"
    assert [list(task.protected_data) for task in before.tasks] == [
        [given[0][0].address, late.address, given[1][0].address],
        [keyless, given[2][0].address],
    ]
    owner.revoke_access(revoked)
    held = requester.account.balances()
    # As JSON, the way it travels between people and iExec's clients.
    runs = requester.process_bulk_request(json.loads(json.dumps(request.to_json())), wait=True, timeout=90)
    assert [run.index for run in runs] == [0, 1]
    paid = held.stake + held.locked - requester.account.balances().stake - requester.account.balances().locked
    assert paid == 2 * parse_nrlc(PRICE)
    first, second = (run.result for run in runs)
    assert json.loads(first.read("sum.json")) == {
        "seen": {given[0][0].address.lower(): 0, late.address.lower(): None, given[1][0].address.lower(): 1},
        "index": "0",
    }
    assert json.loads(second.read("sum.json")) == {
        "seen": {keyless.lower(): None, given[2][0].address.lower(): 2},
        "index": "1",
    }
    items = first.bulk_items()
    assert [(item.index, item.protected_data, item.ok) for item in items] == [
        (1, given[0][0].address, True),
        (2, late.address, False),
        (3, given[1][0].address, True),
    ]
    assert items[1].cause
    assert items[1].message
    assert [item.ok for item in second.bulk_items()] == [False, True]
    assert second.bulk_items()[0].cause == "dataset-key-missing"
    assert runs[0].receipt.verify()
    after = requester.inspect_bulk_request(request)
    assert (after.status, [task.status for task in after.tasks]) == ("FINISHED", ["COMPLETED", "COMPLETED"])
    # The grants are not used up, and the same request again makes no other deal.
    assert [grant.order_hash for grant in owner.get_granted_access(protected_data=given[0][0], bulk_only=True)] == [
        given[0][1].order_hash
    ]
    again = requester.process_bulk_request(request)
    assert [run.task_id for run in again] == [run.task_id for run in runs]


def test_a_request_that_cannot_run_is_refused_before_anything_is_signed(
    live: LiveNetwork,
    owner: DataProtector,
    requester: DataProtector,
    adder: App,
    app: App,
    given: list[tuple[ProtectedData, Grant]],
) -> None:
    counted = owner.grant_access(given[0][0], app=adder, accesses=3)
    elsewhere = owner.grant_access(given[0][0], app=adder, user=live.newcomer().connection.address, allow_bulk=True)
    for grants, options, words in [
        ([], {}, "a bulk request needs grants"),
        ([counted], {}, "is not for bulk"),
        ([elsewhere], {}, "is for requester"),
        ([given[0][1]], {"app": app}, "is for app"),
        ([given[0][1], given[0][1]], {}, "two grants on"),
        ([given[0][1]], {"max_protected_data_per_task": 0}, "max_per_task must be 1 to 100, not 0"),
        ([given[0][1]], {"max_protected_data_per_task": 101}, "max_per_task must be 1 to 100, not 101"),
    ]:
        with pytest.raises(InputError, match=words):
            requester.prepare_bulk_request(grants, **{"app": adder, **options})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="bulk access is free, but the price is 1 RLC"):
        owner.grant_access(given[0][0], app=adder, price="1 RLC", allow_bulk=True)


def test_only_its_requester_runs_it_and_only_while_it_stands(
    live: LiveNetwork, requester: DataProtector, adder: App, given: list[tuple[ProtectedData, Grant]]
) -> None:
    request = requester.prepare_bulk_request([given[3][1]], app=adder, workerpool_max_price=PRICE)
    with pytest.raises(Denied, match="the bulk request is"):
        live.newcomer().process_bulk_request(request)
    requester.orders.cancel(OrderKind.REQUEST, request.order)
    with pytest.raises(Conflict, match="the bulk request was cancelled"):
        requester.process_bulk_request(request)


def test_an_order_with_another_slice_count_than_its_file_leaves_the_money(
    requester: DataProtector, adder: App, given: list[tuple[ProtectedData, Grant]]
) -> None:
    """The root file has one slice, the order asks for two: the second task is given up by name and refunded later."""
    connection = requester.connection
    request = requester.prepare_bulk_request([given[4][1]], app=adder, workerpool_max_price=PRICE)
    more = replace(request.order, volume=2, salt=Bytes32("0x" + "42" * 32), sign=b"")
    stretched = BulkRequest(sign_order(more, connection.signer, connection.domain))
    runs = requester.process_bulk_request(stretched)
    assert json.loads(runs[0].wait(60).result.read("sum.json"))["seen"] == {given[4][0].address.lower(): 4}
    with pytest.raises(Exception, match="was given up by its workerpool") as refused:
        runs[1].wait(60)
    assert "bulk" in str(refused.value)


def _without_key(owner: DataProtector) -> str:
    """A dataset that is minted and whose key the SMS never got."""
    connection = owner.connection
    stored = connection.store.put([b"nobody has the key"])
    call = connection.dataprotector.create_dataset_with_schema(
        connection.address, "keyless", "{}", build_multiaddr(f"/ipfs/{stored.cid}"), Bytes32("0x" + "11" * 32)
    )
    receipt = connection.sender.send(call, intent="keyless")
    return connection.dataprotector.created_dataset(receipt)


def test_the_command_line_prepares_runs_and_shows(
    live: LiveNetwork, requester: DataProtector, adder: App, given: list[tuple[ProtectedData, Grant]], tmp_path: Path
) -> None:
    terminal = Terminal(live.home)
    who = str(live.key_file(requester))
    file = tmp_path / "request.json"
    options = ("--network", live.name, "--as", who)
    grants = [word for _, grant in given[:2] for word in ("--grant", str(grant.order_hash))]
    prepared = terminal.json(
        "bulk", "prepare", adder.address, *grants, "--workerpool-price", PRICE, "-o", str(file), *options
    )
    assert prepared["tasks"] == 1
    ran = terminal.json("bulk", "run", str(file), "-o", str(tmp_path / "out"), *options)
    assert [item["ok"] for item in ran["tasks"][0]["items"]] == [True, True]
    assert json.loads((tmp_path / "out" / "task-0" / "sum.json").read_text())["index"] == "0"
    shown = terminal.json("bulk", "show", str(file), *options)
    assert (shown["status"], shown["tasks_completed"]) == ("FINISHED", 1)
