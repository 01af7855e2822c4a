"""Login: a challenge to sign, good once and for at most five minutes (reference 3.1).

A challenge is not stored: it is derived from a key of this market, the address, how many challenges the address
used up, and a window of time. So every replica on one database gives and accepts the same one, and issuing writes
nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloister.errors import DecodeError, Denied, VerificationError
from cloister.protocol import authorization
from cloister.protocol.codec import Address
from cloister.services.market.store import MarketStore

LIFETIME = 300
_WINDOW = LIFETIME // 2
_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Login:
    """A header that answers the live challenge of ``address``; using it up is still to be done."""

    address: Address
    generation: int


class Challenges:
    """Issues and verifies challenges of one chain."""

    def __init__(self, store: MarketStore, chain_id: int, clock: Callable[[], float]) -> None:
        self._store = store
        self._chain_id = chain_id
        self._clock = clock
        self._key = b""

    def start(self) -> None:
        """Load the key; the tables must be there."""
        self._key = self._store.challenge_key()

    def issue(self, address: Address) -> dict[str, object]:
        """Build the typed data that ``address`` signs to log in."""
        text = self._text(address, self._store.generation(address), self._window())
        return authorization.challenge_typed_data(authorization.MARKET_CHALLENGE, self._chain_id, text)

    @staticmethod
    def claimed(header: str | None) -> Address:
        """Return who a header claims to be from.

        Raises: Denied, always with the text ``invalid authorization``.
        """
        try:
            return authorization.parse_challenge_header(header or "")[2]
        except DecodeError:
            raise _refusal() from None

    def verify(self, header: str | None, generation: int) -> Login:
        """Return who logs in; ``generation`` is the store's for the address that the header claims.

        Raises: Denied, always with the text ``invalid authorization``.
        """
        address = self.claimed(header)
        for text in self._live(address, generation):
            try:
                authorization.verify_challenge_header(
                    header or "",
                    name=authorization.MARKET_CHALLENGE,
                    chain_id=self._chain_id,
                    text=text,
                    address=address,
                )
            except (DecodeError, VerificationError):
                continue
            return Login(address, generation)
        raise _refusal()

    def _live(self, address: Address, generation: int) -> Iterator[str]:
        window = self._window()
        return (self._text(address, generation, each) for each in (window, window - 1))

    def _window(self) -> int:
        return int(self._clock()) // _WINDOW

    def _text(self, address: Address, generation: int, window: int) -> str:
        message = (
            b"cloister/market/challenge/v1" + address.raw + generation.to_bytes(8, "big") + window.to_bytes(8, "big")
        )
        number = int.from_bytes(hmac.digest(self._key, message, hashlib.sha512), "big")
        letters = []
        for _ in range(_LENGTH):
            number, digit = divmod(number, len(_ALPHABET))
            letters.append(_ALPHABET[digit])
        return authorization.MARKET_CHALLENGE_TEXT + "".join(letters)


def _refusal() -> Denied:
    return Denied("invalid authorization")
