"""What the SMS remembers, in SQL. Every method is one transaction that is committed before it returns."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Row, Update, delete, func, insert, select, update
from sqlalchemy.orm import Session

from cloister.errors import Conflict, LocalError, NotFound, Unauthenticated, UnavailableError
from cloister.protocol.codec import Address, Bytes32
from cloister.services.database import Database
from cloister.services.sms import log_store
from cloister.services.sms.kek import KeyEncryptionKey
from cloister.services.sms.opened import keep_session
from cloister.services.sms.statements import OpenedSession
from cloister.services.sms.tables import (
    AUTHORIZATIONS,
    HEADS,
    KEYRING,
    LOG_ENTRIES,
    NONCES,
    POLICIES,
    RELEASES,
    RESULT_KEYS,
    SECRETS,
)
from cloister.services.sms.vault import SealedSecret, SecretKind, SecretName, Vault

MAX_LIVE_NONCES_PER_TASK = 256
MAX_LIVE_NONCES = 100_000

SAME_VALUE = "already-set-same"
"""Code of the conflict when a secret is set that holds this very value: a repeated call may take it for success."""


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    """One line of the append-only record: a release, or a refusal and its reason. Holds no secret."""

    at: int
    outcome: str
    reason: str | None
    task_id: Bytes32
    deal_id: Bytes32 | None = None
    worker: Address | None = None
    requester: Address | None = None
    app: Address | None = None
    dataset: Address | None = None
    order_hash: Bytes32 | None = None
    policy_hash: Bytes32 | None = None
    block: int | None = None
    enclave_challenge: Address | None = None
    hpke_key_id: str | None = None
    evidence_kind: str | None = None
    evidence_digest: str | None = None
    simulated: bool | None = None

    def to_json(self) -> dict[str, object]:
        """The line as its log entry has it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: str(value) if isinstance(value, Address | Bytes32) else value for name, value in values.items()}


class SecretStore:
    """Secrets, the authorizations that were spent to write them, and result keys."""

    def __init__(self, database: Database, kek: KeyEncryptionKey) -> None:
        self._database = database
        self._vault = Vault(kek)
        self._kek = kek
        self._index_key = b""

    def start(self) -> None:
        """Load the key under which spent authorizations are remembered; the tables must be there."""
        self._index_key = _load_index_key(self._database, self._kek)

    def exists(self, name: SecretName) -> bool:
        """Tell whether a live secret is stored under ``name``."""
        with self._database.read_scope() as session:
            return self._live(session, name) is not None

    def read(self, name: SecretName) -> bytes | None:
        """Return the live value, or None when there is none."""
        with self._database.read_scope() as session:
            sealed = self._live(session, name)
        return None if sealed is None else self._vault.open(name, sealed)

    def dataset_key(self, dataset: Address) -> str:
        """Return the key of a dataset, for a release.

        Raises: NotFound (``dataset-key-missing``).
        """
        value = self.read(SecretName(SecretKind.DATASET, dataset))
        if value is None:
            raise NotFound("the dataset's key is not here: never pushed, or erased", code="dataset-key-missing")
        return value.decode("utf-8")

    def create(self, name: SecretName, value: bytes, *, authorization: bytes, now: int) -> None:
        """Store a secret that must not exist yet and spend the authorization (32 bytes) that asked for it.

        Raises: Conflict when a live secret exists; Unauthenticated when the authorization was spent before.
        """
        conflict = Conflict(f"a {name.kind.value} secret is already set")
        try:
            with self._database.session_scope() as session:
                row = self._row(session, name)
                if row is None or row.erased_at is not None:
                    self._spend(session, authorization, now)
                    self._write(session, name, value, previous=None if row is None else row.version, now=now)
                    return
                if hmac.compare_digest(self._vault.open(name, _sealed(row)), value):
                    # The caller proved to be the one who set it, so saying this gives nothing away.
                    conflict.code = SAME_VALUE
        except Conflict as error:
            # Two at once: the database let one through.
            raise conflict from error
        raise conflict

    def replace(self, name: SecretName, value: bytes, *, authorization: bytes, now: int) -> None:
        """Put a new value in the place of a live secret; the same value again changes nothing.

        Raises: NotFound when there is none; Unauthenticated when the authorization was spent on another value's write.
        """
        with self._database.session_scope() as session:
            row = self._row(session, name)
            if row is None or row.erased_at is not None:
                raise NotFound(f"no {name.kind.value} secret is set")
            if hmac.compare_digest(self._vault.open(name, _sealed(row)), value):
                return
            self._spend(session, authorization, now)
            self._write(session, name, value, previous=row.version, now=now)

    def erase(self, name: SecretName, *, now: int) -> None:
        """Destroy a live secret: its wrapped key and its ciphertext leave the row for good.

        Raises: NotFound when there is none.
        """
        with self._database.session_scope() as session:
            changed = _changed(
                session,
                update(SECRETS)
                .where(*_where(name), SECRETS.c.erased_at.is_(None))
                .values(wrapped_key=None, nonce=None, ciphertext=None, erased_at=now),
            )
            if changed != 1:
                raise NotFound(f"no {name.kind.value} secret is set")

    def remember_result_key(self, owner: Address, key_id: str, public_key: str, *, now: int) -> None:
        """Keep a native result key under its id, so that a task in flight survives a change of key."""
        try:
            with self._database.session_scope() as session:
                session.execute(
                    insert(RESULT_KEYS).values(key_id=key_id, owner=str(owner), public_key=public_key, created_at=now)
                )
        except Conflict:
            # The same owner gave the same key before.
            return

    def result_key(self, owners: Sequence[Address], key_id: str) -> str | None:
        """Return the base64 result key with this id that one of ``owners`` set, if any."""
        with self._database.read_scope() as session:
            return session.execute(
                select(RESULT_KEYS.c.public_key).where(
                    RESULT_KEYS.c.key_id == key_id, RESULT_KEYS.c.owner.in_([str(o) for o in owners])
                )
            ).scalar()

    def _spend(self, session: Session, authorization: bytes, now: int) -> None:
        if not self._index_key:
            raise LocalError("the secret store is used before its start")
        # Keyed, because the challenge of a weak secret would let a reader of the database guess it.
        digest = hmac.digest(self._index_key, authorization, "sha256")
        if session.execute(select(AUTHORIZATIONS.c.digest).where(AUTHORIZATIONS.c.digest == digest)).first():
            raise Unauthenticated("this authorization was used before", code="authorization-spent")
        session.execute(insert(AUTHORIZATIONS).values(digest=digest, used_at=now))

    def _row(self, session: Session, name: SecretName) -> Row[Any] | None:
        return session.execute(select(SECRETS).where(*_where(name))).first()

    def _live(self, session: Session, name: SecretName) -> SealedSecret | None:
        row = self._row(session, name)
        return None if row is None or row.erased_at is not None else _sealed(row)

    def _write(self, session: Session, name: SecretName, value: bytes, *, previous: int | None, now: int) -> None:
        version = 1 if previous is None else previous + 1
        sealed = self._vault.seal(name, value, version=version)
        columns = {
            "version": version,
            "key_id": sealed.key_id,
            "wrapped_key": sealed.wrapped_key,
            "nonce": sealed.nonce,
            "ciphertext": sealed.ciphertext,
            "created_at": now,
            "erased_at": None,
        }
        if previous is None:
            key = {"kind": name.kind.value, "owner": str(name.owner), "name": name.name}
            session.execute(insert(SECRETS).values(**key, **columns))
            return
        changed = _changed(
            session, update(SECRETS).where(*_where(name), SECRETS.c.version == previous).values(**columns)
        )
        if changed != 1:
            raise Conflict(f"the {name.kind.value} secret changed at the same moment")


class SessionStore:
    """Nonces, policies, the chain's highest block seen, and the record of releases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_nonce(self, nonce: Bytes32, task_id: Bytes32, *, expires_at: int, now: int) -> None:
        """Store a fresh nonce bound to a task.

        Raises: UnavailableError when too many nonces are alive, for this task or in all.
        """
        with self._database.session_scope() as session:
            session.execute(delete(NONCES).where(NONCES.c.expires_at < now - 3600))
            live = NONCES.c.used_at.is_(None) & (NONCES.c.expires_at > now)
            count = select(func.count()).select_from(NONCES).where(live)
            if (
                session.execute(count.where(NONCES.c.task_id == str(task_id))).scalar() or 0
            ) >= MAX_LIVE_NONCES_PER_TASK:
                raise UnavailableError("too many nonces are open for this task", hint="retry in some minutes")
            if (session.execute(count).scalar() or 0) >= MAX_LIVE_NONCES:
                raise UnavailableError("too many nonces are open", hint="retry in some minutes")
            session.execute(insert(NONCES).values(nonce=str(nonce), task_id=str(task_id), expires_at=expires_at))

    def use_nonce(self, nonce: Bytes32, task_id: Bytes32, *, now: int) -> bool:
        """Spend a nonce: True for exactly one caller, ever, and only before it expires and for its own task.

        One compare-and-set, committed before it returns: of two racing callers one wins, and a crash right after it
        leaves the nonce spent.
        """
        with self._database.session_scope() as session:
            changed = _changed(
                session,
                update(NONCES)
                .where(
                    NONCES.c.nonce == str(nonce),
                    NONCES.c.task_id == str(task_id),
                    NONCES.c.used_at.is_(None),
                    NONCES.c.expires_at > now,
                )
                .values(used_at=now),
            )
            return changed == 1

    def check_head(self, chain_id: int, number: int, *, max_rollback: int) -> None:
        """Refuse a chain that is more than ``max_rollback`` blocks behind what a session saw before (abuse 52).

        Raises: UnavailableError.
        """
        with self._database.read_scope() as session:
            seen = session.execute(select(HEADS.c.number).where(HEADS.c.chain_id == chain_id)).scalar()
        if seen is not None and number < seen - max_rollback:
            raise UnavailableError(
                f"the chain went back from block {seen} to {number}",
                hint="wait until the node has caught up",
                code="chain-went-back",
            )

    def advance_head(self, chain_id: int, number: int) -> None:
        """Remember the highest block that a session rested on."""
        with self._database.session_scope() as session:
            changed = _changed(
                session,
                update(HEADS).where(HEADS.c.chain_id == chain_id, HEADS.c.number < number).values(number=number),
            )
            if (
                changed == 0
                and session.execute(select(HEADS.c.number).where(HEADS.c.chain_id == chain_id)).first() is None
            ):
                session.execute(insert(HEADS).values(chain_id=chain_id, number=number))

    def put_policy(self, digest: Bytes32, body: str, *, now: int) -> None:
        """Store a policy under its own hash; the same policy again changes nothing."""
        prefix = digest.raw[:28].hex()
        try:
            with self._database.session_scope() as session:
                if session.execute(select(POLICIES.c.hash).where(POLICIES.c.hash == str(digest))).first() is None:
                    values = {"hash": str(digest), "prefix": prefix, "body": body, "created_at": now}
                    session.execute(insert(POLICIES).values(**values))
        except Conflict as error:
            if self.policy(digest) is None:
                raise Conflict("another policy has the same first 28 bytes of hash") from error

    def policy(self, digest: Bytes32) -> str | None:
        """Return the JSON of a policy by its whole hash."""
        with self._database.read_scope() as session:
            return session.execute(select(POLICIES.c.body).where(POLICIES.c.hash == str(digest))).scalar()

    def policy_by_prefix(self, prefix: bytes) -> tuple[Bytes32, str] | None:
        """Return hash and JSON of the policy whose hash starts with these 28 bytes."""
        with self._database.read_scope() as session:
            row = session.execute(
                select(POLICIES.c.hash, POLICIES.c.body).where(POLICIES.c.prefix == prefix.hex())
            ).first()
        return None if row is None else (Bytes32(row.hash), row.body)

    def record(self, *lines: ReleaseRecord, opened: OpenedSession | None = None) -> tuple[int, ...]:
        """Append lines to the record and to the log, and keep what a later countersignature rests on: all or none.

        Returns the log's indexes of the lines; ``opened`` belongs to the first.
        """
        with self._database.session_scope() as session:
            size = log_store.lock(session)
            written = []
            for line in lines:
                values = line.to_json()
                row = {**values, "simulated": None if line.simulated is None else int(line.simulated)}
                done = session.execute(insert(RELEASES).values(row).returning(RELEASES.c.id))
                written.append((int(done.scalar_one()), values))
            indexes = log_store.append(session, written, size)
            if opened is not None:
                keep_session(session, opened, lines[0], indexes[0])
        return indexes

    def releases(self, dataset: Address, *, after: int = 0, limit: int = 100) -> list[dict[str, object]]:
        """List the record's lines that name a dataset, oldest first, each with its place in the log (``log_index``)."""
        with self._database.read_scope() as session:
            rows = session.execute(
                select(RELEASES, LOG_ENTRIES.c.index.label("log_index"))
                .join(LOG_ENTRIES, LOG_ENTRIES.c.release_id == RELEASES.c.id)
                .where(RELEASES.c.dataset == str(dataset), RELEASES.c.id > after)
                .order_by(RELEASES.c.id)
                .limit(limit)
            ).mappings()
            return [{**row, "simulated": None if row["simulated"] is None else bool(row["simulated"])} for row in rows]


def _changed(session: Session, statement: Update) -> int:
    """Run an update and return how many rows it changed."""
    result = session.execute(statement)
    assert isinstance(result, CursorResult)  # noqa: S101 - an update has a cursor
    return result.rowcount


def _where(name: SecretName) -> tuple[ColumnElement[bool], ...]:
    return (SECRETS.c.kind == name.kind.value, SECRETS.c.owner == str(name.owner), SECRETS.c.name == name.name)


def _sealed(row: Row[Any]) -> SealedSecret:
    return SealedSecret(row.version, row.key_id, row.wrapped_key, row.nonce, row.ciphertext)


def _load_index_key(database: Database, kek: KeyEncryptionKey) -> bytes:
    """Load or make the key under which spent authorizations are remembered."""
    name, context = "authorizations", hashlib.sha256(b"cloister/sms/index/authorizations").digest()
    query = select(KEYRING.c.wrapped).where(KEYRING.c.name == name)
    with database.read_scope() as session:
        wrapped = session.execute(query).scalar()
    if wrapped is None:
        try:
            with database.session_scope() as session:
                fresh = kek.wrap(secrets.token_bytes(32), context)
                session.execute(insert(KEYRING).values(name=name, wrapped=fresh))
        except Conflict:
            pass  # another replica made it first
        with database.read_scope() as session:
            wrapped = session.execute(query).scalar_one()
    return kek.unwrap(wrapped, context)


__all__ = ["ReleaseRecord", "SecretKind", "SecretStore", "SessionStore"]
