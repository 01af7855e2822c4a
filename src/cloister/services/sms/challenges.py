"""Enclave challenges made outside an enclave, as iExec's schedulers ask for them (reference 3.2).

One key pair per task, made once. The scheduler gets the address; the key is wrapped by the key-encryption key and no
call gives it out: a result of this network is signed by a key that was born in an attested enclave.
"""

from __future__ import annotations

import secrets

from sqlalchemy import insert, select

from cloister.errors import Conflict
from cloister.protocol.codec import Address, Bytes32, canonical_json
from cloister.protocol.signatures import PrivateKey
from cloister.services.database import Database
from cloister.services.sms.kek import KeyEncryptionKey
from cloister.services.sms.tables import CHALLENGES


class ChallengeStore:
    """Keeps one sealed key per task. Safe to use from several threads and replicas."""

    def __init__(self, database: Database, kek: KeyEncryptionKey) -> None:
        self._database = database
        self._kek = kek

    def find(self, task_id: Bytes32) -> Address | None:
        """Return the address of a task's challenge, None when none was asked for."""
        with self._database.read_scope() as session:
            address = session.execute(select(CHALLENGES.c.address).where(CHALLENGES.c.task_id == str(task_id))).scalar()
        return None if address is None else Address(address)

    def obtain(self, task_id: Bytes32, *, now: int) -> Address:
        """Return the address of a task's challenge; the first call makes it, and it is on disk before this returns."""
        found = self.find(task_id)
        if found is not None:
            return found
        key = PrivateKey(secrets.token_bytes(32))
        wrapped = self._kek.wrap(key.unprotected_raw(), challenge_context(task_id, key.address))
        try:
            with self._database.session_scope() as session:
                session.execute(
                    insert(CHALLENGES).values(
                        task_id=str(task_id),
                        address=str(key.address),
                        key_id=self._kek.key_id,
                        wrapped_key=wrapped,
                        created_at=now,
                    )
                )
        except Conflict:
            # Two first calls at once: the other one's key counts.
            found = self.find(task_id)
            if found is None:
                raise
            return found
        return key.address


def challenge_context(task_id: Bytes32, address: Address) -> bytes:
    """Bytes that the wrapping binds: the key of one task does not open as that of another."""
    return canonical_json({"domain": "cloister/sms/challenge/v1", "task_id": task_id, "address": address})
