"""Progress that apps tell while they run: kept for whoever asks, sealed to its requester or as public as a plain result.

It is decoration: the newest updates of a lease are kept, and nothing waits for them. What an update says is proven by the
requester (``protocol.progress``); here it is bytes of a known worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import delete, insert, select

from cloister.errors import NotFound
from cloister.protocol.codec import build_base64
from cloister.services.scheduler.tables import leases, progress, tasks

if TYPE_CHECKING:
    from cloister.protocol.codec import Address, Bytes32
    from cloister.services.database import Database

KEPT: Final = 8
"""How many updates of a lease are kept: the newest."""
SHOWN: Final = 32
"""Most updates in one answer."""


class ProgressBoard:
    """Updates in SQL. Thread-safe; times are unix seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, lease_id: str, worker: Address, number: int, update: bytes, *, now: float) -> None:
        """Keep an update in place of the oldest. The same one again changes nothing.

        Raises:
            NotFound: not this worker's lease.
        """
        with self._database.session_scope() as session:
            lease = session.execute(
                select(leases.c.task_id, leases.c.worker).where(leases.c.lease_id == lease_id).with_for_update()
            ).one_or_none()
            if lease is None or lease.worker != worker:
                # Another's lease is as unknown as none.
                raise NotFound(f"worker {worker} has no lease {lease_id}", hint="ask for a new lease")
            kept = session.execute(
                select(progress.c.entry, progress.c.number, progress.c.body)
                .where(progress.c.lease_id == lease_id)
                .order_by(progress.c.entry)
            ).all()
            if any(row.number == number and bytes(row.body) == update for row in kept):
                return
            session.execute(
                insert(progress).values(lease_id=lease_id, task_id=lease.task_id, number=number, at=now, body=update)
            )
            surplus = [row.entry for row in kept[: max(0, len(kept) + 1 - KEPT)]]
            if surplus:
                session.execute(delete(progress).where(progress.c.entry.in_(surplus)))

    def show(self, task_id: Bytes32, *, after: int) -> list[dict[str, Any]]:
        """The newest updates behind entry ``after``, oldest first.

        Raises:
            NotFound: not a task of this scheduler.
        """
        with self._database.read_scope() as session:
            if session.execute(select(tasks.c.task_id).where(tasks.c.task_id == task_id)).one_or_none() is None:
                raise NotFound(f"no task {task_id} here", hint="is this the scheduler of the task's workerpool?")
            rows = session.execute(
                select(progress)
                .where(progress.c.task_id == task_id, progress.c.entry > after)
                .order_by(progress.c.entry.desc())
                .limit(SHOWN)
            ).all()
        return [
            {"entry": row.entry, "number": row.number, "at": row.at, "update": build_base64(bytes(row.body))}
            for row in reversed(rows)
        ]
