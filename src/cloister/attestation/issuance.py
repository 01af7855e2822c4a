"""Issuing a receipt: the enclave's half, which needs no verifier (start-up time) and is the one place that encodes
claims.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from cloister.attestation.cbor import Value, build_cbor
from cloister.attestation.cose import build_header, build_sign1, sign_payload, signed_bytes
from cloister.attestation.evidence import Evidence, EvidenceKind
from cloister.attestation.report import ReportBinding, build_report_data
from cloister.errors import TooLarge

PROFILE = "urn:cloister:receipt:2"
MAX_RECEIPT = 768 * 1024
"""Longest receipt in bytes; the evidence and its collateral are most of it."""
PROTECTED = build_header()
COUNTERSIGNATURE = "countersignature"
"""The one member of the unprotected header: the SMS's own COSE_Sign1 (``attestation.countersignature``)."""
IAT, CNF, NONCE, EAT_PROFILE = 6, 8, 10, 265
"""Registered claims: RFC 8392, RFC 8747, RFC 9711."""


@dataclass(frozen=True, slots=True)
class InputDigest:
    """One thing the iApp was given: ``name`` as it stood in /iexec_in, ``sha256`` of the plain bytes there."""

    name: str
    sha256: bytes


@dataclass(frozen=True, slots=True)
class DatasetUse:
    """The protected data that was opened: address (20 bytes), checksum of the ciphertext (32).

    ``order_hash`` and ``policy_hash`` (32 bytes each) are those of the grant, when there was one to hash.
    """

    address: bytes
    checksum: bytes
    order_hash: bytes | None = None
    policy_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class BulkUse:
    """One item of a bulk slice: the address (20 bytes) that the slice names, what was released of it (None when the SMS
    refused it), and the SHA-256 of the opened data in /iexec_in. Without the latter ``cause`` names why there is none.
    """

    address: bytes
    released: DatasetUse | None
    sha256: bytes | None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class ReceiptClaims:
    """What the enclave states. ``binding`` is what its evidence commits to. Byte strings are raw, times unix seconds.

    ``result_digest`` is the digest on chain; ``output_digest`` is the SHA-256 over name and SHA-256 of every output
    file.
    ``cause`` names why an iApp failed; None when it did not. ``bulk`` holds the items of the task's slice in its order,
    None for a task that is not of a bulk request; then ``dataset`` may be one.
    """

    binding: ReportBinding
    public_key: bytes
    deal_id: bytes
    index: int
    worker: bytes
    requester: bytes
    app: bytes
    dataset: DatasetUse | None
    inputs: tuple[InputDigest, ...]
    result_digest: bytes
    output_digest: bytes
    started_at: int
    finished_at: int
    evidence: Evidence
    cause: str | None = None
    bulk: tuple[BulkUse, ...] | None = None

    @property
    def simulated(self) -> bool:
        return self.evidence.kind is EvidenceKind.SIMULATED


def build_receipt(
    claims: ReceiptClaims, sign: Callable[[bytes], bytes], countersign: Callable[[bytes], bytes]
) -> bytes:
    """Encode, sign and have it countersigned.

    ``sign`` takes a 32-byte digest and answers with r || s (more bytes behind are ignored) by the key whose public
    half is
    ``claims.public_key``. ``countersign`` is given the receipt's digest (32 bytes) alone and answers with the SMS's
    countersignature.

    Raises:
        TooLarge: over 768 KiB; and what ``countersign`` raises.
    """
    payload = build_claims(claims)
    signature = sign_payload(PROTECTED, payload, sign)
    digest = hashlib.sha256(signed_bytes(PROTECTED, payload) + signature).digest()
    encoded = build_sign1(PROTECTED, {COUNTERSIGNATURE: countersign(digest)}, payload, signature)
    if len(encoded) > MAX_RECEIPT:
        raise TooLarge(f"a receipt of {len(encoded)} bytes is over the cap of {MAX_RECEIPT}")
    return encoded


def build_claims(claims: ReceiptClaims) -> bytes:
    """The payload: the claims as deterministic CBOR."""
    binding = claims.binding
    # Only a bulk receipt has the claim.
    bulk: dict[Value, Value] = {} if claims.bulk is None else {"bulk": [_build_item(item) for item in claims.bulk]}
    return build_cbor(
        {
            IAT: claims.finished_at,
            CNF: {1: {1: 2, -1: 8, -2: claims.public_key[:32], -3: claims.public_key[32:]}},
            NONCE: binding.nonce,
            EAT_PROFILE: PROFILE,
            "chain_id": binding.chain_id.to_bytes(32, "big").lstrip(b"\0"),
            "hub": binding.hub,
            "sms": binding.sms,
            "task_id": binding.task_id,
            "app_digest": binding.app_digest,
            "challenge": binding.challenge,
            "hpke_key": binding.hpke_key_hash,
            "deal_id": claims.deal_id,
            "index": claims.index,
            "worker": claims.worker,
            "requester": claims.requester,
            "app": claims.app,
            "dataset": build_use(claims.dataset),
            "inputs": [[item.name, item.sha256] for item in claims.inputs],
            "result": claims.result_digest,
            "output": claims.output_digest,
            "started_at": claims.started_at,
            "evidence": [claims.evidence.kind.value, claims.evidence.payload],
            "report_data": build_report_data(binding),
            "simulated": claims.simulated,
            "cause": claims.cause,
            **bulk,
        }
    )


def build_use(use: DatasetUse | None) -> list[Value] | None:
    """Protected data as claims name it."""
    return None if use is None else [use.address, use.checksum, use.order_hash, use.policy_hash]


def _build_item(item: BulkUse) -> list[Value]:
    return [item.address, build_use(item.released), item.sha256, item.cause]
