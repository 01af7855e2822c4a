"""The market over HTTP, as iExec's clients speak it: every answer has ``ok``, every call but ``/version`` names its
chain.
"""

# Annotations are evaluated here, not kept as text: FastAPI reads them inside functions.
import importlib.resources
import json
import logging
from collections.abc import Mapping
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Request, Security
from fastapi.security import APIKeyHeader
from pydantic import BaseModel
from starlette.responses import HTMLResponse, JSONResponse, Response

from cloister.errors import CloisterError, InputError, NotFound, quoted
from cloister.protocol.codec import Address, Bytes32, parse_json, parse_uint
from cloister.protocol.orders import OrderKind
from cloister.services.database import Database
from cloister.services.following import Follower
from cloister.services.market import description, schemas
from cloister.services.market.challenges import Challenges
from cloister.services.market.filters import (
    ANY,
    Page,
    Query,
    category_conditions,
    deal_conditions,
    order_conditions,
    parse_address,
    parse_page,
)
from cloister.services.market.ledger import MarketLedger
from cloister.services.market.live import LiveFeed
from cloister.services.market.rates import RateLimiter
from cloister.services.market.records import render_order
from cloister.services.market.service import PublishingService
from cloister.services.market.store import MarketStore
from cloister.services.part import Failure, Mount, body_cap
from cloister.version import __version__

BODY_CAP = 64 * 1024
"""An order with the longest params that the hub takes, and its signature."""
FRESH_SECONDS = 2.0
"""How long a list of deals waits for the watcher to reach the chain's newest block."""

LOGIN = APIKeyHeader(
    name="authorization",
    scheme_name="login",
    description="``<hash>_<signature>_<address>``: the EIP-712 hash of the challenge, its signature, who signed",
    auto_error=False,
)

Header = Annotated[str | None, Security(LOGIN)]

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
        feed: LiveFeed,
        stand_ins: Mapping[Address, Address],
    ) -> None:
        self._chain_id = chain_id
        self._database = database
        self._store = store
        self._challenges = challenges
        self._ledger = ledger
        self._publishing = publishing
        self._follower = follower
        self._rates = rates
        self._feed = feed
        self._stand_ins = stand_ins

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

    def mount(self) -> Mount:
        """Live events under ``/ws``."""
        return self._feed.mount()

    def router(self) -> APIRouter:
        router = APIRouter(tags=["market"], dependencies=[Depends(self._check_rate)])
        self._add_service(router)
        self._add_chain_records(router)
        for kind in OrderKind:
            self._add_orders(router, kind)
        return router

    def _add_service(self, router: APIRouter) -> None:
        chain = self._chain_id

        @router.get("/version", **_operation("version", schemas.VersionBody))
        def version() -> JSONResponse:
            """The release that answers."""
            return _ok(version=__version__)

        @router.get("/docs", operation_id="docs", response_class=HTMLResponse, responses=description.refusals())
        def docs() -> HTMLResponse:
            """The page that renders this description."""
            return HTMLResponse(_PAGE)

        @router.get("/openapi.json", operation_id="openapi", responses=description.refusals())
        def openapi(request: Request) -> dict[str, Any]:
            """This description, of everything that is served here."""
            found: dict[str, Any] = request.app.openapi()
            return found

        @router.get(
            "/challenge",
            **_operation("challenge", schemas.ChallengeBody, 400, query=_query(chain, description.WALLET)),
        )
        async def challenge(request: Request) -> JSONResponse:
            """What a wallet signs to log in: good once, for at most five minutes."""
            query = self._query(request)
            if "address" not in query:
                raise InputError("address is a required field")
            address = parse_address("address", query["address"])
            # Usually known without a look at the database, and then a thread would cost more than the answer.
            if self._store.knows_generation(address):
                return _ok(data=self._challenges.issue(address))
            return _ok(data=await run_sync(self._challenges.issue, address))

        @router.get("/metrics", **_operation("metrics", schemas.MetricsBody, 400, query=_query(chain)))
        def metrics(request: Request) -> JSONResponse:
            """How far the market has read the chain, and how many orders are open."""
            self._query(request)
            counts = self._store.counts()
            taken = max(0, self._follower.block)
            last = max(taken, self._ledger.head_number())
            lists = {f"{kind.value}s": counts.get(kind.value, 0) for kind in OrderKind}
            return _ok(lastBlock=last, checkpointBlock=taken, **lists)

    def _add_chain_records(self, router: APIRouter) -> None:
        chain = self._chain_id

        @router.get(
            "/categories",
            **_operation(
                "listCategories",
                schemas.CategoriesBody,
                400,
                query=_query(chain, description.CATEGORY_FILTERS, description.PAGES),
            ),
        )
        def categories(request: Request) -> JSONResponse:
            """Categories of work, shortest time first."""
            query = self._query(request)
            page = parse_page(query)
            bodies, count = self._store.categories(category_conditions(query), page)
            return _listed("categories", [json.loads(body) for body in bodies], count, page)

        @router.get(
            "/categories/{catid}", **_operation("getCategory", schemas.CategoryBody, 400, 404, query=_query(chain))
        )
        def category(request: Request, catid: CategoryId) -> JSONResponse:
            """One category."""
            self._query(request)
            body = self._store.category(parse_uint("catid", catid, maximum=2**63 - 1))
            if body is None:
                raise NotFound("category not found")
            return _ok(**json.loads(body))

        @router.get(
            "/deals",
            **_operation(
                "listDeals",
                schemas.DealsBody,
                400,
                query=_query(chain, description.DEAL_FILTERS, description.PAGES),
            ),
        )
        def deals(request: Request) -> JSONResponse:
            """Deals, newest first; a deal is listed as soon as its block is mined."""
            query = self._filters(request)
            conditions, page = deal_conditions(query), parse_page(query)
            self._catch_up()
            bodies, count = self._store.deals(conditions, page)
            return _listed("deals", [json.loads(body) for body in bodies], count, page)

        @router.get("/deals/{dealid}", **_operation("getDeal", schemas.DealBody, 400, 404, query=_query(chain)))
        def deal(request: Request, dealid: HashInPath) -> JSONResponse:
            """One deal."""
            self._query(request)
            deal_id = Bytes32(dealid)
            body = self._store.deal(deal_id)
            if body is None:
                self._catch_up()
                body = self._store.deal(deal_id)
            if body is None:
                raise NotFound("deal not found")
            return _ok(**json.loads(body))

        @router.get("/ohlc", **_operation("ohlc", schemas.OhlcBody, 400, query=_query(chain, description.CHART)))
        def ohlc(request: Request) -> JSONResponse:
            """What workerpools were paid lately in one category."""
            query = self._query(request)
            if "category" not in query:
                raise InputError("category is a required field")
            category = parse_uint("category", query["category"], maximum=2**63 - 1)
            return _ok(ohlc=[[time, price, volume] for time, price, volume in self._store.prices(category, 100)])

    def _add_orders(self, router: APIRouter, kind: OrderKind) -> None:
        path, chain = f"/{kind.value}s", self._chain_id
        name = kind.value.removesuffix("order").capitalize() + "Order"

        @router.get(
            path,
            **_operation(
                f"list{name}s",
                schemas.MANY_ORDERS[kind],
                400,
                query=_query(chain, description.ORDER_FILTERS[kind], description.PAGES),
            ),
        )
        def orders(request: Request) -> JSONResponse:
            """Open orders, best price first."""
            query = self._filters(request)
            page = parse_page(query)
            rows, count = self._store.orders(order_conditions(kind, query), kind, page)
            return _listed("orders", [render_order(row, self._chain_id) for row in rows], count, page)

        @router.get(
            path + "/{order_hash}",
            **_operation(f"get{name}", schemas.ONE_ORDER[kind], 400, 404, query=_query(chain)),
        )
        def order(request: Request, order_hash: HashInPath) -> JSONResponse:
            """One order, in any status."""
            self._query(request)
            row = self._store.order(kind, Bytes32(order_hash))
            if row is None:
                raise NotFound(f"{kind.value} not found")
            # iExec's clients read a count beside the one record.
            return _ok(**render_order(row, self._chain_id), count=1)

        @router.post(
            path,
            **_operation(
                f"publish{name}",
                schemas.PUBLISHED[kind],
                400,
                403,
                413,
                query={**_query(chain), **description.publish_body(kind)},
            ),
        )
        @body_cap(BODY_CAP)
        def publish(request: Request, header: Header, payload: object = Depends(_json_body)) -> JSONResponse:
            """Publish a signed order; the login is used up, whatever follows."""
            self._query(request)
            return _ok(published=self._publishing.publish(kind, payload, header))

        @router.put(
            path,
            **_operation(
                f"unpublish{name}s",
                schemas.UnpublishedBody,
                400,
                403,
                413,
                query={**_query(chain), **description.unpublish_body(kind)},
            ),
        )
        @body_cap(BODY_CAP)
        def unpublish(request: Request, header: Header, payload: object = Depends(_json_body)) -> JSONResponse:
            """Take orders of one's own out of the books; they stay valid on chain."""
            self._query(request)
            return _ok(unpublished=self._publishing.unpublish(kind, payload, header))

    def _query(self, request: Request) -> Query:
        """Return the query once it names this market's chain."""
        query = dict(request.query_params)
        if "chainId" not in query:
            raise InputError("chainId is a required field")
        if query["chainId"] != str(self._chain_id):
            raise InputError(f"chainId {quoted(query['chainId'])} is not supported")
        return query

    def _filters(self, request: Request) -> Query:
        """Return the query of a list, with the workerpool that stands in for the one that is asked for."""
        query = self._query(request)
        asked = query.get("workerpool", ANY)
        if not self._stand_ins or asked == ANY:
            return query
        address = parse_address("workerpool", asked)
        return {**query, "workerpool": self._stand_ins.get(address, address)}

    async def _check_rate(self, request: Request) -> None:
        if not self._rates.allows(request.client.host if request.client else None):
            raise RateExceededError("Rate limit exceeded")

    def _catch_up(self) -> None:
        """Wait until what was just mined is here; a list that is a little old is better than none."""
        try:
            self._follower.catch_up(FRESH_SECONDS)
        except CloisterError as error:
            log.warning("deals are listed without a fresh block: %s", error.code)


HashInPath = Annotated[str, Path(json_schema_extra={"pattern": schemas.WORD})]
CategoryId = Annotated[str, Path(json_schema_extra={"pattern": "^(0|[1-9][0-9]{0,17})$"})]
_query = description.query_of


def _operation(
    name: str, answer: type[BaseModel], *refused: int, query: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What the description says of an operation, as arguments of a route."""
    return {
        "operation_id": name,
        "response_model": answer,
        "responses": description.refusals(*refused),
        "openapi_extra": query or {},
    }


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


_PAGE = importlib.resources.files("cloister.services.market").joinpath("docs.html").read_text("utf-8")
