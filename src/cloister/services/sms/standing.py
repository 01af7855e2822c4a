"""What owners demand of every enclave, and on which platforms a replicated task was released, in SQL.

A policy belongs to a dataset and to the owner that signed it, so nobody else's can take its place and a transfer leaves it
without force. Versions of one owner only grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import BigInteger, Column, CursorResult, LargeBinary, String, Table, Text, insert, select, update
from sqlalchemy.orm import Session

from cloister.attestation.rules import Distinct
from cloister.errors import Conflict
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.data_policies import DataPolicy
from cloister.services.database import Database
from cloister.services.sms.tables import METADATA

DATA_POLICIES: Final = Table(
    "sms_data_policies",
    METADATA,
    Column("dataset", String(42), primary_key=True),
    Column("owner", String(42), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("issued_at", BigInteger, nullable=False),
    Column("policy", String(66), nullable=False),
    # Canonical JSON; null where the owner lifted the policy.
    Column("rules", Text, nullable=True),
    Column("signature", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
PLATFORMS: Final = Table(
    "sms_platforms",
    METADATA,
    Column("task_id", String(66), primary_key=True),
    # ``platform`` or ``vendor``, and its name: the first worker that a release of the task went to there.
    Column("scope", String(16), primary_key=True),
    Column("value", String(64), primary_key=True),
    Column("worker", String(42), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A policy whose signature was proven when it was stored. ``rules`` is canonical JSON, None when lifted."""

    statement: DataPolicy
    owner: Address
    rules: str | None
    signature: bytes


class StandingStore:
    """Standing policies and platforms. Safe to use from several threads and replicas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, policy: StoredPolicy, *, now: int) -> None:
        """Store a policy in the place of an older version of the same owner; on disk when this returns.

        The same statement again changes nothing.
        Raises: Conflict (``policy-rollback``) for a version that is not newer.
        """
        try:
            self._put(policy, now)
        except Conflict as error:
            if error.code != "constraint":
                raise
            # Two first ones at once: the other one is there now, and versions decide.
            self._put(policy, now)

    def _put(self, policy: StoredPolicy, now: int) -> None:
        statement = policy.statement
        values = {
            "version": statement.version,
            "issued_at": statement.issued_at,
            "policy": str(statement.policy),
            "rules": policy.rules,
            "signature": policy.signature,
            "created_at": now,
        }
        place = (DATA_POLICIES.c.dataset == str(statement.dataset)) & (DATA_POLICIES.c.owner == str(policy.owner))
        with self._database.session_scope() as session:
            newer = update(DATA_POLICIES).where(place, DATA_POLICIES.c.version < statement.version).values(**values)
            result = session.execute(newer)
            assert isinstance(result, CursorResult)  # noqa: S101 - an update has a cursor
            if result.rowcount == 1:
                return
            row = session.execute(select(DATA_POLICIES).where(place)).first()
            if row is None:
                key = {"dataset": str(statement.dataset), "owner": str(policy.owner)}
                session.execute(insert(DATA_POLICIES).values(**key, **values))
                return
            same = (row.version, row.policy, row.issued_at)
            if same != (statement.version, str(statement.policy), statement.issued_at):
                raise Conflict(
                    f"version {statement.version} is not newer than version {row.version} of the policy",
                    code="policy-rollback",
                    hint=f"sign version {row.version + 1} or higher",
                )

    def read(self, dataset: Address, owner: Address) -> StoredPolicy | None:
        """Return the newest policy that this owner signed for the dataset."""
        query = select(DATA_POLICIES).where(
            DATA_POLICIES.c.dataset == str(dataset), DATA_POLICIES.c.owner == str(owner)
        )
        with self._database.read_scope() as session:
            row = session.execute(query).first()
        if row is None:
            return None
        statement = DataPolicy(dataset, Bytes32(row.policy), row.version, row.issued_at)
        return StoredPolicy(statement, owner, row.rules, bytes(row.signature))

    def holders(self, task_id: Bytes32, values: Mapping[Distinct, str]) -> dict[Distinct, Address]:
        """Who the task was first released to on each of these platforms and vendors, where it was."""
        with self._database.read_scope() as session:
            return _holders(session, task_id, values)

    def claim(
        self, task_id: Bytes32, values: Mapping[Distinct, str], worker: Address, *, now: int
    ) -> dict[Distinct, Address]:
        """Name the worker as the first on each platform and vendor that has none yet, and return who is first on each.

        Of racing callers the database lets one be first; it is on disk when this returns.
        """
        for _ in values:
            try:
                return self._claim(task_id, values, worker, now)
            except Conflict:
                # Somebody else was first at the same moment: now that row is there to be read. Each row is lost once.
                continue
        return self._claim(task_id, values, worker, now)

    def _claim(
        self, task_id: Bytes32, values: Mapping[Distinct, str], worker: Address, now: int
    ) -> dict[Distinct, Address]:
        with self._database.session_scope() as session:
            found = _holders(session, task_id, values)
            for scope, value in values.items():
                if scope not in found:
                    row = {"task_id": str(task_id), "scope": scope.value, "value": value}
                    session.execute(insert(PLATFORMS).values(**row, worker=str(worker), created_at=now))
                    found[scope] = worker
            return found


def _holders(session: Session, task_id: Bytes32, values: Mapping[Distinct, str]) -> dict[Distinct, Address]:
    rows = session.execute(select(PLATFORMS).where(PLATFORMS.c.task_id == str(task_id))).all()
    wanted = {(scope.value, value): scope for scope, value in values.items()}
    return {wanted[key]: Address(row.worker) for row in rows if (key := (row.scope, row.value)) in wanted}
