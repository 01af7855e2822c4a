"""What an SMS will state of a session that it opens: no store, no clock, so that a rehearsal says the same."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from cloister.attestation.collateral import Collateral, build_documents
from cloister.attestation.countersignature import Judgement, SessionFacts
from cloister.attestation.issuance import DatasetUse
from cloister.attestation.policy import AppraisalPolicy
from cloister.attestation.verify import Appraisal
from cloister.protocol.codec import canonical_json
from cloister.protocol.releases import Release, ReleasedDataset
from cloister.protocol.sessions import SessionRequest


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """What a countersignature will say of a session. ``collateral`` is what its appraisal used
    (``collateral.build_documents``).
    """

    facts: SessionFacts
    collateral: bytes


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
