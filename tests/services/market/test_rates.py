"""How often one address may ask: iExec's limit, loopback exempt, no header believed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from starlette.types import Message
from tests.support.deployed import DeployedChain
from tests.support.market_world import MarketWorld

from cloister.services.market.rates import LIMIT, WINDOW, RateLimiter

STRANGER, OTHER = "203.0.113.7", "203.0.113.8"


async def ask(app: Any, target: str, peer: str, **headers: str) -> tuple[int, Any]:
    """One request as the server hands it over when ``peer`` connects."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        "client": (peer, 40000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(each.get("body", b"") for each in sent)
    return sent[0]["status"], json.loads(body)


def test_an_address_may_ask_a_hundred_times_a_minute(deployed: DeployedChain, tmp_path: Path) -> None:
    with MarketWorld(deployed, tmp_path, label="rates").serving() as world:

        async def story() -> None:
            pretended = {"x_forwarded_for": "127.0.0.1", "forwarded": "for=127.0.0.1", "x_real_ip": "127.0.0.1"}
            for _ in range(LIMIT):
                assert (await ask(world.app, "/version", STRANGER, **pretended))[0] == 200
            for target in ("/version", "/deals?chainId=421614", "/challenge", "/ws/?EIO=4&transport=polling"):
                status, body = await ask(world.app, target, STRANGER, **pretended)
                assert status == 429, target
                assert (body["ok"], body["error"]) == (False, "Rate limit exceeded")
            assert (await ask(world.app, "/version", OTHER, x_forwarded_for=STRANGER))[0] == 200
            for peer in ("127.0.0.1", "::ffff:127.0.0.1", "::1", "127.8.9.1"):
                for _ in range(LIMIT // 2 + 1):
                    assert (await ask(world.app, "/version", peer))[0] == 200

        asyncio.run(story())


def test_the_window_slides() -> None:
    now = [1000.0]
    limiter = RateLimiter(lambda: now[0], limit=3)
    assert [limiter.allows(STRANGER) for _ in range(4)] == [True, True, True, False]
    now[0] += WINDOW - 1
    assert not limiter.allows(STRANGER)
    assert limiter.allows(OTHER)
    now[0] += 1
    assert [limiter.allows(STRANGER) for _ in range(4)] == [True, True, True, False]
    assert [limiter.allows("not an address") for _ in range(4)] == [True, True, True, False]
