"""The books follow the chain: matches, revocations, transfers, stakes, categories, restarts and reorganisations."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from tests.support.anvil import running_anvil
from tests.support.deployed import DeployedChain
from tests.support.market_world import MarketWorld

from cloister.protocol.codec import Bytes32
from cloister.protocol.orders import AppOrder, DatasetOrder, Order, RequestOrder, WorkerpoolOrder
from cloister.protocol.signatures import PrivateKey
from cloister.services.market.ledger import MarketLedger, PublicationFacts

Four = tuple[AppOrder, DatasetOrder | None, WorkerpoolOrder, RequestOrder]


def publish_all(world: MarketWorld, orders: Four) -> None:
    bazaar = world.bazaar
    keys: tuple[PrivateKey, ...] = (bazaar.app_owner, bazaar.data_owner, bazaar.pool_owner, bazaar.requester)
    for order, key in zip(orders, keys, strict=True):
        assert order is not None
        status, body = world.publish(order, key)
        assert status == 200, body


def state(world: MarketWorld, order: Order | None) -> tuple[int, str]:
    assert order is not None
    record = world.record(order)
    return record["remaining"], record["status"]


def test_a_deal_is_listed_right_after_it_is_mined(world: MarketWorld) -> None:
    bazaar = world.bazaar
    for _ in range(5):
        deal_id, receipt = bazaar.match(bazaar.orders())
        _, body = world.ask("GET", f"/deals?requester={bazaar.requester.address}")
        assert body["deals"][0]["dealid"] == deal_id
        assert body["deals"][0]["transactionHash"] == receipt.transaction
    status, record = world.ask("GET", f"/deals/{deal_id}")
    assert status == 200
    assert record["app"] == {"pointer": bazaar.app, "price": 0, "owner": bazaar.app_owner.address}
    assert (record["botFirst"], record["botSize"], record["volume"]) == (0, 1, 1)
    assert record["blockTimestamp"].endswith(".000Z")
    deal = world.client.deal(deal_id)
    assert (deal.dataset, deal.bot_size, deal.transaction) == (bazaar.dataset, 1, receipt.transaction)
    assert len(list(world.client.deals(requester=bazaar.requester.address))) == 5


def test_deal_filters(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    orders = bazaar.orders()
    deal_id, _ = bazaar.match(orders)
    domain = deployed.domain
    hashes = [order.hash(domain) for order in orders if order is not None]
    good = [
        f"app={bazaar.app}",
        f"dataset={bazaar.dataset}&workerpool={bazaar.pool}",
        f"appOwner={bazaar.app_owner.address}",
        f"datasetOwner={bazaar.data_owner.address}",
        f"workerpoolOwner={bazaar.pool_owner.address}",
        f"beneficiary={bazaar.requester.address}&category=0",
        f"apporderHash={hashes[0]}",
        f"datasetorderHash={hashes[1]}",
        f"workerpoolorderHash={hashes[2]}",
        f"requestorderHash={hashes[3]}",
    ]
    for query in good:
        _, body = world.ask("GET", f"/deals?{query}")
        assert [deal["dealid"] for deal in body["deals"]] == [deal_id], query
    for query in (f"app={bazaar.pool}", f"requestorderHash={hashes[0]}", f"category=1&app={bazaar.app}"):
        assert world.ask("GET", f"/deals?{query}")[1] == {"ok": True, "deals": [], "count": 0}
    _, body = world.ask("GET", "/ohlc?category=0")
    assert body["ohlc"][-1][1:] == [0, 1]


def test_matches_use_up_orders(world: MarketWorld) -> None:
    bazaar = world.bazaar
    app, data, pool, request = bazaar.orders(volume=3)
    first = bazaar.chain.request_order(
        bazaar.requester, bazaar.app, dataset=bazaar.dataset, workerpool=bazaar.pool, volume=2
    )
    publish_all(world, (app, data, pool, request))
    bazaar.match((app, data, pool, first))
    world.synced()
    assert [state(world, order) for order in (app, data, pool, request)] == [(1, "open")] * 3 + [(3, "open")]
    bazaar.match((app, data, pool, request))
    world.synced()
    # Nobody offers the app any more, so nothing can serve what remains of the request.
    assert [state(world, order) for order in (app, data, pool, request)] == [(0, "filled")] * 3 + [(2, "dead")]


def test_partly_used_orders_are_published_with_what_remains(world: MarketWorld) -> None:
    bazaar = world.bazaar
    app, data, pool, request = bazaar.orders(volume=3)
    first = bazaar.chain.request_order(
        bazaar.requester, bazaar.app, dataset=bazaar.dataset, workerpool=bazaar.pool, volume=2
    )
    bazaar.match((app, data, pool, first))
    publish_all(world, (app, data, pool, request))
    assert state(world, app) == (1, "open")


def test_revoked_orders_are_canceled(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    orders = bazaar.orders()
    publish_all(world, orders)
    keys = (bazaar.app_owner, bazaar.data_owner, bazaar.pool_owner, bazaar.requester)
    for order, key in zip(orders, keys, strict=True):
        assert order is not None
        deployed.close(order, key)
    world.synced()
    assert [state(world, order) for order in orders] == [(0, "canceled")] * 4
    assert world.listed(f"/datasetorders?dataset={bazaar.dataset}") == []


def test_orders_of_a_former_owner_die(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    order = deployed.dataset_order(bazaar.data_owner, bazaar.dataset)
    assert world.publish(order, bazaar.data_owner)[0] == 200
    call = deployed.datasets.transfer(bazaar.data_owner.address, bazaar.worker.address, bazaar.dataset)
    deployed.send(call, bazaar.data_owner)
    world.synced()
    assert state(world, order) == (1, "dead")
    text = f"only order signer {bazaar.worker.address} can publish an order"
    assert world.refusal(order, bazaar.data_owner) == text
    fresh = deployed.dataset_order(bazaar.worker, bazaar.dataset)
    assert world.publish(fresh, bazaar.worker)[0] == 200
    deployed.send(
        deployed.datasets.transfer(bazaar.worker.address, bazaar.data_owner.address, bazaar.dataset), bazaar.worker
    )
    world.synced()
    assert world.publish(order, bazaar.data_owner)[0] == 200


def test_orders_that_lose_their_stake_die(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    deployed.stake(bazaar.pool_owner, 600)
    dear = deployed.workerpool_order(bazaar.pool_owner, bazaar.pool, workerpoolprice=1000, volume=2)
    cheap = deployed.workerpool_order(bazaar.pool_owner, bazaar.pool, workerpoolprice=1000, volume=1)
    free = deployed.workerpool_order(bazaar.pool_owner, bazaar.pool, volume=5)
    for order in (dear, cheap, free):
        assert world.publish(order, bazaar.pool_owner)[0] == 200
    deployed.send(deployed.hub.withdraw(1), bazaar.pool_owner)
    world.synced()
    assert [state(world, order)[1] for order in (dear, cheap, free)] == ["dead", "open", "open"]


def test_categories(world: MarketWorld, deployed: DeployedChain) -> None:
    world.synced()
    _, body = world.ask("GET", "/categories?minWorkClockTimeRef=300")
    assert [(c["catid"], c["workClockTimeRef"]) for c in body["categories"]] == [
        (0, 300), (1, 1200), (2, 3600), (3, 10800), (4, 36000),
    ]  # fmt: skip
    clock = 77 if world.database.dialect == "sqlite" else 78
    receipt = deployed.send(deployed.hub.create_category("new", "made by a test", clock), deployed.deployer)
    catid = deployed.hub.created_category(receipt)
    world.synced()
    status, body = world.ask("GET", f"/categories/{catid}")
    assert (status, body["name"], body["workClockTimeRef"]) == (200, "new", clock)
    assert body["transactionHash"] == receipt.transaction
    _, body = world.ask("GET", f"/categories?minWorkClockTimeRef={clock}&maxWorkClockTimeRef={clock}")
    assert [category["catid"] for category in body["categories"]] == [catid]


def test_what_happened_while_it_was_down_is_caught_up(deployed: DeployedChain, tmp_path: Path) -> None:
    world = MarketWorld(deployed, tmp_path, label="downtime")
    orders = world.bazaar.orders(volume=2)
    with world.serving():
        publish_all(world, orders)
        world.synced()
    deal_id, _ = world.bazaar.match(orders)
    assert orders[1] is not None
    deployed.close(orders[1], world.bazaar.data_owner)
    with world.serving():
        world.synced()
        assert [state(world, order)[1] for order in orders] == ["filled", "canceled", "filled", "filled"]
        assert world.ask("GET", f"/deals/{deal_id}")[0] == 200
        _, body = world.ask("GET", f"/deals?requester={world.bazaar.requester.address}")
        assert body["count"] == 1


def test_a_chain_that_takes_blocks_back(tmp_path: Path) -> None:
    with running_anvil() as node:
        chain = DeployedChain(node, tmp_path)
        with MarketWorld(chain, tmp_path, label="reorg").serving() as world:
            bazaar = world.bazaar
            orders = bazaar.orders()
            publish_all(world, orders)
            grant = chain.dataset_order(bazaar.data_owner, bazaar.dataset)
            assert world.publish(grant, bazaar.data_owner)[0] == 200
            world.synced()
            snapshot = chain.rpc.call("evm_snapshot")
            deal_id, _ = bazaar.match(orders)
            chain.close(grant, bazaar.data_owner)
            chain.send(
                chain.apps.transfer(bazaar.app_owner.address, bazaar.worker.address, bazaar.app), bazaar.app_owner
            )
            world.synced()
            assert state(world, orders[0]) == (0, "filled")
            assert state(world, grant) == (0, "canceled")
            assert world.ask("GET", f"/deals/{deal_id}")[0] == 200
            chain.rpc.call("evm_revert", snapshot)
            node.mine(8)
            world.synced()
            assert world.ask("GET", f"/deals/{deal_id}")[0] == 404
            assert [state(world, order) for order in (*orders, grant)] == [(1, "open")] * 5


def test_requests_die_when_the_chain_ends_their_offer(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    app = deployed.app_order(bazaar.app_owner, bazaar.app, volume=9)
    spare = deployed.app_order(bazaar.app_owner, bazaar.app, appprice=2, volume=9)
    data = deployed.dataset_order(bazaar.data_owner, bazaar.dataset, volume=9)
    for order, key in ((app, bazaar.app_owner), (spare, bazaar.app_owner), (data, bazaar.data_owner)):
        assert world.publish(order, key)[0] == 200
    deployed.stake(bazaar.requester, 10)
    poor = deployed.request_order(bazaar.requester, bazaar.app)
    rich = deployed.request_order(bazaar.requester, bazaar.app, appmaxprice=2)
    with_data = deployed.request_order(bazaar.requester, bazaar.app, dataset=bazaar.dataset, appmaxprice=2)
    for order in (poor, rich, with_data):
        assert world.publish(order, bazaar.requester)[0] == 200
    deployed.close(app, bazaar.app_owner)
    world.synced()
    # What is left of the offers is too dear for one of them only.
    assert [state(world, order)[1] for order in (poor, rich, with_data)] == ["dead", "open", "open"]
    deployed.send(
        deployed.datasets.transfer(bazaar.data_owner.address, bazaar.worker.address, bazaar.dataset), bazaar.data_owner
    )
    world.synced()
    assert [state(world, order)[1] for order in (data, rich, with_data)] == ["dead", "open", "dead"]


def test_requests_that_lose_their_stake_die(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    assert world.publish(deployed.app_order(bazaar.app_owner, bazaar.app), bazaar.app_owner)[0] == 200
    deployed.stake(bazaar.requester, 100)
    dear = deployed.request_order(bazaar.requester, bazaar.app, workerpoolmaxprice=50, volume=2)
    cheap = deployed.request_order(bazaar.requester, bazaar.app, workerpoolmaxprice=33, volume=3)
    for order in (dear, cheap):
        assert world.publish(order, bazaar.requester)[0] == 200
    deployed.send(deployed.hub.withdraw(1), bazaar.requester)
    world.synced()
    assert [state(world, order)[1] for order in (dear, cheap)] == ["dead", "open"]
    # Stake that comes back opens nothing by itself, but what is dead may be published again.
    deployed.stake(bazaar.requester, 1)
    world.synced()
    assert state(world, dear)[1] == "dead"
    assert world.publish(dear, bazaar.requester)[0] == 200


def test_a_reorganisation_to_the_same_height_opens_what_died(tmp_path: Path) -> None:
    with running_anvil() as node:
        chain = DeployedChain(node, tmp_path)
        with MarketWorld(chain, tmp_path, label="same height").serving() as world:
            bazaar = world.bazaar
            app, _, pool, _ = orders = bazaar.orders(dataset=False, volume=2)
            chain.stake(bazaar.pool_owner, 30)
            chain.stake(bazaar.requester, 5)
            dear = chain.workerpool_order(bazaar.pool_owner, bazaar.pool, workerpoolprice=100)
            waiting = chain.request_order(bazaar.requester, bazaar.app, workerpoolmaxprice=5)
            for order, key in (
                (app, bazaar.app_owner),
                (pool, bazaar.pool_owner),
                (dear, bazaar.pool_owner),
                (waiting, bazaar.requester),
            ):
                assert world.publish(order, key)[0] == 200
            world.synced()
            height, snapshot = chain.rpc.block_number(), chain.rpc.call("evm_snapshot")
            deal_id, _ = bazaar.match(orders)
            chain.send(chain.hub.withdraw(30), bazaar.pool_owner)
            world.synced()
            found = [state(world, order) for order in (app, pool, dear, waiting)]
            assert found == [(0, "filled"), (0, "filled"), (1, "dead"), (1, "dead")]
            lost = chain.rpc.block_number() - height
            assert world.ask("GET", f"/deals/{deal_id}")[0] == 200
            chain.rpc.call("evm_revert", snapshot)
            node.mine(lost)
            assert chain.rpc.block_number() == height + lost
            # The first question after it is answered from the chain as it is now.
            assert world.ask("GET", f"/deals?app={bazaar.app}")[1]["count"] == 0
            found = [state(world, order) for order in (app, pool, dear, waiting)]
            assert found == [(2, "open"), (2, "open"), (1, "open"), (1, "open")]
            assert world.ask("GET", f"/deals/{deal_id}")[0] == 404


def test_consumption_that_a_lost_block_told_is_given_back(tmp_path: Path) -> None:
    with running_anvil() as node:
        chain = DeployedChain(node, tmp_path)
        world = MarketWorld(chain, tmp_path, label="told early")
        bazaar = world.bazaar
        app, data, pool, _ = bazaar.orders(volume=3)
        first = chain.request_order(
            bazaar.requester, bazaar.app, dataset=bazaar.dataset, workerpool=bazaar.pool, volume=2
        )
        with world.serving():
            world.synced()
            snapshot = chain.rpc.call("evm_snapshot")
            height = chain.rpc.block_number()
            bazaar.match((app, data, pool, first))
            assert world.publish(app, bazaar.app_owner)[0] == 200
            assert state(world, app) == (1, "open")
            lost = chain.rpc.block_number() - height
            chain.rpc.call("evm_revert", snapshot)
            node.mine(lost + 1)
            # Cursors of quiet blocks are written only now and then; something happens, so it is now.
            chain.stake(bazaar.worker, 1)
            world.synced()
            assert state(world, app) == (3, "open")


@pytest.mark.parametrize("event", ["closed", "transferred", "withdrawn"])
def test_what_happens_while_an_order_is_judged_counts(deployed: DeployedChain, tmp_path: Path, event: str) -> None:
    """Between the market's look at the chain and its write, the chain moves and the watcher sees it first."""
    moves: list[Callable[[], None]] = []

    class Slow:
        """Gives what the ledger read, after something else happened."""

        def __init__(self, ledger: MarketLedger) -> None:
            self._ledger = ledger

        def __getattr__(self, name: str) -> object:
            return getattr(self._ledger, name)

        def publication_facts(self, order: Order, order_hash: Bytes32) -> PublicationFacts:
            facts = self._ledger.publication_facts(order, order_hash)
            if moves:
                moves.pop()()
                world.synced()
            return facts

    world = MarketWorld(
        deployed, tmp_path, label=f"race {event}", wrap=lambda ledger: cast("MarketLedger", Slow(ledger))
    )
    bazaar = world.bazaar
    with world.serving():
        deployed.stake(bazaar.pool_owner, 300)
        world.synced()
        order = deployed.workerpool_order(bazaar.pool_owner, bazaar.pool, workerpoolprice=1000)
        pools = deployed.workerpools
        happenings: dict[str, tuple[Callable[[], object], str]] = {
            "closed": (lambda: deployed.close(order, bazaar.pool_owner), "order already consumed"),
            "transferred": (
                lambda: deployed.send(
                    pools.transfer(bazaar.pool_owner.address, bazaar.worker.address, bazaar.pool), bazaar.pool_owner
                ),
                f"only order signer {bazaar.worker.address} can publish an order",
            ),
            "withdrawn": (
                lambda: deployed.send(deployed.hub.withdraw(300), bazaar.pool_owner),
                "workerpool owner's stake is too low to cover required workerpool lock",
            ),
        }
        happen, text = happenings[event]
        moves.append(lambda: cast("None", happen()))
        assert world.refusal(order, bazaar.pool_owner) == text
        assert not moves
        assert world.listed(f"/workerpoolorders?workerpool={bazaar.pool}") == []


def test_a_deal_is_there_when_its_receipt_is(world: MarketWorld) -> None:
    """What iExec's bulk client does: it asks for the deals of its request as soon as the block is mined."""
    bazaar = world.bazaar
    for _ in range(10):
        orders = bazaar.orders(dataset=False)
        deal_id, _ = bazaar.match(orders)
        _, body = world.ask("GET", f"/deals?requestorderHash={orders[3].hash(bazaar.chain.domain)}")
        assert [record["dealid"] for record in body["deals"]] == [deal_id]
        assert world.ask("GET", f"/deals/{deal_id}")[0] == 200


def test_readers_wait_together(world: MarketWorld) -> None:
    bazaar = world.bazaar
    deal_id, _ = bazaar.match(bazaar.orders())
    results: list[bool] = []

    def read() -> None:
        _, body = world.ask("GET", f"/deals?requester={bazaar.requester.address}")
        results.append(body["deals"][0]["dealid"] == deal_id)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8
