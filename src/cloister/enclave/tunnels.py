"""The network of an iApp whose manifest names hosts: a CONNECT proxy on the loopback of the enclave's own empty network.

The agent holds every request against the measured manifest and carries the bytes over the channel to the host, which
connects. Between iApp and server they are TLS's; the host sees names, sizes and times.

One thread, nothing blocks, nothing is buffered without a bound: an iApp that does not read is not read for, a host that
sends more than its window ends the task. See ``protocol.tunnels`` for the frames.
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import socket
import struct
import time
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Final

from cloister.enclave.bundle import LIBRARY_TARGET
from cloister.enclave.causes import Cause, TaskError
from cloister.enclave.clients import READ, WRITE, Client, State
from cloister.enclave.companions import Ready
from cloister.enclave.connect import (
    ESTABLISHED,
    HEADER_CAP,
    HEADER_END,
    Refusal,
    build_refusal,
    describe_failure,
    parse_connect,
)
from cloister.enclave.host import HostChannel
from cloister.enclave.sandbox import SandboxSpec
from cloister.errors import DecodeError, UnavailableError
from cloister.protocol.channel import TUNNEL
from cloister.protocol.destinations import Destination
from cloister.protocol.tunnels import (
    AT_ONCE,
    BYTES_IN_ALL,
    CONNECT_SECONDS,
    IDLE_SECONDS,
    IN_ALL,
    PIECE,
    Close,
    CloseCause,
    Data,
    End,
    Grant,
    Open,
    Opened,
    Tunnel,
    build_tunnel,
    parse_tunnel,
)

HEADER_SECONDS: Final = 10.0
"""How long a client may take for its request."""
CERTIFICATES: Final = "certifi/cacert.pem"
"""Where a bundle's libraries hold certificate authorities, when they do. The host's own are not measured, so never shown."""
_ANSWER_SECONDS = CONNECT_SECONDS + 5
_LEAVE_SECONDS = 2.0
_BACKLOG = 1024
_SIOCGIFFLAGS, _IFF_UP = 0x8913, 1


class Tunnels:
    """A companion that serves ``allowed``, destinations as the manifest spells them. ``budget``: most bytes in all.

    What the iApp does wrong is answered to the iApp. Raises, from its callbacks: UnavailableError, the host is gone;
    DecodeError, the host breaks the rules.

    Raises:
        TaskError: the enclave's loopback cannot be used.
    """

    def __init__(self, host: HostChannel, allowed: tuple[str, ...], *, budget: int = BYTES_IN_ALL) -> None:
        self._host = host
        self._allowed = frozenset(allowed)
        self._budget = budget
        self._selector: selectors.BaseSelector | None = None
        self._connections: set[Client] = set()
        self._open: dict[int, Client] = {}
        self._last = 0
        self._accepts = False
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._listener.setblocking(False)
            _check_loopback(self._listener)
            self._listener.bind(("127.0.0.1", 0))
            self._listener.listen(_BACKLOG)
        except OSError as error:
            self._listener.close()
            raise TaskError(Cause.SANDBOX_FAILED, f"the enclave's loopback: {error.strerror}") from error

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def begin(self, selector: selectors.BaseSelector) -> None:
        """Begin to serve."""
        self._selector = selector
        selector.register(self._host, READ, self._host_ready)
        self._listen()

    def tick(self, now: float) -> None:
        """End what takes too long."""
        for connection in [item for item in self._connections if now >= item.until]:
            match connection.state:
                case State.ASKING:
                    line = f"a request must be here within {HEADER_SECONDS:g} seconds"
                    self._refuse(connection, Refusal(HTTPStatus.REQUEST_TIMEOUT, line))
                case State.WAITING:
                    self._tell_close(connection, CloseCause.TIMED_OUT)
                    self._fail(connection, CloseCause.TIMED_OUT)
                case State.OPEN:
                    self._drop(connection, CloseCause.IDLE)
                case State.LEAVING:
                    self._drop(connection)

    def close(self) -> None:
        """End all connections and tell the host."""
        selector, self._selector = self._selector, None
        if selector is not None:
            with suppress(KeyError, ValueError):
                selector.unregister(self._host)
            if self._accepts:
                selector.unregister(self._listener)
        for connection in list(self._connections):
            if selector is not None and connection.events:
                selector.unregister(connection.socket)
            connection.events = 0
            with suppress(UnavailableError):
                self._drop(connection)
        self._accepts = False
        self._listener.close()

    # --- clients ---

    def _listen(self) -> None:
        """Take new clients while there is room; the others wait in the kernel's queue."""
        wants = len(self._connections) < AT_ONCE
        if self._selector is None or wants == self._accepts:
            return
        if wants:
            self._selector.register(self._listener, READ, self._listener_ready)
        else:
            self._selector.unregister(self._listener)
        self._accepts = wants

    def _listener_ready(self, _key: selectors.SelectorKey, _events: int) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:  # it left again
            return
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Client(accepted, time.monotonic() + HEADER_SECONDS)
        self._connections.add(connection)
        self._watch(connection)
        self._listen()

    def _watch(self, connection: Client) -> None:
        wants = connection.wants()
        if self._selector is None or wants == connection.events or connection not in self._connections:
            return
        if not wants:
            self._selector.unregister(connection.socket)
        elif connection.events:
            self._selector.modify(connection.socket, wants, self._ready(connection))
        else:
            self._selector.register(connection.socket, wants, self._ready(connection))
        connection.events = wants

    def _ready(self, connection: Client) -> Ready:
        def serve(_key: selectors.SelectorKey, events: int) -> None:
            if events & WRITE:
                self._flush(connection)
            # Whatever came before in the same round may have ended it.
            if events & READ and connection in self._connections:
                self._read(connection)
            self._watch(connection)

        return serve

    def _read(self, connection: Client) -> None:
        most = {State.ASKING: HEADER_CAP - len(connection.request), State.OPEN: min(PIECE, connection.sending.left)}
        try:
            data = connection.socket.recv(most.get(connection.state, PIECE))
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection, CloseCause.BROKEN)
            return
        match connection.state:
            case State.ASKING if data:
                self._hear_request(connection, data)
            case State.OPEN if data:
                self._carry(connection, data)
            case State.OPEN:
                connection.ended = True
                self._tell(End(connection.id))
            case State.LEAVING if data:
                pass
            case _:
                self._drop(connection, CloseCause.BROKEN)

    def _hear_request(self, connection: Client, data: bytes) -> None:
        connection.request += data
        head, end, rest = connection.request.partition(HEADER_END)
        if not end:
            if len(connection.request) >= HEADER_CAP:
                line = f"a request's header is at most {HEADER_CAP} bytes"
                self._refuse(connection, Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, line))
            return
        answer = parse_connect(head, self._allowed)
        if isinstance(answer, Destination) and (self._last >= IN_ALL or self._budget <= 0):
            line = f"this run had its {IN_ALL} connections, or its bytes"
            answer = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, line)
        if isinstance(answer, Refusal):
            self._refuse(connection, answer)
            return
        self._last += 1
        connection.id, connection.destination, connection.request = self._last, answer, rest
        connection.state, connection.until = State.WAITING, time.monotonic() + _ANSWER_SECONDS
        self._open[connection.id] = connection
        self._tell(Open(connection.id, answer))

    def _carry(self, connection: Client, data: bytes) -> None:
        connection.until = time.monotonic() + IDLE_SECONDS
        connection.sending.spend(len(data))
        self._tell(Data(connection.id, data))
        self._spend(len(data))

    def _give(self, connection: Client, data: bytes) -> None:
        connection.out.append(memoryview(data))
        self._flush(connection)
        self._watch(connection)

    def _flush(self, connection: Client) -> None:
        """Write what the client takes, and give the host as much window again."""
        try:
            sent, granted = connection.write()
        except OSError:
            self._drop(connection, CloseCause.BROKEN)
            return
        if connection.state is State.OPEN:
            if sent:
                connection.until = time.monotonic() + IDLE_SECONDS
            if granted:
                self._tell(Grant(connection.id, granted))
        elif connection.state is State.LEAVING and not connection.out:
            self._leave(connection)

    def _leave(self, connection: Client) -> None:
        """Say that nothing more comes. A socket that is closed with bytes unread would take back what was sent."""
        connection.until = time.monotonic() + _LEAVE_SECONDS
        with suppress(OSError):
            connection.socket.shutdown(socket.SHUT_WR)

    def _refuse(self, connection: Client, refusal: Refusal) -> None:
        answer = build_refusal(refusal)
        connection.state, connection.until = State.LEAVING, time.monotonic() + _LEAVE_SECONDS
        connection.own = len(answer)
        self._give(connection, answer)

    def _fail(self, connection: Client, cause: CloseCause) -> None:
        if connection.destination is not None:
            self._refuse(connection, describe_failure(connection.destination, cause))

    def _drop(self, connection: Client, cause: CloseCause = CloseCause.ENDED) -> None:
        """End a connection here, and its tunnel."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        if connection.events and self._selector is not None:
            self._selector.unregister(connection.socket)
        connection.events = 0
        connection.out.clear()
        connection.socket.close()
        self._listen()
        self._tell_close(connection, cause)

    # --- the host ---

    def _tell(self, message: Tunnel) -> None:
        frame = build_tunnel(message)
        self._host.send(frame.kind, frame.header, frame.body)

    def _tell_close(self, connection: Client, cause: CloseCause) -> None:
        if self._open.pop(connection.id, None) is not None:
            self._tell(Close(connection.id, cause))

    def _host_ready(self, _key: selectors.SelectorKey, _events: int) -> None:
        for frame in self._host.receive_now(TUNNEL):
            self._hear(parse_tunnel(frame))

    def _hear(self, message: Tunnel) -> None:
        if isinstance(message, Open | End) or message.id > self._last:
            raise DecodeError(f"the host speaks of tunnel {message.id}, which it was not asked for")
        connection = self._open.get(message.id)
        if connection is None:
            return  # it was closed here while this was on its way
        if (connection.state is State.WAITING) != isinstance(message, Opened) and not isinstance(message, Close):
            raise DecodeError(f"the host opens tunnel {message.id} twice, or uses it before it is open")
        match message:
            case Opened():
                self._begin_carrying(connection)
            case Data(_, content):
                connection.taking.take(len(content))
                self._give(connection, content)
                self._spend(len(content))
            case Grant(_, size):
                connection.sending.grant(size)
                self._watch(connection)
            case Close(_, cause):
                self._hear_close(connection, cause)

    def _begin_carrying(self, connection: Client) -> None:
        connection.state = State.OPEN
        early, connection.request = connection.request, b""
        connection.own = len(ESTABLISHED)
        self._give(connection, ESTABLISHED)
        if early and connection in self._connections:
            self._carry(connection, early)

    def _hear_close(self, connection: Client, cause: CloseCause) -> None:
        del self._open[connection.id]
        if connection.state is State.WAITING:
            self._fail(connection, cause)
            return
        connection.state, connection.until = State.LEAVING, time.monotonic() + IDLE_SECONDS
        self._flush(connection)
        self._watch(connection)

    def _spend(self, size: int) -> None:
        """Count bytes, and end everything when there were too many."""
        self._budget -= size
        if self._budget < 0:
            for connection in list(self._open.values()):
                self._drop(connection, CloseCause.LIMIT)


def _check_loopback(any_socket: socket.socket) -> None:
    """Raise OSError when ``lo`` is down: a name can be bound to it all the same (netdevice(7))."""
    answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
    if not struct.unpack("16sh22x", answer)[1] & _IFF_UP:
        raise OSError(errno.ENETDOWN, os.strerror(errno.ENETDOWN))


def connect(spec: SandboxSpec, tunnels: Tunnels, library: Path | None) -> SandboxSpec:
    """The spec with the network beside its iApp. ``library``: the bundle's dependencies; an image has its own."""
    environment = {
        **spec.environment,
        "HTTPS_PROXY": tunnels.url,
        "https_proxy": tunnels.url,
        "NO_PROXY": "",
        "no_proxy": "",
        "NODE_USE_ENV_PROXY": "1",
    }
    if library is not None and (library / CERTIFICATES).is_file():
        environment["SSL_CERT_FILE"] = f"{LIBRARY_TARGET}/{CERTIFICATES}"
    return replace(spec, environment=environment, companions=(*spec.companions, tunnels), online=True)
