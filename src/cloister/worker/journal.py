"""What a worker must remember of its tasks when it is killed: one row per lease, on disk before the next step begins.

The journal holds no secret: leases, digests, signatures for the chain and the names of sealed files.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from cloister.clients.scheduler import Lease, parse_lease
from cloister.errors import ConfigurationError, NotFound, UnavailableError
from cloister.protocol.codec import Address, Bytes32, parse_hex, to_hex

VERSION = 1

_TABLE = """
CREATE TABLE IF NOT EXISTS entries (lease_id TEXT PRIMARY KEY, version INTEGER NOT NULL, entry TEXT NOT NULL)
"""


class Step(StrEnum):
    """How far a task is. What stands in the journal is done and need not be done again."""

    LEASED = "leased"  # nothing but the lease: run it (again)
    SEALED = "sealed"  # the enclave's result is on disk: never run the app again
    UPLOADED = "uploaded"  # the content store has the result
    CONTRIBUTED = "contributed"  # the contribution is mined; what follows is the reveal, when there is one
    REVEALED = "revealed"
    REPORTING = "reporting"  # nothing is left but to tell the scheduler


@dataclass(frozen=True, slots=True)
class SealedResult:
    """What the enclave gave: a file in the task's folder (none for a result that goes to a contract) and its
    signatures.
    """

    file: str | None
    size: int
    result_digest: Bytes32
    enclave_challenge: Address
    enclave_signature: bytes
    authorization: bytes
    """Who lets this enclave's result count: the SMS's signature, or the pool owner's where the hub has no teebroker."""
    results_callback: bytes = b""
    cause: str | None = None
    """Why the app failed, when its error is the result."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One task in the journal. ``attempt`` counts contributions that were refused; it is part of the next one's intent."""

    lease: Lease
    step: Step = Step.LEASED
    sealed: SealedResult | None = None
    results: str = ""
    transaction: Bytes32 | None = None
    attempt: int = 0
    outcome: dict[str, Any] | None = None
    """What is to be reported, as JSON members, at step REPORTING."""


class Journal:
    """The journal of one worker, in SQLite. Thread-safe. One process at a time may have it open."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=0.5)
            path.chmod(0o600)
            # EXCLUSIVE keeps a second daemon off the same folder: two would contribute the same task side by side.
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute("BEGIN EXCLUSIVE")
            self._db.execute(_TABLE)
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise ConfigurationError(
                f"the worker's journal cannot be opened: {path.name}",
                hint="is another worker using this state folder?",
            ) from error

    def close(self) -> None:
        """Close the file, so that another process may open it."""
        with self._lock:
            self._db.close()

    def put(self, entry: Entry) -> None:
        """Write one entry; on disk when this returns.

        Raises:
            UnavailableError: the disk is full or gone.
        """
        document = json.dumps(_to_json(entry), separators=(",", ":"))
        self._write(
            "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT (lease_id) DO UPDATE SET entry = excluded.entry",
            (entry.lease.lease_id, VERSION, document),
        )

    def drop(self, lease_id: str) -> None:
        """Forget a task that is done."""
        self._write("DELETE FROM entries WHERE lease_id = ?", (lease_id,))

    def get(self, lease_id: str) -> Entry:
        """One entry. Raises NotFound."""
        with self._lock:
            row = self._db.execute("SELECT entry FROM entries WHERE lease_id = ?", (lease_id,)).fetchone()
        if row is None:
            raise NotFound(f"lease {lease_id} is not in the journal")
        return _from_json(json.loads(row[0]))

    def entries(self) -> list[Entry]:
        """Every task that is not done, oldest first.

        Raises:
            ConfigurationError: a newer release wrote the journal.
        """
        with self._lock:
            rows = self._db.execute("SELECT version, entry FROM entries ORDER BY rowid").fetchall()
        for version, _ in rows:
            if version != VERSION:
                raise ConfigurationError(
                    f"the worker's journal has version {version}, this release knows {VERSION}",
                    hint="finish its tasks with the release that wrote it",
                )
        return [_from_json(json.loads(entry)) for _, entry in rows]

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            with self._lock:
                self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise UnavailableError("the worker's journal cannot be written", hint="is the disk full?") from error


def advance(entry: Entry, step: Step, **changes: Any) -> Entry:
    """The entry one step further; steps never go back.

    Raises:
        ValueError: the step is not after the present one.
    """
    order = list(Step)
    if order.index(step) < order.index(entry.step):
        raise ValueError(f"step {step} is before {entry.step}")
    return replace(entry, step=step, **changes)


def _to_json(entry: Entry) -> dict[str, Any]:
    sealed: dict[str, Any] | None = None
    if entry.sealed is not None:
        sealed = asdict(entry.sealed)
        for name in ("enclave_signature", "authorization", "results_callback"):
            sealed[name] = to_hex(sealed[name])
    return {
        "lease": entry.lease.to_json(),
        "step": str(entry.step),
        "sealed": sealed,
        "results": entry.results,
        "transaction": entry.transaction,
        "attempt": entry.attempt,
        "outcome": entry.outcome,
    }


def _from_json(document: dict[str, Any]) -> Entry:
    sealed = document["sealed"]
    transaction = document["transaction"]
    return Entry(
        lease=parse_lease(document["lease"]),
        step=Step(document["step"]),
        sealed=None if sealed is None else _sealed_from_json(sealed),
        results=document["results"],
        transaction=None if transaction is None else Bytes32(transaction),
        attempt=document["attempt"],
        outcome=document["outcome"],
    )


def _sealed_from_json(document: dict[str, Any]) -> SealedResult:
    return SealedResult(
        file=document["file"],
        size=document["size"],
        result_digest=Bytes32(document["result_digest"]),
        enclave_challenge=Address(document["enclave_challenge"]),
        enclave_signature=parse_hex(document["enclave_signature"], cap=65),
        authorization=parse_hex(document["authorization"], cap=65),
        results_callback=parse_hex(document["results_callback"]),
        cause=document.get("cause"),
    )
