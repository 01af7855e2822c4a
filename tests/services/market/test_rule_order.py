"""Each rule of publication speaks before all that follow it: the order breaks every later rule too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.deployed import DeployedChain
from tests.support.market_world import MarketWorld

from cloister.protocol.codec import Address
from cloister.protocol.orders import Order, OrderKind, sign_order
from cloister.protocol.signatures import PrivateKey

NOWHERE = Address("0x" + "12" * 20)
OFFERS = (OrderKind.APP, OrderKind.DATASET, OrderKind.WORKERPOOL)


@pytest.fixture
def strict(deployed: DeployedChain, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MarketWorld]:
    """A market where one open order is too many for a second."""
    with MarketWorld(deployed, tmp_path, label=request.node.name, max_open_orders=1).serving() as world:
        yield world


def make(world: MarketWorld, kind: OrderKind, **values: object) -> tuple[Order, PrivateKey]:
    """An order that needs stake where its kind knows stake, and its rightful signer."""
    chain, bazaar = world.chain, world.bazaar
    match kind:
        case OrderKind.APP:
            return chain.app_order(bazaar.app_owner, bazaar.app, **values), bazaar.app_owner
        case OrderKind.DATASET:
            return chain.dataset_order(bazaar.data_owner, bazaar.dataset, **values), bazaar.data_owner
        case OrderKind.WORKERPOOL:
            given = {"workerpoolprice": 1000, **values}
            return chain.workerpool_order(bazaar.pool_owner, bazaar.pool, **given), bazaar.pool_owner
        case OrderKind.REQUEST:
            given = {"workerpoolmaxprice": 1000, "dataset": bazaar.dataset, **values}
            return chain.request_order(bazaar.requester, bazaar.app, **given), bazaar.requester


def forge(world: MarketWorld, order: Order) -> Order:
    return sign_order(order, world.bazaar.worker, world.chain.domain)  # type: ignore[type-var]


def ask(world: MarketWorld, order: Order, header: str, **changes: object) -> tuple[int, str]:
    body = {"order": {**order.to_json(), **changes}}
    status, answer = world.ask("POST", f"/{order.kind}s", body=body, header=header)
    return status, answer["error"]


@pytest.mark.parametrize("kind", list(OrderKind))
def test_login_then_schema_then_deployment_then_signer(strict: MarketWorld, kind: OrderKind) -> None:
    order, owner = make(strict, kind)
    stranger = strict.bazaar.worker
    strict.chain.close(order, owner)
    where = {"app": "app", "dataset": "dataset", "workerpool": "workerpool"}.get(
        kind.removesuffix("order"), "requester"
    )
    # Wrong in everything: no login, no number, nobody's resource, a stranger's signature, revoked, no stake.
    broken = {"volume": "many", where: NOWHERE, "sign": forge(strict, order).sign.hex()}
    assert ask(strict, order, "0x00_0x00_0x00", **broken) == (403, "invalid authorization")
    status, text = ask(strict, order, strict.login(stranger), **broken)
    assert status == 400
    assert text.startswith("volume")
    if kind in OFFERS:
        lost = dataclasses.replace(forge(strict, order), **{where: NOWHERE})
        assert strict.refusal(lost, stranger) == "Resource not deployed"
    text = f"only order signer {owner.address} can publish an order"
    assert strict.refusal(forge(strict, order), stranger) == text
    assert strict.refusal(forge(strict, order), owner) == "invalid sign"
    assert strict.refusal(order, owner) == "order already consumed"


@pytest.mark.parametrize("kind", OFFERS)
def test_already_published_comes_before_what_the_chain_says(strict: MarketWorld, kind: OrderKind) -> None:
    order, owner = make(strict, kind, **({"workerpoolprice": 0} if kind is OrderKind.WORKERPOOL else {}))
    assert strict.publish(order, owner)[0] == 200
    strict.chain.close(order, owner)
    strict.synced()
    assert strict.record(order)["status"] == "canceled"
    # By a stranger, with a forged signature, revoked: still it is there already.
    assert strict.refusal(forge(strict, order), strict.bazaar.worker) == "order already published"


@pytest.mark.parametrize("kind", OFFERS)
def test_the_limit_comes_after_the_signature_and_before_consumption(strict: MarketWorld, kind: OrderKind) -> None:
    free = {"workerpoolprice": 0} if kind is OrderKind.WORKERPOOL else {}
    first, owner = make(strict, kind, **free)
    assert strict.publish(first, owner)[0] == 200
    second, _ = make(strict, kind)
    strict.chain.close(second, owner)
    assert strict.refusal(forge(strict, second), owner) == "invalid sign"
    text = f"maximum of 1 published open {kind} has been reached for wallet {owner.address}"
    assert strict.refusal(second, owner) == text
    strict.unpublish(kind, {"orderHash": first.hash(strict.chain.domain)}, owner)
    assert strict.refusal(second, owner) == "order already consumed"
    if kind is OrderKind.WORKERPOOL:
        third, _ = make(strict, kind)
        text = "workerpool owner's stake is too low to cover required workerpool lock"
        assert strict.refusal(third, owner) == text


def test_a_request_is_judged_by_stake_then_app_then_dataset(strict: MarketWorld) -> None:
    bazaar, chain = strict.bazaar, strict.chain
    order, requester = make(strict, OrderKind.REQUEST, volume=2)
    consumed, _ = make(strict, OrderKind.REQUEST)
    chain.close(consumed, requester)
    assert strict.refusal(consumed, requester) == "order already consumed"
    text = "requester stake is too low to cover requestorder payment, minimum stake required is 2000 nRLC"
    assert strict.refusal(order, requester) == text
    chain.stake(requester, 2000)
    assert strict.refusal(order, requester) == f"No tee enabled apporder published for app {bazaar.app}"
    dear, _ = make(strict, OrderKind.APP, appprice=1)
    assert strict.publish(dear, bazaar.app_owner)[0] == 200
    text = f"appmaxprice for app {bazaar.app} is too low, actual best price is 1 nRLC"
    assert strict.refusal(order, requester) == text
    strict.unpublish(OrderKind.APP, {"target": "unpublish_all", "app": bazaar.app}, bazaar.app_owner)
    assert strict.publish(make(strict, OrderKind.APP)[0], bazaar.app_owner)[0] == 200
    assert strict.refusal(order, requester) == f"No datasetorder published for dataset {bazaar.dataset}"
    assert strict.publish(make(strict, OrderKind.DATASET, datasetprice=1)[0], bazaar.data_owner)[0] == 200
    text = f"datasetmaxprice for dataset {bazaar.dataset} is too low, actual best price is 1 nRLC"
    assert strict.refusal(order, requester) == text
    strict.unpublish(OrderKind.DATASET, {"target": "unpublish_all", "dataset": bazaar.dataset}, bazaar.data_owner)
    assert strict.publish(make(strict, OrderKind.DATASET)[0], bazaar.data_owner)[0] == 200
    assert strict.publish(order, requester)[0] == 200
    other, _ = make(strict, OrderKind.REQUEST)
    text = f"maximum of 1 published open requestorder has been reached for wallet {requester.address}"
    assert strict.refusal(other, requester) == text


def test_unpublishing_names_what_is_wrong(strict: MarketWorld) -> None:
    order, owner = make(strict, OrderKind.DATASET)
    order_hash = order.hash(strict.chain.domain)
    kind, stranger, bazaar = OrderKind.DATASET, strict.bazaar.worker, strict.bazaar
    assert strict.publish(order, owner)[0] == 200

    def refusal(body: dict[str, object], key: PrivateKey) -> tuple[int, str]:
        status, answer = strict.unpublish(kind, body, key)
        return status, answer["error"]

    targets = "unpublish_orderHash, unpublish_last, unpublish_all"
    assert refusal({"target": "unpublish_some"}, owner) == (400, f"target must be one of {targets}, got unpublish_some")
    assert refusal({}, owner) == (400, "orderHash is a required field")
    assert refusal({"target": "unpublish_last"}, owner) == (400, "dataset is a required field")
    assert refusal({"target": "unpublish_all", "app": bazaar.app}, owner) == (400, "dataset is a required field")
    assert refusal({"orderHash": "0x12"}, owner)[0] == 400
    absent = "0x" + "00" * 32
    assert refusal({"orderHash": absent}, owner) == (403, f"datasetorder with orderHash {absent} is not published")
    text = f"only order signer {owner.address} can unpublish an order"
    assert refusal({"target": "unpublish_orderHash", "orderHash": order_hash}, stranger) == (403, text)
    for target in ("unpublish_last", "unpublish_all"):
        text = f"no open datasetorder published by signer {stranger.address} for dataset {bazaar.dataset}"
        assert refusal({"target": target, "dataset": bazaar.dataset.lower()}, stranger) == (403, text)
    status, answer = strict.ask("PUT", "/datasetorders", body=[], header=strict.login(owner))
    assert (status, answer["error"]) == (400, "the body must be an object")
    assert strict.record(order)["status"] == "open"
    strict.chain.close(order, owner)
    strict.synced()
    text = f"datasetorder with orderHash {order_hash} is not published"
    assert refusal({"orderHash": order_hash}, owner) == (403, text)
