"""The edge: what every request passes before it reaches a part.

Caps on target, headers and body; timeouts on slow bodies; one log line and one count per request; and the last net
under an unforeseen error. It is written against ASGI and not as a framework middleware class, because those buffer
or copy bodies.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloister.errors import InputError, TooLarge
from cloister.services.failures import CarriedError, internal_failure
from cloister.services.part import Failure

access_log = logging.getLogger("cloister.access")
error_log = logging.getLogger("cloister.errors")

Render = Callable[[str, Failure], Response]
"""Renders a failure for a path: the owner of the path decides the form."""

IsHead = Callable[[Scope], bool]
"""Tells whether a HEAD request is one for a GET endpoint, which then answers it without the body."""

IsMounted = Callable[[str], bool]
"""Tells whether a path leads to a mounted application, which may speak WebSocket."""

CapOf = Callable[[Scope], int | None]
"""Gives the body cap of the route that a scope will reach; ``None`` for a route that streams."""


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Caps and timeouts of the edge; sizes in bytes, times in seconds."""

    max_body: int = 1024 * 1024
    max_target: int = 16 * 1024
    max_headers: int = 100
    max_header_bytes: int = 32 * 1024
    body_idle_seconds: float = 30.0
    body_total_seconds: float = 120.0


class Meter:
    """Counts of one application, in a registry of its own so that two applications may live in one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route", "status")
        self.registry = registry
        self.requests = Counter("cloister_http_requests", "HTTP requests answered", labels, registry=registry)
        self.seconds = Histogram(
            "cloister_http_request_seconds", "Time to the end of the answer", ("route",), registry=registry
        )
        self.in_flight = Gauge("cloister_http_requests_in_flight", "HTTP requests not yet answered", registry=registry)
        self.failures = Counter("cloister_http_unforeseen_errors", "Errors answered with 500", registry=registry)


class _Exchange:
    """One request and its answer: counts bytes, guards the body, remembers whether the answer began."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, cap: int | None, limits: EdgeLimits) -> None:
        self._receive = receive
        self._send = send
        self._cap = cap
        self._limits = limits
        self._deadline = time.monotonic() + limits.body_total_seconds
        self._body_ended = False
        self._cut_off = False
        self.identifier = uuid.uuid4().hex[:16]
        self.received = 0
        self.sent = 0
        self.status = 0
        self.scope = scope

    async def receive(self) -> Message:
        if self._body_ended:  # what follows is the wait for a disconnect, which may take as long as the answer takes
            return await self._receive()
        wait = self._limits.body_idle_seconds
        if self._cap is not None:
            wait = min(wait, max(self._deadline - time.monotonic(), 0.001))
        try:
            async with asyncio.timeout(wait):
                message = await self._receive()
        except TimeoutError:
            self._body_ended = self._cut_off = True
            raise CarriedError(
                408, InputError("request body took too long", hint="send the body without pauses", code="timeout")
            ) from None
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self._body_ended = not message.get("more_body", False)
            if self._cap is not None and self.received > self._cap:
                self._body_ended = self._cut_off = True
                raise CarriedError(413, body_too_large(self._cap))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.setdefault("headers", [])
            headers = [*headers, (b"x-request-id", self.identifier.encode())]
            if not any(name.lower() == b"x-content-type-options" for name, _ in headers):
                headers.append((b"x-content-type-options", b"nosniff"))
            if self._cut_off or (not self._body_ended and has_body(self.scope)):
                # The rest of the body was not read and may have no end: the connection carries no other request.
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        await self._send(message)


class Edge:
    """ASGI middleware around the router; see the module's text."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: EdgeLimits,
        meter: Meter,
        render: Render,
        cap_of: CapOf,
        is_mounted: IsMounted = lambda _path: False,
        is_head: IsHead = lambda _scope: False,
    ) -> None:
        self._app = app
        self._is_head = is_head
        self._is_mounted = is_mounted
        self._limits = limits
        self._meter = meter
        self._render = render
        self._cap_of = cap_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Only mounted applications speak WebSocket; an overlong head is refused as for any request.
            if self._is_mounted(scope["path"]) and refuse_request(scope, self._limits, None) is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1003})
            return
        _take_absolute_form(scope)
        if scope["method"] == "HEAD" and self._is_head(scope):
            # The server goes by its own scope and sends no body.
            scope = {**scope, "method": "GET"}
        cap = self._cap_of(scope)
        exchange = _Exchange(scope, receive, send, cap, self._limits)
        scope.setdefault("state", {})["request_id"] = exchange.identifier
        started = time.monotonic()
        self._meter.in_flight.inc()
        try:
            await self._answer(scope, exchange, cap)
        finally:
            self._meter.in_flight.dec()
            self._account(scope, exchange, time.monotonic() - started)

    async def _answer(self, scope: Scope, exchange: _Exchange, cap: int | None) -> None:
        refusal = refuse_request(scope, self._limits, cap)
        if refusal is not None:
            await self._fail(scope, exchange, refusal)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:  # nobody is there to be answered; nginx's number tells it apart in log and metrics
            exchange.status = exchange.status or 499
        except Exception as error:
            self._meter.failures.inc()
            error_log.error(
                "unforeseen error %s in %s %s", exchange.identifier, scope["method"], scope["path"], exc_info=error
            )
            if exchange.status:  # the answer began: the only honest end is to break the connection
                raise
            await self._fail(scope, exchange, internal_failure(exchange.identifier))

    async def _fail(self, scope: Scope, exchange: _Exchange, failure: Failure) -> None:
        response = self._render(scope["path"], failure)
        await response(scope, exchange.receive, exchange.send)

    def _account(self, scope: Scope, exchange: _Exchange, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or "unmatched"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._meter.requests.labels(method, route, str(exchange.status)).inc()
        self._meter.seconds.labels(route).observe(seconds)
        if access_log.isEnabledFor(logging.INFO):
            # No query string and no headers: they may carry challenges, signatures and secrets.
            line = {
                "at": round(time.time(), 3),
                "id": exchange.identifier,
                "peer": scope["client"][0] if scope.get("client") else None,
                "method": method,
                "path": scope["path"][:512],
                "status": exchange.status,
                "received": exchange.received,
                "sent": exchange.sent,
                "ms": round(seconds * 1000, 2),
            }
            access_log.info("%s", json.dumps(line))


def _take_absolute_form(scope: Scope) -> None:
    """Read ``GET http://host/path`` as ``GET /path`` (RFC 9112, 3.2.2); the host is as good as a Host header."""
    path, raw = scope["path"], scope.get("raw_path") or b""
    if path.startswith("/") or not raw.lower().startswith((b"http://", b"https://")):
        return
    scope["path"] = "/" + path.partition("://")[2].partition("/")[2]
    scope["raw_path"] = b"/" + raw.partition(b"://")[2].partition(b"/")[2]


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def body_too_large(cap: int) -> TooLarge:
    """The error of a request body above its cap."""
    return TooLarge(f"request body exceeds {cap} bytes", hint="send less, or in several requests")


def has_body(scope: Scope) -> bool:
    """Tell whether the request announces a body."""
    return any(name in (b"content-length", b"transfer-encoding") and value != b"0" for name, value in scope["headers"])


def refuse_request(scope: Scope, limits: EdgeLimits, cap: int | None) -> Failure | None:
    """Judge a request by its head alone: target length, count and size of headers, announced body length."""
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > limits.max_target:
        return Failure(414, "too-large", f"request target exceeds {limits.max_target} bytes")
    if len(headers) > limits.max_headers:
        return Failure(431, "too-large", f"request has more than {limits.max_headers} headers")
    if sum(len(name) + len(value) for name, value in headers) > limits.max_header_bytes:
        return Failure(431, "too-large", f"request headers exceed {limits.max_header_bytes} bytes")
    if {name for name, _ in headers} >= {b"content-length", b"transfer-encoding"}:
        # What a proxy before us takes for the end of the body may not be what we do (RFC 9112, 6.1).
        return Failure(400, "invalid-input", "a request has content-length or transfer-encoding, not both")
    lengths = {value for name, value in headers if name == b"content-length"}
    if len(lengths) > 1 or not all(value.isdigit() for value in lengths):
        return Failure(400, "invalid-input", "content-length is not one decimal number")
    if cap is not None and lengths and int(lengths.pop()[:20]) > cap:
        error = body_too_large(cap)
        return Failure(413, error.code, error.message, error.hint)
    return None
