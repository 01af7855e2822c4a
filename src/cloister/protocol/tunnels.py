"""Tunnels: connections of an iApp that are carried over the channel between agent and host.

A frame ``tunnel`` has ``op`` and ``id``. Numbers are given by the agent, upwards from 1, and never used twice.

| from | op | with | says |
|---|---|---|---|
| agent | ``open`` | ``host``, ``port`` | connect |
| host | ``opened`` | | connected |
| both | ``data`` | body | bytes of the connection |
| both | ``window`` | ``size`` | so many bytes more may be sent |
| agent | ``end`` | | the iApp will send no more, and may still read |
| both | ``close`` | ``cause`` | it is over; after the host's, what it sent before is still delivered |

Either side may send ``WINDOW`` bytes on a tunnel before it is given more. So what is in flight is bounded, and neither
side ever has to leave the channel unread because of one slow connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cloister.errors import DecodeError, InputError, TooLarge, quoted
from cloister.protocol.channel import TUNNEL, Frame
from cloister.protocol.codec import check_keys, parse_text, parse_uint
from cloister.protocol.destinations import HOST_CAP, Destination

AT_ONCE: Final = 32
"""Most tunnels of one task at a time."""
IN_ALL: Final = 4096
"""Most tunnels of one task."""
BYTES_IN_ALL: Final = 8 << 30
"""Most bytes of one task, both ways together."""
WINDOW: Final = 1 << 20
"""Bytes that may be on their way in one direction of a tunnel."""
PIECE: Final = 128 << 10
"""Most bytes of one ``data`` frame."""
CONNECT_SECONDS: Final = 20.0
"""How long the host tries to connect."""
IDLE_SECONDS: Final = 300.0
"""How long a tunnel may be silent both ways."""


class CloseCause(StrEnum):
    """Why a tunnel ended, or never began."""

    ENDED = "ended"
    BROKEN = "broken"
    IDLE = "idle"
    LIMIT = "limit"
    UNKNOWN_HOST = "unknown-host"
    DENIED = "denied"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed-out"


@dataclass(frozen=True, slots=True)
class Open:
    id: int
    destination: Destination


@dataclass(frozen=True, slots=True)
class Opened:
    id: int


@dataclass(frozen=True, slots=True)
class Data:
    id: int
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Grant:
    id: int
    size: int


@dataclass(frozen=True, slots=True)
class End:
    id: int


@dataclass(frozen=True, slots=True)
class Close:
    id: int
    cause: CloseCause


Tunnel = Open | Opened | Data | Grant | End | Close


def build_tunnel(message: Tunnel) -> Frame:
    """Write a message as a frame."""
    match message:
        case Open(id_, destination):
            return Frame(TUNNEL, {"op": "open", "id": id_, "host": destination.host, "port": destination.port})
        case Opened(id_):
            return Frame(TUNNEL, {"op": "opened", "id": id_})
        case Data(id_, content):
            return Frame(TUNNEL, {"op": "data", "id": id_}, content)
        case Grant(id_, size):
            return Frame(TUNNEL, {"op": "window", "id": id_, "size": size})
        case End(id_):
            return Frame(TUNNEL, {"op": "end", "id": id_})
        case Close(id_, cause):
            return Frame(TUNNEL, {"op": "close", "id": id_, "cause": cause.value})


def parse_tunnel(frame: Frame) -> Tunnel:
    """Read a ``tunnel`` frame.

    Raises:
        DecodeError: an unknown operation, a missing, unknown or malformed member, a body where none belongs. TooLarge: more
        data than one frame may hold.
    """
    header = dict(frame.header)
    op = header.pop("op", None)
    if not isinstance(op, str) or op not in _MEMBERS:
        raise DecodeError(f"tunnel {quoted(op)} is no operation")
    given = check_keys(f"tunnel {op}", header, required=("id", *_MEMBERS[op]))
    id_ = parse_uint("id", given["id"])
    if not 1 <= id_ <= IN_ALL:
        raise DecodeError(f"tunnel {quoted(str(id_))} is not from 1 to {IN_ALL}")
    if op == "data":
        return Data(id_, _check_content(frame.body))
    if frame.body:
        raise DecodeError(f"tunnel {op} has a body")
    match op:
        case "open":
            return Open(id_, _parse_destination(given))
        case "window":
            return Grant(id_, _parse_size(given["size"]))
        case "close":
            return Close(id_, _parse_cause(given["cause"]))
        case "end":
            return End(id_)
    return Opened(id_)


_MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    "open": ("host", "port"),
    "opened": (),
    "data": (),
    "window": ("size",),
    "end": (),
    "close": ("cause",),
}


def _check_content(content: bytes) -> bytes:
    if len(content) > PIECE:
        raise TooLarge(f"a tunnel's data of {len(content)} bytes is over its cap of {PIECE}")
    if not content:
        raise DecodeError("a tunnel's data is empty")
    return content


def _parse_destination(given: Mapping[str, object]) -> Destination:
    try:
        return Destination(parse_text("host", given["host"], cap=HOST_CAP), parse_uint("port", given["port"]))
    except InputError as error:
        raise DecodeError(error.message) from error


def _parse_size(value: object) -> int:
    size = parse_uint("size", value)
    if not 1 <= size <= WINDOW:
        raise DecodeError(f"a window of {quoted(str(size))} bytes is not from 1 to {WINDOW}")
    return size


def _parse_cause(value: object) -> CloseCause:
    if not isinstance(value, str) or value not in {cause.value for cause in CloseCause}:
        raise DecodeError(f"a tunnel closes for {quoted(value)}")
    return CloseCause(value)


class Sending:
    """How much may still be sent in one direction of a tunnel."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = WINDOW

    def spend(self, size: int) -> None:
        """``size`` bytes, at most what is left, were sent."""
        self.left -= size

    def grant(self, size: int) -> None:
        """The other side gives ``size`` more.

        Raises:
            DecodeError: it gives more than it was sent.
        """
        if self.left + size > WINDOW:
            raise DecodeError(f"a tunnel is given {size} bytes more than were sent")
        self.left += size


class Taking:
    """How much the other side may still send in one direction of a tunnel, and what it is to be given anew."""

    __slots__ = ("_left", "_owed")

    def __init__(self) -> None:
        self._left = WINDOW
        self._owed = 0

    def take(self, size: int) -> None:
        """``size`` bytes came.

        Raises:
            DecodeError: more than the window.
        """
        if size > self._left:
            raise DecodeError(f"a tunnel brings {size} bytes where {self._left} are allowed")
        self._left -= size

    def pass_on(self, size: int) -> int:
        """``size`` of the bytes that came went on. Returns what to grant now; 0 until it is worth a frame."""
        self._owed += size
        if self._owed < WINDOW // 4:
            return 0
        owed, self._owed = self._owed, 0
        self._left += owed
        return owed
