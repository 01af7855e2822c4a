"""Follows the chain for a service: one thread that polls, and whoever needs to waits for a block.

What a batch says is written together with the reader's cursor, in one transaction of the service. When that fails,
or the process is killed, reading begins again at the stored cursor; taking a block in twice must change nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from cloister.chain.events import Batch, Cursor
from cloister.errors import CloisterError, UnavailableError

POLL_SECONDS = 0.05
"""Between two polls: a quarter of the local network's block time."""
SAVE_SECONDS = 5.0
"""How often a cursor is saved while blocks hold nothing of interest."""
MAX_BACKOFF = 5.0
STALE_SECONDS = 60.0

log = logging.getLogger("cloister.following")


class BatchSource(Protocol):
    """Gives blocks in order, as ``chain.events.EventReader`` does."""

    def poll(self) -> Batch:
        """Return what is new since the last poll; never waits."""
        ...


class BatchSink(Protocol):
    """A service's memory of the chain. Called from the following thread only."""

    def load_cursor(self) -> Cursor | None:
        """Return the cursor that was stored with the last batch, None before the first."""
        ...

    def take(self, batch: Batch) -> None:
        """Undo what was rolled back, apply the logs and store the cursor, all or nothing, on disk when this returns."""
        ...


class Follower:
    """Start and stop from one thread; waiting is safe from any.

    ``head`` is asked for the newest block before each wait, where it knows sooner than a poll that the chain is away.
    """

    def __init__(
        self,
        name: str,
        *,
        sink: BatchSink,
        source: Callable[[Cursor | None], BatchSource],
        head: Callable[[], int] | None = None,
    ) -> None:
        self._name = name
        self._sink = sink
        self._make_source = source
        self._head = head
        self._source: BatchSource | None = None
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._moved = threading.Condition()
        self._block = -1
        self._begun = self._ended = 0  # the last poll that began, and the last that succeeded
        self._failures = 0  # polls without success since the last one that had it
        self._is_caught_up = False
        self._saved_at = float("-inf")
        self._polled_at = float("-inf")
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start following from the stored cursor."""
        self._thread = threading.Thread(target=self._run, name=f"{self._name} follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following. Safe to call twice, and without a start."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(10)
            self._thread = None

    def check_ready(self) -> None:
        """Return while the chain is read. Raises: UnavailableError when it was not for a minute, or not yet at all."""
        if time.monotonic() - self._polled_at > STALE_SECONDS:
            raise UnavailableError(f"{self._name} has not read the chain for a minute")

    @property
    def block(self) -> int:
        """The last block taken in; -1 before the first."""
        return self._block

    def catch_up(self, timeout: float) -> int:
        """Return the last block taken in once everything that is mined by now is taken in.

        That is: once a poll that began after the call found nothing more. The number of the newest block would not do,
        since a chain that takes blocks back comes to the same number again with other blocks.

        Raises: UnavailableError when that takes longer than ``timeout`` seconds, or the chain does not answer.
        """
        deadline = time.monotonic() + timeout
        if self._head is not None:
            self._head()
        with self._moved:
            wanted = self._begun + 1
            while self._ended < wanted or not self._is_caught_up:
                left = deadline - time.monotonic()
                # One failure may be a chain that changes while it is read: that is tried again at once.
                if left <= 0 or (self._begun >= wanted and self._failures > 1):
                    raise UnavailableError(f"{self._name} is at block {self._block} and does not get on")
                self._wake.set()
                self._moved.wait(min(left, POLL_SECONDS))
            return self._block

    def step(self) -> bool:
        """Take in what is new; True when there is more already.

        Raises: what source and sink raise. Then nothing of the batch is kept and the next step reads it again.
        """
        with self._moved:
            self._begun += 1
            number = self._begun
        try:
            if self._source is None:
                self._source = self._make_source(self._sink.load_cursor())
            batch = self._source.poll()
            now = time.monotonic()
            if batch.logs or batch.rolled_back_to is not None or (batch.blocks and now > self._saved_at + SAVE_SECONDS):
                self._sink.take(batch)
                self._saved_at = now
        except BaseException:
            # The source believes that this batch was taken: only the stored cursor knows.
            self._source = None
            with self._moved:
                self._failures += 1
                self._moved.notify_all()
            raise
        with self._moved:
            self._block, self._failures = batch.through, 0
            self._ended, self._is_caught_up = number, batch.is_caught_up
            self._moved.notify_all()
        return not batch.is_caught_up

    def _run(self) -> None:
        delay = POLL_SECONDS
        while not self._stopping.is_set():
            try:
                more = self.step()
                self._polled_at = time.monotonic()
                delay = 0.0 if more else POLL_SECONDS
            except CloisterError as error:
                log.warning("%s did not read the chain: %s", self._name, error.code)
                delay = min(MAX_BACKOFF, max(delay, POLL_SECONDS) * 2)
            except Exception:
                log.exception("%s could not take in a batch of blocks and tries again", self._name)
                delay = MAX_BACKOFF
            self._wake.wait(delay)
            self._wake.clear()
