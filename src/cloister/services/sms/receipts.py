"""Countersigning receipts: once for each released session, for the enclave that opened it and for nobody else."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping
from enum import Enum

from cloister.attestation.collateral import Collateral, build_documents
from cloister.attestation.countersignature import (
    Countersignature,
    Judgement,
    LogProof,
    SessionFacts,
    build_countersignature,
)
from cloister.attestation.issuance import DatasetUse
from cloister.attestation.policy import AppraisalPolicy
from cloister.attestation.verify import Appraisal
from cloister.errors import CloisterError, Denied, LocalError
from cloister.protocol.codec import canonical_json
from cloister.protocol.countersigning import CountersignRequest, verify_countersign_request
from cloister.protocol.releases import Release, ReleasedDataset
from cloister.protocol.sessions import SessionRequest
from cloister.services.sms.log_store import LogStore
from cloister.services.sms.opened import KeptSession, OpenedSession, OpenedSessions
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


def describe_session(
    request: SessionRequest, release: Release, appraisal: Appraisal, policy: AppraisalPolicy, collateral: Collateral
) -> OpenedSession:
    """What the SMS will state of a session that it is about to release."""
    claims = appraisal.claims
    bulk = None
    if release.bulk is not None:
        bulk = tuple(
            (item.address.raw, _use(item) if isinstance(item, ReleasedDataset) else None) for item in release.bulk
        )
    facts = SessionFacts(
        task_id=request.task_id.raw,
        challenge=request.enclave_challenge.raw,
        evidence_kind=claims.kind.value,
        evidence_digest=hashlib.sha256(request.evidence.payload).digest(),
        judgement=Judgement(
            tcb=None if claims.tcb is None else claims.tcb.status.value,
            marks=appraisal.marks,
            platform=claims.platform,
            appraised_at=appraisal.appraised_at,
            policy=hashlib.sha256(policy_text(policy)).digest(),
        ),
        dataset=None if release.dataset is None else _use(release.dataset),
        bulk=bulk,
    )
    documents = build_documents(item for item in collateral.documents if item.kind is claims.kind)
    return OpenedSession(facts, documents)


def policy_text(policy: AppraisalPolicy) -> bytes:
    """The canonical text of an appraisal policy, whose SHA-256 a countersignature names: its type, then every field by
    name, sets in order, bytes as hex.
    """
    return canonical_json(_plain(policy))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
        return {"type": type(value).__name__, **members}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=canonical_json)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    return value


def _use(dataset: ReleasedDataset) -> DatasetUse:
    return DatasetUse(
        dataset.address.raw,
        dataset.checksum.raw,
        None if dataset.order_hash is None else dataset.order_hash.raw,
        None if dataset.policy_hash is None else dataset.policy_hash.raw,
    )
