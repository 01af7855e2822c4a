"""Servers on loopback that behave, and that do not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Server:
    """A server, and what it saw."""

    port: int
    accepted: int = 0
    open: int = 0
    peak: int = 0
    received: bytearray = field(default_factory=bytearray)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def serving(behave: Callable[[socket.socket, Server], None]) -> Iterator[Server]:
    """Serve every connection with ``behave``, in a thread each."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        server = Server(listener.getsockname()[1])
        connections: list[socket.socket] = []

        def serve(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                behave(connection, server)
            with server.lock:
                server.open -= 1

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    with server.lock:
                        server.accepted += 1
                        server.open += 1
                        server.peak = max(server.peak, server.open)
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def echo(connection: socket.socket, server: Server) -> None:
    """Give back what comes, until the other side has ended."""
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def deaf(connection: socket.socket, server: Server) -> None:
    """Never read, never write."""
    time.sleep(60)


def firehose(connection: socket.socket, server: Server) -> None:
    """Send for ever."""
    piece = bytes(1 << 16)
    while True:
        connection.sendall(piece)


def drip(connection: socket.socket, server: Server) -> None:
    """A byte at a time."""
    for byte in b"drop by drop":
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def swap(connection: socket.socket, server: Server) -> None:
    """Send as many bytes as an eight-byte length asks for, while reading as many."""
    size = int.from_bytes(connection.recv(8, socket.MSG_WAITALL))

    def give() -> None:
        left, piece = size, bytes(1 << 18)
        while left:
            left -= connection.send(piece[:left])

    giver = threading.Thread(target=give, daemon=True)
    giver.start()
    taken = 0
    while taken < size:
        taken += len(connection.recv(1 << 18))
    giver.join()
    connection.sendall(b"done")
