"""Follows the chain: new deals, and every event of a task of ours. Survives restarts and chains that go back."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from cloister.chain.logs import (
    OrdersMatched,
    SchedulerNotice,
    TaskClaimed,
    TaskConsensus,
    TaskContribute,
    TaskFinalize,
    TaskInitialize,
    TaskReopen,
    TaskReveal,
    decode_log,
)
from cloister.services.scheduler.reconciliation import reconcile
from cloister.services.scheduler.store import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cloister.chain.events import Batch, EventReader
    from cloister.chain.logs import Log
    from cloister.protocol.codec import Bytes32
    from cloister.services.database import Database
    from cloister.services.scheduler.bell import Bell
    from cloister.services.scheduler.service import ChainClock
    from cloister.services.scheduler.settings import SchedulerSettings
    from cloister.services.scheduler.sight import Sight
    from cloister.services.scheduler.store import Store

log = logging.getLogger("cloister.scheduler")

WATCHED = (
    "SchedulerNotice",
    "OrdersMatched",
    "TaskInitialize",
    "TaskContribute",
    "TaskConsensus",
    "TaskReveal",
    "TaskReopen",
    "TaskFinalize",
    "TaskClaimed",
)
"""Names of the hub's events that the scheduler reads."""

_TASK_EVENTS = (TaskInitialize, TaskContribute, TaskConsensus, TaskReveal, TaskReopen, TaskFinalize, TaskClaimed)
_CHECKPOINT_SECONDS = 2.0


class Watcher:
    """One look after the other, from one thread. What a look wrote before it failed is written again by the next."""

    def __init__(
        self,
        database: Database,
        store: Store,
        sight: Sight,
        settings: SchedulerSettings,
        *,
        open_reader: Callable[[int], EventReader],
        bell: Bell,
        chain_clock: ChainClock,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._store = store
        self._sight = sight
        self._settings = settings
        self._open_reader = open_reader
        self._bell = bell
        self._chain_clock = chain_clock
        self._clock = clock
        self._name = f"events:{settings.chain_id}:{settings.hub}"
        self._reader: EventReader | None = None
        self._unread: list[Batch] = []
        self._checkpointed_at = 0.0
        self.news: Callable[[], None] = bell.ring
        """Called when something changed that a worker or a duty may wait for."""

    def look(self) -> bool:
        """Read what is new and write it. True when there was anything.

        Raises:
            UnavailableError: chain or database do not answer; look again later.
        """
        if self._reader is None:
            self._reader = self._start()
        # A batch stays here until it is written: the reader does not give it twice.
        if not self._unread:
            self._unread.append(self._reader.poll())
        batch = self._unread[0]
        found = self._take(batch)
        self._unread.pop(0)
        return found

    def forget_place(self) -> None:
        """Begin at the checkpoint with the next look: another replica may have gone on from there."""
        self._reader = None
        self._unread.clear()

    def _start(self) -> EventReader:
        """Open the reader some blocks before the checkpoint, treating these as a chain that went back."""
        checkpoint = self._store.load_checkpoint(self._name)
        first = self._settings.from_block
        if checkpoint is not None:
            # A chain that lost its newest blocks while we were away may end before our checkpoint.
            newest = min(checkpoint.block_number, self._sight.head_number())
            first = max(first, newest + 1 - self._settings.reorganisation_depth)
            self._go_back(first - 1)
        return self._open_reader(first)

    def _go_back(self, block_number: int) -> None:
        doubted = self._store.doubt_deals(after_block=block_number)
        self._suspects = self._store.tasks_seen_after(block_number)
        if doubted or self._suspects:
            log.info("reading again after block %s: %s deals, %s tasks", block_number, doubted, len(self._suspects))

    _suspects: list[Bytes32] = []  # noqa: RUF012  (replaced, never changed in place)

    def _take(self, batch: Batch) -> bool:
        if batch.rolled_back_to is not None:
            self._go_back(batch.rolled_back_to)
        if batch.is_empty:
            return False
        # A chain that went back may be shorter than before and have no new block yet.
        head = batch.blocks[-1] if batch.blocks else batch.head
        self._chain_clock.observe(head.timestamp)
        touched = {str(identifier) for identifier in self._suspects}
        news = self._take_deals(batch.logs)
        touched |= self._tasks_of(batch.logs)
        ours = self._store.known_tasks(touched)
        for observed in self._sight.observe(ours, block=head.number):
            changed = reconcile(self._database, observed, now=self._clock(), lease_seconds=self._settings.lease_seconds)
            news = news or changed
        self._suspects = []
        if batch.is_caught_up:
            self._drop_lost_deals(head.number)
        if news:
            self.news()
        self._save(Checkpoint(head.number, head.timestamp), urgent=news or batch.rolled_back_to is not None)
        return True

    def _take_deals(self, logs: Iterable[Log]) -> bool:
        news = False
        mined: dict[tuple[Bytes32, Bytes32], OrdersMatched] = {}
        notices: list[tuple[SchedulerNotice, Log]] = []
        for entry in logs:
            match decode_log(entry):
                case SchedulerNotice() as notice if notice.workerpool in self._settings.workerpools:
                    notices.append((notice, entry))
                case OrdersMatched() as matched:
                    mined[(entry.transaction_hash, matched.deal_id)] = matched
                case _:
                    pass
        for notice, entry in notices:
            match = mined.get((entry.transaction_hash, notice.deal_id))
            if match is None:
                log.warning("deal %s was announced without a match", notice.deal_id)
                continue
            record = self._sight.deal(match, entry)
            if record is not None:
                news = self._store.record_deal(record, now=self._clock()) or news
        return news

    def _tasks_of(self, logs: Iterable[Log]) -> set[str]:
        touched = set()
        for entry in logs:
            event = decode_log(entry)
            if isinstance(event, _TASK_EVENTS):
                touched.add(str(event.task_id))
        return touched

    def _drop_lost_deals(self, head: int) -> None:
        """Deals that a chain gone back did not show again by its head are not on it, unless they are further back."""
        for deal_id in self._store.doubtful_deals():
            if not self._sight.deal_exists(deal_id, block=head):
                log.warning("deal %s is no longer on the chain", deal_id)
                self._store.forget_deal(deal_id, now=self._clock())

    def _save(self, checkpoint: Checkpoint, *, urgent: bool) -> None:
        now = time.monotonic()
        if urgent or now - self._checkpointed_at >= _CHECKPOINT_SECONDS:
            self._store.save_checkpoint(self._name, checkpoint)
            self._checkpointed_at = now
