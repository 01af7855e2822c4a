"""The rules that every write to a task keeps: its counts, its status line, its history. Inside the caller's
transaction.

A task's row is the lock of its leases: whoever changes a lease locks the task first, so that counts never drift.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select, update

from cloister.services.scheduler.states import (
    ENDED_PHASES,
    LIVE_STATES,
    LeaseEvent,
    LeaseState,
    Phase,
    Vote,
    missing_votes,
    next_state,
)
from cloister.services.scheduler.statuses import PublicTaskStatus
from cloister.services.scheduler.tables import history, leases, tasks

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from cloister.clients.scheduler import Outcome

HISTORY_CAP = 200
"""Most lines kept of one lease; a worker that reports more than that is not heard on statuses any more."""

_CAUSE_CHARACTERS = 200
_VOTING = (LeaseState.CONTRIBUTED, LeaseState.REVEALED, LeaseState.DONE)


def lock_task(session: Session, task_id: str) -> Row[Any] | None:
    """The task's row, locked until the transaction ends; ``None`` when there is none."""
    return session.execute(select(tasks).where(tasks.c.task_id == task_id).with_for_update()).one_or_none()


def set_status(
    session: Session, task: Row[Any], status: PublicTaskStatus, now: float, cause: str | None = None
) -> None:
    """Write the task's public status and a line of its history, when it is another than before."""
    current = session.execute(select(tasks.c.status).where(tasks.c.task_id == task.task_id)).scalar_one()
    if current == status:
        return
    session.execute(update(tasks).where(tasks.c.task_id == task.task_id).values(status=str(status)))
    add_line(session, task.task_id, None, status, now, cause)


def add_line(
    session: Session, task_id: str, lease_id: str | None, status: str, now: float, cause: str | None = None
) -> None:
    """Append one line to the history of a task, or of one lease of it."""
    session.execute(
        insert(history).values(
            task_id=task_id,
            lease_id=lease_id,
            status=str(status),
            at=now,
            cause=None if cause is None else cause[:_CAUSE_CHARACTERS],
        )
    )


ENDS = ("COMPLETED", "ABORTED", "WORKER_LOST")
"""Lines that end a try."""


def add_stages(session: Session, lease: Row[Any], outcome: Outcome, now: float, *, ended: bool) -> None:
    """Append the stages that the lease's history does not have yet, each between the one before and the lease's end.

    A stage tells of the past, so it is taken also when the lease has ``ended``, as the chain may show before its worker
    tells; then the outcome's own word is a stage too.
    """
    last = ((outcome.status, now),) if ended else ()
    lines = session.execute(select(history).where(history.c.lease_id == lease.lease_id)).all()
    known = {line.status for line in lines}
    latest = min([now, *(line.at for line in lines if line.status in ENDS)])
    at = lease.created_at
    for status, told_at in (*((stage.status, stage.at) for stage in outcome.stages), *last):
        if status in known or len(known) >= HISTORY_CAP:
            continue
        known.add(status)
        at = min(max(at, told_at), latest)
        add_line(session, lease.task_id, lease.lease_id, status, at)
    if ended and outcome.cause is not None:
        # The chain showed the end before the worker told why its app failed.
        own = (history.c.lease_id == lease.lease_id) & (history.c.status == str(outcome.status))
        cause = outcome.cause[:_CAUSE_CHARACTERS]
        session.execute(update(history).where(own & history.c.cause.is_(None)).values(cause=cause))


def lease_lines(session: Session, lease_id: str) -> int:
    """How many lines the lease's history has."""
    return session.execute(select(func.count()).select_from(history).where(history.c.lease_id == lease_id)).scalar_one()


def move_lease(session: Session, lease: Row[Any], event: LeaseEvent, **changes: Any) -> LeaseState:
    """Apply an event to a lease whose task is locked; writes the state and ``changes``, returns the new state."""
    state = next_state(LeaseState(lease.state), event)
    values = {"state": str(state), **changes}
    session.execute(update(leases).where(leases.c.lease_id == lease.lease_id).values(**values))
    return state


def recount(session: Session, task: Row[Any]) -> None:
    """Bring ``live`` and ``wanted`` in line with the task's leases. The task must be locked."""
    rows = session.execute(
        select(leases.c.state, leases.c.result_hash, leases.c.weight).where(leases.c.task_id == task.task_id)
    ).all()
    live = sum(1 for row in rows if row.state in LIVE_STATES)
    votes = tuple(Vote(row.result_hash, row.weight) for row in rows if row.state in _VOTING and row.result_hash)
    wanted = 1 if task.trust <= 1 else len(votes) + missing_votes(votes, task.trust)
    session.execute(update(tasks).where(tasks.c.task_id == task.task_id).values(live=live, wanted=wanted))


def cancel_leases(session: Session, task: Row[Any], now: float, cause: str) -> None:
    """End every lease of a task that is over without them."""
    rows = session.execute(
        select(leases).where(leases.c.task_id == task.task_id, leases.c.state.in_(LIVE_STATES))
    ).all()
    for lease in rows:
        move_lease(session, lease, LeaseEvent.CANCEL, status="ABORTED")
        add_line(session, task.task_id, lease.lease_id, "ABORTED", now, cause)


def has_ended(phase: str) -> bool:
    """Whether nothing more will be done for a task in this phase, unless the chain goes back."""
    return Phase(phase) in ENDED_PHASES
