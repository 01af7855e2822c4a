"""The channel to the host, as the agent uses it: ask, be answered, give.

The host is not trusted. It can refuse, stall or lie; every answer is capped and timed here and proved elsewhere.

| agent | host |
|---|---|
| ``ready {version, measurement}`` | ``platform {platform}`` + what the attester needs, then ``task {...}`` |
| ``nonce {task_id}`` | ``nonce {nonce, expires_at}`` |
| ``session {}`` + request | ``session {}`` + answer |
| ``fetch {location, purpose, max_bytes}`` | ``chunk {}`` + bytes, ..., ``end {}`` |
| ``report {status}`` or ``report {cause, message}`` | |
| ``logs {}`` + JSON | |
| ``result {size, sha256}``, ``chunk {}`` + bytes, ..., ``end {}`` | |
| ``done {...}`` | |

Any question may be answered with ``error {cause, message}``.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cloister.enclave.causes import Cause, TaskError
from cloister.errors import CloisterError, DecodeError, TooLarge, UnavailableError, quoted
from cloister.protocol.channel import Frame, FrameParser, build_frame

CHANNEL_VERSION = 1
CHUNK = 1 << 20
_READ = 1 << 20


class HostRefused(UnavailableError):  # it is the host's answer, not a fault here
    """The host answered a question with an error; ``code`` is the one that it gave."""

    code = "host-refused"


class HostChannel:
    """Frames over a connected stream socket. One thread; questions are answered one at a time.

    ``timeout``: seconds that the host may leave the agent without a byte.
    """

    def __init__(self, connection: socket.socket, *, timeout: float = 300.0) -> None:
        self._connection = connection
        self._parser = FrameParser()
        self._waiting: list[Frame] = []
        self._timeout = timeout

    def send(self, kind: str, header: Mapping[str, Any] | None = None, body: bytes = b"") -> None:
        """Give one frame to the host.

        Raises:
            UnavailableError: the host is gone.
        """
        try:
            self._connection.settimeout(self._timeout)
            self._connection.sendall(build_frame(Frame(kind, header or {}, body)))
        except OSError as error:
            raise UnavailableError("the host is gone") from error

    def receive(self, *kinds: str, forever: bool = False) -> Frame:
        """Take the host's next frame, which must be of one of ``kinds``. ``forever`` waits without a limit (a warm
        agent).

        Raises:
            HostRefused: an error frame. UnavailableError: gone or silent. DecodeError, TooLarge: malformed, or
            another kind.
        """
        while not self._waiting:
            try:
                self._connection.settimeout(None if forever else self._timeout)
                data = self._connection.recv(_READ)
            except OSError as error:
                raise UnavailableError("the host does not answer") from error
            if not data:
                raise UnavailableError("the host is gone")
            self._waiting += self._parser.feed(data)
        frame = self._waiting.pop(0)
        if frame.kind == "error":
            code = quoted(frame.header.get("cause", HostRefused.code))
            raise HostRefused(quoted(frame.header.get("message", "refused by the host")), code=code)
        if frame.kind not in kinds:
            raise DecodeError(f"the host sent {quoted(frame.kind)} where {' or '.join(kinds)} was expected")
        return frame

    def ask(self, kind: str, header: Mapping[str, Any] | None = None, body: bytes = b"") -> Frame:
        """Send a question; its answer has the same kind."""
        self.send(kind, header, body)
        return self.receive(kind)

    def fetch(self, location: str, *, purpose: str, max_bytes: int, seconds: float) -> Iterator[bytes]:
        """Have the host fetch a location; nothing of the content is proved.

        Raises:
            TooLarge: more than ``max_bytes``. UnavailableError: gone, refused, or slower than ``seconds`` in all.
        """
        deadline = time.monotonic() + seconds
        self.send("fetch", {"location": location, "purpose": purpose, "max_bytes": max_bytes})
        left = max_bytes
        while True:
            frame = self.receive("chunk", "end")
            if frame.kind == "end":
                return
            left -= len(frame.body)
            if left < 0:
                raise TooLarge(f"{quoted(location)} is larger than {max_bytes} bytes")
            if time.monotonic() > deadline:
                raise UnavailableError(f"{quoted(location)} took longer than {seconds:g} seconds")
            yield frame.body

    def send_stream(self, kind: str, header: Mapping[str, Any], chunks: Iterable[bytes]) -> None:
        """Give a frame, then bytes in pieces, then ``end``."""
        self.send(kind, header)
        for chunk in chunks:
            view = memoryview(chunk)
            for start in range(0, len(view), CHUNK):
                self.send("chunk", body=bytes(view[start : start + CHUNK]))
        self.send("end")

    def fail(self, error: CloisterError) -> None:
        """Tell the host the named cause, as the agent's last word."""
        cause = error.cause if isinstance(error, TaskError) else Cause.PRE_COMPUTE_FAILED_UNKNOWN_ISSUE
        self.send("report", {"cause": cause.value, "message": quoted(error.message)})
