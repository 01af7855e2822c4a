"""A part: what one service gives to the application that serves it.

A part owns the first segments of the paths its router names: an error under such a path is rendered by that part,
when it brings a renderer of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from fastapi import APIRouter
from prometheus_client.registry import CollectorRegistry
from starlette.responses import Response
from starlette.types import ASGIApp

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])

_BODY_CAP = "__cloister_body_cap__"


class Part(Protocol):
    """One service inside an application.

    ``start`` runs once before the first request (migrations, background threads), ``stop`` once after the last, also
    when a later part failed to start. ``check_ready`` returns when the part can serve and raises
    ``UnavailableError`` (or any other error of the tree) when it cannot; it may be called from several threads and
    must answer within a few seconds.
    """

    @property
    def name(self) -> str:
        """Short lower-case name, unique in an application: ``market``, ``sms``."""
        ...

    def router(self) -> APIRouter:
        """The part's routes. Called once."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def check_ready(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Mount:
    """An application of a part's own for everything at and below ``path`` (``/ws``), WebSockets included.

    It answers for itself: the edge passes requests with its usual caps, and WebSockets after a look at their head.
    ``close`` ends answers that would take long (an open socket, a poll that waits) when the server stops; it runs in
    the server's event loop before the wait for answers under way.
    """

    path: str
    app: ASGIApp
    close: Callable[[], Awaitable[None]]


@runtime_checkable
class OffersMount(Protocol):
    """A part that serves more than endpoints."""

    def mount(self) -> Mount:
        """The application to mount. Called once."""
        ...


@runtime_checkable
class OffersMetrics(Protocol):
    """A part with gauges or counts of its own for the page at ``/-/metrics``."""

    def register_metrics(self, registry: CollectorRegistry) -> None:
        """Add them. Called once, before ``start``: nothing may be read from a database yet."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """What the peer may learn of an error: HTTP status, machine code, public text and hint, extra response headers."""

    status: int
    code: str
    message: str
    hint: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


@runtime_checkable
class RendersFailures(Protocol):
    """A part whose clients expect an error body of another form than ``{"error", "code", "hint"}``.

    Unexpected errors come here too, already reduced to a constant text. ``Failure.headers`` are added by the caller.
    """

    def render_failure(self, failure: Failure) -> Response: ...


def body_cap(limit: int | None) -> Callable[[_Endpoint], _Endpoint]:
    """Mark an endpoint with the largest request body it takes, in bytes, in place of the application's default.

    ``None`` means that the endpoint reads the body as a stream and caps it itself; the idle timeout still holds. Put it
    nearest to the function, below the router's decorator::

        @router.post("/blobs")
        @body_cap(64 * 1024 * 1024)
        def add(...): ...
    """
    if limit is not None and limit < 0:
        raise ValueError(f"a body cap is not negative: {limit}")

    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _BODY_CAP, (limit,))
        return endpoint

    return mark


def marked_body_cap(endpoint: Callable[..., Any] | None) -> tuple[int | None] | None:
    """Return the mark of :func:`body_cap` as a one-tuple, or ``None`` for an endpoint without one."""
    mark: tuple[int | None] | None = getattr(endpoint, _BODY_CAP, None)
    return mark
