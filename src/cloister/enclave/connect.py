"""What an iApp's HTTP client says to its proxy, and what it is answered: ``CONNECT host:port`` and one line of text.

Only CONNECT is served: what goes through it is between the iApp and the server, and any other request would show the host
what it says. Source: RFC 9110 9.3.6, RFC 9112 3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from cloister.errors import quoted
from cloister.protocol.destinations import Destination, parse_destination
from cloister.protocol.tunnels import CloseCause

HEADER_CAP: Final = 8192
HEADER_END: Final = b"\r\n\r\n"
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"

_REQUEST_LINE: Final = re.compile(rb"([!-~]+) ([!-~]+) HTTP/1\.[01]")


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that ends the connection. ``line`` is plain ASCII; clients show it as the reason."""

    status: HTTPStatus
    line: str


def parse_connect(head: bytes, allowed: frozenset[str]) -> Destination | Refusal:
    """Read a request up to its empty line. ``allowed`` holds ``host:port`` as manifests spell it."""
    match = _REQUEST_LINE.fullmatch(head.partition(b"\r\n")[0])
    if match is None:
        return Refusal(HTTPStatus.BAD_REQUEST, "this is no HTTP/1.1 request")
    method, target = (part.decode("ascii") for part in match.groups())
    if method != "CONNECT":
        line = (
            f"{quoted(method)} is not served, only CONNECT: a plain request would show the host what it says. Use https"
        )
        return Refusal(HTTPStatus.METHOD_NOT_ALLOWED, line.replace("\u2026", "..."))
    if target.lower() not in allowed:
        line = f"{quoted(target)} is not in the network list of this iApp's manifest (network in iapp.toml)"
        return Refusal(HTTPStatus.FORBIDDEN, line.replace("\u2026", "..."))
    return parse_destination(target)


def describe_failure(destination: Destination, cause: CloseCause) -> Refusal:
    """Say why the host did not connect. The words are ours: the host's own would be read by the iApp."""
    match cause:
        case CloseCause.TIMED_OUT:
            return Refusal(HTTPStatus.GATEWAY_TIMEOUT, f"{destination} did not answer in time")
        case CloseCause.UNKNOWN_HOST:
            return Refusal(HTTPStatus.BAD_GATEWAY, f"{destination}: there is no such host")
        case CloseCause.DENIED:
            return Refusal(
                HTTPStatus.BAD_GATEWAY, f"{destination} is at no public address, so the worker does not connect"
            )
        case _:
            return Refusal(HTTPStatus.BAD_GATEWAY, f"{destination} cannot be reached")


def build_refusal(refusal: Refusal) -> bytes:
    """Write the answer. The reason stands where clients look for it: in the status line, and in the body."""
    body = f"{refusal.line}\n".encode("ascii")
    allow = "Allow: CONNECT\r\n" if refusal.status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {refusal.status.value} {refusal.line}\r\nContent-Type: text/plain\r\n{allow}"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
