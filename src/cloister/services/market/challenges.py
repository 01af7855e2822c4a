"""Login: a challenge to sign, good once and for five minutes (reference 3.1).

A challenge is not stored: it is derived from a key of this market, the address, how many challenges the address used
up, and the second in which it was issued. So issuing writes nothing, and every replica on one database accepts what any
of them gave: it knows its own by heart, and finds another's among the seconds of the last five minutes. An address is
given the same challenge until that is used up or too old; another replica, or this one after a restart, may give one
more beside it, but a login uses up all.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cloister.errors import DecodeError, Denied, VerificationError
from cloister.protocol import authorization
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.signatures import recover_address
from cloister.services.market.store import MarketStore

LIFETIME = 300
_MAX_REMEMBERED = 100_000


@dataclass(frozen=True, slots=True)
class Login:
    """A header that answers the live challenge of ``address``; using it up is still to be done."""

    address: Address
    generation: int


class Challenges:
    """Issues and verifies challenges of one chain. Safe between threads."""

    def __init__(self, store: MarketStore, chain_id: int, clock: Callable[[], float]) -> None:
        self._store = store
        self._chain_id = chain_id
        self._clock = clock
        self._key = b""
        self._issued: OrderedDict[Address, tuple[int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Load the key; the tables must be there."""
        self._key = self._store.challenge_key()

    def issue(self, address: Address) -> dict[str, object]:
        """Build the typed data that ``address`` signs to log in."""
        generation, now = self._store.generation(address), int(self._clock())
        with self._lock:
            known = self._issued.pop(address, (-1, 0))
            second = known[1] if known[0] == generation and 0 <= now - known[1] < LIFETIME else now
            self._issued[address] = generation, second
            if len(self._issued) > _MAX_REMEMBERED:
                self._issued.popitem(last=False)
        text = self._text(address, generation, second)
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
        try:
            digest, signature, address = authorization.parse_challenge_header(header or "")
            # The signature comes first: only who made one may cause a search.
            signed = recover_address(digest.raw, signature) == address
        except (DecodeError, VerificationError):
            raise _refusal() from None
        if not signed or not self._is_live(address, generation, digest):
            raise _refusal()
        return Login(address, generation)

    def _is_live(self, address: Address, generation: int, digest: Bytes32) -> bool:
        now = int(self._clock())
        with self._lock:
            known = self._issued.get(address, (-1, 0))
        if known[0] == generation and self._digest(address, generation, known[1]) == digest.raw:
            return 0 <= now - known[1] < LIFETIME
        return any(self._digest(address, generation, second) == digest.raw for second in range(now, now - LIFETIME, -1))

    def _digest(self, address: Address, generation: int, second: int) -> bytes:
        text = self._text(address, generation, second)
        return authorization.challenge_digest(authorization.MARKET_CHALLENGE, self._chain_id, text)

    def _text(self, address: Address, generation: int, second: int) -> str:
        message = (
            b"cloister/market/challenge/v2" + address.raw + generation.to_bytes(8, "big") + second.to_bytes(8, "big")
        )
        return authorization.MARKET_CHALLENGE_TEXT + authorization.derive_challenge_letters(self._key, message)


def _refusal() -> Denied:
    return Denied("invalid authorization")
