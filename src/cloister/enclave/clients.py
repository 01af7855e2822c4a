"""One connection of the iApp to its proxy: how far it is, and what lies ready for it."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from contextlib import suppress
from enum import Enum, auto

from cloister.protocol.destinations import Destination
from cloister.protocol.tunnels import Sending, Taking

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class State(Enum):
    """How far a client is."""

    ASKING = auto()  # its request is still coming
    WAITING = auto()  # the host connects
    OPEN = auto()
    LEAVING = auto()  # the last bytes go to the client; what still comes from it is dropped


class Client:
    """One connection of the iApp to the proxy."""

    __slots__ = (
        "destination",
        "ended",
        "events",
        "id",
        "out",
        "own",
        "request",
        "sending",
        "socket",
        "state",
        "taking",
        "until",
    )

    def __init__(self, connection: socket.socket, until: float) -> None:
        self.socket = connection
        self.state = State.ASKING
        self.id = 0
        self.destination: Destination | None = None
        self.request = b""
        self.out: deque[memoryview] = deque()
        self.own = 0  # how many of the next bytes in ``out`` are the proxy's
        self.sending = Sending()
        self.taking = Taking()
        self.ended = False
        self.until = until
        self.events = 0

    def wants(self) -> int:
        """The events to wait for."""
        reads = self.state in (State.ASKING, State.LEAVING) or (
            self.state is State.OPEN and not self.ended and self.sending.left > 0
        )
        return (READ if reads else 0) | (WRITE if self.out else 0)

    def write(self) -> tuple[int, int]:
        """Write what the client takes. Returns how many bytes went, and how much window the host is to be given for them.

        Raises:
            OSError: the client is gone.
        """
        sent = 0
        with suppress(BlockingIOError):
            while self.out:
                piece = self.out[0]
                count = self.socket.send(piece)
                sent += count
                if count < len(piece):
                    self.out[0] = piece[count:]
                    break
                self.out.popleft()
        own = min(sent, self.own)
        self.own -= own
        return sent, self.taking.pass_on(sent - own)
