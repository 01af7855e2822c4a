"""What others than workers may read: the state of a task for everybody, its logs for its requester (reference 3.6)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select

from cloister.clients.scheduler import ReplicateStatus
from cloister.errors import Denied, NotFound, Unauthenticated, UnavailableError, VerificationError
from cloister.protocol.authorization import SCHEDULER_CHALLENGE, challenge_digest, challenge_typed_data
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.signatures import recover_address
from cloister.services.scheduler.rows import ENDS
from cloister.services.scheduler.tables import challenges, deals, history, leases, logs, tasks

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.orm import Session

    from cloister.services.database import Database

CHALLENGE_TEXT = "Sign this message to log into iExec Core: "
_LIVE_CHALLENGES = 100_000
_LIVE_CHALLENGES_PER_ADDRESS = 32


@dataclass(frozen=True, slots=True)
class Login:
    """Proof that an address answered a challenge of ours. Built only by ``Views.verify_login``."""

    address: Address


class Views:
    """Reads for the public, and the login that guards logs. Thread-safe."""

    def __init__(self, database: Database, *, chain_id: int, challenge_seconds: float) -> None:
        self._database = database
        self._chain_id = chain_id
        self._seconds = challenge_seconds

    def task(self, task_id: Bytes32) -> dict[str, Any]:
        """The public state of a task as iExec's clients read it.

        Raises:
            NotFound: not a task of this scheduler.
        """
        with self._database.read_scope() as session:
            task = self._task(session, task_id)
            lines = session.execute(select(history).where(history.c.task_id == task_id).order_by(history.c.id)).all()
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

    def build_challenge(self, address: Address, letters: str, *, now: float) -> dict[str, object]:
        """Make a login challenge for ``address`` from 32 random letters, and remember it for a while.

        Raises:
            UnavailableError: too many logins are under way.
        """
        text = CHALLENGE_TEXT + letters
        digest = Bytes32.from_raw(challenge_digest(SCHEDULER_CHALLENGE, self._chain_id, text))
        with self._database.session_scope() as session:
            session.execute(delete(challenges).where(challenges.c.expires_at < now))
            mine = session.execute(
                select(challenges.c.digest).where(challenges.c.address == address).order_by(challenges.c.expires_at)
            ).scalars()
            surplus = list(mine)[: -(_LIVE_CHALLENGES_PER_ADDRESS - 1)]
            if surplus:
                session.execute(delete(challenges).where(challenges.c.digest.in_(surplus)))
            if session.execute(select(func.count()).select_from(challenges)).scalar_one() >= _LIVE_CHALLENGES:
                raise UnavailableError("too many logins are under way", hint="try again in a few minutes")
            session.execute(insert(challenges).values(digest=digest, address=address, expires_at=now + self._seconds))
        return challenge_typed_data(SCHEDULER_CHALLENGE, self._chain_id, text)

    def verify_login(self, digest: Bytes32, signature: bytes, address: Address, *, now: float) -> Login:
        """Prove that ``address`` signed a challenge that was given to it. A challenge is good once.

        Raises:
            Unauthenticated: no such challenge any more, another's, or a wrong signature.
        """
        refusal = Unauthenticated("the login is not valid", hint="ask for a new challenge and sign it")
        try:
            recovered = recover_address(digest.raw, signature)
        except VerificationError as error:
            raise refusal from error
        if recovered != address:
            raise refusal
        with self._database.session_scope() as session:
            taken = session.execute(
                delete(challenges).where(
                    challenges.c.digest == digest, challenges.c.address == address, challenges.c.expires_at >= now
                )
            )
            if not taken.rowcount:  # type: ignore[attr-defined]  # a delete's result is a cursor's
                raise refusal
        return Login(address)

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
