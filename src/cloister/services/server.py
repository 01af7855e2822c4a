"""Serve an application: in the foreground until a signal, or in a thread of this process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import threading
from collections.abc import Generator
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cloister.errors import CloisterError, ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MAX_HEAD = 64 * 1024
"""Most bytes of request line and headers that are kept while incomplete."""

HEAD_SECONDS = 10.0
"""Longest time from the first byte of a request (or from the connection) to the end of its headers."""

CLOSE_SECONDS = 2.0
"""Longest time that a mounted application takes to end its open answers."""

MAX_MESSAGE = 64 * 1024
"""Most bytes of one WebSocket message from a peer."""

GRACE_SECONDS = 10
"""How long a stopping server waits for answers under way."""


class _GuardedProtocol(H11Protocol):
    """HTTP/1.1 that drops peers who open a connection and then send their headers slowly or never."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_watch()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in the form of every other refusal, and close.

        Called while h11's error is handled, which knows the status (431 for an overlong head, 501 for a coding that
        nobody speaks).
        """
        self._stop_watch()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()  # an answer is under way: breaking it off is the only honest end
            return
        status = getattr(sys.exc_info()[1], "error_status_hint", 400)
        text, code = _NOT_HTTP.get(status, ("the request is not valid HTTP/1.1", "invalid-input"))
        # ``ok`` for the clients of the market: the path, and so the owner of the answer, is not known here.
        body = json.dumps({"ok": False, "error": text, "code": code, "hint": None}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"access-control-allow-origin", b"*"),
            (b"x-content-type-options", b"nosniff"),
            (b"connection", b"close"),
        ]
        head = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch_head(self) -> None:
        # Before the first request there is no cycle, whatever the base class's annotation says.
        fresh = cast("object | None", self.cycle) is None
        waiting = self.conn.their_state is h11.IDLE and (fresh or bool(self.conn.trailing_data[0]))
        if not waiting:
            self._stop_watch()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._drop)

    def _stop_watch(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _drop(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()


_NOT_HTTP = {
    431: (f"the head of the request exceeds {MAX_HEAD} bytes", "too-large"),
    501: ("this transfer coding is not known here", "invalid-input"),
}


class _Server(uvicorn.Server):
    """Ends by returning when a signal comes, so that the caller's own clean-up runs and the exit code is the caller's.

    uvicorn raises the signal again once it has stopped.
    """

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Mounted applications hold answers open for as long as a client listens: they end those first.
        for close in getattr(getattr(self.config.app, "state", None), "closing", ()):
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _configuration(app: ASGIApp, host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=_GuardedProtocol,
        ws="wsproto",
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,  # a small message may inflate to a large one
        lifespan="on",
        log_config=None,
        access_log=False,  # the edge writes its own line, without query strings
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=MAX_HEAD,
        backlog=1024,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only on sockets that say TCP; with it, every
    # answer of two writes (head, body) waits 40 ms for the peer's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror}", hint="is another server using this port?"
        ) from error
    listener.set_inheritable(False)
    return listener


def _origin(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def serve(app: ASGIApp, host: str = "127.0.0.1", port: int = 8080) -> None:
    """Serve until SIGINT or SIGTERM, then let answers under way end (at most ``GRACE_SECONDS``) and stop the parts.

    Raises:
        ConfigurationError: the port is taken, or not ours to take.
        UnavailableError: a part did not start (the log says why).
        CloisterError: what kept a part from starting, where it said so.
    """
    listener = _listen(host, port)
    try:
        server = _Server(_configuration(app, host, port))
        with contextlib.suppress(SystemExit):  # uvicorn's way to say that the application did not start
            server.run(sockets=[listener])
    finally:
        listener.close()
    if not server.started:
        raise _start_failure(app)


def _start_failure(app: ASGIApp) -> CloisterError:
    """What kept the application from starting."""
    failure = getattr(getattr(app, "state", None), "start_failure", None)
    if isinstance(failure, CloisterError):
        return failure
    return UnavailableError("the application did not start", hint="the log names the part that failed")


class BackgroundServer:
    """An application served from a thread of this process, on a port of the system's choice unless one is given.

    ``with BackgroundServer(app) as server: server.url``. Start and stop from one thread. Making one takes the port:
    ``ConfigurationError`` when it is taken.
    """

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> None:
        self._app = app
        self._listener = _listen(host, port)
        self.url = _origin(host, self._listener)
        self._server = _Server(_configuration(app, host, port))
        self._ended = threading.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"serve {self.url}", daemon=True)

    def start(self, *, timeout: float = 30.0) -> None:
        """Return once requests are answered.

        Raises:
            UnavailableError: a part did not start, or not within ``timeout`` seconds.
            CloisterError: what kept a part from starting, where it said so.
        """
        self._thread.start()
        step = 0.01
        for _ in range(max(1, int(timeout / step))):
            if self._server.started:
                return
            if self._ended.wait(step):
                break
        self.stop()
        raise _start_failure(self._app)

    def stop(self) -> None:
        """Stop taking requests, let those under way end, stop the parts. Safe to call twice."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(GRACE_SECONDS + 20)
        self._listener.close()

    def _run(self) -> None:
        try:
            with contextlib.suppress(SystemExit):
                self._server.run(sockets=[self._listener])
        finally:
            self._ended.set()

    def __enter__(self) -> BackgroundServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
