"""Tells clients of what happens in the books while it happens: socket.io under ``/ws`` (reference 3.1).

A client emits ``join`` with ``{"chainId": …, "topic": "orders" | "deals"}`` and gets the acknowledgement
``{"ok": true}`` (or ``{"ok": false, "error": …}``); then it hears ``apporder_published``, ``apporder_updated`` (both
with the order's record) and ``apporder_unpublished`` (with the order's hash), the same for the other kinds, and
``deal_created`` (with the deal's record). Both transports work, polling and WebSocket.

What holds: events of one order come in the order in which they went to disk. An event may come twice (a watcher that
begins again reads its last blocks again), and a client that was away missed what happened meanwhile: after each
connect it reads the lists. With several replicas on one database each follows the chain itself, so every client
hears of deals; publications, and orders that die or are used up, are told by the replica that wrote them down, and a
polling client must stay with one replica.

Nobody here can hold up the market: writers only put an event into a bounded queue and go on. A client that does not
take what is sent is dropped when ``MAX_BACKLOG`` events wait for it, and everybody is when events come faster than they
can be handed out, since a gap that nobody sees would be worse.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import engineio  # type: ignore[import-untyped]
import socketio  # type: ignore[import-untyped]
from starlette.responses import JSONResponse

from cloister.errors import quoted
from cloister.services.market.announcing import TOPICS, Event
from cloister.services.market.rates import is_loopback
from cloister.services.part import Mount

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

PATH: Final = "/ws"
MAX_CLIENTS = 1000
MAX_CLIENTS_EACH = 50
"""Most clients from one address, loopback excepted: it is a proxy or the operator."""
MAX_MESSAGE = 4096
"""Most bytes of one message from a client: a join has about 50."""
MAX_MESSAGES = 200
"""Most messages of one client in its life; there are two topics to join."""
MAX_BACKLOG = 500
MAX_PENDING = 5000
PING_SECONDS = 25
PONG_SECONDS = 20

log = logging.getLogger("cloister.market.live")
# The library logs a stack for each message that is none, and any stranger can send those.
_library_log = logging.getLogger("cloister.market.live.library")
_library_log.setLevel(logging.CRITICAL)


class _Engine(engineio.AsyncServer):  # type: ignore[misc]
    """The library's transports, but nobody waits for a client that is being let go.

    As it comes, the library lets whoever ends a client wait until that client took all that was queued for it, which
    may be never, and leaves a poll that waits, or a WebSocket, open after the end.
    """

    async def disconnect(self, sid: str | None = None) -> None:
        for name in [sid] if sid is not None else list(self.sockets):
            client = self.sockets.get(name)
            if client is not None:
                await client.close(wait=False)

    async def _trigger_event(self, event: str, *args: Any, **kwargs: Any) -> Any:
        found = await super()._trigger_event(event, *args, **kwargs)
        client = self.sockets.get(args[0]) if event == "disconnect" else None
        if client is not None:
            # Ends the poll or the writer, after the closing packet that may follow in this turn of the loop.
            asyncio.get_running_loop().call_soon(client.queue.put_nowait, None)
        return found


class _Server(socketio.AsyncServer):  # type: ignore[misc]
    def _engineio_server_class(self) -> type[_Engine]:
        return _Engine


class LiveFeed:
    """Clients, what they joined, and events on their way.

    ``tell`` and ``has_listeners`` are safe from any thread; the rest runs in the server's event loop.
    """

    def __init__(self, chain_id: int, *, allows: Callable[[str | None], bool]) -> None:
        self._chain_id = chain_id
        self._allows = allows
        self._server = _Server(
            async_mode="asgi",
            cors_allowed_origins=[],  # the application's own middleware answers for every path
            max_http_buffer_size=MAX_MESSAGE,
            http_compression=False,
            async_handlers=False,
            ping_interval=PING_SECONDS,
            ping_timeout=PONG_SECONDS,
            logger=_library_log,
            engineio_logger=_library_log,
        )
        self._server.on("connect", self._connect)
        self._server.on("join", self._join)
        self._server.on("*", self._count)
        self._server.on("disconnect", self._forget)
        self._engine = self._server.eio
        self._app = socketio.ASGIApp(self._server, socketio_path=None)
        self._joined: dict[str, set[str]] = {}
        self._messages: dict[str, int] = {}
        self._listeners = dict.fromkeys(TOPICS, 0)
        self._pending: deque[Event] = deque()
        self._lock = threading.Lock()
        self._handing_out = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def mount(self) -> Mount:
        """The application under ``/ws``."""
        return Mount(PATH, self._answer, self._close)

    # --- from any thread ---

    def has_listeners(self, topic: str) -> bool:
        """Whether anybody joined a topic: without one, nothing needs to be read or written for it."""
        return self._listeners[topic] > 0

    def tell(self, events: Sequence[Event]) -> None:
        """Hand events to everybody who joined their topics. Never waits."""
        wanted = [event for event in events if self._listeners[event[0]] > 0]
        loop = self._loop
        if not wanted or loop is None:
            return
        with self._lock:
            self._pending.extend(wanted)
            if self._handing_out:
                return
            self._handing_out = True
        try:
            loop.call_soon_threadsafe(self._start_handing_out)
        except RuntimeError:  # the server stopped, and its clients are gone
            with self._lock:
                self._pending.clear()
                self._handing_out = False

    # --- in the event loop ---

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or a WebSocket; the library's own failures end that client and nothing else."""
        self._loop = asyncio.get_running_loop()
        # Read as the library reads it, for what it takes for a new client must be counted as one.
        query = urllib.parse.parse_qs(scope["query_string"].decode("utf-8", "replace"))
        host = scope["client"][0] if scope.get("client") else None
        refusal = None
        if "j" in query:
            refusal = 400, "JSONP is not served"
        elif _announced(scope) > MAX_MESSAGE:
            refusal = 413, f"a message has at most {MAX_MESSAGE} bytes"
        elif "sid" not in query:
            refusal = self._refuse_client(host)
        if refusal is not None:
            await _refuse(*refusal, scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except (asyncio.CancelledError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a stranger's bytes did to the library
            log.info("a client's messages made no sense: %s", type(error).__name__)
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1002})
            else:
                await _refuse(400, "the request does not parse", scope, receive, send)

    def _refuse_client(self, host: str | None) -> tuple[int, str] | None:
        if not self._allows(host):
            return 429, "Rate limit exceeded"
        if len(self._engine.sockets) >= MAX_CLIENTS:
            return 503, "too many clients are connected"
        if not is_loopback(host):
            peers = [environ["asgi.scope"].get("client") for environ in self._server.environ.values()]
            if sum(peer is not None and peer[0] == host for peer in peers) >= MAX_CLIENTS_EACH:
                return 429, "too many clients are connected from this address"
        return None

    def _connect(self, sid: str, _environ: Mapping[str, Any], _auth: object = None) -> None:
        self._joined[sid] = set()

    async def _join(self, sid: str, request: object = None, *_more: object) -> dict[str, object]:
        if not await self._count("join", sid):
            return {"ok": False, "error": "too many messages"}
        if not isinstance(request, dict):
            return {"ok": False, "error": "join needs {chainId, topic}"}
        chain, topic = request.get("chainId"), request.get("topic")
        if str(chain) != str(self._chain_id):
            return {"ok": False, "error": f"chainId {quoted(str(chain))} is not supported"}
        if topic not in TOPICS:
            return {"ok": False, "error": f"topic must be one of {', '.join(TOPICS)}, got {quoted(str(topic))}"}
        joined = self._joined.get(sid)
        if joined is not None and topic not in joined:
            await self._server.enter_room(sid, topic)
            joined.add(topic)
            self._listeners[topic] += 1
        return {"ok": True}

    async def _count(self, _event: str, sid: str, *_more: object) -> bool:
        """Count a client's message; one too many ends it."""
        seen = self._messages[sid] = self._messages.get(sid, 0) + 1
        if seen <= MAX_MESSAGES:
            return True
        await self._drop([self._server.manager.eio_sid_from_sid(sid, "/")], "talks without end")
        return False

    def _forget(self, sid: str, _reason: object = None) -> None:
        for topic in self._joined.pop(sid, ()):
            self._listeners[topic] -= 1
        self._messages.pop(sid, None)

    def _start_handing_out(self) -> None:
        self._task = asyncio.ensure_future(self._hand_out())

    async def _hand_out(self) -> None:
        while True:
            with self._lock:
                if not self._pending:
                    self._handing_out = False
                    return
                overrun = len(self._pending) > MAX_PENDING
                if overrun:
                    self._pending.clear()
                else:
                    topic, name, payload = self._pending.popleft()
            try:
                if overrun:
                    log.warning("events come faster than they can be handed out: every live client is dropped")
                    await self._drop(list(self._engine.sockets), "events come too fast")
                    continue
                await self._server.emit(name, payload, room=topic)
                behind = [sid for sid, each in self._engine.sockets.items() if each.queue.qsize() > MAX_BACKLOG]
                await self._drop(behind, "does not keep up")
            except Exception:  # one event is lost, not all that follow
                log.exception("an event could not be handed out")

    async def _drop(self, engine_sids: Iterable[str | None], why: str) -> None:
        for sid in engine_sids:
            client = self._engine.sockets.get(sid)
            if client is not None:
                log.info("a live client is dropped: %s", why)
                await client.close(wait=False, abort=True, reason=why)

    async def _close(self) -> None:
        """End every client, polls that wait included."""
        for client in list(self._engine.sockets.values()):
            await client.close(wait=False)
        await self._server.shutdown()


def _announced(scope: Scope) -> int:
    """How long a request's body says it is; the edge made sure that this is a number."""
    return max((int(value) for name, value in scope["headers"] if name == b"content-length"), default=0)


async def _refuse(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": text})
        return
    await JSONResponse({"ok": False, "error": text}, status_code=status)(scope, receive, send)
