"""What time it is on the chain, as a worker needs it: deadlines are the chain's, and its clock need not be ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cloister.errors import CloisterError

FRESH_SECONDS = 3.0
"""How old a look may be before the next ``look`` asks the chain again."""


class ChainClock:
    """The newest block's time plus what passed since it was first seen, and never behind this machine's clock.

    A private chain may run ahead of the wall, a still chain's newest block may be old: the next block is stamped with
    the later of both. A worker that takes it for later than it is gives up a little early; the other way round it would
    work for nothing. ``head_time`` asks for the newest block's time in unix seconds, or raises UnavailableError.
    Thread-safe; ``now`` never waits for the chain.
    """

    def __init__(
        self,
        head_time: Callable[[], int],
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._head_time = head_time
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._block_time = 0
        self._seen_at = 0.0
        self._looked_at = float("-inf")

    def look(self) -> None:
        """Ask the chain, unless that was done a moment ago. A chain that does not answer leaves the clock running."""
        with self._lock:
            if self._monotonic() - self._looked_at < FRESH_SECONDS:
                return
            self._looked_at = self._monotonic()
        try:
            block_time = self._head_time()
        except CloisterError:
            return
        with self._lock:
            if block_time != self._block_time:  # earlier than before, too: a chain that went back
                self._block_time, self._seen_at = block_time, self._monotonic()

    def now(self) -> float:
        """Unix seconds on the chain, as far as is known."""
        with self._lock:
            on_chain = self._block_time + (self._monotonic() - self._seen_at) if self._block_time else 0.0
        return max(on_chain, self._wall())
