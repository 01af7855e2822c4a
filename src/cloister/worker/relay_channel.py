"""The channel to an agent as the relay uses it: frames with a deadline, and the agent's last words when it breaks off.

One thread receives. Others may send beside it: a frame is written whole before the next begins.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from cloister.errors import QUOTE_CAP, CloisterError, quoted
from cloister.protocol.channel import Frame, FrameParser, build_frame
from cloister.worker.runtimes.runtime import EnclaveProcess

_READ = 1 << 20
_IDLE_STEP = 0.5
_LAST_SECONDS = 5.0


class EnclaveFailed(CloisterError):  # a name of the protocol: the enclave failed
    """The agent could not do the task. ``cause`` is the platform's named cause; ``refusal`` is the code with which the SMS
    refused the session, where it did.
    """

    code = "enclave-failed"

    def __init__(self, cause: str, message: str, *, refusal: str | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.refusal = refusal


class Interrupted(EnclaveFailed):
    """Ends the conversation whatever is being answered."""


class RelayChannel:
    """Frames over the channel of ``process``, none later than ``deadline`` (unix seconds on ``clock``).

    ``aborted`` is asked at least every half second while frames are awaited.
    """

    def __init__(
        self, process: EnclaveProcess, *, deadline: float, aborted: Callable[[], bool], clock: Callable[[], float]
    ) -> None:
        self._process = process
        self._incoming = process.channel
        # A timeout belongs to the socket object, so each direction has one. Neither ever blocks: that flag is shared.
        self._outgoing = process.channel.dup()
        self._sending = threading.Lock()
        self._deadline = deadline
        self._aborted = aborted
        self._clock = clock
        self._parser = FrameParser()
        self._waiting: list[Frame] = []
        self._look = 0.0

    def close(self) -> None:
        """Let go of the sending end; the process closes the other."""
        self._outgoing.close()

    def now(self) -> float:
        """Unix seconds, as the deadline counts."""
        return self._clock()

    def send(self, kind: str, header: Mapping[str, Any] | None = None, body: bytes = b"") -> None:
        """Give one frame, and hear the reason when the agent has ended.

        Raises:
            Interrupted: it stopped reading, or it ended and said why.
        """
        try:
            self.pass_on(Frame(kind, header or {}, body))
        except TimeoutError as error:
            raise Interrupted("ENCLAVE_TIMEOUT", "the enclave stopped reading") from error
        except ConnectionError as error:
            # It gave up in the middle of an answer; why, it said before it ended.
            while True:
                self._hear_last(self.receive(until=self._clock() + _LAST_SECONDS), error)

    def pass_on(self, frame: Frame) -> None:
        """Give one frame, from any thread.

        Raises:
            OSError: the agent is gone, or does not read.
        """
        data = build_frame(frame)
        with self._sending:
            self._outgoing.settimeout(max(1.0, self._deadline - self._clock()))
            self._outgoing.sendall(data)

    @staticmethod
    def _hear_last(frame: Frame, reason: OSError) -> None:
        if frame.kind == "report" and frame.header.get("cause") is not None:
            message = quoted(frame.header.get("message", ""))
            raise Interrupted(quoted(frame.header["cause"]), message) from reason

    def receive(self, *, until: float | None = None) -> Frame:
        """Take the agent's next frame; ``until`` is the task's deadline where nothing else is said.

        Raises:
            Interrupted: it ended, the time is over, or the task was aborted. DecodeError, TooLarge: malformed.
        """
        limit = self._deadline if until is None else until
        # An agent that always has something to say is not beyond the deadline either.
        if time.monotonic() >= self._look:
            self.check_time(limit)
        while not self._waiting:
            self._incoming.settimeout(_IDLE_STEP)
            try:
                data = self._incoming.recv(_READ)
            except TimeoutError:
                self.check_time(limit)
                continue
            except ConnectionError:
                data = b""
            if not data:
                raise Interrupted("ENCLAVE_DIED", self._last_words())
            self._waiting += self._parser.feed(data)
        return self._waiting.pop(0)

    def check_time(self, until: float | None = None) -> None:
        """Raise Interrupted when the task was aborted or its time is over."""
        self._look = time.monotonic() + _IDLE_STEP
        if self._aborted():
            raise Interrupted("ENCLAVE_ABORTED", "the task was aborted")
        if self._clock() >= (self._deadline if until is None else until):
            raise Interrupted("ENCLAVE_TIMEOUT", "the enclave did not finish in time")

    def _last_words(self) -> str:
        code = self._process.wait(2.0)
        problem = self._process.start_problem()
        return f"the enclave ended without a result (exit code {code}){': ' if problem else ''}{quoted(problem[-QUOTE_CAP:])}"
