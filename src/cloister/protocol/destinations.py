"""Where an iApp may connect to: a host name and a port, as its manifest names them.

Names only. An address says nothing of who is there, and whoever runs the host could give any machine that address; a name
can be held against the certificate of the server that answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cloister.errors import InputError, quoted

HTTPS: Final = 443
HOST_CAP: Final = 253

_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_ADDRESS: Final = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
"""What a resolver reads as an IPv4 address in one of its spellings: the last label is a number (WHATWG URL 3.5)."""
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_HINT: Final = 'write host names as "api.example.org" (port 443) or "api.example.org:8443"'


@dataclass(frozen=True, slots=True)
class Destination:
    """One host and one port. The host is lower case, without a dot at the end.

    Raises:
        InputError: no host name, an address, a pattern, or no port from 1 to 65535.
    """

    host: str
    port: int = HTTPS

    def __post_init__(self) -> None:
        host = self.host
        if "*" in host:
            raise InputError(f"{quoted(host)} is a pattern: each host is named by itself", hint=_HINT)
        if "[" in host or ":" in host or _ADDRESS.fullmatch(host):
            raise InputError(f"{quoted(host)} is an address: a host is named by its name", hint=_HINT)
        if len(host) > HOST_CAP or not _HOST.fullmatch(host):
            raise InputError(f"{quoted(host)} is not a host name", hint=_HINT)
        if isinstance(self.port, bool) or not 1 <= self.port <= 65535:
            raise InputError(f"port {quoted(str(self.port))} of {quoted(host)} is not from 1 to 65535", hint=_HINT)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def parse_destination(text: str) -> Destination:
    """Read ``host`` (port 443) or ``host:port``; upper case is lowered.

    Raises:
        InputError: anything else, with what is wrong.
    """
    if "/" in text:
        raise InputError(f"{quoted(text)} is not a host: leave out the scheme and the path", hint=_HINT)
    host, colon, port = text.lower().rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        return Destination(text.lower())
    if not _PORT.fullmatch(port) and ":" not in host:
        raise InputError(f"port {quoted(port)} of {quoted(host)} is not from 1 to 65535", hint=_HINT)
    return Destination(host, int(port) if _PORT.fullmatch(port) else HTTPS)
