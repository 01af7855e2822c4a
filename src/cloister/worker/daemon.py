"""The worker: leases tasks of its workerpool and runs several at once, until it is told to stop.

A start first takes up what the journal holds. Leases that the scheduler believes this worker has, but the journal does
not, come back with the next poll, so an answer that was lost on the way costs nothing.
"""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from queue import SimpleQueue

from cloister.clients.scheduler import Lease
from cloister.errors import CloisterError, NotFound, UnavailableError
from cloister.worker.clock import ChainClock
from cloister.worker.execution import Execution, Platform
from cloister.worker.journal import Entry, Step

log = logging.getLogger("cloister.worker")

FULL_PAUSE = 0.2
MOST_WAITING = 64
"""How many tasks may wait for other workers beside those that take a slot."""
_LAST_SECONDS = 3.0
"""How long tasks have to come to an end after the grace."""


class Worker:
    """One worker daemon. ``run`` returns after ``stop``."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._settings = platform.settings
        self._clock = ChainClock(lambda: platform.hub.rpc.head().timestamp)
        # A signal handler may put into this queue wherever it interrupts us; it could not set an event of ours safely.
        self._wishes: SimpleQueue[None] = SimpleQueue()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Execution, threading.Thread]] = {}
        self._doubles: dict[str, str] = {}
        self._freed = threading.Event()

    def stop(self) -> None:
        """Take no more tasks and come to a halt; safe from a signal handler."""
        self._wishes.put(None)

    def run(self) -> None:
        """Work until stopped.

        Raises:
            ConfigurationError: this host cannot start enclaves, or another worker has the state folder.
        """
        self._sweep()
        self._prepare()
        self._clock.look()
        for entry in self._platform.journal.entries():
            self._begin(entry)
        # A thread of its own, so that a stop need not wait for a long poll.
        threading.Thread(target=self._lease_tasks, name="leases", daemon=True).start()
        self._wishes.get()
        self._come_to_a_stop()
        self._platform.enclaves.close()
        self._platform.journal.close()

    def _prepare(self) -> None:
        """Make ready what can be; what does not answer now is asked again by each task."""
        for action in (self._platform.enclaves.prepare, self._platform.sender.recover):
            try:
                action()
            except UnavailableError as error:
                log.warning("the worker starts all the same: %s", error.message)

    def _come_to_a_stop(self) -> None:
        with self._lock:  # nothing is begun after this
            self._stop.set()
            running = list(self._running.values())
        self._freed.set()
        for execution, _ in running:
            execution.stop()
        grace = time.monotonic() + self._settings.stop_seconds
        for _, thread in running:
            thread.join(max(0.0, grace - time.monotonic()))
        for execution, _ in running:
            execution.halt()
        end = time.monotonic() + _LAST_SECONDS
        for execution, thread in running:
            thread.join(max(0.0, end - time.monotonic()))
            if thread.is_alive():
                log.warning("task %s: left to the journal", execution.lease.task_id)

    # --- leases ---

    def _lease_tasks(self) -> None:
        turn = 0
        while not self._stop.is_set():
            try:
                self._clock.look()
                self._poll()
                turn = 0
                continue
            except CloisterError as error:
                log.warning("no tasks could be leased: %s", error.message)
            except Exception:
                log.exception("no tasks could be leased")
            pause = min(self._settings.retry_cap, self._settings.retry_seconds * 2**turn)
            self._stop.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311
            turn = min(turn + 1, 10)

    def _poll(self) -> None:
        """Lease what fits."""
        room, holding = self._room()
        if room <= 0:
            self._freed.wait(FULL_PAUSE)
            self._freed.clear()
            return
        if shutil.disk_usage(self._settings.state_folder).free < self._settings.min_free_disk:
            raise UnavailableError("the disk is nearly full", hint=f"free space under {self._settings.state_folder}")
        leases = self._platform.scheduler.take_leases(
            self._settings.workerpool, capacity=room, wait_seconds=self._settings.wait_seconds, holding=holding
        )
        for lease in leases:
            self._accept(lease)

    def _room(self) -> tuple[int, list[str]]:
        """How many tasks fit beside those that work, and the leases that need not be given again."""
        with self._lock:
            working = sum(1 for execution, _ in self._running.values() if not execution.is_waiting)
            waiting = len(self._running) - working
            tasks = {str(execution.lease.task_id) for execution, _ in self._running.values()}
            self._doubles = {lease: task for lease, task in self._doubles.items() if task in tasks}
            holding = [*self._running, *self._doubles]
        return min(self._settings.slots - working, MOST_WAITING - waiting), holding

    def _accept(self, lease: Lease) -> None:
        with self._lock:
            if self._stop.is_set() or lease.lease_id in self._running:
                return
            tasks = {execution.lease.task_id for execution, _ in self._running.values()}
            if lease.task_id in tasks:
                # Our earlier lease of it ran out while its result is on its way: never compute twice.
                self._doubles[lease.lease_id] = str(lease.task_id)
                return
            entry = self._journalled(lease)
            if entry.step is Step.LEASED:
                self._platform.journal.put(entry)
            log.info("task %s leased until %s", lease.task_id, lease.expires_at)
            self._begin_locked(entry)

    def _journalled(self, lease: Lease) -> Entry:
        """What the journal has of the lease: one that was left there goes on where it was."""
        try:
            return self._platform.journal.get(lease.lease_id)
        except NotFound:
            return Entry(lease)

    # --- threads ---

    def _begin(self, entry: Entry) -> None:
        with self._lock:
            self._begin_locked(entry)

    def _begin_locked(self, entry: Entry) -> None:
        execution = Execution(self._platform, entry, self._clock)
        lease_id = entry.lease.lease_id
        thread = threading.Thread(
            target=self._carry, args=(execution, lease_id), name=f"task-{lease_id[:8]}", daemon=True
        )
        self._running[lease_id] = execution, thread
        thread.start()

    def _carry(self, execution: Execution, lease_id: str) -> None:
        try:
            execution.run()
        except CloisterError as error:
            log.warning("task %s: left to the journal: %s", execution.lease.task_id, error.message)
        except Exception:
            log.exception("task %s: left to the journal", execution.lease.task_id)
        finally:
            with self._lock:
                self._running.pop(lease_id, None)
            self._freed.set()

    def _sweep(self) -> None:
        """Remove folders of tasks that the journal no longer holds."""
        tasks = self._settings.state_folder / "tasks"
        known = {entry.lease.lease_id for entry in self._platform.journal.entries()}
        for folder in tasks.iterdir() if tasks.is_dir() else ():
            if folder.name not in known:
                shutil.rmtree(folder, ignore_errors=True)
