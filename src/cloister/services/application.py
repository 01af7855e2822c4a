"""The application: parts joined on one origin, with health, readiness, metrics and one way to answer errors.

Our own operational paths live under ``/-/``, where no part may stand, because iExec's market owns ``/version``,
``/metrics`` and ``/docs`` on the same origin.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from cloister.errors import CloisterError, ConfigurationError, quoted
from cloister.services import failures
from cloister.services.descriptions import (
    TEXT,
    Described,
    Description,
    Operation,
    answer,
    complete_description,
    exactly,
    list_of,
    with_members,
)
from cloister.services.edge import CapOf, Edge, EdgeLimits, Meter, error_log
from cloister.services.part import Failure, Mount, OffersMetrics, OffersMount, Part, RendersFailures, marked_body_cap
from cloister.services.server import BackgroundServer, serve
from cloister.version import __version__

__all__ = ["ApplicationSettings", "BackgroundServer", "build_application", "serve"]

log = logging.getLogger("cloister.application")

EXPOSED_HEADERS = (
    *("Content-Length", "Content-Range", "Accept-Ranges", "Content-Disposition", "ETag", "Allow"),
    *("X-Ipfs-Path", "X-Ipfs-Roots", "X-Stream-Output", "X-Chunked-Output", "X-Content-Length"),
    *("X-Request-Id", "Retry-After", "WWW-Authenticate"),
)
"""What a page of another origin may read of an answer's head."""


@dataclass(frozen=True, slots=True)
class ApplicationSettings:
    """Settings of the skeleton; ``threads`` bounds how many endpoints run at once (each runs in a thread)."""

    limits: EdgeLimits = field(default_factory=EdgeLimits)
    threads: int = 100
    cors_origins: tuple[str, ...] = ("*",)

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ConfigurationError(f"threads must be at least 1, not {self.threads}")


def build_application(
    parts: Sequence[Part],
    *,
    settings: ApplicationSettings | None = None,
    registry: CollectorRegistry | None = None,
) -> FastAPI:
    """Join parts on one origin.

    Parts start in the given order with the application and stop in reverse. ``registry`` lets parts add their own
    metrics to the page at ``/-/metrics``.

    Raises:
        ConfigurationError: two parts share a name or a method and path, or a part claims a path under ``/-/``.
    """
    settings = settings or ApplicationSettings()
    meter = Meter(registry if registry is not None else CollectorRegistry())
    ownership = _Ownership()
    state = _State(tuple(parts))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = settings.threads
        try:
            try:
                await anyio.to_thread.run_sync(state.start)
            except CloisterError as error:
                _app.state.start_failure = error  # for whoever serves this: the server itself only says that it failed
                raise
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(state.stop)

    app = FastAPI(
        title="Cloister",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/-/openapi.json",
        redirect_slashes=False,
    )
    for part in parts:
        router = part.router()
        ownership.claim(part, router)
        app.include_router(router)
        if isinstance(part, OffersMetrics):
            part.register_metrics(meter.registry)
        if isinstance(part, OffersMount):
            app.router.routes.append(ownership.claim_mount(part, part.mount()))
    app.state.closing = tuple(each.mount.close for each in ownership.mounted)
    app.include_router(_operations(state, meter))
    _describe(app, [_OPERATIONS, *(part.describe() for part in parts if isinstance(part, Described))])
    if not ownership.serves("GET", "/openapi.json"):
        app.add_api_route("/openapi.json", app.openapi, include_in_schema=False)
    _install_handlers(app, ownership)
    app.add_middleware(
        Edge,
        limits=settings.limits,
        meter=meter,
        render=ownership.render,
        cap_of=ownership.cap_of(settings.limits.max_body),
        is_mounted=lambda path: any(each.leads(path) for each in ownership.mounted),
        is_head=lambda scope: _is_head(app.router.routes, scope),
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(settings.cors_origins),
        allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
        expose_headers=list(EXPOSED_HEADERS),
        max_age=3600,
    )
    return app


class _State:
    """Which parts run. Starting and stopping happen on one thread at a time; readiness reads a flag."""

    def __init__(self, parts: tuple[Part, ...]) -> None:
        names = [part.name for part in parts]
        if len(set(names)) != len(names):
            raise ConfigurationError(f"two parts share a name: {', '.join(names)}")
        self.parts = parts
        self._running: list[Part] = []
        self.started = False

    def start(self) -> None:
        for part in self.parts:
            # Counted before it starts: a part that fails half-way still gets its stop, which must bear that.
            self._running.append(part)
            part.start()
        self.started = True

    def stop(self) -> None:
        self.started = False
        while self._running:
            part = self._running.pop()
            try:
                part.stop()
            except Exception:
                log.exception("part %s did not stop cleanly", part.name)


class _Mounted(BaseRoute):
    """The route to a mounted application: its path with and without a slash, and everything below."""

    def __init__(self, mount: Mount) -> None:
        self.mount = mount
        self.path = mount.path

    def leads(self, path: str) -> bool:
        return path == self.path or path.startswith(self.path + "/")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] in ("http", "websocket") and self.leads(scope["path"]):
            return Match.FULL, {"endpoint": self.mount.app, "route": self}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.mount.app(scope, receive, send)


class _Ownership:
    """Which part owns a path, for error bodies, and which cap a route has."""

    def __init__(self) -> None:
        self._by_segment: dict[str, Part] = {}
        self._seen: dict[tuple[str, str], str] = {}
        self._capped: list[tuple[APIRoute, int | None]] = []
        self.mounted: list[_Mounted] = []

    def claim(self, part: Part, router: APIRouter) -> None:
        for route in router.routes:
            if not isinstance(route, APIRoute):
                raise ConfigurationError(f"part {part.name} has a route that is not an HTTP endpoint: {quoted(route)}")
            if route.path.startswith("/-/") and part.name not in _OPERATIONAL_PARTS:
                raise ConfigurationError(f"part {part.name} claims {route.path}: paths under /-/ are operational")
            for method in route.methods or ():
                other = self._seen.setdefault((method, route.path), part.name)
                if other != part.name:
                    raise ConfigurationError(f"parts {other} and {part.name} both serve {method} {route.path}")
            segment = _first_segment(route.path)
            if segment and "{" not in segment:
                self._by_segment.setdefault(segment, part)
            mark = marked_body_cap(route.endpoint)
            if mark:
                self._capped.append((route, mark[0]))

    def serves(self, method: str, path: str) -> bool:
        return (method, path) in self._seen

    def claim_mount(self, part: Part, mount: Mount) -> _Mounted:
        segment = _first_segment(mount.path)
        if mount.path != f"/{segment}" or segment in self._by_segment or segment == "-":
            raise ConfigurationError(f"part {part.name} cannot mount {quoted(mount.path)}: it is taken or no one word")
        self._by_segment[segment] = part
        self.mounted.append(_Mounted(mount))
        return self.mounted[-1]

    def render(self, path: str, failure: Failure) -> Response:
        """Render with the owner's renderer when it has one."""
        part: object = self._by_segment.get(_first_segment(path))
        response = (
            part.render_failure(failure) if isinstance(part, RendersFailures) else failures.render_failure(failure)
        )
        for name, value in failure.headers:
            response.headers.setdefault(name, value)
        return response

    def cap_of(self, default: int) -> CapOf:
        def find(scope: Scope) -> int | None:
            for route, cap in self._capped:
                if route.matches(scope)[0] is Match.FULL:
                    return cap
            return default

        return find


def _is_head(routes: Sequence[BaseRoute], scope: Scope) -> bool:
    """Whether HEAD is asked of a path that has GET and no HEAD of its own."""
    asked = {**scope, "method": "GET"}
    return any(route.matches(asked)[0] is Match.FULL for route in routes) and not any(
        route.matches({**scope})[0] is Match.FULL for route in routes
    )


_OPERATIONAL_PARTS = frozenset({"network"})
"""Parts that may stand under ``/-/``: the description of the network is operational by nature."""


def _first_segment(path: str) -> str:
    return path.lstrip("/").partition("/")[0]


def _install_handlers(app: FastAPI, ownership: _Ownership) -> None:
    async def tree(request: Request, error: Exception) -> Response:
        assert isinstance(error, CloisterError)  # noqa: S101 - the framework dispatches by type
        failure = failures.describe_error(error)
        if failure is None:
            identifier = request.state.request_id
            error_log.error("our own error %s in %s %s", identifier, request.method, request.url.path, exc_info=error)
            failure = failures.internal_failure(identifier)
        return ownership.render(request.url.path, failure)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        return ownership.render(request.url.path, failures.describe_http_exception(error))

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return ownership.render(request.url.path, failures.describe_validation_error(error))

    app.add_exception_handler(CloisterError, tree)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, validation)


def _operations(state: _State, meter: Meter) -> APIRouter:
    router = APIRouter(prefix="/-", tags=["operations"])

    @router.get("/health")
    async def health() -> dict[str, str]:
        """The process answers. Says nothing of the parts, so that a slow dependency does not get the process killed."""
        return {"status": "ok"}

    @router.get("/ready")
    def ready() -> JSONResponse:
        """Every part can serve: 200, else 503 and which part cannot."""
        report: dict[str, str] = {}
        for part in state.parts:
            report[part.name] = _readiness(part) if state.started else "starting or stopping"
        good = state.started and all(text == "ok" for text in report.values())
        return JSONResponse({"ready": good, "parts": report}, status_code=200 if good else 503)

    @router.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(meter.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    @router.get("/version")
    async def version() -> dict[str, object]:
        return {"version": __version__, "parts": [part.name for part in state.parts]}

    return router


_OPERATIONS = Description(
    {
        ("GET", "/-/health"): Operation("health", {200: answer(exactly(status={"enum": ["ok"]}))}),
        ("GET", "/-/ready"): Operation(
            "ready",
            {status: answer(exactly(ready={"type": "boolean"}, parts={"type": "object"})) for status in (200, 503)},
        ),
        ("GET", "/-/metrics"): Operation("serviceMetrics", {200: answer(TEXT, "text/plain")}),
        ("GET", "/-/version"): Operation("release", {200: answer(with_members(version=TEXT, parts=list_of(TEXT)))}),
    }
)


def _describe(app: FastAPI, described: Sequence[Description]) -> None:
    """Let ``app.openapi`` give the framework's document with the parts' own words; it is made once, when asked for."""
    framework = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Duplicate Operation ID")  # the tables give every operation its own
                app.openapi_schema = complete_description(framework(), described)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _readiness(part: Part) -> str:
    try:
        part.check_ready()
    except CloisterError as error:
        return error.message if error.http_status != 500 else failures.INTERNAL_TEXT
    except Exception:
        log.exception("readiness check of part %s failed", part.name)
        return failures.INTERNAL_TEXT
    return "ok"
