"""An SMS's countersignature over a receipt, made in memory: a log of some entries in which the release is one."""

from __future__ import annotations

import json
from collections.abc import Sequence

from cloister.attestation.countersignature import Countersignature, LogProof, SessionFacts, build_countersignature
from cloister.attestation.transparency import (
    LogOrigin,
    build_head,
    fold_ranges,
    fold_root,
    grow,
    hash_leaf,
    inclusion_ranges,
)
from cloister.protocol.signatures import PrivateKey

COLLATERAL = b"\x80"
"""No documents."""


def entry_of(facts: SessionFacts, index: int, **other: object) -> bytes:
    """The log's entry of a released session."""
    dataset = facts.dataset
    members = {
        "index": index,
        "outcome": "released",
        "task_id": "0x" + facts.task_id.hex(),
        "enclave_challenge": "0x" + facts.challenge.hex(),
        "evidence_kind": facts.evidence_kind,
        "evidence_digest": facts.evidence_digest.hex(),
        "dataset": None if dataset is None else "0x" + dataset.address.hex(),
        "order_hash": None if dataset is None or dataset.order_hash is None else "0x" + dataset.order_hash.hex(),
        "policy_hash": None if dataset is None or dataset.policy_hash is None else "0x" + dataset.policy_hash.hex(),
    }
    return json.dumps({**members, **other}, sort_keys=True, separators=(",", ":")).encode()


def prove(
    entry: bytes, index: int, others: Sequence[bytes], origin: LogOrigin, timestamp: int, key: PrivateKey
) -> LogProof:
    """Put ``entry`` at ``index`` among others, sign the head, and prove it."""
    entries = [*others[:index], entry, *others[index:]]
    nodes = grow(0, {}, [hash_leaf(item) for item in entries])
    head = build_head(origin, len(entries), fold_root(len(entries), nodes), timestamp, key.sign_message)
    path = fold_ranges(inclusion_ranges(index, len(entries)), nodes)
    return LogProof(index, len(entries), entry, path, timestamp, head.signature)


def countersign(
    facts: SessionFacts,
    digest: bytes,
    key: PrivateKey,
    *,
    chain_id: int,
    hub: bytes,
    issued_at: int,
    collateral: bytes = COLLATERAL,
    origin: LogOrigin | None = None,
    log: LogProof | None = None,
    signer: PrivateKey | None = None,
) -> bytes:
    """What an honest SMS answers; the keywords make it another."""
    origin = origin or LogOrigin(chain_id, hub, key.address.raw)
    log = log or prove(entry_of(facts, 3), 3, [b"%d" % number for number in range(6)], origin, issued_at, key)
    statement = Countersignature(facts, digest, origin, issued_at, collateral, log)
    return build_countersignature(statement, (signer or key).sign_digest)
