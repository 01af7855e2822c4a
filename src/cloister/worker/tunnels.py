"""The host's end of an app's connections (``enclave.tunnels`` is the other): connect, carry, and keep to the windows.

The relay's thread hands frames in and never waits here. Each connection has a thread of its own, which looks names up,
connects, and gives frames to the agent when it has something; it stops reading its server when the agent's window is used
up. So whatever a server or an app does, the relay's thread goes on reading, and nothing can lock up.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cloister.errors import CloisterError, DecodeError, Denied, NotFound, TooLarge
from cloister.protocol.channel import Frame
from cloister.protocol.tunnels import (
    AT_ONCE,
    BYTES_IN_ALL,
    IDLE_SECONDS,
    PIECE,
    Close,
    CloseCause,
    Data,
    End,
    Grant,
    Open,
    Opened,
    Sending,
    Taking,
    Tunnel,
    build_tunnel,
    parse_tunnel,
)
from cloister.worker.connecting import TIMED_OUT

MOST_THREADS: Final = 2 * AT_ONCE
"""Connections that the agent gave up may still be on their way out."""
_IDLE = IDLE_SECONDS + 30
_CLOSE_SECONDS = 2.0

Connect = Callable[[str, int], socket.socket]


class HostTunnels:
    """All tunnels of one task. ``connect`` may take its time and raise any error of our tree; ``send`` may be called from
    any thread and raises OSError when the agent is gone.
    """

    def __init__(self, connect: Connect, send: Callable[[Frame], None], *, budget: int = BYTES_IN_ALL) -> None:
        self._connect = connect
        self._send = send
        self._lock = threading.Lock()
        self._open: dict[int, _Tunnel] = {}
        self._threads: set[threading.Thread] = set()
        self._last = 0
        self._budget = budget

    def take(self, frame: Frame) -> None:
        """Hear a frame of the agent's; returns at once.

        Raises:
            DecodeError, TooLarge: the agent breaks the rules.
        """
        message = parse_tunnel(frame)
        if isinstance(message, Open):
            self._begin(message)
            return
        if isinstance(message, Opened) or message.id > self._last:
            raise DecodeError(f"the agent speaks of tunnel {message.id}, which it did not ask for")
        if isinstance(message, Data) and not self.spend(len(message.content)):
            raise TooLarge("the app's connections carry more than they may")
        with self._lock:
            tunnel = self._open.get(message.id)
            if isinstance(message, Close):
                self._open.pop(message.id, None)
        if tunnel is not None:  # else it was closed here while this was on its way
            tunnel.take(message)

    def close(self) -> None:
        """End all of them."""
        with self._lock:
            tunnels, threads = list(self._open.values()), list(self._threads)
            self._open.clear()
        for tunnel in tunnels:
            tunnel.abort()
        until = time.monotonic() + _CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def spend(self, size: int) -> bool:
        """Count bytes of either direction. False when there are too many."""
        with self._lock:
            self._budget -= size
            return self._budget >= 0

    def tell(self, message: Tunnel) -> None:
        """Give a message to the agent. After ``Close`` its tunnel is gone."""
        if isinstance(message, Close):
            with self._lock:
                if self._open.pop(message.id, None) is None:
                    return
        self._send(build_tunnel(message))

    def _begin(self, message: Open) -> None:
        if message.id != self._last + 1:
            raise DecodeError(f"the agent opens tunnel {message.id} after {self._last}")
        self._last = message.id
        tunnel = _Tunnel(self, message)
        with self._lock:
            if len(self._open) >= AT_ONCE:
                raise DecodeError(f"the agent opens more than {AT_ONCE} tunnels at a time")
            self._open[message.id] = tunnel
            busy = len(self._threads) >= MOST_THREADS
        if busy:
            tunnel.end()
            self.tell(Close(message.id, CloseCause.UNREACHABLE))
            return
        thread = threading.Thread(target=self._run, args=(tunnel,), name=f"tunnel-{message.id}", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def _run(self, tunnel: _Tunnel) -> None:
        try:
            with suppress(OSError):  # the agent is gone, and the relay sees it too
                self.tell(Close(tunnel.id, tunnel.run(self._connect)))
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())


class _Tunnel:
    """One connection. ``take`` and ``abort`` come from the relay's thread, all else happens in its own."""

    def __init__(self, tunnels: HostTunnels, opening: Open) -> None:
        self.id = opening.id
        self._destination = opening.destination
        self._tunnels = tunnels
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._wake.setblocking(False)
        # From here to ``_gone`` guarded by the lock: both threads use them.
        self._lock = threading.Lock()
        self._queue: deque[bytes] = deque()
        self._sending = Sending()
        self._taking = Taking()
        self._ended = False
        self._gone = False

    def take(self, message: Data | Grant | End | Close) -> None:
        """Hear the agent."""
        with self._lock:
            match message:
                case Data(_, content):
                    if self._ended:
                        raise DecodeError(f"tunnel {self.id} brings data after its end")
                    self._taking.take(len(content))
                    self._queue.append(content)
                case Grant(_, size):
                    self._sending.grant(size)
                case End():
                    self._ended = True
                case Close():
                    self._gone = True
        self._rouse()

    def abort(self) -> None:
        """End it without a word to the server."""
        with self._lock:
            self._gone = True
        self._rouse()

    def _rouse(self) -> None:
        with suppress(OSError):  # awake already, or over
            self._waker.send(b"!")

    def run(self, connect: Connect) -> CloseCause:
        """Carry the connection to its end. Returns why it ended. May raise OSError: the agent is gone."""
        try:
            server = connect(self._destination.host, self._destination.port)
        except (CloisterError, OSError) as error:
            self.end()
            return _name_failure(error)
        with server:
            server.setblocking(False)
            with suppress(OSError):
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self._tunnels.tell(Opened(self.id))
                return self._carry(server)
            finally:
                self.end()

    def end(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._gone = True
            self._queue.clear()
        self._wake.close()
        self._waker.close()

    def _carry(self, server: socket.socket) -> CloseCause:
        until, finished = time.monotonic() + _IDLE, False
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                with self._lock:
                    if self._gone:
                        return CloseCause.ENDED
                    room, waiting, ended = self._sending.left, bool(self._queue), self._ended
                if ended and not waiting and not finished:
                    finished = True
                    with suppress(OSError):
                        server.shutdown(socket.SHUT_WR)
                events = (selectors.EVENT_READ if room else 0) | (selectors.EVENT_WRITE if waiting else 0)
                _watch(selector, server, events)
                ready = selector.select(max(0.0, until - time.monotonic()))
                if not ready:
                    return CloseCause.IDLE
                for key, happened in ready:
                    if key.fileobj is self._wake:
                        with suppress(BlockingIOError):
                            self._wake.recv(4096)
                        continue
                    until = time.monotonic() + _IDLE
                    if happened & selectors.EVENT_WRITE:
                        self._write(server)
                    cause = self._read(server) if happened & selectors.EVENT_READ else None
                    if cause is not None:
                        return cause

    def _read(self, server: socket.socket) -> CloseCause | None:
        """Give the agent what there is. Returns why the connection ended, if it did."""
        try:
            data = server.recv(min(PIECE, self._sending.left))
        except BlockingIOError:
            return None
        except OSError:
            return CloseCause.BROKEN
        if not data:
            return CloseCause.ENDED
        if not self._tunnels.spend(len(data)):
            return CloseCause.LIMIT
        with self._lock:
            self._sending.spend(len(data))
        self._tunnels.tell(Data(self.id, data))
        return None

    def _write(self, server: socket.socket) -> None:
        """Give the server what it takes. One that takes nothing any more may still have something to say."""
        with self._lock:
            piece = self._queue.popleft()
        try:
            sent = server.send(piece)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(piece)
        with self._lock:
            if sent < len(piece):
                self._queue.appendleft(piece[sent:])
            granted = self._taking.pass_on(sent)
        if granted:
            self._tunnels.tell(Grant(self.id, granted))


def _watch(selector: selectors.BaseSelector, server: socket.socket, events: int) -> None:
    watched = selector.get_map().get(server)
    if watched is None:
        if events:
            selector.register(server, events)
    elif not events:
        selector.unregister(server)
    elif watched.events != events:
        selector.modify(server, events)


def _name_failure(error: Exception) -> CloseCause:
    match error:
        case Denied():
            return CloseCause.DENIED
        case NotFound():
            return CloseCause.UNKNOWN_HOST
        case CloisterError(code=code) if code == TIMED_OUT:
            return CloseCause.TIMED_OUT
        case _:
            return CloseCause.UNREACHABLE
