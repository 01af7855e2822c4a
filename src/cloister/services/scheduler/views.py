"""What others than workers may read: the state of a task for everybody, its logs for its requester (reference 3.6)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from cloister.clients.scheduler import ReplicateStatus
from cloister.errors import Denied, NotFound
from cloister.services.scheduler.rows import ENDS
from cloister.services.scheduler.tables import deals, history, leases, logs, tasks

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from cloister.protocol.codec import Bytes32
    from cloister.services.database import Database
    from cloister.services.scheduler.logins import Login


class Views:
    """Reads for the public. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def task(self, task_id: Bytes32) -> dict[str, Any]:
        """The public state of a task as iExec's clients read it.

        Raises:
            NotFound: not a task of this scheduler.
        """
        with self._database.read_scope() as session:
            task = self._task(session, task_id)
            lines = session.execute(
                select(history).where(history.c.task_id == task_id).order_by(history.c.at, history.c.id)
            ).all()
            tries = session.execute(
                select(leases).where(leases.c.task_id == task_id).order_by(leases.c.created_at)
            ).all()
        by_worker: dict[str, list[Row[Any]]] = {}
        for lease in tries:
            by_worker.setdefault(lease.worker, []).append(lease)
        return {
            "chainTaskId": task.task_id,
            "chainDealId": task.deal_id,
            "taskIndex": task.deal_index,
            "currentStatus": task.status,
            "dateStatusList": [_line(line) for line in lines if line.lease_id is None],
            "replicates": [_replicate(worker, own, lines) for worker, own in by_worker.items()],
        }

    def logs(self, task_id: Bytes32, login: Login) -> dict[str, Any]:
        """The streams of an app's runs, for the requester of the task.

        Raises:
            NotFound: no such task, or no logs yet.
            Denied: the login is not the requester's.
        """
        with self._database.read_scope() as session:
            task = self._task(session, task_id)
            requester = session.execute(select(deals.c.requester).where(deals.c.deal_id == task.deal_id)).scalar_one()
            if requester != login.address:
                raise Denied(f"only task requester {requester} can access replicates logs")
            rows = session.execute(
                select(logs, leases.c.created_at)
                .join(leases, leases.c.lease_id == logs.c.lease_id)
                .where(logs.c.task_id == task_id)
                .order_by(leases.c.created_at)
            ).all()
        if not rows:
            raise NotFound(
                f"task {task_id} has no logs yet",
                hint="an app leaves none when it had protected data or a secret, or when its result is encrypted",
            )
        # A worker that tried twice shows its last try.
        latest = {row.worker: row for row in rows}
        return {
            "chainTaskId": str(task_id),
            "computeLogsList": [
                {"walletAddress": row.worker, "stdout": row.stdout, "stderr": row.stderr} for row in latest.values()
            ],
        }

    def _task(self, session: Session, task_id: Bytes32) -> Row[Any]:
        row = session.execute(select(tasks).where(tasks.c.task_id == task_id)).one_or_none()
        if row is None:
            raise NotFound(f"no task {task_id} here", hint="is this the scheduler of the task's workerpool?")
        return row


def _replicate(worker: str, tries: list[Row[Any]], lines: list[Row[Any]] | Any) -> dict[str, Any]:
    own = {lease.lease_id for lease in tries}
    # Stages are told after the fact, each with its time; what ends a try stands behind what happened at the same moment.
    told = sorted((line for line in lines if line.lease_id in own), key=lambda line: (line.at, line.status in ENDS))
    return {
        "walletAddress": worker,
        "appExitCode": tries[-1].exit_code,
        "currentStatus": str(ReplicateStatus(tries[-1].status)),
        "statusUpdateList": [_line(line) for line in told],
    }


def _line(row: Row[Any]) -> dict[str, str]:
    moment = datetime.fromtimestamp(row.at, UTC)
    line = {"status": row.status, "date": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"}
    if row.cause:
        line["cause"] = row.cause
    return line
