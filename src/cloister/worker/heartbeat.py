"""Signs of life: while a task runs, its lease is kept, and the scheduler's wish to end it is heard."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cloister.clients.scheduler import Lease, ReplicateStatus, WorkerCalls
from cloister.errors import CloisterError, Conflict, NotFound
from cloister.worker.clock import ChainClock

log = logging.getLogger("cloister.worker")

MAX_BEAT = 8.0
_LAST_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Sign:
    """What one sign of life says: the replicate's status, and what ``finalize`` will carry once it is known."""

    status: ReplicateStatus
    results: str | None = None
    results_callback: bytes = b""


class Heartbeat:
    """Speaks for one lease from a thread of its own while its ``with`` block runs.

    ``sign`` says what to tell, or None for nothing; ``abort`` is called when another has the lease or the scheduler
    wants an end. Both are called from that thread.
    """

    def __init__(
        self,
        scheduler: WorkerCalls,
        lease: Lease,
        clock: ChainClock,
        *,
        sign: Callable[[], Sign | None],
        abort: Callable[[], None],
    ) -> None:
        self._scheduler = scheduler
        self._lease = lease
        self._clock = clock
        self._sign = sign
        self._abort = abort
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"beat-{lease.lease_id[:8]}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=_LAST_SECONDS)

    def _beat(self) -> None:
        expires_at = float(self._lease.expires_at)
        # The lease's end is of the scheduler's clock; should ours differ, we only speak more often.
        while not self._end.wait(min(MAX_BEAT, max(0.5, (expires_at - time.time()) / 3))):
            try:
                self._clock.look()
                sign = self._sign()
                if sign is not None:
                    expires_at = self._speak(sign, expires_at)
            except CloisterError as error:
                log.info("task %s: no heartbeat: %s", self._lease.task_id, error.message)
            except Exception:
                log.exception("task %s: no heartbeat", self._lease.task_id)

    def _speak(self, sign: Sign, expires_at: float) -> float:
        """Send one sign of life; returns until when the lease lasts."""
        try:
            beat = self._scheduler.beat(
                self._lease.lease_id, sign.status, results=sign.results, results_callback=sign.results_callback
            )
        except (NotFound, Conflict):
            self._abort()  # another worker has it
            return expires_at
        if beat.abort:
            self._abort()
        return float(beat.expires_at)
