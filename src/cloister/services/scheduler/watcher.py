"""Follows the chain: new deals, and every event of a task of ours. Survives restarts and chains that go back."""

from __future__ import annotations

import logging
import threading
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
from cloister.chain.rpc import RpcError
from cloister.errors import UnavailableError
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
_OBSERVED_AT_ONCE = 200
_DEAL_TRIES = 3


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
        self._again = False
        self._suspects: set[Bytes32] = set()
        self._unconfirmed: list[Bytes32] = []
        self._bad_deals: dict[Bytes32, int] = {}
        self._checkpointed_at = 0.0
        self._caught_up = threading.Event()
        self.news: Callable[[], None] = bell.ring
        """Called when something changed that a worker or a duty may wait for."""

    @property
    def is_caught_up(self) -> bool:
        """Whether the database shows the chain as it was a moment ago. Before that, what it owes is not known."""
        return self._caught_up.is_set()

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
        try:
            found = self._take(batch)
        except Exception:
            self._again = True
            raise
        self._unread.pop(0)
        self._again = False
        return found

    def forget_place(self) -> None:
        """Begin at the checkpoint with the next look: another replica may have gone on from there."""
        self._reader = None
        self._unread.clear()
        self._caught_up.clear()

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
        suspects = self._store.tasks_seen_after(block_number)
        self._suspects.update(suspects)
        if doubted or suspects:
            log.info("reading again after block %s: %s deals, %s tasks", block_number, doubted, len(suspects))

    def _take(self, batch: Batch) -> bool:
        if batch.rolled_back_to is not None:
            self._go_back(batch.rolled_back_to)
        self._chain_clock.observe(batch.head.timestamp)
        if batch.is_empty and self._caught_up.is_set():
            return False
        news = self._take_deals(batch.logs)
        self._suspects |= self._tasks_of(batch.logs)
        if not batch.is_caught_up:
            # Tasks are read at the newest block only: a node may keep no old states. Until then no checkpoint is moved.
            return True
        # A chain that went back may be shorter than before and have no new block yet.
        head = batch.blocks[-1] if batch.blocks else batch.head
        # It may also have become so since the batch was read: what is not there any more cannot be asked about.
        newest = min(head.number, self._sight.head_number()) if self._again else head.number
        news = self._observe(newest) or news
        news = self._confirm_deals() or news
        self._drop_lost_deals(newest)
        self._caught_up.set()
        if news:
            self.news()
        self._save(Checkpoint(head.number, head.timestamp), urgent=news or batch.rolled_back_to is not None)
        return True

    def _observe(self, block: int) -> bool:
        """Bring the suspects' rows in line. True when that changed anything."""
        news = False
        ours = self._store.known_tasks(self._suspects)
        for start in range(0, len(ours), _OBSERVED_AT_ONCE):
            for observed in self._sight.observe(ours[start : start + _OBSERVED_AT_ONCE], block=block):
                changed = reconcile(
                    self._database, observed, now=self._clock(), lease_seconds=self._settings.lease_seconds
                )
                news = news or changed
        self._suspects.clear()
        return news

    def _confirm_deals(self) -> bool:
        """Let the deals that a start found be leased, now that their tasks are known to be done or not."""
        found = bool(self._unconfirmed)
        self._store.confirm_deals(self._unconfirmed)
        self._unconfirmed = []
        return found

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
            news = self._take_deal(match, entry) or news
        return news

    def _take_deal(self, matched: OrdersMatched, entry: Log) -> bool:
        """Write one deal. Requesters choose much of it, so one that cannot be read must not hold up the others.

        Raises:
            UnavailableError, RpcError: chain or database do not answer.
            Exception: the deal cannot be read or written; it is tried a few times, then left out.
        """
        confirmed = self._caught_up.is_set()
        try:
            record = self._sight.deal(matched, entry)
            if record is None:
                return False
            new = self._store.record_deal(record, now=self._clock(), doubtful=not confirmed)
        except (UnavailableError, RpcError):
            raise
        except Exception:
            tries = self._bad_deals.get(matched.deal_id, 0) + 1
            self._bad_deals[matched.deal_id] = tries
            if tries < _DEAL_TRIES:
                raise
            log.exception("deal %s cannot be scheduled", matched.deal_id)
            return False
        if not confirmed:
            self._unconfirmed.append(matched.deal_id)
        return new

    def _tasks_of(self, logs: Iterable[Log]) -> set[Bytes32]:
        events = (decode_log(entry) for entry in logs)
        return {event.task_id for event in events if isinstance(event, _TASK_EVENTS)}

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
