"""The channel to the host, as the agent uses it: ask, be answered, give.

The host is not trusted. It can refuse, stall or lie; every answer is capped and timed here and proved elsewhere.

| agent | host |
|---|---|
| ``ready {version, measurement}`` | ``platform {platform}`` + what the attester needs, then ``task {...}`` |
| ``nonce {task_id}`` | ``nonce {nonce, expires_at}`` |
| ``session {}`` + request | ``session {}`` + answer |
| ``countersign {task_id, enclave_challenge, receipt_digest, signature}`` | ``countersign {}`` + COSE_Sign1 |
| ``fetch {location, purpose, max_bytes, seconds}`` + JSON | ``chunk {}`` + bytes, ..., ``end {}`` |
| ``tunnel {op, id, ...}`` while the iApp runs | ``tunnel {op, id, ...}``: see ``protocol.tunnels`` |
| ``report {status}`` or ``report {cause, message}`` | |
| ``logs {}`` + JSON | |
| ``progress {number}`` + update (``protocol.progress``), while the iApp runs | |
| ``result {size, sha256}``, ``chunk {}`` + bytes, ..., ``end {}`` | |
| ``done {...}`` | |

Any question may be answered with ``error {cause, message}``. The JSON of a ``fetch`` lists the locations that will be
asked for next, so that the host can begin with them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from cloister.enclave.causes import Cause, TaskError
from cloister.errors import CloisterError, DecodeError, TooLarge, UnavailableError, quoted
from cloister.protocol.channel import TUNNEL, Frame, FrameParser, build_frame
from cloister.protocol.codec import canonical_json

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
        agent). What still comes of the iApp's connections after its end is passed over.

        Raises:
            HostRefused: an error frame. UnavailableError: gone or silent. DecodeError, TooLarge: malformed, or
            another kind.
        """
        while True:
            while not self._waiting:
                self._waiting += self._read(None if forever else self._timeout)
            frame = self._waiting.pop(0)
            if frame.kind != TUNNEL:
                return self._check(frame, kinds)

    def receive_now(self, kind: str) -> list[Frame]:
        """Take the frames that are there, without waiting; all must be of ``kind``. Raises what ``receive`` raises."""
        frames, self._waiting = self._waiting, []
        with suppress(BlockingIOError):
            frames += self._read(0)
        return [self._check(frame, (kind,)) for frame in frames]

    def fileno(self) -> int:
        """The descriptor to wait on for ``receive_now``."""
        return self._connection.fileno()

    def _read(self, timeout: float | None) -> list[Frame]:
        try:
            self._connection.settimeout(timeout)
            data = self._connection.recv(_READ)
        except BlockingIOError:
            raise
        except OSError as error:
            raise UnavailableError("the host does not answer") from error
        if not data:
            raise UnavailableError("the host is gone")
        return self._parser.feed(data)

    @staticmethod
    def _check(frame: Frame, kinds: tuple[str, ...]) -> Frame:
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

    def fetch(
        self, location: str, *, purpose: str, max_bytes: int, seconds: float, ahead: tuple[str, ...] = ()
    ) -> Fetched:
        """Have the host fetch a location; nothing of the content is proved. See ``Fetched`` for what may be raised."""
        wanted = {"location": location, "purpose": purpose, "max_bytes": max_bytes, "seconds": int(seconds)}
        self.send("fetch", wanted, canonical_json(list(ahead)) if ahead else b"")
        return Fetched(self, location, max_bytes, seconds)

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


class Fetched:
    """The bytes of one location as they come from the host.

    Iterating raises: TooLarge for more than ``max_bytes``; HostRefused when the host gave up; UnavailableError when it
    is gone, or slower than ``seconds`` in all.
    """

    def __init__(self, host: HostChannel, location: str, max_bytes: int, seconds: float) -> None:
        self._host = host
        self._location = location
        self._max_bytes = max_bytes
        self._left = max_bytes
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._ended = False

    def __iter__(self) -> Fetched:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        try:
            frame = self._host.receive("chunk", "end")
        except HostRefused:
            self._ended = True
            raise
        if frame.kind == "end":
            self._ended = True
            raise StopIteration
        self._left -= len(frame.body)
        if self._left < 0:
            raise TooLarge(f"{quoted(self._location)} is larger than {self._max_bytes} bytes")
        if time.monotonic() > self._deadline:
            raise UnavailableError(f"{quoted(self._location)} took longer than {self._seconds:g} seconds")
        return frame.body

    def drain(self) -> None:
        """Pass over what the host still sends, so that the next question is answered with its own answer.

        Raises:
            TooLarge, UnavailableError: the host does not end it; there is nothing more to be had on this channel.
        """
        with suppress(HostRefused):
            for _ in self:
                pass
