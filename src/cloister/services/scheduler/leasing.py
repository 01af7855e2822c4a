"""What workers do to leases: each method is one transaction, durable when it returns.

Races between replicas are decided by the database: PostgreSQL locks the chosen task rows and skips those others have
locked;
SQLite runs write transactions one after the other.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, or_, select, update

from cloister.clients.scheduler import (
    FAILURES,
    FINAL_CODES,
    LOG_CHARACTERS,
    SUCCESSES,
    WORKER_STOPPED,
    ContentReference,
    Lease,
    Outcome,
    ReplicateStatus,
)
from cloister.errors import Denied, InputError, NotFound, quoted
from cloister.protocol.codec import Address, Bytes32, to_hex
from cloister.services.scheduler.rows import (
    HISTORY_CAP,
    add_line,
    add_stages,
    cancel_leases,
    has_ended,
    lease_lines,
    lock_task,
    move_lease,
    recount,
    set_status,
)
from cloister.services.scheduler.states import (
    EXPIRING_STATES,
    LIVE_STATES,
    LeaseEvent,
    LeaseState,
    Phase,
)
from cloister.services.scheduler.statuses import PublicTaskStatus
from cloister.services.scheduler.tables import authorizations, deals, leases, logs, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from cloister.services.database import Database
    from cloister.services.scheduler.settings import SchedulerSettings

_SWEEP = 200
_FRUITLESS = (LeaseState.FAILED, LeaseState.LOST)
_STOPS_PER_TASK = 20
"""How many tries of a task may end by a stop of their worker before stops count as failures too."""


@dataclass(frozen=True, slots=True)
class BeatAnswer:
    """What a heartbeat is answered with."""

    expires_at: int
    abort: bool


class Leasing:
    """Leases in SQL. Thread-safe; ``now`` is wall-clock time, ``chain_now`` the time of the newest block."""

    def __init__(self, database: Database, settings: SchedulerSettings) -> None:
        self._database = database
        self._settings = settings

    def take(
        self,
        worker: Address,
        workerpool: Address,
        *,
        capacity: int,
        holding: Collection[str] | None,
        now: float,
        chain_now: int,
    ) -> list[Lease]:
        """Give the worker up to ``capacity`` tasks of the pool, oldest turn first.

        Leases the worker has but does not name in ``holding`` come first: their answer was lost on the way, or the
        worker
        lost its journal. A worker gets a task again after a pause; one whose trust asks for replicas only when nothing
        came of its first try, because a worker has one voice.
        """
        with self._database.session_scope() as session:
            given = self._forgotten(session, worker, workerpool, holding, capacity, now)
            busy = session.execute(
                select(func.count())
                .select_from(leases)
                .where(leases.c.worker == worker, leases.c.state.in_(EXPIRING_STATES))
            ).scalar_one()
            room = min(capacity - len(given), self._settings.max_leases_per_worker - busy)
            for task in self._candidates(session, worker, workerpool, room, now, chain_now) if room > 0 else ():
                given.append(self._give(session, task, worker, now))
            return [self._describe(session, lease_id) for lease_id in given]

    def _forgotten(
        self,
        session: Session,
        worker: Address,
        workerpool: Address,
        holding: Collection[str] | None,
        capacity: int,
        now: float,
    ) -> list[str]:
        if holding is None:
            return []
        rows = session.execute(
            select(leases.c.lease_id)
            .join(tasks, tasks.c.task_id == leases.c.task_id)
            .where(
                leases.c.worker == worker,
                tasks.c.workerpool == workerpool,
                tasks.c.phase == Phase.OPEN,
                leases.c.state == LeaseState.RUNNING,
                leases.c.lease_id.not_in(list(holding)),
            )
            .order_by(leases.c.created_at)
            .limit(capacity)
        ).scalars()
        found = list(rows)
        if found:
            session.execute(
                update(leases)
                .where(leases.c.lease_id.in_(found), leases.c.state == LeaseState.RUNNING)
                .values(expires_at=now + self._settings.lease_seconds)
            )
        return found

    def _candidates(
        self, session: Session, worker: Address, workerpool: Address, room: int, now: float, chain_now: int
    ) -> list[Row[Any]]:
        own = select(leases.c.lease_id).where(leases.c.task_id == tasks.c.task_id, leases.c.worker == worker)
        tried, spoke = own.exists(), own.where(leases.c.state.not_in(_FRUITLESS)).exists()
        return list(
            session.execute(
                select(tasks)
                .join(deals, deals.c.deal_id == tasks.c.deal_id)
                .where(
                    tasks.c.workerpool == workerpool,
                    tasks.c.phase == Phase.OPEN,
                    tasks.c.live < tasks.c.wanted,
                    tasks.c.contribution_deadline > chain_now,
                    deals.c.doubtful.is_(False),
                    or_(~tried, (tasks.c.not_before <= now) & or_(tasks.c.trust <= 1, ~spoke)),
                )
                .order_by(tasks.c.turn, tasks.c.task_id)
                .limit(room)
                .with_for_update(of=tasks, skip_locked=True)
            )
        )

    def _give(self, session: Session, task: Row[Any], worker: Address, now: float) -> str:
        lease_id = secrets.token_hex(16)
        session.execute(
            insert(leases).values(
                lease_id=lease_id,
                task_id=task.task_id,
                worker=worker,
                state=str(LeaseState.RUNNING),
                status=str(ReplicateStatus.CREATED),
                created_at=now,
                expires_at=now + self._settings.lease_seconds,
                weight=0,
            )
        )
        add_line(session, task.task_id, lease_id, ReplicateStatus.CREATED, now)
        if task.initialized:  # before that the public word stays what the chain is waited for
            set_status(session, task, PublicTaskStatus.RUNNING, now)
        recount(session, task)
        return lease_id

    def _describe(self, session: Session, lease_id: str) -> Lease:
        row = session.execute(
            select(leases.c.lease_id, leases.c.expires_at, tasks.c.task_id, tasks.c.deal_index, deals)
            .join(tasks, tasks.c.task_id == leases.c.task_id)
            .join(deals, deals.c.deal_id == tasks.c.deal_id)
            .where(leases.c.lease_id == lease_id)
        ).one()
        return Lease(
            lease_id=row.lease_id,
            task_id=Bytes32(row.task_id),
            deal_id=Bytes32(row.deal_id),
            index=row.deal_index,
            chain_id=self._settings.chain_id,
            hub=self._settings.hub,
            workerpool=Address(row.workerpool),
            trust=row.trust,
            start_time=row.start_time,
            contribution_deadline=row.contribution_deadline,
            final_deadline=row.final_deadline,
            category_seconds=row.category_seconds,
            app=ContentReference(**row.app),
            dataset=None if row.dataset is None else ContentReference(**row.dataset),
            params=row.params,
            callback=Address(row.callback),
            match_transaction=Bytes32(row.match_transaction),
            dataset_order=row.dataset_order,
            expires_at=int(row.expires_at),
        )

    def _open(self, session: Session, lease_id: str, worker: Address) -> tuple[Row[Any], Row[Any]]:
        """The lease of that worker and its locked task. Another's lease is as unknown as none."""
        task_id = session.execute(
            select(leases.c.task_id).where(leases.c.lease_id == lease_id, leases.c.worker == worker)
        ).scalar_one_or_none()
        task = None if task_id is None else lock_task(session, task_id)
        if task is None:
            raise NotFound(f"worker {worker} has no lease {quoted(lease_id)}", hint="ask for a new lease")
        lease = session.execute(select(leases).where(leases.c.lease_id == lease_id)).one()
        return lease, task

    def beat(
        self,
        lease_id: str,
        worker: Address,
        status: ReplicateStatus,
        *,
        detail: str | None,
        results: str | None,
        results_callback: bytes,
        now: float,
        chain_now: int,
    ) -> BeatAnswer:
        """Keep a lease alive. Raises NotFound for a lease that is not this worker's."""
        with self._database.session_scope() as session:
            lease, task = self._open(session, lease_id, worker)
            changes: dict[str, Any] = _results(results, results_callback)
            live = LeaseState(lease.state) in LIVE_STATES
            if live and status != lease.status and lease_lines(session, lease_id) < HISTORY_CAP:
                changes["status"] = str(status)
                add_line(session, task.task_id, lease_id, status, now, detail)
            expires_at = lease.expires_at
            if live:
                expires_at = changes["expires_at"] = now + self._settings.lease_seconds
            state = move_lease(session, lease, LeaseEvent.HEARTBEAT, **changes)
            return BeatAnswer(int(expires_at), _must_abort(state, task, chain_now))

    def authorize(
        self,
        lease_id: str,
        worker: Address,
        enclave_challenge: Address,
        sign: Callable[[Bytes32], bytes],
        *,
        now: float,
        chain_now: int,
    ) -> bytes:
        """The signature for this lease and enclave key, made once and given again when asked again.

        Raises:
            NotFound: not this worker's lease.
            Denied: the lease is over, or has had too many keys signed.
        """
        with self._database.session_scope() as session:
            lease, task = self._open(session, lease_id, worker)
            state = LeaseState(lease.state)
            if state is not LeaseState.RUNNING or _must_abort(state, task, chain_now):
                raise Denied(f"lease {lease_id} is over", hint="ask for a new lease")
            signed = session.execute(
                select(authorizations.c.enclave_challenge, authorizations.c.signature).where(
                    authorizations.c.lease_id == lease_id
                )
            ).all()
            for row in signed:
                if row.enclave_challenge == enclave_challenge:
                    return bytes.fromhex(row.signature[2:])
            if len(signed) >= self._settings.challenges_per_lease:
                raise Denied(
                    f"lease {lease_id} had {len(signed)} enclave keys signed", hint="report it failed and lease again"
                )
            signature = sign(Bytes32(task.task_id))
            session.execute(
                insert(authorizations).values(
                    lease_id=lease_id,
                    enclave_challenge=enclave_challenge,
                    signature=to_hex(signature),
                    signed_at=now,
                )
            )
            return signature

    def keep_logs(
        self, lease_id: str, worker: Address, stdout: str, stderr: str, *, exit_code: int | None = None
    ) -> None:
        """Keep the last characters of an app's streams, in place of what the lease had before."""
        with self._database.session_scope() as session:
            _, task = self._open(session, lease_id, worker)
            if exit_code is not None:
                session.execute(update(leases).where(leases.c.lease_id == lease_id).values(exit_code=exit_code))
            # PostgreSQL's text holds no NUL.
            values = {
                "stdout": stdout.replace("\0", "\ufffd")[-LOG_CHARACTERS:],
                "stderr": stderr.replace("\0", "\ufffd")[-LOG_CHARACTERS:],
            }
            changed = session.execute(update(logs).where(logs.c.lease_id == lease_id).values(**values))
            if not changed.rowcount:  # type: ignore[attr-defined]  # an update's result is a cursor's
                session.execute(insert(logs).values(lease_id=lease_id, task_id=task.task_id, worker=worker, **values))

    def report(self, lease_id: str, worker: Address, outcome: Outcome, *, exit_code: int | None, now: float) -> None:
        """End a lease as its worker says. A failure frees the task at once; a success waits for the chain to show it.

        Raises:
            NotFound: not this worker's lease.
            InputError: a status that ends nothing.
        """
        if outcome.status not in FAILURES and outcome.status not in SUCCESSES:
            raise InputError(f"status {outcome.status} does not end a lease")
        failed = outcome.status in FAILURES
        with self._database.session_scope() as session:
            lease, task = self._open(session, lease_id, worker)
            before = LeaseState(lease.state)
            add_stages(session, lease, outcome, now, ended=before not in LIVE_STATES)
            if before not in LIVE_STATES:
                return
            changes: dict[str, Any] = {"status": str(outcome.status)}
            if exit_code is not None:
                changes["exit_code"] = exit_code
            changes |= _results(outcome.results, outcome.results_callback)
            if not failed:
                changes["expires_at"] = now + self._settings.confirm_seconds
            event = LeaseEvent.REPORT_FAILURE if failed else LeaseEvent.REPORT_SUCCESS
            state = move_lease(session, lease, event, **changes)
            if outcome.status != lease.status:
                add_line(session, task.task_id, lease_id, outcome.status, now, _cause(outcome))
            if state is LeaseState.FAILED:
                self._count_failure(
                    session,
                    task,
                    now,
                    _cause(outcome),
                    stopped=outcome.cause == WORKER_STOPPED,
                    final=outcome.refusal in FINAL_CODES,
                )
            recount(session, task)

    def _count_failure(
        self,
        session: Session,
        task: Row[Any],
        now: float,
        cause: str | None,
        *,
        stopped: bool = False,
        final: bool = False,
    ) -> None:
        """Count a try that came to nothing. A worker that was told to stop says nothing against the task; a ``final``
        refusal would meet every other try too, so the task is given up at once and whoever waits hears the cause.
        """
        attempts = max(self._settings.max_attempts, task.attempts + 1) if final else task.attempts + 1
        if stopped and self._tries(session, task.task_id) < _STOPS_PER_TASK:
            attempts = task.attempts
        values: dict[str, Any] = {
            "attempts": attempts,
            "not_before": now + self._settings.backoff(attempts),
        }
        if attempts >= self._settings.max_attempts and task.phase == Phase.OPEN and attempts > task.attempts:
            values["phase"] = str(Phase.EXHAUSTED)
        session.execute(update(tasks).where(tasks.c.task_id == task.task_id).values(**values))
        if "phase" in values:
            set_status(session, task, PublicTaskStatus.RUNNING_FAILED, now, cause)

    def _tries(self, session: Session, task_id: str) -> int:
        return session.execute(select(func.count()).select_from(leases).where(leases.c.task_id == task_id)).scalar_one()

    def expire(self, now: float) -> int:
        """Take back leases whose worker fell silent. Returns how many."""
        with self._database.read_scope() as session:
            silent = session.execute(
                select(leases.c.lease_id, leases.c.task_id)
                .where(leases.c.state.in_(EXPIRING_STATES), leases.c.expires_at < now)
                .limit(_SWEEP)
            ).all()
        lost = 0
        for lease_id, task_id in silent:
            with self._database.session_scope() as session:
                task = lock_task(session, task_id)
                lease = session.execute(select(leases).where(leases.c.lease_id == lease_id)).one()
                if task is None or lease.expires_at >= now or LeaseState(lease.state) not in EXPIRING_STATES:
                    continue  # it spoke, or the chain did, between our look and our lock
                move_lease(session, lease, LeaseEvent.EXPIRE, status=str(ReplicateStatus.WORKER_LOST))
                add_line(session, task_id, lease_id, ReplicateStatus.WORKER_LOST, now)
                self._count_failure(session, task, now, "WORKER_LOST")
                recount(session, task)
                lost += 1
        return lost

    def close_late(self, chain_now: int, now: float) -> int:
        """Stop leasing what can no longer be contributed. Returns how many tasks."""
        with self._database.read_scope() as session:
            late = session.execute(
                select(tasks.c.task_id)
                .where(tasks.c.phase == Phase.OPEN, tasks.c.contribution_deadline <= chain_now)
                .limit(_SWEEP)
            ).scalars()
            found = list(late)
        for task_id in found:
            with self._database.session_scope() as session:
                task = lock_task(session, task_id)
                if task is None or task.phase != Phase.OPEN or task.contribution_deadline > chain_now:
                    continue
                session.execute(update(tasks).where(tasks.c.task_id == task_id).values(phase=str(Phase.EXHAUSTED)))
                set_status(session, task, PublicTaskStatus.CONTRIBUTION_TIMEOUT, now)
                cancel_leases(session, task, now, "CONTRIBUTION_TIMEOUT")
                recount(session, task)
        return len(found)


def _cause(outcome: Outcome) -> str | None:
    return outcome.cause if not outcome.message else f"{outcome.cause or 'FAILED'}: {outcome.message}"


def _results(results: str | None, results_callback: bytes) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if results is not None:
        values["results"] = results
    if results_callback:
        values["results_callback"] = to_hex(results_callback)
    return values


def _must_abort(state: LeaseState, task: Row[Any], chain_now: int) -> bool:
    if state not in LIVE_STATES:
        return True
    if state not in EXPIRING_STATES:
        return False
    over = has_ended(task.phase) or task.phase == Phase.REVEALING
    return over or task.contribution_deadline <= chain_now
