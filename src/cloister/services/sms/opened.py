"""Sessions that were released, kept until their receipts are countersigned, in SQL.

A session is written in the transaction that records its release, so that a countersignature rests on nothing that a
crash can take away. It gets one receipt, ever: the digest is set once, by a compare-and-set.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import CursorResult, Row, insert, select, update
from sqlalchemy.orm import Session

from cloister.attestation.countersignature import SessionFacts, build_facts, parse_facts
from cloister.errors import LocalError
from cloister.protocol.codec import Address, Bytes32
from cloister.services.database import Database
from cloister.services.sms.statements import OpenedSession
from cloister.services.sms.tables import COLLATERAL, SESSIONS

if TYPE_CHECKING:
    from cloister.services.sms.store import ReleaseRecord


@dataclass(frozen=True, slots=True)
class KeptSession:
    """An opened session as it is stored. ``countersignature`` is None until a receipt was shown."""

    facts: SessionFacts
    collateral: bytes
    log_index: int
    receipt_digest: Bytes32 | None
    countersignature: bytes | None


def keep_session(session: Session, opened: OpenedSession, record: ReleaseRecord, log_index: int) -> None:
    """Write an opened session. An enclave that opens a second one for its task has the later one, until it has a
    receipt.
    """
    digest = hashlib.sha256(opened.collateral).hexdigest()
    if session.execute(select(COLLATERAL.c.digest).where(COLLATERAL.c.digest == digest)).first() is None:
        # The log's lock is held, so nobody else writes the same at this moment.
        session.execute(insert(COLLATERAL).values(digest=digest, content=opened.collateral))
    values: dict[str, Any] = {
        "opened_at": record.at,
        "log_index": log_index,
        "statement": build_facts(opened.facts),
        "collateral": digest,
    }
    if record.enclave_challenge is None:
        raise LocalError("a session without an enclave challenge was released")
    there = _where(record.task_id, record.enclave_challenge)
    if session.execute(select(SESSIONS.c.log_index).where(*there)).first() is None:
        key = {"task_id": str(record.task_id), "enclave_challenge": str(record.enclave_challenge)}
        session.execute(insert(SESSIONS).values(**key, **values))
    else:
        session.execute(update(SESSIONS).where(*there, SESSIONS.c.receipt_digest.is_(None)).values(**values))


class OpenedSessions:
    """Reads opened sessions and gives each its receipt. Safe to call from several threads and replicas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, task_id: Bytes32, challenge: Address) -> KeptSession | None:
        """The released session of this task and enclave, or None."""
        query = select(SESSIONS, COLLATERAL.c.content).join(COLLATERAL, COLLATERAL.c.digest == SESSIONS.c.collateral)
        with self._database.read_scope() as session:
            row = session.execute(query.where(*_where(task_id, challenge))).first()
        return None if row is None else _kept(row)

    def countersign(
        self, task_id: Bytes32, challenge: Address, log_index: int, digest: Bytes32, countersignature: bytes
    ) -> bytes | None:
        """Give the session its receipt; durable when this returns. Returns what is stored for this digest: the one given,
        or that of an earlier call; None when the session has another receipt, or is another one by now.
        """
        there = _where(task_id, challenge)
        with self._database.session_scope() as session:
            done = session.execute(
                update(SESSIONS)
                .where(*there, SESSIONS.c.receipt_digest.is_(None), SESSIONS.c.log_index == log_index)
                .values(receipt_digest=str(digest), countersignature=countersignature)
            )
            assert isinstance(done, CursorResult)  # noqa: S101 - an update has a cursor
            if done.rowcount == 1:
                return countersignature
            query = select(SESSIONS.c.countersignature).where(*there, SESSIONS.c.receipt_digest == str(digest))
            return session.execute(query).scalar()


def _where(task_id: Bytes32, challenge: Address) -> tuple[Any, ...]:
    return (SESSIONS.c.task_id == str(task_id), SESSIONS.c.enclave_challenge == str(challenge))


def _kept(row: Row[Any]) -> KeptSession:
    return KeptSession(
        facts=parse_facts(row.statement),
        collateral=row.content,
        log_index=row.log_index,
        receipt_digest=None if row.receipt_digest is None else Bytes32(row.receipt_digest),
        countersignature=row.countersignature,
    )
