"""Countersigning receipts: once for each released session, for the enclave that opened it and for nobody else."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cloister.attestation.countersignature import (
    Countersignature,
    LogProof,
    build_countersignature,
)
from cloister.errors import CloisterError, Denied, LocalError
from cloister.protocol.countersigning import CountersignRequest, verify_countersign_request
from cloister.services.sms.log_store import LogStore
from cloister.services.sms.opened import KeptSession, OpenedSessions
from cloister.services.sms.settings import SmsSettings
from cloister.services.sms.transparency import TransparencyLog

log = logging.getLogger("cloister.sms")

_TRIES = 3


class ReceiptService:
    """Countersigns. Safe to call from several threads and from several replicas on one database."""

    def __init__(
        self,
        *,
        settings: SmsSettings,
        sessions: OpenedSessions,
        entries: LogStore,
        transparency: TransparencyLog,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._entries = entries
        self._transparency = transparency
        self._clock = clock

    def countersign(self, request: CountersignRequest) -> bytes:
        """Countersign the receipt of a released session; the same digest again has the same answer.

        Raises: Denied (``countersignature-refused``), in one text for a stranger, an unknown session and a second
        receipt.
        """
        refusal = Denied("there is no receipt to countersign for this enclave", code="countersignature-refused")
        try:
            verify_countersign_request(request)
        except CloisterError as error:
            raise refusal from error
        for _ in range(_TRIES):
            kept = self._sessions.find(request.task_id, request.enclave_challenge)
            if kept is None or kept.receipt_digest not in (None, request.receipt_digest):
                log.info("receipt refused task=%s", request.task_id)
                raise refusal
            if kept.countersignature is not None:
                return kept.countersignature
            made = build_countersignature(self._state(kept, request), self._settings.teebroker.sign_digest)
            key = (request.task_id, request.enclave_challenge)
            stored = self._sessions.countersign(*key, kept.log_index, request.receipt_digest, made)
            if stored is not None:
                log.info("receipt countersigned task=%s", request.task_id)
                return stored
        raise LocalError("a session changed while its receipt was countersigned")

    def _state(self, kept: KeptSession, request: CountersignRequest) -> Countersignature:
        proven = self._entries.proven(kept.log_index)
        head = self._transparency.sign(proven.size, proven.root)
        return Countersignature(
            facts=kept.facts,
            receipt=request.receipt_digest.raw,
            origin=head.origin,
            issued_at=max(int(self._clock()), kept.facts.judgement.appraised_at),
            collateral=kept.collateral,
            log=LogProof(proven.index, proven.size, proven.entry, proven.path, head.timestamp, head.signature),
        )
