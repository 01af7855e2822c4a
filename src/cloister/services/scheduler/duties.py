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
from typing import TYPE_CHECKING

from cloister.chain.rpc import TransactionReverted
from cloister.errors import Conflict, UnavailableError
from cloister.services.scheduler.statuses import PublicTaskStatus

if TYPE_CHECKING:
    from cloister.chain.calls import Call
    from cloister.chain.contracts import Hub
    from cloister.chain.sender import TransactionSender
    from cloister.services.scheduler.leasing import Leasing
    from cloister.services.scheduler.service import ChainClock
    from cloister.services.scheduler.settings import SchedulerSettings
    from cloister.services.scheduler.store import Duty, Store

log = logging.getLogger("cloister.scheduler")

SETTLING_SECONDS = 5.0
"""How long after its transaction was mined a duty may still stand in the database."""


class Duties:
    """One round after the other, from one thread."""

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

    def tend(self) -> None:
        """Do what is due now.

        Raises:
            UnavailableError: chain or database do not answer; the next round goes on.
        """
        now = self._clock()
        self._done = {key: until for key, until in self._done.items() if until > time.monotonic()}
        if self._leasing.expire(now):
            self._news()
        chain_now = self._chain_clock.now()
        self._leasing.close_late(chain_now, now)
        if self._store.fill_windows(now=now):
            self._news()
        limit = self._settings.batch_size
        self._initialize(
            self._fresh("initialize", self._store.to_initialize(now=now, chain_now=chain_now, limit=limit))
        )
        for duty in self._fresh("conclude", self._store.to_conclude(now=now, chain_now=chain_now, limit=limit)):
            self._conclude(duty, chain_now)
        self._claim(self._fresh("claim", self._store.to_claim(now=now, chain_now=chain_now, limit=limit)))

    def _fresh(self, verb: str, duties: Sequence[Duty]) -> list[Duty]:
        """Duties that were not just done."""
        return [duty for duty in duties if f"{verb}:{duty.task_id}" not in self._done]

    def _initialize(self, duties: Sequence[Duty]) -> None:
        self._store.mark([duty.task_id for duty in duties], PublicTaskStatus.INITIALIZING, now=self._clock())
        self._send_batch(
            "initialize",
            duties,
            lambda batch: self._hub.initialize_array([d.deal_id for d in batch], [d.index for d in batch]),
            failed=PublicTaskStatus.INITIALIZE_FAILED,
        )

    def _claim(self, duties: Sequence[Duty]) -> None:
        begun = [duty for duty in duties if duty.initialized]
        unborn = [duty for duty in duties if not duty.initialized]
        self._send_batch("claim", begun, lambda batch: self._hub.claim_array([d.task_id for d in batch]))
        self._send_batch(
            "claim",
            unborn,
            lambda batch: self._hub.initialize_and_claim_array([d.deal_id for d in batch], [d.index for d in batch]),
        )

    def _conclude(self, duty: Duty, chain_now: int) -> None:
        """Finalize once everybody revealed, or somebody did and time is up; reopen when nobody did."""
        late = chain_now >= duty.reveal_deadline
        if duty.reveal_count == 0:
            if late:
                self._store.mark([duty.task_id], PublicTaskStatus.REOPENING, now=self._clock())
                self._send_batch(
                    "conclude", [duty], lambda _: self._hub.reopen(duty.task_id), failed=PublicTaskStatus.REOPEN_FAILED
                )
            return
        if duty.reveal_count < duty.winner_count and not late:
            return
        told = self._store.revealed_results(duty.task_id)
        if told is None:
            return  # a worker that revealed tells its results with the next heartbeat
        results, callback = told
        self._store.mark([duty.task_id], PublicTaskStatus.FINALIZING, now=self._clock())
        self._send_batch(
            "conclude",
            [duty],
            lambda _: self._hub.finalize(duty.task_id, results.encode(), callback),
            failed=PublicTaskStatus.FINALIZE_FAILED,
        )

    def _send_batch(
        self,
        verb: str,
        duties: Sequence[Duty],
        call: Callable[[Sequence[Duty]], Call],
        *,
        failed: PublicTaskStatus | None = None,
    ) -> None:
        """Send one transaction for all; when it is refused, one for each, since one bad task spoils a batch."""
        if not duties:
            return
        try:
            self._sender.send(call(duties), intent=_intent(verb, duties))
        except (TransactionReverted, Conflict) as error:
            if isinstance(error, Conflict) and error.code != "intent-in-use":
                raise UnavailableError(error.message, hint=error.hint) from error  # no ether for gas: wait for some
            if len(duties) > 1:
                for duty in duties:
                    self._send_batch(verb, [duty], call, failed=failed)
                return
            log.warning("%s of task %s was refused: %s", verb, duties[0].task_id, error.message)
            identifiers = [duty.task_id for duty in duties]
            if failed is not None:
                self._store.mark(identifiers, failed, now=self._clock(), cause=error.message[:200])
            pause = self._settings.backoff(duties[0].attempt + 1)
            self._store.note_chain_failure(identifiers, now=self._clock(), pause=pause)
            return
        until = time.monotonic() + SETTLING_SECONDS
        self._done |= {f"{verb}:{duty.task_id}": until for duty in duties}


def _intent(verb: str, duties: Sequence[Duty]) -> str:
    """The same tasks in the same try are the same intent, also after a restart."""
    digest = hashlib.sha256("".join(f"{duty.task_id}{duty.attempt}" for duty in duties).encode())
    return f"{verb}:{digest.hexdigest()[:40]}"
