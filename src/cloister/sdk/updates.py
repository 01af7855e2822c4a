"""What a running app says of its progress: asked of the scheduler, proven against the SMS, opened with the wallet's key."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloister.errors import CloisterError, NotFound, VerificationError
from cloister.protocol.codec import Address, Bytes32
from cloister.sdk.connection import Connection

if TYPE_CHECKING:
    from cloister.clients.scheduler import ProgressEntry

LOOK_SECONDS = 1.0
"""Pause between two looks; enclaves speak no more often."""


@dataclass(frozen=True, slots=True)
class AppProgress:
    """An app's own word on how far it is. ``fraction`` is 0 to 1, None when it does not say; ``enclave`` is the attested key
    that signed it, ``number`` its place among that enclave's updates; ``at`` is unix seconds of the scheduler's clock.
    """

    fraction: float | None
    message: str
    number: int
    enclave: Address
    at: float

    def to_json(self) -> dict[str, Any]:
        """As JSON for machines."""
        return {name: getattr(self, name) for name in self.__slots__}


class AppUpdates:
    """Follows one task. It is decoration: what cannot be had, proven or opened is left out without a word.

    ``pause``: seconds between two looks.
    """

    def __init__(self, connection: Connection, task_id: Bytes32, *, pause: float = LOOK_SECONDS) -> None:
        self._pause = pause
        self._connection = connection
        self._task_id = task_id
        self._looked_at = time.monotonic()
        self._after = 0
        self._numbers: dict[Address, int] = {}
        self._sms: Address | None = None
        self._over = False
        self._newest: AppProgress | None = None

    def newest(self) -> AppProgress | None:
        """The last update so far; asks again only after the pause, and for the first time after as long."""
        now = time.monotonic()
        if not self._over and now - self._looked_at >= self._pause:
            self._looked_at = now
            try:
                self._look()
            except (NotFound, VerificationError):
                self._over = True  # a scheduler that has none to show, or a task whose updates are for another wallet
            except CloisterError:
                pass
        return self._newest

    def _look(self) -> None:
        for entry in self._connection.scheduler.progress(self._task_id, after=self._after):
            self._after = max(self._after, entry.entry)
            progress = self._read(entry)
            if progress is not None:
                self._newest = progress

    def _read(self, entry: ProgressEntry) -> AppProgress | None:
        """Prove and open one update; None for one that no attested enclave sent, or an old one shown again.

        Raises:
            VerificationError: it is sealed, and not to this wallet.
        """
        from cloister.protocol.progress import parse_message, parse_update, progress_info, verify_update
        from cloister.sealing import envelope

        try:
            update = parse_update(entry.update)
            enclave = verify_update(update, self._task_id, entry.number, self._vouching())
        except CloisterError:
            return None
        if entry.number <= self._numbers.get(enclave, 0):
            return None
        content = update.content
        if update.sealed:
            wallet = self._connection.wallet
            if wallet is None:
                raise VerificationError("sealed updates need a wallet")
            content = envelope.open(wallet.result_key(), content, progress_info(self._task_id, enclave, entry.number))
        try:
            message = parse_message(content)
        except CloisterError:
            return None
        self._numbers[enclave] = entry.number
        return AppProgress(message.fraction, message.message, entry.number, enclave, entry.at)

    def _vouching(self) -> Address:
        """Who vouches for enclaves: the hub's word where it has one."""
        if self._sms is None:
            broker = self._connection.hub.contract("teebroker", block="latest")
            self._sms = self._connection.sms.identity() if broker.is_zero else broker
        return self._sms
