"""Requests as bytes, so that nothing between the test and the server makes them better than they are."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Headers = Iterable[tuple[str, str]]
PAGE = "https://page.example"
"""Where the asking page was loaded from."""


@dataclass(frozen=True)
class Answer:
    """One answer. ``headers`` have lower-case names; a header that came twice is joined by a comma."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Origin:
    """A server. Every method opens a connection of its own."""

    url: str

    def connect(self, timeout: float = 20.0) -> socket.socket:
        """A connection."""
        place = urlsplit(self.url)
        return socket.create_connection((place.hostname, place.port), timeout=timeout)

    def send(self, data: bytes, *, method: str = "GET") -> Answer:
        """Send bytes and read one answer. A server that answers early and closes may cut our sending short."""
        with self.connect() as plug:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                plug.sendall(data)
            return read_answer(plug, method)

    def ask(self, method: str, target: str, *, headers: Headers = (), body: bytes | None = None) -> Answer:
        """A request of a page of another origin."""
        return self.send(build_request(method, target, headers=headers, body=body), method=method)


def build_request(method: str, target: str, *, headers: Headers = (), body: bytes | None = None) -> bytes:
    """The bytes of a request; nothing is escaped or checked."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", f"Origin: {PAGE}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def read_answer(plug: socket.socket, method: str = "GET") -> Answer:
    """Read one answer."""
    response = http.client.HTTPResponse(plug, method=method)
    response.begin()
    headers: dict[str, str] = {}
    for name, value in response.getheaders():
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    return Answer(response.status, headers, response.read())
