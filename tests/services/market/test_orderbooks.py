"""Orderbooks: filters, strictness, pages and order, as iExec's clients ask for them."""

from __future__ import annotations

import pytest
from tests.support.deployed import DeployedChain
from tests.support.market_world import MarketWorld

from cloister.protocol.codec import Address
from cloister.protocol.tags import GPU, TEE_TDX

INFINITE = 2**53 - 1
SOMEBODY = Address("0x" + "5b" * 20)
OTHER = Address("0x" + "0e" * 20)


@pytest.fixture
def books(world: MarketWorld, deployed: DeployedChain) -> dict[str, str]:
    """Four dataset orders by the name of what sets them apart."""
    bazaar = world.bazaar
    orders = {
        "open": {"datasetprice": 1},
        "for app": {"apprestrict": bazaar.app, "datasetprice": 2},
        "for user": {"requesterrestrict": SOMEBODY, "datasetprice": 3, "volume": 50},
        "bulk": {"volume": INFINITE, "tag": TEE_TDX | GPU},
    }
    hashes = {}
    for name, values in orders.items():
        order = deployed.dataset_order(bazaar.data_owner, bazaar.dataset, **values)
        assert world.publish(order, bazaar.data_owner)[0] == 200
        hashes[str(order.hash(deployed.domain))] = name
        world.clock.now += 1
    return hashes


def names(world: MarketWorld, books: dict[str, str], query: str) -> list[str]:
    return [books[found] for found in world.listed(f"/datasetorders?dataset={world.bazaar.dataset}{query}")]


def test_restrictions(world: MarketWorld, books: dict[str, str]) -> None:
    app = world.bazaar.app
    assert names(world, books, "") == ["bulk", "open"]
    assert names(world, books, f"&app={app}") == ["bulk", "open", "for app"]
    assert names(world, books, f"&app={str(app).lower()}&isAppStrict=true") == ["for app"]
    assert names(world, books, f"&app={OTHER}") == ["bulk", "open"]
    assert names(world, books, f"&requester={SOMEBODY}") == ["bulk", "open", "for user"]
    assert names(world, books, f"&requester={SOMEBODY}&isRequesterStrict=true") == ["for user"]
    assert names(world, books, "&app=any&requester=any") == ["bulk", "open", "for app", "for user"]
    assert names(world, books, f"&app=any&requester=any&workerpool={OTHER}&isWorkerpoolStrict=true") == []


def test_tags_volume_and_bulk(world: MarketWorld, books: dict[str, str]) -> None:
    anyone = "&app=any&requester=any"
    assert names(world, books, f"{anyone}&bulkOnly=true") == ["bulk"]
    assert names(world, books, f"{anyone}&minVolume=50") == ["bulk", "for user"]
    assert names(world, books, f"{anyone}&minTag={GPU}") == ["bulk"]
    assert names(world, books, f"{anyone}&maxTag={TEE_TDX}") == ["open", "for app", "for user"]
    assert names(world, books, f"{anyone}&minTag=0x8{'0' * 63}") == []
    assert names(world, books, f"{anyone}&maxTag=0x{'f' * 64}&bulkOnly=false") == [
        "bulk",
        "open",
        "for app",
        "for user",
    ]


def test_owner_in_place_of_the_dataset(world: MarketWorld, books: dict[str, str]) -> None:
    found = world.listed(f"/datasetorders?datasetOwner={world.bazaar.data_owner.address}&app=any&requester=any")
    assert [books[each] for each in found] == ["bulk", "open", "for app", "for user"]
    assert world.listed(f"/datasetorders?dataset=any&datasetOwner={OTHER}") == []


def test_pages(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    prices = list(range(23, 0, -1))
    for price in prices:
        order = deployed.app_order(bazaar.app_owner, bazaar.app, appprice=price)
        assert world.publish(order, bazaar.app_owner)[0] == 200
    target = f"/apporders?app={bazaar.app}"
    seen: list[int] = []
    for index, (length, following) in enumerate([(10, 1), (10, 2), (3, None)]):
        _, body = world.ask("GET", f"{target}&pageSize=10&pageIndex={index}")
        assert (len(body["orders"]), body.get("nextPage"), body["count"]) == (length, following, 23)
        seen += [record["order"]["appprice"] for record in body["orders"]]
    assert seen == sorted(prices)
    assert len(world.ask("GET", target)[1]["orders"]) == 20
    _, body = world.ask("GET", f"{target}&page=20")
    assert [record["order"]["appprice"] for record in body["orders"]] == [21, 22, 23]
    assert world.ask("GET", f"{target}&pageIndex=9&pageSize=10")[1] == {"ok": True, "orders": [], "count": 23}
    assert len(list(world.client.orders("apporder", app=bazaar.app, page_size=10))) == 23


def test_malformed_queries(world: MarketWorld) -> None:
    texts = [
        ("/apporders", "app or appOwner is required"),
        ("/datasetorders", "dataset or datasetOwner is required"),
        ("/apporders?app=0x12", "app must be an address, got 0x12"),
        ("/apporders?app=any&pageSize=5", "pageSize must be between 10 and 1000, got 5"),
        ("/apporders?app=any&pageSize=1001", "pageSize must be between 10 and 1000, got 1001"),
        ("/apporders?app=any&minTag=0x1", "minTag must be 32 bytes of hex, got 0x1"),
        ("/datasetorders?dataset=any&bulkOnly=yes", "bulkOnly must be true or false, got yes"),
        ("/workerpoolorders?category=-1", "category: expected a decimal integer, got -1"),
        ("/challenge", "address is a required field"),
    ]
    for target, text in texts:
        status, body = world.ask("GET", target)
        assert (status, body["ok"], body["error"]) == (400, False, text)


def test_unknown_things(world: MarketWorld) -> None:
    zeros = "0x" + "00" * 32
    for kind in ("apporder", "datasetorder", "workerpoolorder", "requestorder"):
        status, body = world.ask("GET", f"/{kind}s/{zeros}")
        assert (status, body["error"]) == (404, f"{kind} not found")
    assert world.ask("GET", f"/deals/{zeros}")[1]["error"] == "deal not found"
    status, body = world.ask("GET", "/categories/77")
    assert (status, body["error"]) == (404, "category not found")


def test_workerpool_and_request_books(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    pools = [
        deployed.workerpool_order(bazaar.pool_owner, bazaar.pool, category=c, trust=t)
        for c, t in ((0, 0), (0, 5), (1, 0))
    ]
    for order in pools:
        assert world.publish(order, bazaar.pool_owner)[0] == 200
        world.clock.now += 1
    by_hash = {str(order.hash(deployed.domain)): n for n, order in enumerate(pools)}

    def found(query: str) -> list[int]:
        return [by_hash[each] for each in world.listed(f"/workerpoolorders?workerpool={bazaar.pool}{query}")]

    assert found("") == [0, 1, 2]
    assert found("&category=0") == [0, 1]
    assert found("&minTrust=3") == [1]
    assert found("&category=1&workerpoolOwner=" + bazaar.pool_owner.address) == [2]

    assert world.publish(deployed.app_order(bazaar.app_owner, bazaar.app), bazaar.app_owner)[0] == 200
    deployed.stake(bazaar.requester, 100)
    requests = [
        deployed.request_order(bazaar.requester, bazaar.app, workerpoolmaxprice=price, **values)
        for price, values in ((1, {}), (9, {"workerpool": bazaar.pool}), (5, {"trust": 4}))
    ]
    for request in requests:
        assert world.publish(request, bazaar.requester)[0] == 200
    by_hash = {str(order.hash(deployed.domain)): n for n, order in enumerate(requests)}

    def asked(query: str) -> list[int]:
        return [by_hash[each] for each in world.listed(f"/requestorders?app={bazaar.app}{query}")]

    assert asked("") == [2, 0]
    assert asked("&workerpool=any") == [1, 2, 0]
    assert asked(f"&workerpool={bazaar.pool}") == [1, 2, 0]
    assert asked(f"&workerpool={bazaar.pool}&isWorkerpoolStrict=true") == [1]
    assert asked(f"&workerpool={OTHER}") == [2, 0]
    assert asked("&maxTrust=3&workerpool=any") == [1, 0]
    assert asked(f"&workerpool=any&beneficiary={OTHER}") == []


def test_service_paths(world: MarketWorld) -> None:
    status, body = world.ask("GET", "/version")
    assert (status, body["ok"]) == (200, True)
    status, body = world.ask("GET", "/metrics")
    assert status == 200
    assert {"lastBlock", "checkpointBlock", "apporders", "requestorders"} <= set(body)
    assert world.ask("GET", "/apporders?app=any", chain=5)[0] == 400
