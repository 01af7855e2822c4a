"""Connecting to the hosts that apps name."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Final

from cloister.errors import ConfigurationError, InputError, UnavailableError, quoted
from cloister.protocol.destinations import Destination, parse_destination
from cloister.protocol.tunnels import CONNECT_SECONDS
from cloister.worker.addresses import Addresses

TIMED_OUT: Final = "timed-out"
"""The code of the error for a host that did not answer in time."""
_ADDRESS_SECONDS = 8.0

Place = tuple[str, int]


class Connector:
    """Connects to destinations by name. ``connect_to`` (``host:port`` -> ``host:port``) sends some of them elsewhere, as
    curl's ``--connect-to`` does: the operator's own word, so where it leads is not held against the address rules. Who
    answers there is proved to the app by TLS, or not.

    Safe to use from several threads.
    """

    def __init__(self, addresses: Addresses, connect_to: Mapping[str, str] | None = None) -> None:
        self._addresses = addresses
        self._elsewhere = parse_connect_to(connect_to or {})

    def connect(self, host: str, port: int) -> socket.socket:
        """Open a connection.

        Raises:
            Denied, NotFound, InputError: what ``Addresses.resolve`` says of it. UnavailableError: it does not answer; with
            the code ``timed-out`` when not in time.
        """
        deadline = time.monotonic() + CONNECT_SECONDS
        destination = Destination(host, port)
        place = self._elsewhere.get(str(destination))
        if place is not None:
            return _connect(place, destination, deadline)
        reason = UnavailableError(f"{destination} has no address")
        for address in self._addresses.resolve(destination.host, destination.port):
            try:
                return _connect((address, destination.port), destination, deadline)
            except UnavailableError as error:
                reason = error
        raise reason


def _connect(place: Place, destination: Destination, deadline: float) -> socket.socket:
    left = deadline - time.monotonic()
    if left <= 0:
        raise UnavailableError(f"{destination} did not answer in time", code=TIMED_OUT)
    try:
        return socket.create_connection(place, timeout=min(left, _ADDRESS_SECONDS))
    except TimeoutError as error:
        raise UnavailableError(f"{destination} did not answer in time", code=TIMED_OUT) from error
    except OSError as error:
        raise UnavailableError(f"{destination} cannot be reached") from error


def parse_connect_to(connect_to: Mapping[str, str]) -> dict[str, Place]:
    """Read an operator's mapping; its keys are spelled as manifests spell hosts.

    Raises:
        ConfigurationError: a key is no destination, a value no ``host:port``.
    """
    hint = "write it as rates.example.org:443=127.0.0.1:8443"
    places: dict[str, Place] = {}
    for key, value in connect_to.items():
        try:
            name = str(parse_destination(key))
        except InputError as error:
            raise ConfigurationError(f"connect_to: {error.message}", hint=hint) from error
        host, _, port = value.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not (port.isascii() and port.isdigit()) or not 1 <= int(port[:6]) <= 65535:
            raise ConfigurationError(f"connect_to: {quoted(value)} is not host:port", hint=hint)
        places[name] = (host, int(port))
    return places
