"""The block that a decision rests on: recent, and not behind what was seen before (abuse 52)."""

from __future__ import annotations

from collections.abc import Callable

from cloister.services.sms.ledger import Head, Ledger, check_recent
from cloister.services.sms.settings import SmsSettings
from cloister.services.sms.store import SessionStore


class RecentHeads:
    """Reads the newest block. Safe to call from several threads."""

    def __init__(self, settings: SmsSettings, ledger: Ledger, store: SessionStore, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._ledger = ledger
        self._store = store
        self._clock = clock

    def read(self) -> Head:
        """Return the newest block.

        Raises: UnavailableError when it is too old, in the future, or behind one that a session rested on.
        """
        settings = self._settings
        head = check_recent(self._ledger.head(), now=int(self._clock()), max_age=settings.max_head_age)
        self._store.check_head(settings.chain_id, head.number, max_rollback=settings.max_rollback)
        return head
