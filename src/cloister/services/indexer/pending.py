"""Which files of bulk deals are still to be read: a queue in the database that survives a kill and bears replicas.

A row is claimed by moving its due time past the longest reading, and deleted in the transaction that writes what the
file says. So a file whose reader was killed is due again, and what was claimed twice is written once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, insert, select, update
from sqlalchemy.orm import Session

from cloister.services.indexer.tables import PENDING

ROOT = -1
"""The position of a deal's root; other positions are indexes of tasks."""
LEASE_MS = 30_000
MAX_DELAY_MS = 600_000


@dataclass(frozen=True, slots=True)
class PendingFile:
    """A file that is to be read. ``attempts`` counts those that failed; ``block`` is the deal's."""

    deal: str
    position: int
    cid: str
    block: int
    attempts: int

    @property
    def is_root(self) -> bool:
        """Whether it is the deal's root."""
        return self.position == ROOT

    @property
    def delay_ms(self) -> int:
        """How long to wait after one more failure: from half a second, doubled, to ten minutes."""
        return min(MAX_DELAY_MS, 500 << min(self.attempts, 12))


def expect(session: Session, deal: str, block: int, root: str) -> None:
    """Note that a deal's root is to be read. Twice is as once."""
    session.execute(delete(PENDING).where(PENDING.c.deal == deal))
    session.execute(insert(PENDING).values(deal=deal, position=ROOT, cid=root, block=block, attempts=0, due_at=0))


def expect_slices(session: Session, root: PendingFile, slices: Iterable[tuple[int, str]]) -> None:
    """Note that slices of a deal are to be read."""
    rows = [
        {"deal": root.deal, "position": position, "cid": cid, "block": root.block, "attempts": 0, "due_at": 0}
        for position, cid in slices
    ]
    if rows:
        session.execute(insert(PENDING), rows)


def next_due(session: Session) -> int | None:
    """When the next file is due, unix milliseconds; None when none is."""
    found: int | None = session.execute(select(func.min(PENDING.c.due_at))).scalar()
    return found


def claim(session: Session, now_ms: int, most: int) -> list[PendingFile]:
    """Take files that are due, those that failed least first, so that files that never come hold up no others."""
    rows = session.execute(
        select(PENDING)
        .where(PENDING.c.due_at <= now_ms)
        .order_by(PENDING.c.attempts, PENDING.c.due_at, PENDING.c.block, PENDING.c.position)
        .limit(most)
        .with_for_update(skip_locked=True)
    ).all()
    claimed = [PendingFile(row.deal, row.position, row.cid, row.block, row.attempts) for row in rows]
    for each in claimed:
        _where(session, each, due_at=now_ms + LEASE_MS)
    return claimed


def postpone(session: Session, file: PendingFile, now_ms: int) -> None:
    """Note that a file could not be read this time."""
    _where(session, file, due_at=now_ms + file.delay_ms, attempts=file.attempts + 1)


def release(session: Session, file: PendingFile) -> None:
    """Give back a file that was not tried."""
    _where(session, file, due_at=0)


def finish(session: Session, file: PendingFile) -> bool:
    """Take a file off the queue; False when somebody else did, or the chain took its deal back."""
    result = cast("CursorResult[Any]", session.execute(delete(PENDING).where(*_same(file))))
    return result.rowcount == 1


def _where(session: Session, file: PendingFile, **values: int) -> None:
    session.execute(update(PENDING).where(*_same(file)).values(**values))


def _same(file: PendingFile) -> tuple[Any, ...]:
    return (
        PENDING.c.deal == file.deal,
        PENDING.c.position == file.position,
        PENDING.c.cid == file.cid,
        PENDING.c.block == file.block,
    )
