"""An HTTP peer that answers as a test tells it, also badly."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass(frozen=True)
class Reply:
    """What the peer answers. ``drip`` seconds pass before each ``piece`` bytes; ``announce`` overrides the length."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    drip: float = 0.0
    piece: int = 1
    announce: int | None = None
    hang: float = 0.0
    chunked: bool = False


Answer = Callable[[dict[str, Any]], Reply]


@dataclass
class Peer:
    """A running peer and what it was asked."""

    url: str
    server: http.server.ThreadingHTTPServer
    requests: list[dict[str, Any]]


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves one connection; ``answer`` and ``requests`` are set on a class of its own for each peer."""

    protocol_version = "HTTP/1.1"
    answer: Answer
    requests: list[dict[str, Any]]

    def log_message(self, *_: object) -> None:
        pass

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = {"method": self.command, "target": self.path, "headers": headers, "body": self._body()}
        self.requests.append(request)
        reply = type(self).answer(request)
        time.sleep(reply.hang)
        self.send_response(reply.status)
        length = len(reply.body) if reply.announce is None else reply.announce
        framing = {"transfer-encoding": "chunked"} if reply.chunked else {"content-length": str(length)}
        for name, value in {"content-type": "application/json", **reply.headers, **framing}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(OSError):
                self._send(reply)
        if length > len(reply.body):
            self.close_connection = True

    def _send(self, reply: Reply) -> None:
        size = reply.piece if reply.drip else max(len(reply.body), 1)
        for start in range(0, len(reply.body), size):
            time.sleep(reply.drip)
            piece = reply.body[start : start + size]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if reply.chunked else piece)
            self.wfile.flush()
        if reply.chunked:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815  # names of the library


def start_peer(answer: Answer) -> Peer:
    """Start a peer on an ephemeral port; each request is a dict of method, target, headers and body."""
    requests: list[dict[str, Any]] = []
    handler = type("_PeerHandler", (_Handler,), {"answer": staticmethod(answer), "requests": requests})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return Peer(f"http://127.0.0.1:{server.server_port}", server, requests)


@pytest.fixture
def peer() -> Iterator[Callable[[Answer], Peer]]:
    """Starts peers that end with the test."""
    started: list[Peer] = []

    def start(answer: Answer) -> Peer:
        started.append(start_peer(answer))
        return started[-1]

    yield start
    for item in started:
        item.server.shutdown()
        item.server.server_close()
