"""The scheduler toward workers and the public: who may ask, and what is signed. HTTP and SQL are elsewhere."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from cloister.errors import Denied, InputError, quoted
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import Address, Bytes32
from cloister.services.scheduler.bell import Bell
from cloister.services.scheduler.leasing import BeatAnswer, Leasing
from cloister.services.scheduler.logins import Logins
from cloister.services.scheduler.progress import ProgressBoard
from cloister.services.scheduler.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cloister.clients.scheduler import Lease, Outcome, ReplicateStatus
    from cloister.protocol.signatures import PrivateKey
    from cloister.services.database import Database
    from cloister.services.scheduler.settings import SchedulerSettings


class ChainClock:
    """What time it is on the chain: the newest block's, plus what passed since we saw it.

    Blocks may be rare, and a private chain may run ahead of the wall, so neither clock alone will do. Thread-safe.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._block_time = 0
        self._seen_at = 0.0

    def observe(self, block_time: int) -> None:
        """Take note of a block's time; one we know already changes nothing."""
        with self._lock:
            if block_time != self._block_time:
                self._block_time = block_time
                self._seen_at = self._monotonic()

    def now(self) -> int:
        """Unix seconds on the chain; 0 before the first block was seen, which makes no deadline pass."""
        with self._lock:
            if not self._block_time:
                return 0
            return self._block_time + int(self._monotonic() - self._seen_at)


class SchedulerService:
    """One workerpool owner's scheduler. Thread-safe."""

    def __init__(
        self,
        database: Database,
        key: PrivateKey,
        settings: SchedulerSettings,
        *,
        bell: Bell,
        chain_clock: ChainClock,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._key = key
        self._settings = settings
        self._clock = clock
        self.bell = bell
        self.chain_clock = chain_clock
        self.leasing = Leasing(database, settings)
        self._views = Views(database)
        self._board = ProgressBoard(database)
        self._logins = Logins(database, key, chain_id=settings.chain_id, seconds=settings.challenge_seconds)

    def check_worker(self, worker: Address) -> Address:
        """Return ``worker`` when it may lease here.

        Raises:
            Denied: the pool's settings do not name it.
        """
        if not self._settings.any_worker and worker not in self._settings.workers:
            raise Denied(f"worker {worker} is not of this workerpool", hint="its operator adds workers in the settings")
        return worker

    def check_workerpool(self, workerpool: Address) -> Address:
        """Return ``workerpool`` when it is scheduled here.

        Raises:
            InputError: it is not.
        """
        if workerpool not in self._settings.workerpools:
            raise InputError(
                f"workerpool {workerpool} is not scheduled here", hint="ask the scheduler of that workerpool"
            )
        return workerpool

    def take(
        self, worker: Address, workerpool: Address, *, capacity: int, holding: Collection[str] | None
    ) -> list[Lease]:
        """Lease what there is at this moment."""
        return self.leasing.take(
            self.check_worker(worker),
            self.check_workerpool(workerpool),
            capacity=capacity,
            holding=holding,
            now=self._clock(),
            chain_now=self.chain_clock.now(),
        )

    def beat(
        self,
        lease_id: str,
        worker: Address,
        status: ReplicateStatus,
        *,
        detail: str | None,
        results: str | None,
        results_callback: bytes,
    ) -> BeatAnswer:
        """Keep a lease alive; says whether to stop."""
        return self.leasing.beat(
            lease_id,
            self.check_worker(worker),
            status,
            detail=detail,
            results=results,
            results_callback=results_callback,
            now=self._clock(),
            chain_now=self.chain_clock.now(),
        )

    def authorize(self, lease_id: str, worker: Address, enclave_challenge: Address) -> bytes:
        """The pool owner's word that this worker may run this task with this enclave key (65 bytes).

        Raises:
            InputError: no enclave key.
            NotFound, Denied: see ``Leasing.authorize``.
        """
        if enclave_challenge.is_zero:
            raise InputError("enclave_challenge is the zero address", hint="tasks run in enclaves only")
        return self.leasing.authorize(
            lease_id,
            self.check_worker(worker),
            enclave_challenge,
            lambda task_id: self._key.sign_message(scheduler_authorization(worker, task_id, enclave_challenge)),
            now=self._clock(),
            chain_now=self.chain_clock.now(),
        )

    def keep_logs(
        self, lease_id: str, worker: Address, stdout: str, stderr: str, *, exit_code: int | None = None
    ) -> None:
        """Keep an app's streams for the requester, and its exit code for everybody."""
        self.leasing.keep_logs(lease_id, self.check_worker(worker), stdout, stderr, exit_code=exit_code)

    def keep_progress(self, lease_id: str, worker: Address, number: int, update: bytes) -> None:
        """Keep an update of an app's progress."""
        self._board.keep(lease_id, self.check_worker(worker), number, update, now=self._clock())

    def report(self, lease_id: str, worker: Address, outcome: Outcome, *, exit_code: int | None) -> None:
        """End a lease; a task given back is offered to whoever waits."""
        self.leasing.report(lease_id, self.check_worker(worker), outcome, exit_code=exit_code, now=self._clock())
        self.bell.ring()

    def task(self, task_id: str) -> dict[str, Any]:
        """The public state of a task."""
        return self._views.task(Bytes32(task_id))

    def progress(self, task_id: str, *, after: int) -> list[dict[str, Any]]:
        """Updates of an app's progress, for everybody: they are sealed to their requester, or as public as the result."""
        return self._board.show(Bytes32(task_id), after=after)

    def build_challenge(self, chain_id: str | None, address: str | None) -> dict[str, object]:
        """A login challenge for reading logs."""
        if chain_id is not None and chain_id != str(self._settings.chain_id):
            raise InputError(f"chainId {quoted(chain_id)} is not supported")
        if address is None:
            raise InputError("address is missing")
        return self._logins.issue(Address(address), now=self._clock())

    def logs(self, task_id: str, authorization: str | None) -> dict[str, Any]:
        """The logs of a task for whoever proves to be its requester."""
        wanted = Bytes32(task_id)
        return self._views.logs(wanted, self._logins.take(authorization, now=self._clock()))
