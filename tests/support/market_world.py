"""A market in a process of the test's own: real HTTP, real database, real chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from tests.support.anvil import CHAIN_ID
from tests.support.deployed import Bazaar, DeployedChain
from tests.support.sms_world import Clock

from cloister.chain.events import EventReader
from cloister.clients.market import MarketClient
from cloister.protocol import authorization
from cloister.protocol.codec import Address
from cloister.protocol.orders import Order, OrderKind
from cloister.protocol.signatures import PrivateKey
from cloister.services.application import BackgroundServer, build_application
from cloister.services.database import Database, open_database
from cloister.services.market.chain_ledger import ChainMarketLedger
from cloister.services.market.ledger import MarketLedger
from cloister.services.market.part import MarketSettings, build_market_part
from cloister.services.market.rates import LIMIT
from cloister.services.market.watcher import WATCHED


class MarketWorld:
    """A market and a bazaar of actors."""

    def __init__(
        self,
        chain: DeployedChain,
        folder: Path,
        *,
        label: str,
        max_open_orders: int = 50,
        rate_limit: int = LIMIT,
        stand_ins: Mapping[Address, Address] | None = None,
        database_url: str | None = None,
        wrap: Callable[[MarketLedger], MarketLedger] = lambda ledger: ledger,
    ) -> None:
        self.chain = chain
        self.bazaar = Bazaar(chain, label)
        self.clock = Clock(1_790_000_000.25)
        self.database: Database = open_database(database_url or folder / "market.db")
        deployment = chain.deployment
        self.settings = MarketSettings(
            chain_id=CHAIN_ID,
            hub=deployment.hub,
            app_registry=deployment.app_registry,
            dataset_registry=deployment.dataset_registry,
            workerpool_registry=deployment.workerpool_registry,
            max_open_orders=max_open_orders,
            rate_limit=rate_limit,
            stand_ins=stand_ins or {},
        )
        self.wrap = wrap
        self.url = ""
        self._http = urllib3.PoolManager(retries=False)

    @contextmanager
    def serving(self) -> Iterator[MarketWorld]:
        """Run the market; may be entered again after it ended, on the same database."""
        settings, chain = self.settings, self.chain
        addresses = (settings.hub, settings.app_registry, settings.dataset_registry, settings.workerpool_registry)
        self.part = part = build_market_part(
            settings,
            database=self.database,
            ledger=self.wrap(ChainMarketLedger(chain.node.rpc, settings.hub)),
            source=lambda cursor: EventReader(
                chain.node.rpc, addresses, WATCHED, chain.deployment.block, cursor=cursor
            ),
            clock=self.clock,
        )
        self.app = build_application([part])
        with BackgroundServer(self.app) as server:
            self.url = server.url
            self.client = MarketClient(server.url, CHAIN_ID)
            yield self

    def ask(
        self, method: str, target: str, *, body: object = None, header: str | None = None, chain: int = CHAIN_ID
    ) -> tuple[int, dict[str, Any]]:
        """One call; ``chainId`` is added."""
        mark = "&" if "?" in target else "?"
        headers = {} if header is None else {"authorization": header}
        raw = None if body is None else json.dumps(body).encode()
        url = f"{self.url}{target}{mark}chainId={chain}"
        answer = self._http.request(method, url, body=raw, headers=headers)
        return answer.status, json.loads(answer.data)

    def bare(self, method: str, target: str) -> tuple[int, dict[str, Any]]:
        """One call as it is, without ``chainId``."""
        body = b"{}" if method in ("POST", "PUT") else None
        answer = self._http.request(method, self.url + target, body=body)
        return answer.status, json.loads(answer.data)

    def login(self, key: PrivateKey) -> str:
        """Answer the live challenge of an account."""
        _, body = self.ask("GET", f"/challenge?address={key.address}")
        text = body["data"]["message"]["challenge"]
        digest = authorization.challenge_digest("iExec Gateway", CHAIN_ID, text)
        return authorization.build_challenge_header(digest, key.sign_digest(digest), key.address)

    def publish(self, order: Order, key: PrivateKey) -> tuple[int, dict[str, Any]]:
        """Publish an order as iExec's client does."""
        return self.ask("POST", f"/{order.kind}s", body={"order": order.to_json()}, header=self.login(key))

    def refusal(self, order: Order, key: PrivateKey) -> str:
        """Publish an order that must be refused; returns the text."""
        status, body = self.publish(order, key)
        assert (status, body["ok"]) == (403, False), body
        return str(body["error"])

    def unpublish(self, kind: OrderKind, body: dict[str, Any], key: PrivateKey) -> tuple[int, dict[str, Any]]:
        """Unpublish as iExec's client does."""
        return self.ask("PUT", f"/{kind}s", body=body, header=self.login(key))

    def record(self, order: Order) -> dict[str, Any]:
        """The record of an order in any status."""
        status, body = self.ask("GET", f"/{order.kind}s/{order.hash(self.chain.domain)}")
        assert status == 200, body
        return body

    def synced(self) -> None:
        """Wait until the market has taken in every mined block."""
        assert self.ask("GET", "/deals")[0] == 200

    def listed(self, target: str) -> list[str]:
        """The hashes of an orderbook."""
        status, body = self.ask("GET", target)
        assert status == 200, body
        return [record["orderHash"] for record in body["orders"]]
