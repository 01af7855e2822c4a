"""The sender's memory: every transaction stands on disk, signed, before a node sees it.

One SQLite file (WAL, ``synchronous=FULL``) per key. A row is one intent; its attempts are the signed transactions that
would fulfil it, of which at most one can be mined. A file lock keeps two processes with one key from one nonce.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloister.errors import ConfigurationError, Conflict, quoted
from cloister.protocol.codec import Address, Bytes32, keccak256

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS intents (
    id INTEGER PRIMARY KEY,
    chain_id TEXT NOT NULL,
    genesis TEXT NOT NULL,
    sender TEXT NOT NULL,
    intent TEXT NOT NULL,
    digest BLOB NOT NULL,
    nonce INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sent', 'succeeded', 'reverted', 'abandoned')),
    mined_as TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS live_intents ON intents (genesis, sender, intent)
    WHERE state IN ('sent', 'succeeded');
CREATE INDEX IF NOT EXISTS intents_by_nonce ON intents (genesis, sender, nonce);
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY,
    intent_id INTEGER NOT NULL REFERENCES intents (id),
    nonce INTEGER NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    raw BLOB NOT NULL,
    max_fee TEXT NOT NULL,
    max_priority_fee TEXT NOT NULL,
    gas INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS attempts_by_intent ON attempts (intent_id);
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A signed transaction. Fees are wei per gas."""

    nonce: int
    hash: Bytes32
    raw: bytes
    max_fee: int
    max_priority_fee: int
    gas: int


@dataclass(frozen=True, slots=True)
class Entry:
    """An intent and its attempts, oldest first. ``state`` is sent, succeeded, reverted or abandoned."""

    id: int
    intent: str
    digest: bytes
    nonce: int
    state: str
    attempts: tuple[Attempt, ...]
    mined_as: Bytes32 | None = None

    @property
    def newest(self) -> Attempt:
        """The attempt that was signed last."""
        return self.attempts[-1]


def call_digest(to: Address | None, data: bytes, value: int) -> bytes:
    """Name what a call does, so that an intent cannot be used again for something else."""
    return keccak256((b"" if to is None else to.raw) + b"|" + value.to_bytes(32, "big") + data)


class Journal:
    """The durable record of one or more keys' transactions. Safe to use from several threads and processes.

    Every method that writes returns once the bytes are on disk.

    Raises:
        ConfigurationError: the file cannot be opened.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._nonce_lock = threading.Lock()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Made by us first: SQLite would use the process's umask.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute("PRAGMA foreign_keys=ON")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"cannot open the journal of transactions {quoted(str(self._path))}") from error
        self._lock_file = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()
            os.close(self._lock_file)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the right to choose nonces, against other threads and other processes. Not reentrant."""
        with self._nonce_lock:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def find(self, genesis: Bytes32, sender: Address, intent: str) -> Entry | None:
        """The live entry of an intent: sent or succeeded."""
        with self._lock:
            row = self._database.execute(
                "SELECT id, intent, digest, nonce, state, mined_as FROM intents "
                "WHERE genesis = ? AND sender = ? AND intent = ? AND state IN ('sent', 'succeeded')",
                (genesis, sender, intent),
            ).fetchone()
            return None if row is None else self._entry(row)

    def get(self, entry_id: int) -> Entry:
        """An entry as it stands now."""
        with self._lock:
            row = self._database.execute(
                "SELECT id, intent, digest, nonce, state, mined_as FROM intents WHERE id = ?", (entry_id,)
            ).fetchone()
            return self._entry(row)

    def from_nonce(self, genesis: Bytes32, sender: Address, nonce: int) -> list[Entry]:
        """Entries with that nonce or a higher one that were not abandoned, by nonce."""
        with self._lock:
            rows = self._database.execute(
                "SELECT id, intent, digest, nonce, state, mined_as FROM intents "
                "WHERE genesis = ? AND sender = ? AND nonce >= ? AND state != 'abandoned' ORDER BY nonce, id",
                (genesis, sender, nonce),
            ).fetchall()
            return [self._entry(row) for row in rows]

    def record(
        self, *, chain_id: int, genesis: Bytes32, sender: Address, intent: str, digest: bytes, attempt: Attempt
    ) -> Entry:
        """Write a new intent with its first attempt.

        Raises:
            Conflict: the intent is live already.
        """
        with self._transaction():
            try:
                cursor = self._database.execute(
                    "INSERT INTO intents (chain_id, genesis, sender, intent, digest, nonce, state) "
                    "VALUES (?, ?, ?, ?, ?, ?, 'sent')",
                    (str(chain_id), genesis, sender, intent, digest, attempt.nonce),
                )
            except sqlite3.IntegrityError as error:
                raise Conflict(f"intent {quoted(intent)} is being sent already", code="intent-in-use") from error
            entry_id = int(cursor.lastrowid or 0)
            self._insert(entry_id, attempt)
        return self.get(entry_id)

    def add_attempt(self, entry_id: int, attempt: Attempt) -> Entry:
        """Write another signed transaction for an intent; its nonce becomes the intent's."""
        with self._transaction():
            self._insert(entry_id, attempt)
            self._database.execute(
                "UPDATE intents SET nonce = ?, state = 'sent', mined_as = NULL WHERE id = ?", (attempt.nonce, entry_id)
            )
        return self.get(entry_id)

    def settle(self, entry_id: int, state: str, mined_as: Bytes32 | None = None) -> None:
        """Write how an intent ended: succeeded, reverted or abandoned (or sent again, when the chain went back)."""
        with self._transaction():
            self._database.execute(
                "UPDATE intents SET state = ?, mined_as = ? WHERE id = ?", (state, mined_as, entry_id)
            )

    def _insert(self, entry_id: int, attempt: Attempt) -> None:
        self._database.execute(
            "INSERT OR IGNORE INTO attempts (intent_id, nonce, hash, raw, max_fee, max_priority_fee, gas) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                entry_id,
                attempt.nonce,
                attempt.hash,
                attempt.raw,
                str(attempt.max_fee),
                str(attempt.max_priority_fee),
                attempt.gas,
            ),
        )

    def _entry(self, row: tuple[int, str, bytes, int, str, str | None]) -> Entry:
        entry_id, intent, digest, nonce, state, mined_as = row
        attempts = self._database.execute(
            "SELECT nonce, hash, raw, max_fee, max_priority_fee, gas FROM attempts WHERE intent_id = ? ORDER BY id",
            (entry_id,),
        ).fetchall()
        return Entry(
            id=entry_id,
            intent=intent,
            digest=digest,
            nonce=nonce,
            state=state,
            attempts=tuple(
                Attempt(number, Bytes32(name), raw, int(max_fee), int(tip), gas)
                for number, name, raw, max_fee, tip, gas in attempts
            ),
            mined_as=None if mined_as is None else Bytes32(mined_as),
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")
