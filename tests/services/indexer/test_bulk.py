"""Bulk slices: read from content storage in the background, whatever lies there, and gone with a deal that is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from tests.support.anvil import running_anvil
from tests.support.deployed import Bazaar, DeployedChain
from tests.support.indexer_world import IndexerWorld

from cloister.errors import NotFound, VerificationError
from cloister.protocol.codec import Bytes32
from cloister.protocol.orders import DatasetOrder, RequestOrder
from cloister.protocol.params import RequestParams
from cloister.protocol.tasks import task_id
from cloister.protocol.units import INFINITE_VOLUME
from cloister.services.indexer.pending import LEASE_MS, MAX_DELAY_MS, PendingFile, claim, expect, finish, postpone
from cloister.services.indexer.subgraphs import POCO
from cloister.services.indexer.tables import PENDING, TABLES, EntityWriter, roll_back
from cloister.storage.cid import Cid
from cloister.storage.local import LocalStore

INSPECT = """
query ($where: Deal_filter) { deals(where: $where) { tasks { taskId: id bulkSlice { datasets { id } } } } }
"""
SLICES = """{ bulkSlices(orderBy: index, where: {bulk: "DEAL"}) {
  id index hash task { id } bulk { id hash } datasets { id }
  datasetOrders { id dataset { id } datasetprice volume tag salt sign } } }"""


class BulkBazaar(Bazaar):
    """A bazaar with bulk deals."""

    def data(self, count: int, label: str) -> list[DatasetOrder]:
        """Grants of so many protected data."""
        owner = self.chain.account(f"{label} owner")
        made = [self.chain.make_dataset(owner) for _ in range(count)]
        return [self.chain.dataset_order(owner, each, volume=INFINITE_VOLUME) for each in made]

    def bulk(self, root: str, volume: int, *, first: int | None = None) -> tuple[Bytes32, RequestOrder]:
        """Match a bulk request; ``first`` leaves the rest of its volume to a later deal."""
        params = RequestParams(bulk_cid=root).build()
        app, _, pool, request = self.orders(volume=volume, dataset=False, params=params)
        if first is not None:
            pool = self.chain.workerpool_order(self.pool_owner, self.pool, volume=first)
        deal, _ = self.match((app, None, pool, request))
        return deal, request

    def rest(self, request: RequestOrder, volume: int) -> Bytes32:
        """Match what is left of a request."""
        app = self.chain.app_order(self.app_owner, self.app, volume=volume)
        pool = self.chain.workerpool_order(self.pool_owner, self.pool, volume=volume)
        deal, _ = self.match((app, None, pool, request))
        return deal


@pytest.fixture
def bazaar(world: IndexerWorld) -> BulkBazaar:
    return BulkBazaar(world.chain, f"bulk {world.database.dialect}")


def slices_of(world: IndexerWorld, deal: Bytes32) -> list[dict[str, Any]]:
    return list(world.data(SLICES.replace("DEAL", deal), subgraph="poco-v5")["bulkSlices"])


def wait_for_slices(world: IndexerWorld, deal: Bytes32, count: int) -> list[dict[str, Any]]:
    return world.eventually(lambda: slices_of(world, deal), lambda found: len(found) == count)


def pending(world: IndexerWorld, *deals: Bytes32) -> int:
    """How many files of deals are still to be read."""
    with world.database.read_scope() as session:
        query = select(func.count()).select_from(PENDING).where(PENDING.c.deal.in_(list(deals)))
        return int(session.execute(query).scalar() or 0)


def test_inspecting_a_bulk_request(world: IndexerWorld, bazaar: BulkBazaar, deployed: DeployedChain) -> None:
    orders = bazaar.data(3, "inspect")
    root = world.put_bulk([orders[:2], orders[2:]])
    deal, request = bazaar.bulk(root, 2)
    for index in (0, 1):
        deployed.send(deployed.hub.initialize(deal, index), bazaar.worker)
    first, second = wait_for_slices(world, deal, 2)
    tasks = [str(task_id(deal, index)) for index in (0, 1)]
    assert [first["id"], second["id"]] == [first["task"]["id"], second["task"]["id"]] == tasks
    assert first["bulk"] == {"id": deal, "hash": root}
    assert (first["index"], second["index"]) == ("0", "1")
    assert sorted(each["id"] for each in first["datasets"]) == sorted(each.dataset.lower() for each in orders[:2])
    (told,) = second["datasetOrders"]
    assert told == {
        "id": orders[2].hash(deployed.domain),
        "dataset": {"id": orders[2].dataset.lower()},
        "datasetprice": "0",
        "volume": str(INFINITE_VOLUME),
        "tag": str(orders[2].tag),
        "salt": str(orders[2].salt),
        "sign": "0x" + orders[2].sign.hex(),
    }
    # iExec's own question, word for word
    answer = world.data(INSPECT, {"where": {"requestorder": request.hash(deployed.domain)}}, subgraph="poco-v5")
    by_task = {
        task["taskId"]: [each["id"] for each in task["bulkSlice"]["datasets"]] for task in answer["deals"][0]["tasks"]
    }
    assert by_task == {
        tasks[0]: sorted(each.dataset.lower() for each in orders[:2]),
        tasks[1]: [orders[2].dataset.lower()],
    }
    # and our client's
    records = world.client.bulk_tasks(request.hash(deployed.domain))
    assert [(each.task_id, each.deal_id, each.index, each.status) for each in records] == [
        (tasks[0], deal, 0, "ACTIVE"),
        (tasks[1], deal, 1, "ACTIVE"),
    ]
    assert records[1].datasets == (orders[2].dataset,)
    assert pending(world, deal) == 0
    query = (
        f'{{ bulks(where: {{slices_: {{datasets_contains: ["{orders[2].dataset.lower()}"]}}}}) {{ deal {{ id }} }} }}'
    )
    assert world.data(query, subgraph="poco-v5") == {"bulks": [{"deal": {"id": deal}}]}


def test_only_slices_that_are_tasks_of_the_deal(world: IndexerWorld, bazaar: BulkBazaar) -> None:
    orders = bazaar.data(4, "range")
    root = world.put_bulk([[order] for order in orders])
    deal, request = bazaar.bulk(root, 3, first=2)
    found = wait_for_slices(world, deal, 2)
    assert [each["index"] for each in found] == ["0", "1"]
    later = bazaar.rest(request, 1)
    (found_later,) = wait_for_slices(world, later, 1)
    assert (found_later["index"], found_later["datasets"][0]["id"]) == ("2", orders[2].dataset.lower())
    assert len(slices_of(world, deal)) == 2
    # No slice for the task that nobody bought, and a slice that has no task yet is there with its order.
    (uninitialised,) = world.data(
        f'{{ bulkSlices(where: {{bulk: "{later}"}}) {{ task {{ id status }} }} }}', subgraph="poco-v5"
    )["bulkSlices"]
    assert uninitialised == {"task": None}


def test_content_that_comes_late(world: IndexerWorld, bazaar: BulkBazaar, tmp_path: Path) -> None:
    elsewhere = IndexerWorld(world.chain, tmp_path / "elsewhere", database_url=f"sqlite:///{tmp_path / 'unused.db'}")
    orders = bazaar.data(1, "late")
    root = elsewhere.put_bulk([orders])
    deal, _ = bazaar.bulk(root, 1)
    (bulk,) = world.data(f'{{ bulks(where: {{deal: "{deal}"}}) {{ hash slices {{ id }} }} }}', subgraph="poco-v5")[
        "bulks"
    ]
    assert bulk == {"hash": root, "slices": []}
    assert pending(world, deal) == 1
    # Indexing goes on meanwhile.
    owner = world.account("meanwhile")
    dataset = world.chain.make_dataset(owner)
    assert [each.address for each in world.client.protected_data(owner=owner.address)] == [dataset]
    assert world.put_bulk([orders]) == root
    (found,) = wait_for_slices(world, deal, 1)
    assert [each["id"] for each in found["datasets"]] == [orders[0].dataset.lower()]


def test_content_that_is_none_hurts_nobody(world: IndexerWorld, bazaar: BulkBazaar) -> None:
    good = bazaar.data(2, "hostile")
    stranger = good[0].to_json() | {"dataset": "0x" + "77" * 20}
    odd: list[object] = ["text", None, {}, [1], {"dataset": 5}, good[0].to_json() | {"volume": "-1"}]
    twice = [good[1].to_json(), good[1].to_json()]
    slices: list[object] = [
        world.put_json([*odd, good[0].to_json(), stranger, *twice]),
        world.put_json({"not": "a list"}),
        str(world.content.put([b"[" * 100_000]).cid),
        str(world.content.put([b" " * ((1 << 20) + 1)]).cid),
        "no cid",
        {"a": 1},
        str(world.content.put_directory({}).cid),
        world.put_json([good[0].to_json()]),
    ]
    deal, _ = bazaar.bulk(world.put_json(slices), len(slices))
    found = wait_for_slices(world, deal, 6)
    data = {each["index"]: [order["id"] for order in each["datasets"]] for each in found}
    assert data == {
        "0": sorted(order.dataset.lower() for order in good),
        "1": [],
        "2": [],
        "3": [],
        "6": [],
        "7": [good[0].dataset.lower()],
    }
    assert len(found[0]["datasetOrders"]) == 3
    for root in (b"no json", b"{}", b"\xff\xff", b"5"):
        unreadable, _ = bazaar.bulk(str(world.content.put([root]).cid), 1)
        world.data("{ _meta { block { number } } }")
        world.eventually(lambda deal=unreadable: pending(world, deal), lambda count: count == 0)
    # Params that name no usable CID, and a dataset beside the bulk: a deal like any other.
    for params in (
        '{"bulk_cid":"Qm"}',
        '{"bulk_cid":5}',
        '{"bulk_cid":null}',
        "x",
        '{"bulk_cid":"' + "a" * 3000 + '"}',
    ):
        app, _, pool, request = bazaar.orders(dataset=False, params=params)
        deal, _ = bazaar.match((app, None, pool, request))
        assert world.data(f'{{ deal(id: "{deal}") {{ bulk {{ id }} }} }}', subgraph="poco-v5") == {
            "deal": {"bulk": None}
        }
    deal, _ = bazaar.match(bazaar.orders(params=RequestParams(bulk_cid=world.put_bulk([good])).build()))
    assert world.data(f'{{ deal(id: "{deal}") {{ bulk {{ id }} }} }}', subgraph="poco-v5") == {"deal": {"bulk": None}}


class Moody:
    """Content storage that fails in every way before it answers, and lies for ever about one CID."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.moods: list[str] = []
        self.liar = ""
        self.hanging = threading.Event()
        self.released = threading.Event()

    def open(self, cid: Cid | str, *, cap: int | None = None) -> Iterator[bytes]:
        if str(cid) == self.liar:
            raise VerificationError("other bytes")
        match self.moods.pop() if self.moods else "":
            case "hang":
                self.hanging.set()
                self.released.wait(30)
                raise NotFound("gone")
            case "endless":
                return iter(lambda: b"x" * 65536, b"")
            case "bug":
                raise RuntimeError("a bug in the store")
            case "missing":
                raise NotFound("not here")
            case _:
                return self._store.open(cid, cap=cap)


def test_storage_that_fails(deployed: DeployedChain, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "moody")
    moody = Moody(store)
    world = IndexerWorld(deployed, tmp_path, content=moody)
    bazaar = BulkBazaar(deployed, "moody")
    orders = bazaar.data(2, "moody")
    slices = [str(store.put([order_file(order)]).cid) for order in orders]
    root = str(store.put([str(slices).replace("'", '"').encode()]).cid)
    moody.moods = ["missing", "hang"]
    moody.liar = slices[1]
    with world.serving():
        try:
            deal, _ = bazaar.bulk(root, 2)
            assert moody.hanging.wait(10)
            # One file that hangs holds up neither queries nor the other files.
            other, _ = bazaar.bulk(str(store.put([b"[ ]"]).cid), 1)
            assert world.data(f'{{ deal(id: "{other}") {{ id }} }}', subgraph="poco-v5")["deal"] == {"id": other}
            world.eventually(lambda: pending(world, other), lambda count: count == 0)
            moody.released.set()
            (found,) = wait_for_slices(world, deal, 1)
            assert found["index"] == "0"
            assert pending(world, deal) == 1
            moody.liar = ""
            wait_for_slices(world, deal, 2)
        finally:
            moody.released.set()


def order_file(order: DatasetOrder) -> bytes:
    import json

    return json.dumps([order.to_json()]).encode()


def test_a_lost_deal_takes_its_slices_along(tmp_path: Path) -> None:
    with running_anvil() as node:
        chain = DeployedChain(node, tmp_path)
        bazaar = BulkBazaar(chain, "reorg")
        world = IndexerWorld(chain, tmp_path)
        orders = bazaar.data(2, "reorg")
        root, lost_root = world.put_bulk([orders[:1]]), world.put_bulk([orders[1:], orders[:1]])
        with world.serving():
            kept, _ = bazaar.bulk(root, 1)
            wait_for_slices(world, kept, 1)
            snapshot = chain.rpc.call("evm_snapshot")
            lost, request = bazaar.bulk(lost_root, 2)
            absent, _ = bazaar.bulk("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPBdG", 1)
            wait_for_slices(world, lost, 2)
            assert pending(world, lost, absent) == 1
            chain.rpc.call("evm_revert", snapshot)
            node.mine(5)
            gone = world.data(
                "{ bulks { id } bulkSlices { id } datasetOrders { id } deals { id } }", subgraph="poco-v5"
            )
            assert gone == {
                "bulks": [{"id": kept}],
                "bulkSlices": [{"id": str(task_id(kept, 0))}],
                "datasetOrders": [{"id": orders[0].hash(chain.domain)}],
                "deals": [{"id": kept}],
            }
            assert pending(world, lost, absent) == 0
            # The same request again, in another block.
            again, _ = bazaar.bulk(lost_root, 2)
            assert again != absent
            assert len(wait_for_slices(world, again, 2)) == 2
            assert request.volume == 2


def test_the_queue(world: IndexerWorld) -> None:
    """What was claimed by somebody who died is due again; what is finished twice counts once."""
    deals = ["0x" + f"{n:064x}" for n in range(3)]
    database = world.database
    database_now = 10_000
    # What other tests published may still be on its way in this database.
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with database.session_scope() as session:
            if not session.execute(select(func.count()).select_from(PENDING)).scalar_one():
                break
        time.sleep(0.05)
    with database.session_scope() as session:
        for deal in deals:
            expect(session, deal, 10**9, "cid")
            expect(session, deal, 10**9, "cid")
    try:
        with database.session_scope() as session:
            claimed = claim(session, database_now, 2)
            assert len(claimed) == 2
            (other,) = claim(session, database_now, 10)
            assert claim(session, database_now, 10) == []
        with database.session_scope() as session:
            assert finish(session, claimed[0])
            assert not finish(session, claimed[0])
            postpone(session, other, database_now)
            (tried,) = claim(session, database_now + 500, 10)
            assert (tried.deal, tried.attempts) == (other.deal, 1)
        with database.session_scope() as session:
            # The second claimer died: after its time is over the file is due, and those that failed less come first.
            assert [each.attempts for each in claim(session, database_now + 10 * LEASE_MS, 10)] == [0, 1]
        with database.session_scope() as session:
            roll_back(session, 10**9 - 1)
            assert not finish(session, claimed[1])
    finally:
        with database.session_scope() as session:
            roll_back(session, 10**9 - 1)
    delays = [PendingFile("", 0, "", 0, attempts).delay_ms for attempts in range(40)]
    assert delays[:3] == [500, 1000, 2000]
    assert max(delays) == MAX_DELAY_MS


def test_an_order_in_two_slices_lives_from_the_older_one(world: IndexerWorld) -> None:
    table = TABLES[POCO.name]["DatasetOrder"].table
    values = {
        name: 0 if name in ("datasetprice", "volume") else "0x"
        for name in POCO.entities["DatasetOrder"].fields
        if name != "id"
    }
    with world.database.session_scope() as session:
        write = EntityWriter(session, POCO)
        write.add("DatasetOrder", "0xab", 10**9 + 20, **values)
        write.add("DatasetOrder", "0xab", 10**9 + 10, **values)
        write.add("DatasetOrder", "0xab", 10**9 + 30, **values)
        roll_back(session, 10**9 + 15)
        assert session.execute(select(table.c.block_from).where(table.c.id == "0xab")).scalars().all() == [10**9 + 10]
        roll_back(session, 10**9 + 5)
        assert session.execute(select(table.c.id).where(table.c.id == "0xab")).scalars().all() == []


def test_orders_of_a_slice_keep_their_numbers(world: IndexerWorld, bazaar: BulkBazaar) -> None:
    """Prices are told in RLC; the clients write numbers as strings."""
    (order,) = bazaar.data(1, "numbers")
    priced = replace(order, datasetprice=1_500_000_000)
    deal, _ = bazaar.bulk(world.put_bulk([[priced]]), 1)
    (found,) = wait_for_slices(world, deal, 1)
    assert found["datasetOrders"][0]["datasetprice"] == "1.5"
