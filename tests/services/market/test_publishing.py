"""Publishing and unpublishing: iExec's rules, in order, with their texts and codes."""

from __future__ import annotations

import dataclasses
import re
import threading
from pathlib import Path

from tests.support.deployed import DeployedChain
from tests.support.market_world import MarketWorld

from cloister.protocol.codec import Address
from cloister.protocol.orders import OrderKind, sign_order
from cloister.protocol.tags import Tag

INFINITE = 2**53 - 1


def test_challenge_is_iexecs(world: MarketWorld) -> None:
    who = world.bazaar.requester.address
    status, body = world.ask("GET", f"/challenge?address={who.lower()}")
    assert (status, body["ok"]) == (200, True)
    data = body["data"]
    assert data["domain"] == {"name": "iExec Gateway", "version": "1", "chainId": "421614"}
    assert data["primaryType"] == "Challenge"
    text = data["message"]["challenge"]
    assert re.fullmatch(r"Sign this message to log into iExec Gateway: [0-9A-Za-z]{32}", text)
    assert world.ask("GET", f"/challenge?address={who}")[1]["data"] == data
    assert world.ask("GET", f"/challenge?address={world.bazaar.worker.address}")[1]["data"] != data


def test_published_record(world: MarketWorld) -> None:
    bazaar = world.bazaar
    order = world.chain.dataset_order(bazaar.data_owner, bazaar.dataset, volume=INFINITE)
    status, body = world.publish(order, bazaar.data_owner)
    assert status == 200
    expected = {
        "orderHash": order.hash(world.chain.domain),
        "order": order.to_json(numbers=True),
        "chainId": 421614,
        "remaining": INFINITE,
        "status": "open",
        "signer": bazaar.data_owner.address,
        "publicationTimestamp": "2026-09-21T14:13:20.250Z",
        "bulk": True,
    }
    assert body == {"ok": True, "published": expected}
    assert world.record(order) == {"ok": True, "count": 1, **expected}
    assert isinstance(body["published"]["order"]["datasetprice"], int)


def test_a_login_is_good_once(world: MarketWorld) -> None:
    bazaar = world.bazaar
    orders = [world.chain.app_order(bazaar.app_owner, bazaar.app) for _ in range(2)]
    header = world.login(bazaar.app_owner)
    bodies = [{"order": order.to_json()} for order in orders]
    assert world.ask("POST", "/apporders", body=bodies[0], header=header)[0] == 200
    status, body = world.ask("POST", "/apporders", body=bodies[1], header=header)
    assert (status, body["error"]) == (403, "invalid authorization")


def test_of_racing_logins_one_wins(world: MarketWorld) -> None:
    bazaar = world.bazaar
    header = world.login(bazaar.app_owner)
    bodies = [{"order": world.chain.app_order(bazaar.app_owner, bazaar.app).to_json()} for _ in range(6)]
    gate, results = threading.Barrier(6), []

    def send(body: object) -> None:
        gate.wait()
        results.append(world.ask("POST", "/apporders", body=body, header=header)[0])

    threads = [threading.Thread(target=send, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [200, 403, 403, 403, 403, 403]


def test_a_challenge_lives_five_minutes(world: MarketWorld) -> None:
    bazaar = world.bazaar
    target = f"/challenge?address={bazaar.app_owner.address}"

    def publish(header: str) -> str | None:
        body = {"order": world.chain.app_order(bazaar.app_owner, bazaar.app).to_json()}
        found: str | None = world.ask("POST", "/apporders", body=body, header=header)[1].get("error")
        return found

    first, challenge = world.login(bazaar.app_owner), world.ask("GET", target)[1]["data"]
    world.clock.now += 299
    assert world.ask("GET", target)[1]["data"] == challenge
    assert publish(first) is None
    second, challenge = world.login(bazaar.app_owner), world.ask("GET", target)[1]["data"]
    world.clock.now += 300
    assert publish(second) == "invalid authorization"
    assert world.ask("GET", target)[1]["data"] != challenge
    assert publish(world.login(bazaar.app_owner)) is None


def test_a_challenge_outlives_the_process_that_gave_it(deployed: DeployedChain, tmp_path: Path) -> None:
    world = MarketWorld(deployed, tmp_path, label="restart")
    bazaar = world.bazaar
    bodies = [{"order": deployed.app_order(bazaar.app_owner, bazaar.app).to_json()} for _ in range(3)]
    with world.serving():
        used, header = world.login(bazaar.worker), world.login(bazaar.app_owner)
        world.ask("POST", "/apporders", body=bodies[0], header=used)
    world.clock.now += 200
    with world.serving():
        assert world.ask("POST", "/apporders", body=bodies[0], header=used)[1]["error"] == "invalid authorization"
        assert world.ask("POST", "/apporders", body=bodies[1], header=header)[0] == 200
        assert world.ask("POST", "/apporders", body=bodies[2], header=header)[1]["error"] == "invalid authorization"


def test_numbers_come_as_numbers_or_as_strings(world: MarketWorld) -> None:
    bazaar = world.bazaar
    for numbers in (False, True):
        order = world.chain.dataset_order(bazaar.data_owner, bazaar.dataset, datasetprice=2**53 - 1, volume=7)
        body = {"order": order.to_json(numbers=numbers)}
        status, answer = world.ask("POST", "/datasetorders", body=body, header=world.login(bazaar.data_owner))
        assert status == 200, answer
        assert answer["published"]["order"] == order.to_json(numbers=True)
        assert answer["published"]["orderHash"] == str(order.hash(world.chain.domain))
    for wrong in ("1.5", 1.5, "0x5", "-1", -1, True, None, "٣", "1e3", "", [], 2**53, str(2**256)):
        body = {"order": {**order.to_json(), "volume": wrong}}
        status, answer = world.ask("POST", "/datasetorders", body=body, header=world.login(bazaar.data_owner))
        assert (status, answer["ok"]) == (400, False), wrong
        assert "volume" in answer["error"], answer


def test_malformed_logins_all_read_the_same(world: MarketWorld) -> None:
    good = world.login(world.bazaar.app_owner)
    digest, signature, address = good.split("_")
    other = world.bazaar.worker.address
    for header in (
        None,
        "",
        "x",
        f"{digest}_{signature}",
        f"{digest}_{signature}_{other}",
        f"0x00_{signature}_{address}",
    ):
        status, body = world.ask("POST", "/apporders", body={"order": {}}, header=header)
        assert (status, body["error"]) == (403, "invalid authorization"), header


def test_rules_in_order(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    order = deployed.app_order(bazaar.app_owner, bazaar.app)
    broken = {**order.to_json(), "volume": "x"}
    status, body = world.ask("POST", "/apporders", body={"order": broken}, header=world.login(bazaar.app_owner))
    assert (status, body["ok"]) == (400, False)
    assert "volume" in body["error"]
    status, body = world.ask("POST", "/apporders", body={}, header=world.login(bazaar.app_owner))
    assert (status, body["error"]) == (400, "order is a required field")

    nowhere = deployed.app_order(bazaar.app_owner, Address("0x" + "12" * 20))
    assert world.refusal(nowhere, bazaar.app_owner) == "Resource not deployed"
    # A dataset is deployed, but not as an app.
    elsewhere = deployed.app_order(bazaar.data_owner, bazaar.dataset)
    assert world.refusal(elsewhere, bazaar.data_owner) == "Resource not deployed"
    text = f"only order signer {bazaar.app_owner.address} can publish an order"
    assert world.refusal(order, bazaar.worker) == text
    forged = sign_order(order, bazaar.worker, deployed.domain)
    assert world.refusal(forged, bazaar.app_owner) == "invalid sign"
    assert world.refusal(dataclasses.replace(order, sign=b""), bazaar.app_owner) == "invalid sign"
    assert world.refusal(dataclasses.replace(order, sign=b"\x01" * 10), bazaar.app_owner) == "invalid sign"
    assert world.publish(order, bazaar.app_owner)[0] == 200
    assert world.refusal(order, bazaar.app_owner) == "order already published"


def test_closed_orders_are_consumed(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    order = deployed.app_order(bazaar.app_owner, bazaar.app)
    deployed.close(order, bazaar.app_owner)
    assert world.refusal(order, bazaar.app_owner) == "order already consumed"


def test_presigned_orders_may_be_published(world: MarketWorld, deployed: DeployedChain) -> None:
    from cloister.protocol.orders import Operation

    bazaar = world.bazaar
    order = dataclasses.replace(deployed.app_order(bazaar.app_owner, bazaar.app), sign=b"")
    deployed.send(deployed.hub.manage_order(order, Operation.SIGN), bazaar.app_owner)
    assert world.publish(order, bazaar.app_owner)[0] == 200


def test_open_orders_are_limited_per_wallet_and_kind(deployed: DeployedChain, tmp_path: Path) -> None:
    with MarketWorld(deployed, tmp_path, label="limit", max_open_orders=2).serving() as world:
        bazaar = world.bazaar
        for _ in range(2):
            assert world.publish(deployed.app_order(bazaar.app_owner, bazaar.app), bazaar.app_owner)[0] == 200
        text = f"maximum of 2 published open apporder has been reached for wallet {bazaar.app_owner.address}"
        assert world.refusal(deployed.app_order(bazaar.app_owner, bazaar.app), bazaar.app_owner) == text
        assert (
            world.unpublish(OrderKind.APP, {"target": "unpublish_last", "app": bazaar.app}, bazaar.app_owner)[0] == 200
        )
        assert world.publish(deployed.app_order(bazaar.app_owner, bazaar.app), bazaar.app_owner)[0] == 200


def test_workerpool_owners_must_cover_their_stake(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    order = deployed.workerpool_order(bazaar.pool_owner, bazaar.pool, workerpoolprice=1000, volume=3)
    text = "workerpool owner's stake is too low to cover required workerpool lock"
    assert world.refusal(order, bazaar.pool_owner) == text
    deployed.stake(bazaar.pool_owner, 900)
    assert world.publish(order, bazaar.pool_owner)[0] == 200


def test_requests_need_stake_and_counterparts(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    prices = {"appmaxprice": 5, "datasetmaxprice": 7, "workerpoolmaxprice": 8, "volume": 2}
    request = deployed.request_order(bazaar.requester, bazaar.app, dataset=bazaar.dataset, **prices)
    text = "requester stake is too low to cover requestorder payment, minimum stake required is 40 nRLC"
    assert world.refusal(request, bazaar.requester) == text
    deployed.stake(bazaar.requester, 40)
    text = f"No tee enabled apporder published for app {bazaar.app}"
    assert world.refusal(request, bazaar.requester) == text
    plain = deployed.app_order(bazaar.app_owner, bazaar.app, tag=Tag.from_bits(0))
    assert world.publish(plain, bazaar.app_owner)[0] == 200
    assert world.refusal(request, bazaar.requester) == text
    dear = deployed.app_order(bazaar.app_owner, bazaar.app, appprice=6)
    assert world.publish(dear, bazaar.app_owner)[0] == 200
    text = f"appmaxprice for app {bazaar.app} is too low, actual best price is 6 nRLC"
    assert world.refusal(request, bazaar.requester) == text
    assert world.publish(deployed.app_order(bazaar.app_owner, bazaar.app), bazaar.app_owner)[0] == 200
    assert world.refusal(request, bazaar.requester) == f"No datasetorder published for dataset {bazaar.dataset}"
    dear_data = deployed.dataset_order(bazaar.data_owner, bazaar.dataset, datasetprice=9)
    assert world.publish(dear_data, bazaar.data_owner)[0] == 200
    text = f"datasetmaxprice for dataset {bazaar.dataset} is too low, actual best price is 9 nRLC"
    assert world.refusal(request, bazaar.requester) == text
    assert world.publish(deployed.dataset_order(bazaar.data_owner, bazaar.dataset), bazaar.data_owner)[0] == 200
    assert world.publish(request, bazaar.requester)[0] == 200


def test_unpublishing(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar, kind = world.bazaar, OrderKind.APP
    orders = [deployed.app_order(bazaar.app_owner, bazaar.app) for _ in range(4)]
    hashes = [order.hash(deployed.domain) for order in orders]
    for order in orders:
        assert world.publish(order, bazaar.app_owner)[0] == 200
        world.clock.now += 1
    status, body = world.unpublish(kind, {"orderHash": hashes[0]}, bazaar.worker)
    assert (status, body["error"]) == (403, f"only order signer {bazaar.app_owner.address} can unpublish an order")
    assert world.unpublish(kind, {"orderHash": hashes[0]}, bazaar.app_owner) == (
        200,
        {"ok": True, "unpublished": [hashes[0]]},
    )
    status, body = world.unpublish(kind, {"orderHash": hashes[0]}, bazaar.app_owner)
    assert (status, body["error"]) == (403, f"apporder with orderHash {hashes[0]} is not published")
    assert world.ask("GET", f"/apporders/{hashes[0]}")[0] == 404
    _, body = world.unpublish(kind, {"target": "unpublish_last", "app": bazaar.app}, bazaar.app_owner)
    assert body["unpublished"] == [hashes[3]]
    _, body = world.unpublish(kind, {"target": "unpublish_all", "app": bazaar.app}, bazaar.app_owner)
    assert body["unpublished"] == [hashes[2], hashes[1]]
    status, body = world.unpublish(kind, {"target": "unpublish_all", "app": bazaar.app}, bazaar.app_owner)
    text = f"no open apporder published by signer {bazaar.app_owner.address} for app {bazaar.app}"
    assert (status, body["error"]) == (403, text)
    assert world.publish(orders[0], bazaar.app_owner)[0] == 200


def test_requests_die_with_the_last_offer(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    offer = deployed.app_order(bazaar.app_owner, bazaar.app)
    request = deployed.request_order(bazaar.requester, bazaar.app)
    assert world.publish(offer, bazaar.app_owner)[0] == 200
    assert world.publish(request, bazaar.requester)[0] == 200
    world.unpublish(OrderKind.APP, {"orderHash": offer.hash(deployed.domain)}, bazaar.app_owner)
    assert world.record(request)["status"] == "dead"
    assert world.publish(offer, bazaar.app_owner)[0] == 200
    assert world.publish(request, bazaar.requester)[0] == 200


def test_oversized_numbers_and_unknown_chains(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    huge = deployed.app_order(bazaar.app_owner, bazaar.app, volume=2**53)
    assert world.publish(huge, bazaar.app_owner)[0] == 400
    status, body = world.ask("GET", "/apporders?app=any", chain=1)
    assert (status, body["error"]) == (400, "chainId 1 is not supported")


def test_client_publishes_finds_and_withdraws(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    orders = [deployed.dataset_order(bazaar.data_owner, bazaar.dataset, datasetprice=n) for n in (3, 1, 2)]
    hashes = [world.client.publish(order, bazaar.data_owner) for order in orders]
    assert hashes == [order.hash(deployed.domain) for order in orders]
    assert world.client.publish(orders[0], bazaar.data_owner) == hashes[0]
    found = list(world.client.orders(OrderKind.DATASET, dataset=bazaar.dataset, page_size=10))
    assert [record.order for record in found] == [orders[1], orders[2], orders[0]]
    assert world.client.order(OrderKind.DATASET, hashes[1]).order == orders[1]
    world.client.unpublish(OrderKind.DATASET, hashes[1], bazaar.data_owner)
    assert len(world.client.unpublish_all(OrderKind.DATASET, bazaar.dataset, bazaar.data_owner)) == 2
    assert list(world.client.orders(OrderKind.DATASET, dataset=bazaar.dataset)) == []
