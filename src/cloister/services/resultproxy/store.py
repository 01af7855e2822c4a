"""What the result proxy remembers: which content an authorization brought, and how often an address logged in."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from cloister.errors import Conflict
from cloister.protocol.codec import Address, Bytes32
from cloister.services.database import Database
from cloister.services.resultproxy.tables import logins, results
from cloister.services.resultproxy.tokens import UploadGrant


class ResultStore:
    """Safe to use from several threads, and from several replicas on one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def result_of(self, grant: UploadGrant) -> str | None:
        """The CID that was uploaded under this very authorization."""
        query = select(results.c.cid).where(
            results.c.task_id == grant.task_id,
            results.c.worker == grant.worker,
            results.c.enclave_challenge == grant.enclave_challenge,
        )
        with self._database.read_scope() as session:
            return session.execute(query).scalar_one_or_none()

    def newest(self, task_id: Bytes32) -> str | None:
        """The CID that was uploaded last for a task."""
        query = (
            select(results.c.cid)
            .where(results.c.task_id == task_id)
            .order_by(results.c.uploaded_at.desc(), results.c.cid)
            .limit(1)
        )
        with self._database.read_scope() as session:
            return session.execute(query).scalar_one_or_none()

    def record(self, grant: UploadGrant, cid: str, size: int, *, digest: Bytes32 | None, now: float) -> str:
        """Record what an authorization brought and return it; on disk when this returns.

        Of two uploads at once the first stands: its CID is returned to both.
        """
        try:
            with self._database.session_scope() as session:
                session.execute(
                    insert(results).values(
                        task_id=grant.task_id,
                        worker=grant.worker,
                        enclave_challenge=grant.enclave_challenge,
                        digest=digest,
                        cid=cid,
                        size=size,
                        uploaded_at=now,
                    )
                )
        except Conflict:
            return self.result_of(grant) or cid
        return cid

    def logins(self, address: Address) -> int:
        """How many challenges an address used up."""
        with self._database.read_scope() as session:
            found = session.execute(select(logins.c.used).where(logins.c.address == address)).scalar_one_or_none()
        return found or 0

    def use_login(self, address: Address, used: int) -> bool:
        """Count one more: True for exactly one caller per count."""
        try:
            with self._database.session_scope() as session:
                if used == 0:
                    session.execute(insert(logins).values(address=address, used=1))
                    return True
                changed = session.execute(
                    update(logins).where(logins.c.address == address, logins.c.used == used).values(used=used + 1)
                )
                return bool(changed.rowcount == 1)  # type: ignore[attr-defined]  # an update's result is a cursor's
        except Conflict:
            return False
