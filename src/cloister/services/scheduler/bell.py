"""Wakes long polls the moment a task can be leased, without a thread per waiting worker."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class Ear:
    """One waiting poll. What rings between two waits is not missed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Wake the poll; from any thread."""
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits there any more
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Return when the bell rang since the last wait, or after ``seconds``."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        self._event.clear()


class Bell:
    """Rung from any thread, heard by every poll that listens."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ears: set[Ear] = set()

    @contextlib.contextmanager
    def listen(self) -> Iterator[Ear]:
        """Listen from now on; call from inside an event loop, and look for work after that, not before."""
        ear = Ear()
        with self._lock:
            self._ears.add(ear)
        try:
            yield ear
        finally:
            with self._lock:
                self._ears.discard(ear)

    @property
    def listeners(self) -> int:
        """How many polls wait."""
        with self._lock:
            return len(self._ears)

    def ring(self) -> None:
        """Wake every poll."""
        with self._lock:
            ears = tuple(self._ears)
        for ear in ears:
            ear.wake()
