"""The books follow the chain: matches, revocations, transfers, stakes, categories, restarts and reorganisations."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support.anvil import running_anvil
from tests.support.deployed import DeployedChain
from tests.support.market_world import MarketWorld

from cloister.protocol.orders import AppOrder, DatasetOrder, Order, RequestOrder, WorkerpoolOrder
from cloister.protocol.signatures import PrivateKey

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
