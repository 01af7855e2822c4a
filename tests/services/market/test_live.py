"""Live events: both transports with socket.io's own client, and clients that misbehave."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from tests.support.deployed import DeployedChain
from tests.support.live import PollingClient, RawWebSocket
from tests.support.market_world import MarketWorld

from cloister.protocol.orders import OrderKind
from cloister.services.market import live

HERE = Path(__file__).parent
MODULES = HERE.parents[1] / "interop" / "node_modules"


@pytest.fixture
def market(deployed: DeployedChain, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MarketWorld]:
    with MarketWorld(deployed, tmp_path, label=request.node.name).serving() as world:
        world.synced()  # deals of other tests on this chain are news to a new market, and would be told
        yield world


def life_of_orders(world: MarketWorld) -> list[tuple[str, Any]]:
    """Publish four orders and one more that is taken back, match the four; returns the events that tell it."""
    bazaar, chain = world.bazaar, world.chain
    orders = bazaar.orders(volume=2)
    keys = (bazaar.app_owner, bazaar.data_owner, bazaar.pool_owner, bazaar.requester)
    events: list[tuple[str, Any]] = []
    for order, key in zip(orders, keys, strict=True):
        assert order is not None
        status, body = world.publish(order, key)
        assert status == 200, body
        events.append((f"{order.kind}_published", body["published"]))
    extra = chain.dataset_order(bazaar.data_owner, bazaar.dataset)
    _, body = world.publish(extra, bazaar.data_owner)
    events.append(("datasetorder_published", body["published"]))
    order_hash = str(extra.hash(chain.domain))
    assert world.unpublish(OrderKind.DATASET, {"orderHash": order_hash}, bazaar.data_owner)[0] == 200
    events.append(("datasetorder_unpublished", order_hash))
    deal_id, _ = bazaar.match(orders)
    _, deal = world.ask("GET", f"/deals/{deal_id}")
    del deal["ok"]
    for order in orders:
        assert order is not None
        record = world.record(order)
        del record["ok"], record["count"]
        assert record["status"] == "filled"
        events.append((f"{order.kind}_updated", record))
    return [*events, ("deal_created", deal)]


def in_order(events: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Events with those of one match sorted, whose order means nothing."""
    return events[:6] + sorted(events[6:10], key=lambda event: event[0]) + events[10:]


def test_a_polling_client_hears_everything_in_order(market: MarketWorld) -> None:
    client, indifferent = PollingClient(market.url), PollingClient(market.url)
    assert client.join("orders") == {"ok": True}
    assert client.join("deals", "421614") == {"ok": True}
    assert client.join("orders") == {"ok": True}  # again is no second copy
    assert indifferent.join("deals") == {"ok": True}
    events = life_of_orders(market)
    assert in_order(client.events(11)) == in_order(events)
    assert indifferent.events(1) == events[-1:]


@pytest.mark.parametrize("transports", ["polling", "websocket", "polling,websocket"])
def test_socket_io_s_own_client(market: MarketWorld, transports: str) -> None:
    node = shutil.which("node")
    if node is None or not (MODULES / "socket.io-client").is_dir():
        pytest.skip("no node, or socket.io-client is not installed under tests/interop")
    command = [node, str(HERE / "live_client.mjs"), str(MODULES), market.url, transports, "11"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        try:
            lines = (json.loads(line) for line in client.stdout)
            assert [next(lines) for _ in range(3)] == [
                {"joined": {"ok": True}},
                {"joined": {"ok": True}},
                {"ready": True},
            ]
            events = life_of_orders(market)
            heard = [next(lines) for _ in range(11)]
            assert in_order([(each["name"], each["payload"]) for each in heard]) == in_order(events)
            assert next(lines) == {"transport": transports.split(",")[-1]}
            assert client.wait(10) == 0
        finally:
            client.kill()


def test_a_join_says_what_is_wrong(market: MarketWorld) -> None:
    client = PollingClient(market.url)
    assert client.join("orders", 1) == {"ok": False, "error": "chainId 1 is not supported"}
    text = "topic must be one of orders, deals, got prices"
    assert client.join("prices") == {"ok": False, "error": text}
    assert client.join(["orders"])["ok"] is False
    client.post('420["join"]')
    assert client.get() == ['430[{"ok":false,"error":"join needs {chainId, topic}"}]']


def test_handshakes_that_are_none_are_refused(market: MarketWorld) -> None:
    queries = ("EIO=3&transport=polling", "EIO=4&transport=pigeon", "EIO=4&transport=polling&sid=nobody")
    for query in (*queries, "EIO=4&transport=polling&j=0", ""):
        for path in ("/ws", "/ws/"):
            url, headers = f"{market.url}{path}?{query}", {"origin": "https://a.example"}
            answer = urllib3.request("GET", url, retries=False, headers=headers)
            assert answer.status == 400
            assert answer.headers.getlist("access-control-allow-origin") == ["*"]
            assert b"Traceback" not in answer.data


def test_browsers_of_any_origin_may_poll(market: MarketWorld) -> None:
    headers = {"origin": "https://a.example"}
    answer = urllib3.request("GET", f"{market.url}/ws/?EIO=4&transport=polling", headers=headers, retries=False)
    assert answer.status == 200
    assert answer.headers.getlist("access-control-allow-origin") == ["*"]
    assert "set-cookie" not in answer.headers


def test_messages_that_are_none_hurt_nobody_else(market: MarketWorld) -> None:
    listener = PollingClient(market.url)
    assert listener.join("orders") == {"ok": True}
    bazaar = market.bazaar
    for garbage in ("", "9", "0", "6", "4", "4x", "42[", '42["join",', "451-[1]", "4" * 30, "\x1e" * 40, "é" * 50):
        assert PollingClient(market.url).post(garbage).status in (200, 400)
        web = RawWebSocket(market.url)
        web.open("orders")
        web.send(garbage)
        web.send(b"\x00\xff", opcode=2)
        assert market.publish(market.chain.app_order(bazaar.app_owner, bazaar.app), bazaar.app_owner)[0] == 200
        assert [name for name, _ in listener.events(1)] == ["apporder_published"]
        web.close()


def test_a_message_over_the_cap_ends_its_sender(market: MarketWorld) -> None:
    client = PollingClient(market.url)
    assert client.session["maxPayload"] == live.MAX_MESSAGE
    assert client.post("4" + "2" * live.MAX_MESSAGE).status == 413
    for size in (live.MAX_MESSAGE + 1, 200_000):
        web = RawWebSocket(market.url)
        web.open("orders")
        web.send("4" + "2" * size)
        assert web.ends()
        web.close()


def test_a_client_that_talks_without_end_is_cut_off(market: MarketWorld) -> None:
    web = RawWebSocket(market.url)
    web.open("orders")
    for _ in range(live.MAX_MESSAGES):
        web.send('42["hello",1]')
    assert web.ends()
    web.close()


def test_a_client_that_does_not_read_is_dropped_and_holds_nobody_up(
    market: MarketWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MAX_BACKLOG", 60)
    slow, quick = RawWebSocket(market.url), PollingClient(market.url)
    slow.open("orders")
    assert quick.join("orders") == {"ok": True}
    feed = market.part._feed
    bazaar, payload = market.bazaar, "x" * 64_000
    for number in range(6):
        # 3 MB at a time, more than all buffers between the two ends hold.
        feed.tell([("orders", "apporder_updated", [50 * number + each, payload]) for each in range(50)])
        assert [data[0] for _, data in quick.events(50)] == list(range(50 * number, 50 * number + 50))
        order = market.chain.app_order(bazaar.app_owner, bazaar.app)
        assert market.publish(order, bazaar.app_owner)[0] == 200
        assert quick.events(1)[0][0] == "apporder_published"
    assert feed._listeners["orders"] == 1
    slow.close()


def test_events_that_come_too_fast_end_their_listeners(market: MarketWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_PENDING", 100)
    web = RawWebSocket(market.url)
    web.open("orders")
    feed = market.part._feed
    feed.tell([("orders", "apporder_updated", number) for number in range(101)])
    assert web.ends()
    # Whoever comes afterwards hears what comes afterwards.
    client = PollingClient(market.url)
    assert client.join("orders") == {"ok": True}
    feed.tell([("orders", "apporder_updated", "news")])
    assert client.events(1) == [("apporder_updated", "news")]
    web.close()


def test_clients_are_counted(market: MarketWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_CLIENTS", 2)
    first = RawWebSocket(market.url)
    first.open("orders")
    PollingClient(market.url)
    for trick in ("", "&sid=", "&xsid=1", "&SID=1", "&sid"):
        answer = urllib3.request("GET", f"{market.url}/ws/?EIO=4&transport=polling{trick}", retries=False)
        assert (answer.status, answer.json()) == (503, {"ok": False, "error": "too many clients are connected"})
    assert RawWebSocket(market.url).status == 403
    first.close()


def test_only_the_mount_speaks_websocket(market: MarketWorld) -> None:
    for path in ("/version", "/deals", "/wsx", "/"):
        refused = RawWebSocket(market.url, path)
        assert refused.status == 403
        refused.close()
    assert market.ask("GET", "/version")[0] == 200


def test_a_poll_that_waits_is_ended_when_the_market_stops(deployed: DeployedChain, tmp_path: Path) -> None:
    world = MarketWorld(deployed, tmp_path, label="stopping")
    answers: list[list[str]] = []
    with world.serving():
        client = PollingClient(world.url)
        assert client.join("orders") == {"ok": True}
        waiting = threading.Thread(target=lambda: answers.append(client.get()))
        waiting.start()
        web = RawWebSocket(world.url)
        web.open("deals")
    waiting.join(10)
    assert answers == [["41", "1"]] or answers == [["1"]]
    assert web.ends()
