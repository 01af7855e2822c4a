"""Login of requesters by a signed challenge (reference 3.6), good once and for a few minutes.

A challenge is not stored but derived from a key of this scheduler, the address, a window of time and a slot. So asking
for one writes nothing and crowds nobody out, replicas take each other's, and one address may have many at a time. What
is stored is which ones were used up, and only a valid signature comes that far.
"""

from __future__ import annotations

import hmac
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert

from cloister.errors import Conflict, DecodeError, Unauthenticated, VerificationError
from cloister.protocol.authorization import (
    SCHEDULER_CHALLENGE,
    challenge_digest,
    challenge_typed_data,
    derive_challenge_letters,
    parse_challenge_header,
)
from cloister.protocol.signatures import recover_address
from cloister.services.scheduler.tables import challenges

if TYPE_CHECKING:
    from cloister.protocol.codec import Address
    from cloister.protocol.signatures import PrivateKey
    from cloister.services.database import Database

CHALLENGE_TEXT: Final = "Sign this message to log into iExec Core: "
SLOTS: Final = 64
"""How many challenges of one address and window differ: so many logins may be under way at a time."""


@dataclass(frozen=True, slots=True)
class Login:
    """Proof that an address answered a challenge of ours. Built only by ``Logins.take``."""

    address: Address


class Logins:
    """Issues challenges of one chain and takes their answers. Thread-safe; times are unix seconds."""

    def __init__(self, database: Database, key: PrivateKey, *, chain_id: int, seconds: float) -> None:
        self._database = database
        self._key = hmac.digest(key.unprotected_raw(), b"cloister/scheduler/challenges/v1", "sha256")
        self._chain_id = chain_id
        self._window_seconds = seconds / 2  # a challenge of the last window counts too
        self._turns = itertools.count()

    def issue(self, address: Address, *, now: float) -> dict[str, object]:
        """Build the typed data that ``address`` signs to log in."""
        text = self._text(address, self._window(now), next(self._turns) % SLOTS)
        return challenge_typed_data(SCHEDULER_CHALLENGE, self._chain_id, text)

    def take(self, header: str | None, *, now: float) -> Login:
        """Prove who answers a live challenge of ours, and use it up; on disk when this returns.

        Raises:
            Unauthenticated: no header, one that does not parse or verify, or a challenge that is another's, old or used.
        """
        if header is None:
            raise Unauthenticated("the call carries no login", hint="ask for a challenge and sign it")
        try:
            digest, signature, address = parse_challenge_header(header)
        except DecodeError as error:
            raise Unauthenticated("the login does not parse", hint="send hash_signature_address") from error
        refusal = Unauthenticated("the login is not valid", hint="ask for a new challenge and sign it")
        try:
            recovered = recover_address(digest.raw, signature)
        except VerificationError as error:
            raise refusal from error
        if recovered != address or not self._is_live(digest.raw, address, now):
            raise refusal
        row = {"digest": str(digest), "address": str(address), "expires_at": now + 2 * self._window_seconds}
        try:
            with self._database.session_scope() as session:
                session.execute(delete(challenges).where(challenges.c.expires_at < now))
                session.execute(insert(challenges).values(**row))
        except Conflict:
            raise refusal from None
        return Login(address)

    def _is_live(self, digest: bytes, address: Address, now: float) -> bool:
        window = self._window(now)
        texts = (self._text(address, each, slot) for each in (window, window - 1) for slot in range(SLOTS))
        return any(
            hmac.compare_digest(digest, challenge_digest(SCHEDULER_CHALLENGE, self._chain_id, text)) for text in texts
        )

    def _window(self, now: float) -> int:
        return int(now / self._window_seconds)

    def _text(self, address: Address, window: int, slot: int) -> str:
        message = address.raw + window.to_bytes(8, "big") + slot.to_bytes(4, "big")
        return CHALLENGE_TEXT + derive_challenge_letters(self._key, message)
