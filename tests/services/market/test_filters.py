"""Every filter of every orderbook and of the deals against a model that reads the same orders plainly."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.anvil import running_anvil
from tests.support.deployed import Bazaar, DeployedChain
from tests.support.market_world import MarketWorld

from cloister.protocol.codec import ZERO_ADDRESS, Address
from cloister.protocol.orders import Order, OrderKind
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tags import Tag

A, B, C = (Address("0x" + byte * 20) for byte in ("aa", "bb", "cc"))
PARTIES = (ZERO_ADDRESS, A, B)
TAGS = [Tag.from_bits(bits) for bits in (0, 1, 3, 9, 0x101, 0x109)]
INFINITE = 2**53 - 1
ORDERS, QUERIES = 30, 50


@dataclass(frozen=True)
class Listed:
    """An order in the books, as the model knows it."""

    order: Order
    order_hash: str
    signer: str
    published: int


def publish(world: MarketWorld, order: Order, key: PrivateKey) -> Listed:
    status, body = world.publish(order, key)
    assert status == 200, body
    listed = Listed(order, str(order.hash(world.chain.domain)), key.address, int(world.clock.now * 1000))
    world.clock.now += 0.001 * random.Random(listed.order_hash).choice((0, 1))  # some at the same moment
    return listed


def fits_party(name: str, restricted: Address, query: Mapping[str, str]) -> bool:
    """The rule of restrictions: absent, ``any``, one or everybody, exactly one."""
    wanted = query.get(name)
    if wanted == "any":
        return True
    if wanted is None:
        return restricted == ZERO_ADDRESS
    if query.get(f"is{name.capitalize()}Strict") == "true":
        return restricted == Address(wanted)
    return restricted in (ZERO_ADDRESS, Address(wanted))


def fits_tag(order: Order, query: Mapping[str, str]) -> bool:
    bits = order.tag.bits
    lowest, highest = int(query.get("minTag", "0x0"), 16), int(query.get("maxTag", "0x" + "f" * 64), 16)
    return bits & lowest == lowest and bits & ~highest == 0


def fits(listed: Listed, query: Mapping[str, str]) -> bool:
    order: Any = listed.order
    name = order.kind.removesuffix("order")
    checks = [fits_tag(order, query), order.volume >= int(query.get("minVolume", "0"))]
    if "category" in query:
        checks.append(order.category == int(query["category"]))
    if order.kind is OrderKind.REQUEST:
        for field in ("requester", "beneficiary", "app", "dataset"):
            checks += [query.get(field, "any") == "any" or getattr(order, field) == Address(query[field])]
        checks.append(fits_party("workerpool", order.workerpool, query))
        checks.append(order.trust <= int(query.get("maxTrust", str(INFINITE))))
    else:
        checks.append(query.get(name, "any") == "any" or order.resource == Address(query[name]))
        owner = query.get(f"{name}Owner")
        checks.append(owner is None or listed.signer == Address(owner))
        for party in {"app", "dataset", "workerpool", "requester"} - {name}:
            checks += [fits_party(party, getattr(order, f"{party}restrict"), query)]
    if order.kind is OrderKind.WORKERPOOL:
        checks.append(order.trust >= int(query.get("minTrust", "0")))
    if query.get("bulkOnly") == "true":
        checks.append(order.datasetprice == 0 and order.volume >= INFINITE - 1)
    return all(checks)


def best_first(listed: Listed) -> tuple[int, int, str]:
    order: Any = listed.order
    if order.kind is OrderKind.REQUEST:
        price = -order.workerpoolmaxprice
    else:
        price = getattr(order, f"{order.kind.removesuffix('order')}price")
    return price, listed.published, listed.order_hash


def random_query(
    rng: random.Random, kind: OrderKind, resources: list[Address], owners: list[Address]
) -> dict[str, str]:
    name = kind.removesuffix("order")
    parties = ["workerpool"] if kind is OrderKind.REQUEST else ["app", "dataset", "workerpool", "requester"]
    query: dict[str, str] = {}

    def sometimes(key: str, values: list[Any], chance: float = 0.3) -> None:
        if rng.random() < chance:
            query[key] = str(rng.choice(values))

    for party in parties:
        if party != name:
            sometimes(party, ["any", "any", A, B, A.lower(), C], 0.7)
            sometimes(f"is{party.capitalize()}Strict", ["true", "false"])
    if kind is OrderKind.REQUEST:
        for field in ("requester", "beneficiary"):
            sometimes(field, [*owners, C], 0.2)
        sometimes("app", ["any", *resources], 0.4)
        sometimes("dataset", ["any", ZERO_ADDRESS, C], 0.2)
        sometimes("maxTrust", [0, 1, 3])
    else:
        sometimes(name, ["any", *resources, resources[0].lower()], 0.6)
        sometimes(f"{name}Owner", [*owners, owners[0].lower()], 0.3)
        if kind is not OrderKind.WORKERPOOL and name not in query and f"{name}Owner" not in query:
            query[name] = "any"
    sometimes("minTag", TAGS, 0.3)
    sometimes("maxTag", TAGS, 0.3)
    sometimes("minVolume", [0, 1, 5, INFINITE], 0.3)
    if kind in (OrderKind.WORKERPOOL, OrderKind.REQUEST):
        sometimes("category", [0, 1, 2])
    if kind is OrderKind.WORKERPOOL:
        sometimes("minTrust", [0, 1, 3])
    if kind is OrderKind.DATASET:
        sometimes("bulkOnly", ["true", "false"])
    return query


def listing(world: MarketWorld, path: str, query: Mapping[str, str]) -> list[str]:
    """All pages of a list, with what must hold of each page."""
    found: list[str] = []
    for index in itertools.count():
        target = f"{path}?" + "&".join(f"{key}={value}" for key, value in {**query, "pageIndex": index}.items())
        status, body = world.ask("GET", f"{target}&pageSize=10")
        assert status == 200, body
        hashes = [record["orderHash"] for record in body["orders"]]
        found += hashes
        assert ("nextPage" in body) == (len(hashes) == 10)
        if "nextPage" not in body:
            assert body["count"] == len(found)
            return found
        assert body["nextPage"] == index + 1
    raise AssertionError("not reached")


def offers(world: MarketWorld, kind: OrderKind, rng: random.Random) -> list[Listed]:
    """Orders of one kind for two resources of two owners; they differ in all that a filter looks at."""
    chain, bazaar = world.chain, world.bazaar
    makers: dict[OrderKind, tuple[Callable[..., Order], Callable[[PrivateKey], Address]]] = {
        OrderKind.APP: (chain.app_order, chain.make_app),
        OrderKind.DATASET: (chain.dataset_order, chain.make_dataset),
        OrderKind.WORKERPOOL: (chain.workerpool_order, chain.make_workerpool),
    }
    make, register = makers[kind]
    name = kind.removesuffix("order")
    places = [(key, register(key)) for key in (bazaar.app_owner, bazaar.worker)]
    listed = []
    for _ in range(ORDERS):
        key, resource = rng.choice(places)
        values: dict[str, Any] = {"tag": rng.choice(TAGS), "volume": rng.choice((1, 5, 9, INFINITE - 1, INFINITE))}
        for party in sorted({"app", "dataset", "workerpool", "requester"} - {name}):
            values[f"{party}restrict"] = rng.choice(PARTIES)
        if kind is OrderKind.WORKERPOOL:
            values |= {"category": rng.choice((0, 1)), "trust": rng.choice((0, 1, 3))}
        else:
            values[f"{name}price"] = rng.choice((0, 0, 4))
        listed.append(publish(world, make(key, resource, **values), key))
    return listed


def requests(world: MarketWorld, rng: random.Random) -> list[Listed]:
    chain, bazaar = world.chain, world.bazaar
    keys = [bazaar.requester, bazaar.worker]
    for key in keys:
        chain.stake(key, 100_000)
    apps = [bazaar.app, chain.make_app(bazaar.app_owner)]
    for app in apps:
        assert world.publish(chain.app_order(bazaar.app_owner, app), bazaar.app_owner)[0] == 200
    listed = []
    for _ in range(ORDERS):
        key = rng.choice(keys)
        values = {
            "tag": rng.choice(TAGS),
            "volume": rng.choice((1, 5)),
            "workerpool": rng.choice(PARTIES),
            "beneficiary": rng.choice(keys).address,
            "category": rng.choice((0, 1)),
            "trust": rng.choice((0, 1, 3)),
            "workerpoolmaxprice": rng.choice((0, 4, 4, 9)),
        }
        listed.append(publish(world, chain.request_order(key, rng.choice(apps), **values), key))
    return listed


@pytest.mark.parametrize("kind", list(OrderKind))
def test_every_filter_lists_what_a_plain_reading_lists(world: MarketWorld, kind: OrderKind) -> None:
    rng = random.Random(f"filters {kind}")
    listed = requests(world, rng) if kind is OrderKind.REQUEST else offers(world, kind, rng)
    name = "app" if kind is OrderKind.REQUEST else kind.removesuffix("order")
    resources = sorted({getattr(each.order, name) for each in listed})
    owners = sorted({Address(each.signer) for each in listed})
    sizes = set()
    ours = {each.order_hash for each in listed}
    everything = dict.fromkeys(("app", "dataset", "workerpool", "requester"), "any")
    for query in [everything, *(random_query(rng, kind, resources, owners) for _ in range(QUERIES))]:
        expected = [each.order_hash for each in sorted(listed, key=best_first) if fits(each, query)]
        found = [order_hash for order_hash in listing(world, f"/{kind}s", query) if order_hash in ours]
        assert found == expected, query
        sizes.add(len(expected))
    assert {0} < sizes
    assert max(sizes) == ORDERS


def test_deals_are_listed_newest_first_and_by_every_filter(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    made = []
    for volume in (1, 2, 1):
        orders = bazaar.orders(volume=volume, dataset=volume == 1)
        deal_id, receipt = bazaar.match(orders)
        made.append((str(deal_id), orders, receipt))
    newest = [deal_id for deal_id, _, _ in reversed(made)]

    def found(query: str) -> list[str]:
        status, body = world.ask("GET", f"/deals?{query}")
        assert status == 200, body
        assert body["count"] == len(body["deals"])
        return [record["dealid"] for record in body["deals"]]

    people = {
        "requester": bazaar.requester.address,
        "beneficiary": bazaar.requester.address,
        "app": bazaar.app,
        "workerpool": bazaar.pool,
        "appOwner": bazaar.app_owner.address,
        "workerpoolOwner": bazaar.pool_owner.address,
    }
    for name, address in people.items():
        assert found(f"{name}={address}") == newest
        assert found(f"{name}={address.lower()}&requester={people['requester']}&category=0") == newest
        assert found(f"{name}={C}") == []
    for name, address in (("dataset", bazaar.dataset), ("datasetOwner", bazaar.data_owner.address)):
        assert found(f"{name}={address}") == [newest[0], newest[2]]
    assert found(f"dataset=any&app={bazaar.app}") == newest
    names = ("apporderHash", "datasetorderHash", "workerpoolorderHash", "requestorderHash")
    for deal_id, orders, receipt in made:
        for name, order in zip(names, orders, strict=True):
            if order is not None:
                assert found(f"{name}={order.hash(deployed.domain)}") == [deal_id]
        _, record = world.ask("GET", f"/deals/{deal_id}")
        assert (record["transactionHash"], record["blockNumber"]) == (str(receipt.transaction), receipt.block_number)
    assert found(f"app={bazaar.app}&category=3") == []
    _, body = world.ask("GET", f"/deals?app={bazaar.app}&page=1")
    assert ([record["dealid"] for record in body["deals"]], body["count"]) == (newest[1:], 3)


def test_a_page_that_is_just_full_names_a_next_one_that_is_empty(world: MarketWorld) -> None:
    bazaar = world.bazaar
    for _ in range(10):
        assert world.publish(world.chain.app_order(bazaar.app_owner, bazaar.app), bazaar.app_owner)[0] == 200
    _, body = world.ask("GET", f"/apporders?app={bazaar.app}&pageSize=10")
    assert (len(body["orders"]), body["nextPage"], body["count"]) == (10, 1, 10)
    _, body = world.ask("GET", f"/apporders?app={bazaar.app}&pageSize=10&pageIndex=1")
    assert body == {"ok": True, "orders": [], "count": 10}


def test_a_workerpool_may_stand_in_for_another(deployed: DeployedChain, tmp_path: Path) -> None:
    """iExec's clients ask for the default workerpool of iExec's own networks, whatever network they are on."""
    built_in = Address("0xB967057a21dc6A66A29721d96b8Aa7454B7c383F")
    bazaar = Bazaar(deployed, "stand-ins")
    pool = bazaar.pool
    world = MarketWorld(deployed, tmp_path, label="stand-ins too", stand_ins={built_in: pool})
    with world.serving():
        app, data, offer, _ = bazaar.orders()
        for_pool = deployed.app_order(bazaar.app_owner, bazaar.app, workerpoolrestrict=pool)
        request = deployed.request_order(bazaar.requester, bazaar.app, workerpool=pool)
        for order, key in (
            (app, bazaar.app_owner),
            (for_pool, bazaar.app_owner),
            (offer, bazaar.pool_owner),
            (request, bazaar.requester),
        ):
            assert world.publish(order, key)[0] == 200
        expected = {
            "/workerpoolorders?workerpool={}": offer,
            f"/apporders?app={bazaar.app}&isWorkerpoolStrict=true&workerpool={{}}": for_pool,
            f"/requestorders?app={bazaar.app}&isWorkerpoolStrict=true&workerpool={{}}": request,
        }
        for target, order in expected.items():
            for asked in (built_in, built_in.lower(), pool):
                _, body = world.ask("GET", target.format(asked))
                assert [record["orderHash"] for record in body["orders"]] == [str(order.hash(deployed.domain))]
                assert body["orders"][0]["order"] == order.to_json(numbers=True)
            assert world.listed(target.format(C)) == []
        deal_id, _ = bazaar.match((app, data, offer, bazaar.orders()[3]))
        _, body = world.ask("GET", f"/deals?workerpool={built_in}")
        assert [(deal["dealid"], deal["workerpool"]["pointer"]) for deal in body["deals"]] == [
            (str(deal_id), str(pool))
        ]
        assert world.ask("GET", "/deals?workerpool=0x12")[1]["error"] == "workerpool must be an address, got 0x12"


def test_categories_and_prices_on_a_chain_of_their_own(tmp_path: Path) -> None:
    with running_anvil() as node:
        chain = DeployedChain(node, tmp_path)
        with MarketWorld(chain, tmp_path, label="categories").serving() as world:
            for clock in (7, 0, 5000, 7, 40000, 1):
                chain.send(chain.hub.create_category(f"takes {clock}", "", clock), chain.deployer)
            world.synced()
            _, body = world.ask("GET", "/categories?pageSize=10")
            found = [(record["workClockTimeRef"], record["catid"]) for record in body["categories"]]
            clocks = [
                (0, 6),
                (1, 10),
                (7, 5),
                (7, 8),
                (300, 0),
                (1200, 1),
                (3600, 2),
                (5000, 7),
                (10800, 3),
                (36000, 4),
            ]
            assert (found, body["count"], body["nextPage"]) == (clocks, 11, 1)
            _, body = world.ask("GET", "/categories?pageSize=10&pageIndex=1")
            assert [record["catid"] for record in body["categories"]] == [9]
            assert "nextPage" not in body
            _, body = world.ask("GET", "/categories?minWorkClockTimeRef=7&maxWorkClockTimeRef=1200")
            assert [record["catid"] for record in body["categories"]] == [5, 8, 0, 1]
            assert world.ask("GET", "/categories?minWorkClockTimeRef=50000")[1]["categories"] == []
            bazaar = world.bazaar
            chain.stake(bazaar.pool_owner, 1000)
            chain.stake(bazaar.requester, 1000)
            made = []
            for price, volume, category in ((9, 1, 0), (4, 3, 0), (5, 1, 2), (6, 2, 0)):
                app, data, _, _ = bazaar.orders(volume=volume)
                values = {"category": category, "volume": volume}
                pool = chain.workerpool_order(bazaar.pool_owner, bazaar.pool, workerpoolprice=price, **values)
                request = chain.request_order(
                    bazaar.requester, bazaar.app, dataset=bazaar.dataset, workerpoolmaxprice=price, **values
                )
                _, receipt = bazaar.match((app, data, pool, request))
                time = int(
                    str(chain.rpc.call("eth_getBlockByNumber", hex(receipt.block_number), False)["timestamp"]), 16
                )
                made.append((category, [time, price, volume]))
            world.synced()
            for category in (0, 1, 2):
                _, body = world.ask("GET", f"/ohlc?category={category}")
                assert body["ohlc"] == [bar for where, bar in made if where == category]
            assert world.ask("GET", "/ohlc")[1]["error"] == "category is a required field"


def test_every_call_but_the_version_names_its_chain(world: MarketWorld) -> None:
    for path in (
        "/challenge",
        "/metrics",
        "/categories",
        "/categories/0",
        "/deals",
        "/ohlc",
        "/apporders",
        "/requestorders",
    ):
        status, body = world.bare("GET", path)
        assert (status, body["ok"], body["error"]) == (400, False, "chainId is a required field"), path
        status, body = world.ask("GET", path, chain=134)
        assert (status, body["error"]) == (400, "chainId 134 is not supported"), path
    for method in ("POST", "PUT"):
        status, body = world.bare(method, "/apporders")
        assert (status, body["error"]) == (400, "chainId is a required field")
    assert world.bare("GET", "/version")[0] == 200
