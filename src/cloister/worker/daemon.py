"""The worker: leases tasks of its workerpool and runs several at once, until it is told to stop.

A start first takes up what the journal holds. Leases that the scheduler believes this worker has, but the journal does
not, come back with the next poll, so an answer that was lost on the way costs nothing.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

from cloister.clients.scheduler import Lease
from cloister.errors import CloisterError, UnavailableError
from cloister.worker.execution import Execution, Platform
from cloister.worker.journal import Entry

log = logging.getLogger("cloister.worker")

FULL_PAUSE = 0.2


class Worker:
    """One worker daemon. ``run`` returns after ``stop``."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._settings = platform.settings
        self._stop = threading.Event()
        self._halt = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, Future[None]] = {}
        self._freed = threading.Event()

    def stop(self) -> None:
        """Take no more tasks and come to a halt; safe from a signal handler."""
        self._stop.set()
        self._freed.set()

    def run(self) -> None:
        """Work until stopped.

        Raises:
            ConfigurationError: this host cannot start enclaves, or another worker has the state folder.
        """
        self._sweep()
        self._platform.enclaves.prepare()
        self._platform.sender.recover()
        with ThreadPoolExecutor(max_workers=self._settings.slots + 1, thread_name_prefix="task") as pool:
            for entry in self._platform.journal.entries():
                self._begin(pool, entry)
            turn = 0
            while not self._stop.is_set():
                try:
                    turn = 0 if self._poll(pool) else turn
                except CloisterError as error:
                    log.warning("no tasks could be leased: %s", error.message)
                    self._stop.wait(min(self._settings.retry_cap, self._settings.retry_seconds * 2**turn))
                    turn = min(turn + 1, 10)
            grace = threading.Timer(self._settings.stop_seconds, self._halt.set)
            grace.daemon = True
            grace.start()
        grace.cancel()
        self._platform.enclaves.close()
        self._platform.journal.close()

    def _poll(self, pool: ThreadPoolExecutor) -> bool:
        """Lease what fits. False when there was no room."""
        room = self._settings.slots - len(self._holding())
        if room <= 0:
            self._freed.wait(FULL_PAUSE)
            self._freed.clear()
            return False
        if shutil.disk_usage(self._settings.state_folder).free < self._settings.min_free_disk:
            raise UnavailableError("the disk is nearly full", hint=f"free space under {self._settings.state_folder}")
        # A stop must not wait for a long poll: it is cut into short ones while nothing comes.
        leases = self._platform.scheduler.take_leases(
            self._settings.workerpool, capacity=room, wait_seconds=self._settings.wait_seconds, holding=self._holding()
        )
        for lease in leases:
            self._accept(pool, lease)
        return True

    def _accept(self, pool: ThreadPoolExecutor, lease: Lease) -> None:
        if lease.lease_id in self._holding():
            return
        entry = Entry(lease)
        self._platform.journal.put(entry)
        log.info("task %s leased until %s", lease.task_id, lease.expires_at)
        self._begin(pool, entry)

    def _begin(self, pool: ThreadPoolExecutor, entry: Entry) -> None:
        execution = Execution(self._platform, entry, off=self._stop, halt=self._halt)
        lease_id = entry.lease.lease_id
        with self._lock:
            future = pool.submit(self._carry, execution)
            self._running[lease_id] = future
        future.add_done_callback(lambda _: self._ended(lease_id))

    def _carry(self, execution: Execution) -> None:
        turn = 0
        while not self._halt.is_set():
            try:
                execution.run()
            except CloisterError as error:
                # The journal could not be written, or a part stayed away past a deadline: what is done is kept.
                log.warning("task %s waits after: %s", execution.lease.task_id, error.message)
            except Exception:
                log.exception("task %s waits after an error of our own", execution.lease.task_id)
            else:
                return
            if turn >= self._settings.platform_retries or time.time() > execution.lease.final_deadline:
                execution.abandon()
                return
            self._halt.wait(self._settings.retry_seconds * 2**turn)
            turn += 1

    def _ended(self, lease_id: str) -> None:
        with self._lock:
            self._running.pop(lease_id, None)
        self._freed.set()

    def _holding(self) -> list[str]:
        with self._lock:
            return list(self._running)

    def _sweep(self) -> None:
        """Remove folders of tasks that the journal no longer holds."""
        tasks = self._settings.state_folder / "tasks"
        known = {entry.lease.lease_id for entry in self._platform.journal.entries()}
        for folder in tasks.iterdir() if tasks.is_dir() else ():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
