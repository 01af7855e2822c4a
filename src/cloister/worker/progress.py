"""Passing a running app's progress on to the scheduler: decoration, which no task waits for and no failure stops."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from cloister.errors import CloisterError

log = logging.getLogger("cloister.worker")

_WAITING = 4
"""How many updates wait for a slow scheduler; the oldest goes first, for newer ones say more."""


class ProgressLine:
    """Speaks for one enclave from a thread of its own, which begins with the first update. Thread-safe.

    ``give`` is handed number and update in that thread; it may be slow and raise.
    """

    def __init__(self, give: Callable[[int, bytes], None]) -> None:
        self._give = give
        self._waiting: deque[tuple[int, bytes]] = deque(maxlen=_WAITING)
        self._news = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def tell(self, number: int, update: bytes) -> None:
        """Take an update; it goes out when it can. Returns at once."""
        with self._news:
            self._waiting.append((number, update))
            self._news.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Let the thread end once it has said what waits. Returns at once."""
        with self._news:
            self._closed = True
            self._news.notify()

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._waiting:
                    if self._closed:
                        return
                    self._news.wait()
                number, update = self._waiting.popleft()
            try:
                self._give(number, update)
            except CloisterError as error:
                log.info("progress %s was not told: %s", number, error.message)
            except Exception:
                log.exception("progress %s was not told", number)
