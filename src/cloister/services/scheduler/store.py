"""The scheduler's memory of deals and tasks: what came from the chain, and what is still owed to it.

Every method is one transaction and safe to repeat: the chain is read again after a crash, from the last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, or_, select, update

from cloister.errors import Conflict
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.tasks import task_id
from cloister.services.scheduler.rows import add_line, cancel_leases, lock_task, recount, set_status
from cloister.services.scheduler.states import ENDED_PHASES, LeaseState, Phase, missing_votes
from cloister.services.scheduler.statuses import PublicTaskStatus
from cloister.services.scheduler.tables import checkpoints, deals, leaders, leases, tasks

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from cloister.services.database import Database

_BEFORE_FIRST = (PublicTaskStatus.INITIALIZING, PublicTaskStatus.INITIALIZE_FAILED)
_NAMED_AT_ONCE = 500
"""Most names in one statement: databases cap their parameters."""
_WAITING = (Phase.OPEN, Phase.EXHAUSTED, Phase.REVEALING)


@dataclass(frozen=True, slots=True)
class DealRecord:
    """A deal as the scheduler keeps it. ``app`` and ``dataset`` are address, multiaddr and checksum."""

    deal_id: Bytes32
    workerpool: Address
    block_number: int
    match_transaction: Bytes32
    requester: Address
    trust: int
    start_time: int
    category_seconds: int
    contribution_deadline: int
    final_deadline: int
    bot_first: int
    bot_size: int
    app: Mapping[str, str]
    dataset: Mapping[str, str] | None
    dataset_order: Mapping[str, Any] | None
    params: str
    callback: Address


@dataclass(frozen=True, slots=True)
class Duty:
    """A task the chain is owed something for. ``attempt`` counts our failed transactions for it."""

    task_id: Bytes32
    deal_id: Bytes32
    index: int
    attempt: int
    initialized: bool
    reveal_deadline: int
    final_deadline: int
    reveal_count: int
    winner_count: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The newest block whose events are in the database."""

    block_number: int
    block_time: int


class Store:
    """Deals, tasks and the checkpoint in SQL. Thread-safe."""

    def __init__(self, database: Database, *, window: int) -> None:
        self._database = database
        self._window = window

    def load_checkpoint(self, name: str) -> Checkpoint | None:
        """The checkpoint of that reader, ``None`` when it never ran."""
        with self._database.read_scope() as session:
            row = session.execute(select(checkpoints).where(checkpoints.c.name == name)).one_or_none()
            return None if row is None else Checkpoint(row.block_number, row.block_time)

    def save_checkpoint(self, name: str, checkpoint: Checkpoint) -> None:
        """Move the checkpoint, also back when the chain went back."""
        values = {"block_number": checkpoint.block_number, "block_time": checkpoint.block_time}
        with self._database.session_scope() as session:
            changed = session.execute(update(checkpoints).where(checkpoints.c.name == name).values(**values))
            if not changed.rowcount:  # type: ignore[attr-defined]  # an update's result is a cursor's
                session.execute(insert(checkpoints).values(name=name, **values))

    def lead(self, name: str, holder: str, *, now: float, seconds: float) -> bool:
        """Take or keep the lead among replicas until ``now + seconds``. False while another holds it."""
        values = {"holder": holder, "expires_at": now + seconds}
        try:
            with self._database.session_scope() as session:
                changed = session.execute(
                    update(leaders)
                    .where(leaders.c.name == name, or_(leaders.c.holder == holder, leaders.c.expires_at < now))
                    .values(**values)
                )
                if changed.rowcount:  # type: ignore[attr-defined]  # an update's result is a cursor's
                    return True
                session.execute(insert(leaders).values(name=name, **values))
        except Conflict:
            return False
        return True

    def resign(self, name: str, holder: str) -> None:
        """Give the lead back, so that another replica need not wait for its end."""
        with self._database.session_scope() as session:
            session.execute(delete(leaders).where(leaders.c.name == name, leaders.c.holder == holder))

    def record_deal(self, record: DealRecord, *, now: float, doubtful: bool = False) -> bool:
        """Write a deal and its first tasks. True when it was new; a known one is confirmed at its new place.

        ``doubtful``: nothing of it is leased before ``confirm_deals``.
        """
        place = {
            "block_number": record.block_number,
            "match_transaction": str(record.match_transaction),
            "doubtful": doubtful,
        }
        with self._database.session_scope() as session:
            known = session.execute(
                select(deals).where(deals.c.deal_id == record.deal_id).with_for_update()
            ).one_or_none()
            if known is not None:
                session.execute(
                    update(deals).where(deals.c.deal_id == record.deal_id).values(**place, **_times(record))
                )
                self._revive(session, record, now)
                return False
            session.execute(insert(deals).values(**_deal_values(record), **place, received_at=now))
            row = session.execute(select(deals).where(deals.c.deal_id == record.deal_id)).one()
            self._fill(session, row, now)
        return True

    def _revive(self, session: Session, record: DealRecord, now: float) -> None:
        """A deal that was mined again has tasks again, with the new start time."""
        times = _times(record)
        session.execute(
            update(tasks)
            .where(tasks.c.deal_id == record.deal_id)
            .values(contribution_deadline=times["contribution_deadline"], final_deadline=times["final_deadline"])
        )
        gone = session.execute(
            select(tasks.c.task_id).where(tasks.c.deal_id == record.deal_id, tasks.c.phase == Phase.GONE)
        ).scalars()
        for identifier in list(gone):
            task = lock_task(session, identifier)
            if task is not None:
                session.execute(
                    update(tasks)
                    .where(tasks.c.task_id == identifier)
                    .values(phase=str(Phase.OPEN), initialized=False, attempts=0)
                )
                set_status(session, task, PublicTaskStatus.RECEIVED, now)
                recount(session, task)

    def _fill(self, session: Session, deal: Row[Any], now: float) -> int:
        """Write the deal's next tasks until a window of unfinished ones is held. The deal's row must be locked."""
        open_tasks = session.execute(
            select(func.count())
            .select_from(tasks)
            .where(tasks.c.deal_id == deal.deal_id, tasks.c.phase.not_in(ENDED_PHASES))
        ).scalar_one()
        end = deal.bot_first + deal.bot_size
        last = min(end, deal.next_index + max(0, self._window - open_tasks))
        rows = [_task_values(deal, index) for index in range(deal.next_index, last)]
        if rows:
            session.execute(insert(tasks), rows)
            for row in rows:
                add_line(session, str(row["task_id"]), None, PublicTaskStatus.RECEIVED, now)
            session.execute(update(deals).where(deals.c.deal_id == deal.deal_id).values(next_index=last))
        return len(rows)

    def fill_windows(self, *, now: float) -> int:
        """Write further tasks of deals larger than the window. Returns how many."""
        with self._database.read_scope() as session:
            unfinished = list(
                session.execute(
                    select(deals.c.deal_id).where(
                        deals.c.next_index < deals.c.bot_first + deals.c.bot_size, deals.c.doubtful.is_(False)
                    )
                ).scalars()
            )
        written = 0
        for identifier in unfinished:
            with self._database.session_scope() as session:
                deal = session.execute(select(deals).where(deals.c.deal_id == identifier).with_for_update()).one()
                written += self._fill(session, deal, now)
        return written

    def doubt_deals(self, *, after_block: int) -> int:
        """The chain went back to ``after_block``: stop leasing what was matched later until it is seen again."""
        with self._database.session_scope() as session:
            changed = session.execute(
                update(deals)
                .where(deals.c.block_number > after_block, deals.c.doubtful.is_(False))
                .values(doubtful=True)
            )
            return int(changed.rowcount)  # type: ignore[attr-defined]  # an update's result is a cursor's

    def confirm_deals(self, identifiers: Sequence[Bytes32]) -> None:
        """Let these deals be leased."""
        for start in range(0, len(identifiers), _NAMED_AT_ONCE):
            with self._database.session_scope() as session:
                session.execute(
                    update(deals)
                    .where(deals.c.deal_id.in_(list(identifiers[start : start + _NAMED_AT_ONCE])))
                    .values(doubtful=False)
                )

    def doubtful_deals(self) -> list[Bytes32]:
        """Deals that a chain gone back has not shown again."""
        with self._database.read_scope() as session:
            return [Bytes32(i) for i in session.execute(select(deals.c.deal_id).where(deals.c.doubtful)).scalars()]

    def forget_deal(self, deal_id: Bytes32, *, now: float) -> None:
        """The deal is not on the chain: end its tasks. The rows stay, in case it comes back."""
        with self._database.session_scope() as session:
            waiting = session.execute(
                select(tasks.c.task_id).where(tasks.c.deal_id == deal_id, tasks.c.phase.in_(_WAITING))
            ).scalars()
            for identifier in list(waiting):
                task = lock_task(session, identifier)
                if task is None:
                    continue
                session.execute(
                    update(tasks).where(tasks.c.task_id == identifier).values(phase=str(Phase.GONE), initialized=False)
                )
                set_status(session, task, PublicTaskStatus.FAILED, now, "the deal is no longer on the chain")
                cancel_leases(session, task, now, "DEAL_GONE")
                recount(session, task)

    def known_tasks(self, identifiers: Collection[str]) -> list[Bytes32]:
        """Which of these tasks are ours."""
        named, known = sorted(identifiers), []
        for start in range(0, len(named), _NAMED_AT_ONCE):
            with self._database.read_scope() as session:
                part = tasks.c.task_id.in_(named[start : start + _NAMED_AT_ONCE])
                known += [Bytes32(row) for row in session.execute(select(tasks.c.task_id).where(part)).scalars()]
        return known

    def tasks_seen_after(self, block_number: int) -> list[Bytes32]:
        """Tasks whose rows rest on blocks that a chain gone back to ``block_number`` no longer has."""
        with self._database.read_scope() as session:
            rows = session.execute(select(tasks.c.task_id).where(tasks.c.seen_block > block_number)).scalars()
            return [Bytes32(row) for row in rows]

    def to_initialize(self, *, now: float, chain_now: int, limit: int) -> list[Duty]:
        """Open tasks that the chain does not have yet."""
        return self._duties(
            tasks.c.phase == Phase.OPEN,
            tasks.c.initialized.is_(False),
            tasks.c.contribution_deadline > chain_now,
            tasks.c.chain_not_before <= now,
            limit=limit,
        )

    def to_claim(self, *, now: float, chain_now: int, limit: int) -> list[Duty]:
        """Tasks past their final deadline: claiming them gives the requester the money back."""
        return self._duties(
            tasks.c.phase.in_(_WAITING),
            tasks.c.final_deadline <= chain_now,
            tasks.c.chain_not_before <= now,
            limit=limit,
        )

    def to_conclude(self, *, now: float, chain_now: int, limit: int) -> list[Duty]:
        """Tasks with a consensus, before their final deadline: to finalize or to reopen."""
        return self._duties(
            tasks.c.phase == Phase.REVEALING,
            tasks.c.final_deadline > chain_now,
            tasks.c.chain_not_before <= now,
            limit=limit,
        )

    def _duties(self, *conditions: Any, limit: int) -> list[Duty]:
        with self._database.read_scope() as session:
            rows = session.execute(
                select(tasks)
                .join(deals, deals.c.deal_id == tasks.c.deal_id)
                .where(*conditions, deals.c.doubtful.is_(False))
                .order_by(tasks.c.turn, tasks.c.task_id)
                .limit(limit)
            ).all()
        return [_duty(row) for row in rows]

    def revealed_results(self, identifier: Bytes32, *, turn: int = 0) -> tuple[str, bytes] | None:
        """Results and callback data that a worker proved on chain told us; ``None`` when none did.

        ``turn``: another worker's each time, because one that lies about them must not spoil the task.
        """
        with self._database.read_scope() as session:
            rows = session.execute(
                select(leases.c.results, leases.c.results_callback)
                .where(
                    leases.c.task_id == identifier, leases.c.state == LeaseState.REVEALED, leases.c.results.is_not(None)
                )
                .order_by(leases.c.created_at)
            ).all()
        if not rows:
            return None
        row = rows[turn % len(rows)]
        return row.results, bytes.fromhex(row.results_callback[2:]) if row.results_callback else b""

    def mark(
        self, identifiers: Sequence[Bytes32], status: PublicTaskStatus, *, now: float, cause: str | None = None
    ) -> None:
        """Write a public status on tasks that are still waiting."""
        with self._database.session_scope() as session:
            for identifier in sorted(identifiers):
                task = lock_task(session, identifier)
                if task is None or task.phase not in _WAITING or (task.initialized and status in _BEFORE_FIRST):
                    continue
                set_status(session, task, status, now, cause)

    def note_chain_failure(self, identifiers: Sequence[Bytes32], *, now: float, pause: float) -> None:
        """A transaction for these tasks failed: the next one is another intent, after a pause."""
        with self._database.session_scope() as session:
            session.execute(
                update(tasks)
                .where(tasks.c.task_id.in_(list(identifiers)))
                .values(chain_attempts=tasks.c.chain_attempts + 1, chain_not_before=now + pause)
            )


def _times(record: DealRecord) -> dict[str, int]:
    return {
        "start_time": record.start_time,
        "contribution_deadline": record.contribution_deadline,
        "final_deadline": record.final_deadline,
    }


def _deal_values(record: DealRecord) -> dict[str, Any]:
    return {
        "deal_id": str(record.deal_id),
        "workerpool": str(record.workerpool),
        "requester": str(record.requester),
        "trust": record.trust,
        "category_seconds": record.category_seconds,
        "bot_first": record.bot_first,
        "bot_size": record.bot_size,
        "next_index": record.bot_first,
        "app": dict(record.app),
        "dataset": None if record.dataset is None else dict(record.dataset),
        "dataset_order": None if record.dataset_order is None else dict(record.dataset_order),
        "params": record.params,
        "callback": str(record.callback),
        **_times(record),
    }


def _task_values(deal: Row[Any], index: int) -> dict[str, Any]:
    return {
        "task_id": str(task_id(Bytes32(deal.deal_id), index)),
        "deal_id": deal.deal_id,
        "deal_index": index,
        "workerpool": deal.workerpool,
        "phase": str(Phase.OPEN),
        "status": str(PublicTaskStatus.RECEIVED),
        "trust": deal.trust,
        "wanted": missing_votes((), deal.trust),
        "live": 0,
        "attempts": 0,
        "not_before": 0.0,
        "turn": deal.received_at + (index - deal.bot_first),
        "initialized": False,
        "contribution_deadline": deal.contribution_deadline,
        "reveal_deadline": 0,
        "final_deadline": deal.final_deadline,
        "reveal_count": 0,
        "winner_count": 0,
        "seen_block": 0,
        "chain_attempts": 0,
        "chain_not_before": 0.0,
    }


def _duty(row: Row[Any]) -> Duty:
    return Duty(
        task_id=Bytes32(row.task_id),
        deal_id=Bytes32(row.deal_id),
        index=row.deal_index,
        attempt=row.chain_attempts,
        initialized=row.initialized,
        reveal_deadline=row.reveal_deadline,
        final_deadline=row.final_deadline,
        reveal_count=row.reveal_count,
        winner_count=row.winner_count,
    )
