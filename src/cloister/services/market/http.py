"""The market over HTTP, as iExec's clients speak it: every answer has ``ok``, every call but ``/version`` names its
chain.
"""

# Annotations are evaluated here, not kept as text: FastAPI reads them inside functions.
import json
import logging
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from cloister.errors import CloisterError, InputError, NotFound, quoted
from cloister.protocol.codec import Address, Bytes32, parse_json, parse_uint
from cloister.protocol.orders import OrderKind
from cloister.services.database import Database
from cloister.services.following import Follower
from cloister.services.market.challenges import Challenges
from cloister.services.market.filters import (
    Page,
    Query,
    category_conditions,
    deal_conditions,
    order_conditions,
    parse_page,
)
from cloister.services.market.ledger import MarketLedger
from cloister.services.market.rates import RateLimiter
from cloister.services.market.records import render_order
from cloister.services.market.service import PublishingService
from cloister.services.market.store import MarketStore
from cloister.services.part import Failure, body_cap
from cloister.version import __version__

BODY_CAP = 64 * 1024
"""An order with the longest params that the hub takes, and its signature."""
FRESH_SECONDS = 2.0
"""How long a list of deals waits for the watcher to reach the chain's newest block."""

log = logging.getLogger("cloister.market")


class MarketPart:
    """The market as a part of an application."""

    name = "market"

    def __init__(
        self,
        *,
        chain_id: int,
        database: Database,
        store: MarketStore,
        challenges: Challenges,
        ledger: MarketLedger,
        publishing: PublishingService,
        follower: Follower,
        rates: RateLimiter,
    ) -> None:
        self._chain_id = chain_id
        self._database = database
        self._store = store
        self._challenges = challenges
        self._ledger = ledger
        self._publishing = publishing
        self._follower = follower
        self._rates = rates

    def start(self) -> None:
        self._database.upgrade("market")
        self._challenges.start()
        self._store.writer.start()
        self._follower.start()

    def stop(self) -> None:
        self._follower.stop()
        self._store.writer.stop()

    def check_ready(self) -> None:
        self._database.check_ready()
        self._follower.check_ready()

    def render_failure(self, failure: Failure) -> Response:
        """iExec's error body, with our code and hint beside it."""
        text = "Internal error" if failure.status == 500 else failure.message
        body = {"ok": False, "error": text, "code": failure.code, "hint": failure.hint}
        return JSONResponse(body, status_code=failure.status)

    def router(self) -> APIRouter:
        router = APIRouter(tags=["market"], dependencies=[Depends(self._check_rate)])
        self._add_service(router)
        self._add_chain_records(router)
        for kind in OrderKind:
            self._add_orders(router, kind)
        return router

    def _add_service(self, router: APIRouter) -> None:
        @router.get("/version")
        def version() -> JSONResponse:
            return _ok(version=__version__)

        @router.get("/docs")
        def docs() -> HTMLResponse:
            return HTMLResponse(_DOCS)

        @router.get("/challenge")
        async def challenge(request: Request) -> JSONResponse:
            query = self._query(request)
            if "address" not in query:
                raise InputError("address is a required field")
            address = Address(query["address"])
            # Usually known without a look at the database, and then a thread would cost more than the answer.
            if self._store.knows_generation(address):
                return _ok(data=self._challenges.issue(address))
            return _ok(data=await run_sync(self._challenges.issue, address))

        @router.get("/metrics")
        def metrics(request: Request) -> JSONResponse:
            self._query(request)
            counts = self._store.counts()
            taken = max(0, self._follower.block)
            last = max(taken, self._ledger.head_number())
            lists = {f"{kind.value}s": counts.get(kind.value, 0) for kind in OrderKind}
            return _ok(lastBlock=last, checkpointBlock=taken, **lists)

    def _add_chain_records(self, router: APIRouter) -> None:
        @router.get("/categories")
        def categories(request: Request) -> JSONResponse:
            query = self._query(request)
            page = parse_page(query)
            bodies, count = self._store.categories(category_conditions(query), page)
            return _listed("categories", [json.loads(body) for body in bodies], count, page)

        @router.get("/categories/{catid}")
        def category(request: Request, catid: str) -> JSONResponse:
            self._query(request)
            body = self._store.category(parse_uint("catid", catid, maximum=2**63 - 1))
            if body is None:
                raise NotFound("category not found")
            return _ok(**json.loads(body))

        @router.get("/deals")
        def deals(request: Request) -> JSONResponse:
            query = self._query(request)
            conditions, page = deal_conditions(query), parse_page(query)
            self._catch_up()
            bodies, count = self._store.deals(conditions, page)
            return _listed("deals", [json.loads(body) for body in bodies], count, page)

        @router.get("/deals/{dealid}")
        def deal(request: Request, dealid: str) -> JSONResponse:
            self._query(request)
            deal_id = Bytes32(dealid)
            body = self._store.deal(deal_id)
            if body is None:
                self._catch_up()
                body = self._store.deal(deal_id)
            if body is None:
                raise NotFound("deal not found")
            return _ok(**json.loads(body))

        @router.get("/ohlc")
        def ohlc(request: Request) -> JSONResponse:
            query = self._query(request)
            if "category" not in query:
                raise InputError("category is a required field")
            category = parse_uint("category", query["category"], maximum=2**63 - 1)
            return _ok(ohlc=[[time, price, volume] for time, price, volume in self._store.prices(category, 100)])

    def _add_orders(self, router: APIRouter, kind: OrderKind) -> None:
        path = f"/{kind.value}s"

        @router.get(path)
        def orders(request: Request) -> JSONResponse:
            query = self._query(request)
            page = parse_page(query)
            rows, count = self._store.orders(order_conditions(kind, query), kind, page)
            return _listed("orders", [render_order(row, self._chain_id) for row in rows], count, page)

        @router.get(path + "/{order_hash}")
        def order(request: Request, order_hash: str) -> JSONResponse:
            self._query(request)
            row = self._store.order(kind, Bytes32(order_hash))
            if row is None:
                raise NotFound(f"{kind.value} not found")
            # iExec's clients read a count beside the one record.
            return _ok(**render_order(row, self._chain_id), count=1)

        @router.post(path)
        @body_cap(BODY_CAP)
        def publish(request: Request, payload: object = Depends(_json_body)) -> JSONResponse:
            self._query(request)
            header = request.headers.get("authorization")
            return _ok(published=self._publishing.publish(kind, payload, header))

        @router.put(path)
        @body_cap(BODY_CAP)
        def unpublish(request: Request, payload: object = Depends(_json_body)) -> JSONResponse:
            self._query(request)
            header = request.headers.get("authorization")
            return _ok(unpublished=self._publishing.unpublish(kind, payload, header))

    def _query(self, request: Request) -> Query:
        """Return the query once it names this market's chain."""
        query = dict(request.query_params)
        if "chainId" not in query:
            raise InputError("chainId is a required field")
        if query["chainId"] != str(self._chain_id):
            raise InputError(f"chainId {quoted(query['chainId'])} is not supported")
        return query

    async def _check_rate(self, request: Request) -> None:
        if not self._rates.allows(request.client.host if request.client else None):
            raise RateExceededError("Rate limit exceeded")

    def _catch_up(self) -> None:
        """Wait until what was just mined is here; a list that is a little old is better than none."""
        try:
            self._follower.catch_up(FRESH_SECONDS)
        except CloisterError as error:
            log.warning("deals are listed without a fresh block: %s", error.code)


class RateExceededError(CloisterError):
    """Too many requests from one address."""

    code = "rate-limited"
    http_status = 429
    exit_code = 75


async def _json_body(request: Request) -> object:
    return parse_json(await request.body(), cap=BODY_CAP)


def _ok(**members: Any) -> JSONResponse:
    return JSONResponse({"ok": True, **members})


def _listed(name: str, records: list[Any], count: int, page: Page) -> JSONResponse:
    body = {name: records, "count": count}
    if len(records) == page.size:
        body["nextPage"] = page.next_index
    return _ok(**body)


_DOCS = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Cloister market</title>
<h1>Cloister market</h1>
<p>Every call takes <code>?chainId=</code>. Publishing needs the <code>authorization</code> header that answers
<code>GET /challenge</code>.</p>
<ul>
<li>GET /version, /challenge, /metrics, /ohlc
<li>GET /categories, /categories/{catid}, /deals, /deals/{dealid}
<li>GET, POST, PUT /apporders, /datasetorders, /workerpoolorders, /requestorders
<li>GET /apporders/{orderHash} and the same for the other three
</ul>
<p>The machine-readable description is at <a href="/-/openapi.json">/-/openapi.json</a>.</p></html>
"""
