"""Login by a signed challenge, good once and for at most five minutes (reference 3.4, the older part).

A challenge is not stored but derived from a key, the address, how many challenges the address used up, and a window
of time: so issuing writes nothing, and nobody can crowd others out by asking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cloister.errors import DecodeError, Unauthenticated, VerificationError
from cloister.protocol.authorization import (
    RESULTS_CHALLENGE,
    challenge_typed_data,
    derive_challenge_letters,
    parse_challenge_header,
    verify_challenge_header,
)
from cloister.protocol.codec import Address
from cloister.services.resultproxy.signing_key import SigningKey
from cloister.services.resultproxy.store import ResultStore

CHALLENGE_TEXT: Final = "Sign this message to log into iExec Result Repository: "
_WINDOW: Final = 150
"""Seconds; a challenge of the last window counts too."""


class Challenges:
    """Issues challenges of one chain and takes their answers. Safe to use from several threads and replicas."""

    def __init__(self, store: ResultStore, key: SigningKey, chain_id: int, clock: Callable[[], float]) -> None:
        self._store = store
        self._key = key.derive("challenges")
        self._chain_id = chain_id
        self._clock = clock

    def issue(self, address: Address) -> dict[str, object]:
        """Build the typed data that ``address`` signs to log in."""
        text = self._text(address, self._store.logins(address), self._window())
        return challenge_typed_data(RESULTS_CHALLENGE, self._chain_id, text)

    def take(self, answer: str) -> Address:
        """Prove who answers a live challenge, and use it up; on disk when this returns.

        Raises:
            Unauthenticated: the answer does not parse or verify, or the challenge is old or used.
        """
        refusal = Unauthenticated("the login is not valid", hint="ask for a new challenge and sign it")
        try:
            address = parse_challenge_header(answer)[2]
        except DecodeError as error:
            raise refusal from error
        count, window = self._store.logins(address), self._window()
        if not any(self._answers(answer, address, self._text(address, count, each)) for each in (window, window - 1)):
            raise refusal
        if not self._store.use_login(address, count):
            raise refusal
        return address

    def _answers(self, answer: str, address: Address, text: str) -> bool:
        try:
            verify_challenge_header(answer, name=RESULTS_CHALLENGE, chain_id=self._chain_id, text=text, address=address)
        except (DecodeError, VerificationError):
            return False
        return True

    def _window(self) -> int:
        return int(self._clock()) // _WINDOW

    def _text(self, address: Address, count: int, window: int) -> str:
        message = address.raw + count.to_bytes(8, "big") + window.to_bytes(8, "big")
        return CHALLENGE_TEXT + derive_challenge_letters(self._key, message)
