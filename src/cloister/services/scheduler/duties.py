"""What the scheduler owes the chain: begin tasks, finish or reopen replicated ones, claim late ones.

Every duty comes from the database, which follows the chain; a transaction that was mined makes its duty disappear with
the next look. Between the two the task is remembered here, so that nothing is sent twice for nothing; the sender's
journal makes sure that nothing is sent twice at all.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cloister.chain.rpc import TransactionReverted
from cloister.errors import CloisterError, Conflict, UnavailableError
from cloister.services.scheduler.statuses import PublicTaskStatus

if TYPE_CHECKING:
    from cloister.chain.calls import Call
    from cloister.chain.contracts import Hub
    from cloister.chain.sender import Submission, TransactionSender
    from cloister.services.scheduler.leasing import Leasing
    from cloister.services.scheduler.service import ChainClock
    from cloister.services.scheduler.settings import SchedulerSettings
    from cloister.services.scheduler.store import Duty, Store

log = logging.getLogger("cloister.scheduler")

SETTLING_SECONDS = 5.0
"""How long after its transaction was mined a duty may still stand in the database."""
MINING_SECONDS = 30.0
"""How long a round waits for one transaction; the next round goes on with it."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One transaction for some duties. ``call`` builds it for all of them or for one."""

    verb: str
    duties: tuple[Duty, ...]
    call: Callable[[Sequence[Duty]], Call]
    failed: PublicTaskStatus | None = None


class Duties:
    """One round after the other, from one thread; ``sweep`` may come from another."""

    def __init__(
        self,
        store: Store,
        leasing: Leasing,
        hub: Hub,
        sender: TransactionSender,
        settings: SchedulerSettings,
        *,
        chain_clock: ChainClock,
        news: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._leasing = leasing
        self._hub = hub
        self._sender = sender
        self._settings = settings
        self._chain_clock = chain_clock
        self._news = news
        self._clock = clock
        self._done: dict[str, float] = {}
        self._open: list[_Job] = []

    def recover(self) -> None:
        """At a start: send again what the journal holds and the chain does not have.

        Raises:
            UnavailableError: the chain does not answer.
        """
        self._sender.recover()

    def sweep(self, *, silence_counts: bool) -> None:
        """What time alone brings about; asks the database only, so that no stuck transaction delays it.

        ``silence_counts``: whether workers could be heard for as long as a lease lasts.
        """
        now = self._clock()
        if silence_counts and self._leasing.expire(now):
            self._news()
        self._leasing.close_late(self._chain_clock.now(), now)

    def tend(self) -> None:
        """Send what is due now.

        Raises:
            UnavailableError: chain or database do not answer; the next round goes on.
        """
        now = self._clock()
        self._done = {key: until for key, until in self._done.items() if until > time.monotonic()}
        waiting, self._open = self._open, []
        self._run(waiting)
        if self._store.fill_windows(now=now):
            self._news()
        chain_now, limit = self._chain_clock.now(), self._settings.batch_size
        self._initialize(
            self._fresh("initialize", self._store.to_initialize(now=now, chain_now=chain_now, limit=limit))
        )
        due = self._fresh("conclude", self._store.to_conclude(now=now, chain_now=chain_now, limit=limit))
        self._run([job for duty in due if (job := self._conclusion(duty, chain_now)) is not None])
        self._claim(self._fresh("claim", self._store.to_claim(now=now, chain_now=chain_now, limit=limit)))

    def _fresh(self, verb: str, duties: Sequence[Duty]) -> tuple[Duty, ...]:
        """Duties that were not just done."""
        return tuple(duty for duty in duties if f"{verb}:{duty.task_id}" not in self._done)

    def _initialize(self, duties: tuple[Duty, ...]) -> None:
        self._store.mark([duty.task_id for duty in duties], PublicTaskStatus.INITIALIZING, now=self._clock())

        def call(batch: Sequence[Duty]) -> Call:
            return self._hub.initialize_array([d.deal_id for d in batch], [d.index for d in batch])

        self._run([_Job("initialize", duties, call, PublicTaskStatus.INITIALIZE_FAILED)])

    def _claim(self, duties: tuple[Duty, ...]) -> None:
        def claim(batch: Sequence[Duty]) -> Call:
            return self._hub.claim_array([d.task_id for d in batch])

        def begin_and_claim(batch: Sequence[Duty]) -> Call:
            return self._hub.initialize_and_claim_array([d.deal_id for d in batch], [d.index for d in batch])

        begun = tuple(duty for duty in duties if duty.initialized)
        unborn = tuple(duty for duty in duties if not duty.initialized)
        self._run([_Job("claim", begun, claim), _Job("claim", unborn, begin_and_claim)])

    def _conclusion(self, duty: Duty, chain_now: int) -> _Job | None:
        """Finalize once everybody revealed, or somebody did and time is up; reopen when nobody did."""
        late = chain_now >= duty.reveal_deadline
        now = self._clock()
        if duty.reveal_count == 0:
            if not late:
                return None
            self._store.mark([duty.task_id], PublicTaskStatus.REOPENING, now=now)
            return _Job("conclude", (duty,), lambda _: self._hub.reopen(duty.task_id), PublicTaskStatus.REOPEN_FAILED)
        if duty.reveal_count < duty.winner_count and not late:
            return None
        told = self._store.revealed_results(duty.task_id, turn=duty.attempt)
        if told is None:
            return None  # a worker that revealed tells its results with the next heartbeat
        results, callback = told
        self._store.mark([duty.task_id], PublicTaskStatus.FINALIZING, now=now)
        return _Job(
            "conclude",
            (duty,),
            lambda _: self._hub.finalize(duty.task_id, results.encode(), callback),
            PublicTaskStatus.FINALIZE_FAILED,
        )

    # --- transactions ---

    def _run(self, jobs: Sequence[_Job]) -> None:
        """Hand all transactions in, then wait for each: a block takes many. What is not mined in time stays open.

        Raises:
            UnavailableError: the chain does not answer, or the key has no ether for gas.
        """
        sent: list[tuple[_Job, Submission]] = []
        left = [job for job in jobs if job.duties]
        try:
            while left:
                submission = self._submit(left[0])
                job = left.pop(0)
                if submission is not None:
                    sent.append((job, submission))
                elif len(job.duties) > 1:
                    left += _singly(job)
            while sent:
                job, submission = sent[0]
                mined = self._wait(job, submission)
                sent.pop(0)
                if not mined and len(job.duties) > 1:
                    self._run(_singly(job))
        finally:
            # After an error: the same duties in the same batches, so that the sender knows their intents again.
            self._open += [job for job, _ in sent] + left

    def _submit(self, job: _Job) -> Submission | None:
        """None when the chain refuses."""
        try:
            return self._sender.submit(job.call(job.duties), intent=_intent(job.verb, job.duties))
        except (TransactionReverted, Conflict) as error:
            self._refused(job, error)
            return None

    def _wait(self, job: _Job, submission: Submission) -> bool:
        """False when it was mined and reverted."""
        try:
            self._sender.wait(submission, timeout=MINING_SECONDS)
        except (TransactionReverted, Conflict) as error:
            self._refused(job, error)
            return False
        until = time.monotonic() + SETTLING_SECONDS
        self._done |= {f"{job.verb}:{duty.task_id}": until for duty in job.duties}
        return True

    def _refused(self, job: _Job, error: CloisterError) -> None:
        """Note the refusal of a single duty; one bad task spoils a batch, so the duties of a batch are tried singly.

        Raises:
            UnavailableError: the key has no ether for gas: nothing is wrong with the duties.
        """
        if isinstance(error, Conflict) and error.code != "intent-in-use":
            raise UnavailableError(error.message, hint=error.hint) from error
        if len(job.duties) > 1:
            return
        duty = job.duties[0]
        log.warning("%s of task %s was refused: %s", job.verb, duty.task_id, error.message)
        if job.failed is not None:
            self._store.mark([duty.task_id], job.failed, now=self._clock(), cause=error.message[:200])
        pause = self._settings.backoff(duty.attempt + 1)
        self._store.note_chain_failure([duty.task_id], now=self._clock(), pause=pause)


def _singly(job: _Job) -> list[_Job]:
    return [replace(job, duties=(duty,)) for duty in job.duties]


def _intent(verb: str, duties: Sequence[Duty]) -> str:
    """The same tasks in the same try are the same intent, also after a restart."""
    digest = hashlib.sha256("".join(f"{duty.task_id}{duty.attempt}" for duty in duties).encode())
    return f"{verb}:{digest.hexdigest()[:40]}"
