"""One suite for every ``Ledger``: the chain in memory that other tests use must answer as the real one does."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
from tests.support.deployed import Bazaar, DeployedChain
from tests.support.sms_ledger import MemoryLedger

from cloister.errors import UnavailableError
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.orders import DatasetOrder, Operation
from cloister.protocol.tasks import TaskStatus, task_id
from cloister.services.sms.chain_ledger import ChainLedger
from cloister.services.sms.ledger import AppEntry, DatasetEntry, Head, Ledger, Matched, check_recent

NOWHERE = Address("0x" + "0d" * 20)
NOTHING = Bytes32("0x" + "0d" * 32)


@dataclass
class Scene:
    """A ledger and what it must tell of one deal."""

    ledger: Ledger
    chain: DeployedChain
    bazaar: Bazaar
    deal_id: Bytes32
    transaction: Bytes32
    order: DatasetOrder
    presigned: DatasetOrder
    closed: DatasetOrder
    task: Bytes32
    block: int


@pytest.fixture(scope="module")
def facts(deployed: DeployedChain) -> dict[str, Any]:
    bazaar = Bazaar(deployed, "sms ledgers")
    orders = bazaar.orders(volume=2)
    deal_id, receipt = bazaar.match(orders)
    deployed.send(deployed.hub.initialize(deal_id, 0), bazaar.worker)
    presigned = dataclasses.replace(deployed.dataset_order(bazaar.data_owner, bazaar.dataset), sign=b"")
    deployed.send(deployed.hub.manage_order(presigned, Operation.SIGN), bazaar.data_owner)
    closed = deployed.dataset_order(bazaar.data_owner, bazaar.dataset)
    deployed.close(closed, bazaar.data_owner)
    return {
        "chain": deployed,
        "bazaar": bazaar,
        "deal_id": deal_id,
        "transaction": receipt.transaction,
        "order": orders[1],
        "presigned": presigned,
        "closed": closed,
        "task": task_id(deal_id, 0),
        "block": deployed.rpc.block_number(),
    }


def remembered(facts: dict[str, Any]) -> MemoryLedger:
    """The same deal in memory."""
    chain, bazaar, block = facts["chain"], facts["bazaar"], facts["block"]
    deal = chain.hub.deal(facts["deal_id"], block=block)
    app = chain.apps.app(bazaar.app, block=block)
    data = chain.datasets.dataset(bazaar.dataset, block=block)
    ledger = MemoryLedger(chain.domain, Head(block, chain.rpc.head().timestamp))
    ledger.owners = {
        bazaar.app: bazaar.app_owner.address,
        bazaar.dataset: bazaar.data_owner.address,
        bazaar.pool: bazaar.pool_owner.address,
    }
    ledger.apps[bazaar.app] = AppEntry(app.owner, "https://example.org/app", app.checksum)
    from cloister.storage.multiaddr import parse_multiaddr

    ledger.datasets[bazaar.dataset] = DatasetEntry(data.owner, parse_multiaddr(data.multiaddr), data.checksum)
    ledger.deals[facts["deal_id"]] = deal
    ledger.tasks[facts["task"]] = chain.hub.task(facts["task"], block=block)
    request_hash = chain.hub.matched_deals(_receipt(facts))[0].request_hash
    ledger.matches[facts["transaction"]] = Matched(
        facts["deal_id"], facts["order"].hash(chain.domain), request_hash, _receipt(facts).block_number
    )
    ledger.presigned[facts["presigned"].hash(chain.domain)] = bazaar.data_owner.address
    ledger.closed.add(facts["closed"].hash(chain.domain))
    return ledger


def _receipt(facts: dict[str, Any]) -> Any:
    from cloister.chain.calls import parse_receipt

    return parse_receipt(facts["chain"].rpc.call("eth_getTransactionReceipt", facts["transaction"]))


@pytest.fixture(params=["chain", "memory"])
def scene(request: pytest.FixtureRequest, facts: dict[str, Any]) -> Scene:
    chain = facts["chain"]
    ledger: Ledger = ChainLedger(chain.node.rpc, chain.deployment.hub)
    if request.param == "memory":
        ledger = remembered(facts)
    return Scene(ledger=ledger, **facts)


def test_head(scene: Scene) -> None:
    head = scene.ledger.head()
    assert head.number >= scene.block
    assert head.timestamp > 1_600_000_000


def test_owners(scene: Scene) -> None:
    bazaar, block = scene.bazaar, scene.block
    assert scene.ledger.owner_of(bazaar.dataset, block=block) == bazaar.data_owner.address
    assert scene.ledger.owner_of(bazaar.app, block=block) == bazaar.app_owner.address
    assert scene.ledger.owner_of(NOWHERE, block=block) is None
    assert scene.ledger.owner_of(bazaar.worker.address, block=block) is None


def test_task(scene: Scene) -> None:
    found = scene.ledger.task(scene.task, block=scene.block)
    assert found is not None
    task, deal = found
    assert (task.status, task.deal_id, task.index) == (TaskStatus.ACTIVE, scene.deal_id, 0)
    assert deal.workerpool.owner == scene.bazaar.pool_owner.address
    assert scene.ledger.task(task_id(scene.deal_id, 1), block=scene.block) is None
    assert scene.ledger.task(NOTHING, block=scene.block) is None


def test_grounds(scene: Scene) -> None:
    found = scene.ledger.task(scene.task, block=scene.block)
    assert found is not None
    app, dataset, matched = scene.ledger.grounds(scene.deal_id, found[1], scene.transaction, block=scene.block)
    assert (app.owner, app.location) == (scene.bazaar.app_owner.address, "https://example.org/app")
    assert dataset is not None
    assert dataset.owner == scene.bazaar.data_owner.address
    assert dataset.location.startswith("/ipfs/Qm")
    assert matched is not None
    assert matched.dataset_hash == scene.order.hash(scene.chain.domain)
    for deal_id, transaction in ((scene.deal_id, NOTHING), (NOTHING, scene.transaction)):
        assert scene.ledger.grounds(deal_id, found[1], transaction, block=scene.block)[2] is None


def test_grant_standing(scene: Scene) -> None:
    def standing(order: DatasetOrder, owner: Address) -> tuple[bool, bool]:
        return scene.ledger.grant_standing(order, order.hash(scene.chain.domain), owner, block=scene.block)

    owner, stranger = scene.bazaar.data_owner.address, scene.bazaar.worker.address
    assert standing(scene.order, owner) == (True, False)
    assert standing(scene.order, stranger) == (False, False)
    assert standing(scene.presigned, owner) == (True, False)
    assert standing(scene.presigned, stranger) == (False, False)
    assert standing(scene.closed, owner) == (True, True)
    for sign in (b"", b"\x01", bytes(65), bytes(64)):
        assert standing(dataclasses.replace(scene.order, sign=sign), owner) == (False, False)


def test_groups(scene: Scene) -> None:
    for group in (NOWHERE, scene.bazaar.app, scene.bazaar.worker.address):
        assert scene.ledger.in_group(group, scene.bazaar.app, block=scene.block) is False


def test_a_match_after_the_block_does_not_count(facts: dict[str, Any]) -> None:
    chain = facts["chain"]
    ledger = ChainLedger(chain.node.rpc, chain.deployment.hub)
    found = ledger.task(facts["task"], block=facts["block"])
    assert found is not None
    mined = _receipt(facts).block_number
    assert ledger.grounds(facts["deal_id"], found[1], facts["transaction"], block=mined)[2] is not None
    assert ledger.grounds(facts["deal_id"], found[1], facts["transaction"], block=mined - 1)[2] is None


def test_recency() -> None:
    assert check_recent(Head(5, 1000), now=1060, max_age=60).number == 5
    for now in (1061, 939):
        with pytest.raises(UnavailableError):
            check_recent(Head(5, 1000), now=now, max_age=60)
