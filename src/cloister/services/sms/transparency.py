"""The public face of the log: signed heads, entries and proofs.

Anybody may read it. An entry holds what the chain shows already (task, deal, requester, app, data, worker, the grant's
hash) and beside it which sessions were refused and why: no key, no plain data, no evidence but its digest. A refusal
before the deal was found names the task and the worker alone, as the caller gave them.
"""

from __future__ import annotations

from collections.abc import Callable

from cloister.attestation.transparency import LogOrigin, SignedHead, build_head
from cloister.protocol.codec import Address, to_hex
from cloister.services.sms.log_store import LogStore
from cloister.services.sms.settings import SmsSettings


class TransparencyLog:
    """Answers for one log. Safe to call from several threads."""

    def __init__(self, settings: SmsSettings, store: LogStore, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self.origin = LogOrigin(settings.chain_id, settings.hub.raw, settings.identity.raw)

    def sign(self, size: int, root: bytes) -> SignedHead:
        """Sign a head that the store gave."""
        return build_head(self.origin, size, root, int(self._clock()), self._settings.teebroker.sign_message)

    def head(self) -> dict[str, object]:
        """The log as it is now, signed."""
        head = self.sign(*self._store.root())
        return {
            "chain_id": head.origin.chain_id,
            "hub": Address.from_raw(head.origin.hub),
            "sms": Address.from_raw(head.origin.sms),
            "size": head.size,
            "root": to_hex(head.root),
            "timestamp": head.timestamp,
            "signature": to_hex(head.signature),
        }

    def entries(self, start: int, end: int) -> dict[str, object]:
        """A page of entries, each the very text that was hashed. See ``LogStore.entries``."""
        return {"start": start, "entries": self._store.entries(start, end)}

    def inclusion(self, index: int, size: int) -> dict[str, object]:
        """See ``LogStore.inclusion``."""
        return {"path": [to_hex(piece) for piece in self._store.inclusion(index, size)]}

    def consistency(self, first: int, second: int) -> dict[str, object]:
        """See ``LogStore.consistency``."""
        return {"path": [to_hex(piece) for piece in self._store.consistency(first, second)]}
