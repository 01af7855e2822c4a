"""The market's description of itself is true: what it names is there, and answers have the form it says."""

from __future__ import annotations

import re
from typing import Any

import pytest
import urllib3
from pydantic import BaseModel, ValidationError
from tests.support.deployed import DeployedChain
from tests.support.market_world import MarketWorld

from cloister.protocol.orders import OrderKind
from cloister.services.market import schemas

KINDS = [kind.value + "s" for kind in OrderKind]
SAMPLES = {
    "^(any|0x[0-9a-fA-F]{40})$": "0x" + "5b" * 20,
    schemas.ADDRESS: "0x" + "5b" * 20,
    schemas.WORD: "0x" + "00" * 32,
}


@pytest.fixture
def paths(world: MarketWorld) -> dict[str, Any]:
    status, whole = world.ask("GET", "/openapi.json")
    assert status == 200
    assert whole["openapi"].startswith("3.")
    found: dict[str, Any] = whole["paths"]
    return found


def sample(schema: dict[str, Any], *, largest: bool) -> str:
    """A value that a parameter's schema allows."""
    if "enum" in schema:
        return str(schema["enum"][-1 if largest else 0])
    if schema["type"] == "integer":
        return str(schema["maximum" if largest else "minimum"])
    return SAMPLES[schema["pattern"]]


def test_every_operation_is_described(paths: dict[str, Any]) -> None:
    ours = {path: sorted(item) for path, item in paths.items() if not path.startswith("/-/")}
    single = ["get"]
    expected = {f"/{kind}": ["get", "post", "put"] for kind in KINDS} | {
        f"/{kind}/{{order_hash}}": single for kind in KINDS
    }
    for path in ("version", "docs", "openapi.json", "challenge", "metrics", "categories", "deals", "ohlc"):
        expected[f"/{path}"] = single
    expected |= {"/categories/{catid}": single, "/deals/{dealid}": single}
    assert ours == expected
    operations = [each for path in ours for each in paths[path].values()]
    names = [each["operationId"] for each in operations]
    assert len(set(names)) == len(names) == 26
    for each in operations:
        assert {"200", "429", "503", "default"} <= set(each["responses"])
        assert "422" not in each["responses"]
        assert each["description"]


@pytest.mark.parametrize("largest", [False, True])
def test_every_parameter_is_taken_over_its_whole_range(
    world: MarketWorld, paths: dict[str, Any], largest: bool
) -> None:
    asked = 0
    for path, item in paths.items():
        operation = item.get("get", {})
        for parameter in operation.get("parameters", []):
            if parameter["in"] != "query" or parameter["name"] == "chainId" or "{" in path:
                continue
            query = {
                each["name"]: sample(each["schema"], largest=False)
                for each in operation["parameters"]
                if each["required"] and each["name"] != "chainId"
            }
            if path in ("/apporders", "/datasetorders"):
                query |= {"app": "any", "dataset": "any"}
            query[parameter["name"]] = sample(parameter["schema"], largest=largest)
            target = path + "?" + "&".join(f"{name}={value}" for name, value in query.items())
            status, body = world.ask("GET", target)
            assert (status, body["ok"]) == (200, True), (target, body)
            asked += 1
    assert asked > 60


def test_answers_have_the_described_form(world: MarketWorld, deployed: DeployedChain) -> None:
    bazaar = world.bazaar
    orders = bazaar.orders(volume=2)
    keys = (bazaar.app_owner, bazaar.data_owner, bazaar.pool_owner, bazaar.requester)
    for order, key in zip(orders, keys, strict=True):
        assert order is not None
        status, body = world.publish(order, key)
        assert status == 200, body
        schemas.PUBLISHED[order.kind].model_validate(body)
        schemas.ONE_ORDER[order.kind].model_validate(world.record(order))
        _, body = world.ask("GET", f"/{order.kind}s?app=any&dataset=any&workerpool=any&requester=any&pageSize=10")
        assert body["orders"]
        schemas.MANY_ORDERS[order.kind].model_validate(body)
    deal_id, _ = bazaar.match(orders)
    checks: list[tuple[str, type[BaseModel]]] = [
        ("/version", schemas.VersionBody),
        (f"/challenge?address={bazaar.requester.address}", schemas.ChallengeBody),
        ("/metrics", schemas.MetricsBody),
        ("/deals?pageSize=10", schemas.DealsBody),
        (f"/deals/{deal_id}", schemas.DealBody),
        ("/categories", schemas.CategoriesBody),
        ("/categories/0", schemas.CategoryBody),
        ("/ohlc?category=0", schemas.OhlcBody),
    ]
    for target, model in checks:
        status, body = world.ask("GET", target)
        assert status == 200, body
        model.model_validate(body)
    assert orders[0] is not None
    _, body = world.unpublish(OrderKind.REQUEST, {"target": "unpublish_all"}, bazaar.worker)
    schemas.ErrorBody.model_validate(body)
    with pytest.raises(ValidationError):
        schemas.VersionBody.model_validate({"ok": True, "version": "1", "more": 1})


def test_the_page_needs_no_other_host(world: MarketWorld) -> None:
    answer = urllib3.request("GET", f"{world.url}/docs", retries=False)
    text = answer.data.decode()
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", text) == []
    assert re.findall(r"(?:src|href)\s*[=:]\s*\"([^\"]*)\"", text) == ["openapi.json"]
    assert "innerHTML" not in text
