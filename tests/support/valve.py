"""A TCP forwarder that can be shut, so that a real service goes away and comes back for one of its clients."""

from __future__ import annotations

import contextlib
import socket
import threading


class Valve:
    """Forwards a port of the loopback interface. Shut, it drops what is open and refuses what comes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._shut = False
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Where clients ask."""
        return f"http://127.0.0.1:{self.port}"

    def shut(self) -> None:
        """Go away."""
        with self._lock:
            self._shut = True
            for end in self._open:
                _hang_up(end)
            self._open.clear()

    def open(self) -> None:
        """Come back."""
        with self._lock:
            self._shut = False

    def close(self) -> None:
        """End for good."""
        self._closed = True
        self._listener.close()
        self.shut()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._shut:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open |= {client, server}
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            _hang_up(end)


def _hang_up(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
