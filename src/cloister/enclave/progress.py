"""Progress of a running iApp: read from its pipe, held to a rate, sealed to the requester, signed, given to the host.

The iApp may be hostile. It gets one pipe that is looked at when the agent's clock ticks, so a flood of lines fills the
pipe and makes the iApp wait, not the agent; of what comes in one look only the newest lines are read. Updates leave at
whole seconds since the start, in one size, so the host learns from them little more than that the iApp lives.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from cloister.enclave.host import HostChannel
from cloister.enclave.sandbox import SandboxSpec
from cloister.enclave.session import EnclaveKeys, Session
from cloister.errors import CloisterError, DecodeError
from cloister.protocol.progress import (
    LINE_CAP,
    UPDATES_CAP,
    ProgressMessage,
    ProgressUpdate,
    build_message,
    build_update,
    parse_line,
    progress_digest,
    progress_info,
)
from cloister.protocol.releases import Release, ResultFormat
from cloister.sealing import envelope
from cloister.sealing.envelope import HpkePublicKey

VARIABLE = "CLOISTER_PROGRESS_FD"
PERIOD = 1.0
"""Seconds between two updates."""
_LOOK = 1 << 16
_LAST_LOOKS = 17
"""Looks into the pipe at the end: more than it can hold (1 MiB, the most that an unprivileged iApp may set)."""
_CANDIDATES = 8
"""How many of the newest lines are tried for one that reads."""


class ProgressPipe:
    """A companion with a pipe, whose write end (``writer``) is the iApp's. One thread; times are monotonic seconds.

    ``budget``: most bytes that the iApp may say this way; ``spent`` is what it said. ``ignored`` counts lines that were
    tried and do not read.
    """

    def __init__(self, give: Callable[[int, ProgressMessage], None], *, budget: int) -> None:
        """``give`` is handed each update's number, from 1, and message."""
        self._give = give
        self._budget = budget
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Only our end must not block: the flag belongs to an end, not to the pipe.
        os.set_blocking(self.writer, True)
        self._started = 0.0
        self._period = 0
        self._rest = b""
        self._lines: deque[bytes] = deque(maxlen=_CANDIDATES)
        self.sent = 0
        self.spent = 0
        self.ignored = 0

    def begin(self, selector: selectors.BaseSelector) -> None:
        """Take the time from which seconds are counted."""
        self._started = time.monotonic()

    def tick(self, now: float) -> None:
        """Look once, and pass the newest message on when a second is over."""
        self._look()
        period = int((now - self._started) / PERIOD)
        # The last number is kept for the message that the iApp ends with.
        if period > self._period and self._lines and self.sent < UPDATES_CAP - 1:
            self._period = period
            self._pass_on()

    def close(self) -> None:
        """Pass the last message on, whatever the time, and close our end."""
        if self._reader < 0:
            return
        try:
            for _ in range(_LAST_LOOKS):
                if not self._look():
                    break
            if self._rest.strip():
                self._lines.append(self._rest)
            self._pass_on()
        finally:
            os.close(self._reader)
            self._reader = -1

    def _look(self) -> bool:
        """Read what is there, at most so much. False when there is nothing."""
        try:
            data = os.read(self._reader, _LOOK)
        except BlockingIOError:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        # A line that is too long does not read either; of one that does not end its first bytes say as much.
        self._rest = self._rest[: LINE_CAP + 1]
        self._lines.extend(line[: LINE_CAP + 1] for line in lines[-_CANDIDATES:] if line.strip())
        return bool(data)

    def _pass_on(self) -> None:
        """Give the newest line that reads, if the budget has room for it."""
        while self._lines:
            try:
                message = parse_line(self._lines.pop())
            except CloisterError:
                self.ignored += 1
                continue
            self._lines.clear()
            if self.spent + message.weight <= self._budget:
                self.sent += 1
                self.spent += message.weight
                self._give(self.sent, message)
            return


def open_pipe(host: HostChannel, session: Session, keys: EnclaveKeys, *, budget: int) -> ProgressPipe | None:
    """The pipe of a task whose requester can read progress; None where the result goes to an RSA key, or to a key that is
    none (sealing the result will say so).
    """
    release = session.release
    reader: HpkePublicKey | None = None
    if release.result_format is ResultFormat.RSA:
        return None
    if release.result_format is ResultFormat.HPKE:
        try:
            reader = HpkePublicKey(release.result_public_key or b"")
        except DecodeError:
            return None
    return ProgressPipe(lambda number, message: _send(host, session, keys, reader, number, message), budget=budget)


def attach(spec: SandboxSpec, pipe: ProgressPipe | None) -> SandboxSpec:
    """The spec with the pipe beside its iApp."""
    if pipe is None:
        return spec
    return replace(
        spec,
        environment={**spec.environment, VARIABLE: str(pipe.writer)},
        companions=(*spec.companions, pipe),
        inherited=(*spec.inherited, pipe.writer),
    )


def _send(
    host: HostChannel,
    session: Session,
    keys: EnclaveKeys,
    reader: HpkePublicKey | None,
    number: int,
    message: ProgressMessage,
) -> None:
    release: Release = session.release
    content = build_message(message)
    if reader is not None:
        content = envelope.seal(reader, content, progress_info(release.task_id, keys.challenge.address, number))
    digest = progress_digest(release.task_id, number, sealed=reader is not None, content=content)
    update = ProgressUpdate(
        worker=release.worker,
        authorization=session.authorization,
        signature=keys.challenge.sign_message(digest),
        sealed=reader is not None,
        content=content,
    )
    host.send("progress", {"number": number}, build_update(update))
