"""Brings a task's rows in line with what the chain shows of it, in whichever direction the chain moved.

Events only say which tasks to look at; what is written comes from reading the task at one block. So a missed, repeated
or
undone event cannot leave the two apart for longer than one look.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, update

from cloister.protocol.tasks import Contribution, ContributionStatus, Task, TaskStatus
from cloister.services.scheduler.rows import add_line, cancel_leases, lock_task, move_lease, recount, set_status
from cloister.services.scheduler.states import LIVE_STATES, LeaseEvent, LeaseState, Phase
from cloister.services.scheduler.statuses import PublicTaskStatus
from cloister.services.scheduler.tables import history, leases, tasks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from cloister.protocol.codec import Address, Bytes32
    from cloister.services.database import Database

_MOMENT = 0.001
_STANDING = (LeaseState.CONTRIBUTED, LeaseState.REVEALED, LeaseState.DONE)


@dataclass(frozen=True, slots=True)
class Observed:
    """A task and its contributions, read at one block. ``contributions`` may be empty when the task is COMPLETED or
    FAILED.
    """

    task_id: Bytes32
    block_number: int
    task: Task
    contributions: Mapping[Address, Contribution]


def reconcile(database: Database, observed: Observed, *, now: float, lease_seconds: float) -> bool:
    """Write what the chain shows of one task. True when anything a worker waits for may have changed."""
    with database.session_scope() as session:
        task = lock_task(session, observed.task_id)
        if task is None or task.phase == Phase.GONE:
            return False
        if observed.task.exists and not task.initialized:
            _note_initialized(session, task, now)
        before = (task.phase, task.initialized, task.live, task.wanted)
        match observed.task.status:
            case TaskStatus.UNSET:
                _unset(session, task, now, lease_seconds)
            case TaskStatus.ACTIVE:
                _active(session, task, observed, now, lease_seconds)
            case TaskStatus.REVEALING:
                _revealing(session, task, observed, now)
            case TaskStatus.COMPLETED:
                _completed(session, task, observed, now)
            case TaskStatus.FAILED:
                _failed(session, task, now)
        _write(session, task, seen_block=observed.block_number)
        recount(session, task)
        after = session.execute(
            select(tasks.c.phase, tasks.c.initialized, tasks.c.live, tasks.c.wanted).where(
                tasks.c.task_id == task.task_id
            )
        ).one()
        return before != tuple(after)


def _write(session: Session, task: Row[Any], **values: Any) -> None:
    session.execute(update(tasks).where(tasks.c.task_id == task.task_id).values(**values))


def _reopened(task: Row[Any]) -> dict[str, str]:
    """The phase of a task that can take contributions: what went further comes back, an exhausted one stays so."""
    return {} if task.phase in (Phase.OPEN, Phase.EXHAUSTED) else {"phase": str(Phase.OPEN)}


def _unset(session: Session, task: Row[Any], now: float, lease_seconds: float) -> None:
    _retract(session, task, (), now, lease_seconds)
    if task.initialized or task.phase not in (Phase.OPEN, Phase.EXHAUSTED):
        # The chain went back to before the task's first transaction.
        _write(
            session, task, initialized=False, consensus_value=None, reveal_count=0, winner_count=0, **_reopened(task)
        )
        set_status(session, task, PublicTaskStatus.RECEIVED, now, "the chain went back")


def _note_initialized(session: Session, task: Row[Any], now: float) -> None:
    """Put it in the history, also when the same look shows more; a task that is leased already stays RUNNING."""
    if task.status in (PublicTaskStatus.RECEIVED, PublicTaskStatus.INITIALIZING, PublicTaskStatus.INITIALIZE_FAILED):
        set_status(session, task, PublicTaskStatus.INITIALIZED, now)
        if task.live:  # it was leased while its first transaction was under way, and INITIALIZING took the word away
            set_status(session, task, PublicTaskStatus.RUNNING, now)
    else:  # its only try may have failed before the chain showed this
        said = select(func.min(history.c.at)).where(
            history.c.task_id == task.task_id, history.c.lease_id.is_(None), history.c.status == task.status
        )
        at = session.execute(said).scalar_one()
        add_line(
            session, task.task_id, None, PublicTaskStatus.INITIALIZED, now if at is None else min(now, at - _MOMENT)
        )


def _active(session: Session, task: Row[Any], observed: Observed, now: float, lease_seconds: float) -> None:
    reopened = task.phase == Phase.REVEALING
    _write(
        session,
        task,
        initialized=True,
        contribution_deadline=observed.task.contribution_deadline,
        final_deadline=observed.task.final_deadline,
        consensus_value=None,
        reveal_count=0,
        winner_count=0,
        **_reopened(task),
    )
    if reopened:
        set_status(session, task, PublicTaskStatus.REOPENED, now)
    _stand(session, task, observed)
    standing = tuple(worker for worker, c in observed.contributions.items() if c.status is not ContributionStatus.UNSET)
    _retract(session, task, standing, now, lease_seconds)


def _revealing(session: Session, task: Row[Any], observed: Observed, now: float) -> None:
    _write(
        session,
        task,
        initialized=True,
        phase=str(Phase.REVEALING),
        reveal_deadline=observed.task.reveal_deadline,
        final_deadline=observed.task.final_deadline,
        consensus_value=str(observed.task.consensus_value),
        reveal_count=observed.task.reveal_counter,
        winner_count=observed.task.winner_counter,
    )
    if observed.task.reveal_counter:
        if task.status != PublicTaskStatus.FINALIZING:
            set_status(session, task, PublicTaskStatus.AT_LEAST_ONE_REVEALED, now)
    else:
        set_status(session, task, PublicTaskStatus.CONSENSUS_REACHED, now)
    _stand(session, task, observed)
    # Those that still compute come too late for this consensus.
    for lease in _leases(session, task):
        if lease.state == LeaseState.RUNNING and lease.worker not in observed.contributions:
            move_lease(session, lease, LeaseEvent.LOSE, status="ABORTED")
            add_line(session, task.task_id, lease.lease_id, "ABORTED", now, "CONSENSUS_REACHED")


def _completed(session: Session, task: Row[Any], observed: Observed, now: float) -> None:
    _write(session, task, initialized=True, phase=str(Phase.COMPLETED))
    if task.status != PublicTaskStatus.COMPLETED:
        set_status(session, task, PublicTaskStatus.FINALIZED, now)
        set_status(session, task, PublicTaskStatus.COMPLETED, now)
    latest = {lease.worker: lease for lease in _leases(session, task)}
    proved = {w for w, c in observed.contributions.items() if c.status is ContributionStatus.PROVED}
    for worker, lease in latest.items():
        if worker in proved:
            if lease.state != LeaseState.DONE:
                move_lease(session, lease, LeaseEvent.WIN, status="COMPLETED")
                add_line(session, task.task_id, lease.lease_id, "COMPLETED", now)
        elif lease.state in LIVE_STATES:
            move_lease(session, lease, LeaseEvent.LOSE, status="ABORTED")
            add_line(session, task.task_id, lease.lease_id, "ABORTED", now, "TASK_COMPLETED_BY_OTHERS")


def _failed(session: Session, task: Row[Any], now: float) -> None:
    _write(session, task, initialized=True, phase=str(Phase.FAILED))
    if task.status != PublicTaskStatus.FAILED:
        set_status(session, task, PublicTaskStatus.FINAL_DEADLINE_REACHED, now)
        set_status(session, task, PublicTaskStatus.FAILED, now)
    cancel_leases(session, task, now, "FINAL_DEADLINE_REACHED")


def _leases(session: Session, task: Row[Any]) -> list[Row[Any]]:
    """The task's leases, oldest first, so that the last of a worker is its present one."""
    return list(
        session.execute(select(leases).where(leases.c.task_id == task.task_id).order_by(leases.c.created_at)).all()
    )


def _stand(session: Session, task: Row[Any], observed: Observed) -> None:
    """Let leases show the contributions that stand on chain."""
    latest = {lease.worker: lease for lease in _leases(session, task)}
    for worker, contribution in observed.contributions.items():
        lease = latest.get(worker)
        if lease is None:
            continue
        match contribution.status:
            case ContributionStatus.CONTRIBUTED:
                event = LeaseEvent.CONTRIBUTE
            case ContributionStatus.PROVED:
                event = LeaseEvent.REVEAL
            case ContributionStatus.REJECTED:
                event = LeaseEvent.LOSE
            case ContributionStatus.UNSET:
                continue
        move_lease(
            session, lease, event, result_hash=str(contribution.result_hash), weight=2 ** min(contribution.weight, 60)
        )


def _retract(session: Session, task: Row[Any], standing: tuple[Address, ...], now: float, lease_seconds: float) -> None:
    """Contributions that a chain gone back no longer has: their workers send them again, or fall silent."""
    for lease in _leases(session, task):
        if lease.state in _STANDING and lease.worker not in standing:
            move_lease(session, lease, LeaseEvent.RETRACT, expires_at=now + lease_seconds, result_hash=None, weight=0)
