"""The SMS's countersignature: what it appraised and released, said over one receipt of one session.

The enclave's own signature rests on evidence whose collateral expires; the SMS saw it in time. It signs the digest of the
receipt (never the receipt: the hashes of plain data are not its business), and beside it what it knows itself: which
evidence it appraised with which outcome and collateral, which data it released under which grant, and the place of that
release in its transparency log. So a reader years later needs no other witness, and two stories of one release show.

    18([h'a2 01 38 2e 03 …', {}, statement, signature r || s (64 bytes, low s)])

The statement is deterministic CBOR. This module imports no verifier: the enclave reads countersignatures too.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloister.attestation.cbor import Value, build_cbor, parse_cbor
from cloister.attestation.collateral import MAX_COLLATERAL
from cloister.attestation.cose import Sign1, build_header, build_sign1, check_signer, parse_sign1, sign_payload
from cloister.attestation.depth import check_depth
from cloister.attestation.fields import Fields
from cloister.attestation.issuance import IAT, DatasetUse, build_use
from cloister.attestation.transparency import MAX_ENTRY, LogOrigin, SignedHead, check_path, fold_path, verify_head
from cloister.errors import DecodeError, TooLarge, VerificationError

MAX_COUNTERSIGNATURE = 640 * 1024
MAX_BULK = 100
MAX_MARKS = 64
PROTECTED = build_header("application/cloister-countersignature+cbor")
_CODE = "countersignature"
_PROOF = "log-proof"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the SMS found in the evidence, at ``appraised_at`` (unix seconds).

    ``tcb``: the status in the vendor's list, None for kinds without one. ``marks``: what the policy let pass with a
    remark. ``platform`` names the machine. ``policy``: SHA-256 of the SMS's own appraisal policy.
    """

    tcb: str | None
    marks: tuple[str, ...]
    platform: bytes
    appraised_at: int
    policy: bytes


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What the SMS knows of one session. Byte strings are raw.

    ``bulk`` holds for each item of a slice its address and what was released of it, None where it was refused.
    """

    task_id: bytes
    challenge: bytes
    evidence_kind: str
    evidence_digest: bytes
    judgement: Judgement
    dataset: DatasetUse | None
    bulk: tuple[tuple[bytes, DatasetUse | None], ...] | None


@dataclass(frozen=True, slots=True)
class LogProof:
    """The release's entry in the log of ``size`` entries, its path, and the head's time and signature (65 bytes)."""

    index: int
    size: int
    entry: bytes
    path: tuple[bytes, ...]
    timestamp: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class Countersignature:
    """A countersignature that parses. It proves nothing until ``verify_countersignature`` has answered.

    ``receipt``: SHA-256 over Sig_structure and signature of the enclave's part. ``collateral``: what the appraisal used,
    as ``collateral.build_documents`` writes it.
    """

    facts: SessionFacts
    receipt: bytes
    origin: LogOrigin
    issued_at: int
    collateral: bytes
    log: LogProof


def build_countersignature(statement: Countersignature, sign_digest: Callable[[bytes], bytes]) -> bytes:
    """Encode and sign by the SMS's identity key.

    Raises:
        TooLarge: over 640 KiB.
    """
    log, origin = statement.log, statement.origin
    payload = build_cbor(
        {
            **_build_facts(statement.facts),
            IAT: statement.issued_at,
            "receipt": statement.receipt,
            "chain_id": origin.chain_id.to_bytes(32, "big").lstrip(b"\0"),
            "hub": origin.hub,
            "sms": origin.sms,
            "collateral": statement.collateral,
            "log": [log.index, log.size, log.entry, list(log.path), log.timestamp, log.signature],
        }
    )
    encoded = build_sign1(PROTECTED, {}, payload, sign_payload(PROTECTED, payload, sign_digest))
    if len(encoded) > MAX_COUNTERSIGNATURE:
        raise TooLarge(f"a countersignature of {len(encoded)} bytes is over the cap of {MAX_COUNTERSIGNATURE}")
    return encoded


def verify_countersignature(encoded: bytes, *, sms: bytes) -> Countersignature:
    """Read a countersignature and prove that ``sms`` (20 bytes) made it.

    Raises:
        TooLarge, DecodeError, VerificationError: with the code ``countersignature``.
    """
    document = _parse_envelope(encoded)
    check_signer(document, sms, what="countersignature", code=_CODE)
    statement = _parse_statement(document.payload)
    if statement.origin.sms != sms:
        raise VerificationError("the countersignature speaks of another sms than signs it", code=_CODE)
    return statement


def unverified_countersignature(encoded: bytes) -> Countersignature:
    """Read a countersignature whoever made it, to say what is wrong with it. Proves nothing.

    Raises:
        TooLarge, DecodeError: with the code ``countersignature``.
    """
    return _parse_statement(_parse_envelope(encoded).payload)


def _parse_envelope(encoded: bytes) -> Sign1:
    if len(encoded) > MAX_COUNTERSIGNATURE:
        raise TooLarge(
            f"a countersignature of {len(encoded)} bytes is over the cap of {MAX_COUNTERSIGNATURE}", code=_CODE
        )
    document = parse_sign1(encoded, PROTECTED, what="countersignature", code=_CODE)
    if document.unprotected:
        raise DecodeError("the countersignature's header has members that are not signed", code=_CODE)
    return document


def verify_log_proof(statement: Countersignature) -> SignedHead:
    """Prove that the release is in the log whose head the SMS signed, and that the entry is of this very session.

    Raises:
        VerificationError: with the code ``log-proof``.
    """
    log, facts = statement.log, statement.facts
    try:
        root = fold_path(log.entry, log.index, log.size, log.path)
        head = SignedHead(statement.origin, log.size, root, log.timestamp, log.signature)
        verify_head(head, statement.origin)
    except VerificationError as error:
        raise VerificationError(f"the log proof does not hold: {error.message}", code=_PROOF) from error
    dataset = facts.dataset
    expected: dict[str, object] = {
        "index": log.index,
        "outcome": "released",
        "task_id": _hex(facts.task_id),
        "enclave_challenge": _hex(facts.challenge),
        "evidence_kind": facts.evidence_kind,
        "evidence_digest": facts.evidence_digest.hex(),
        "dataset": None if dataset is None else _hex(dataset.address),
        "order_hash": None if dataset is None else _hex(dataset.order_hash),
        "policy_hash": None if dataset is None else _hex(dataset.policy_hash),
    }
    entry = _parse_entry(log.entry)
    for name, value in expected.items():
        found = entry.get(name)
        if (found.lower() if isinstance(found, str) else found) != value:
            raise VerificationError(f"the log's entry is of another session: its {name} differs", code=_PROOF)
    return head


def receipt_digest(signed: bytes, signature: bytes) -> bytes:
    """What is countersigned: SHA-256 over the Sig_structure and the enclave's signature."""
    return hashlib.sha256(signed + signature).digest()


def check_receipt_digest(statement: Countersignature, digest: bytes) -> None:
    """Return when the countersignature is for this receipt.

    Raises:
        VerificationError: with the code ``countersignature``.
    """
    if not hmac.compare_digest(statement.receipt, digest):
        raise VerificationError("the countersignature is for another receipt", code=_CODE)


# --- encoding ---


def build_facts(facts: SessionFacts) -> bytes:
    """What the SMS keeps of a session until its receipt is countersigned."""
    return build_cbor(_build_facts(facts))


def parse_facts(encoded: bytes) -> SessionFacts:
    """Read what ``build_facts`` writes.

    Raises:
        DecodeError: another form.
    """
    value = parse_cbor(encoded)
    if not isinstance(value, dict) or set(value) != _FACTS:
        raise DecodeError("these are no facts of a session", code=_CODE)
    return _read_facts(_fields(value))


_FACTS = frozenset({"task_id", "challenge", "evidence", "appraisal", "dataset", "bulk"})
_MEMBERS = _FACTS | {IAT, "receipt", "chain_id", "hub", "sms", "collateral", "log"}


def _build_facts(facts: SessionFacts) -> dict[Value, Value]:
    judgement = facts.judgement
    bulk: Value = None if facts.bulk is None else [[address, build_use(use)] for address, use in facts.bulk]
    return {
        "task_id": facts.task_id,
        "challenge": facts.challenge,
        "evidence": [facts.evidence_kind, facts.evidence_digest],
        "appraisal": [
            judgement.tcb,
            list(judgement.marks),
            judgement.platform,
            judgement.appraised_at,
            judgement.policy,
        ],
        "dataset": build_use(facts.dataset),
        "bulk": bulk,
    }


def _fields(value: dict[Value, Value]) -> Fields:
    return Fields(value, what="countersignature's member", part="countersignature", code=_CODE)


def _parse_statement(payload: bytes) -> Countersignature:
    value = parse_cbor(payload)
    if not isinstance(value, dict) or set(value) != _MEMBERS:
        raise DecodeError("the countersignature does not have exactly its members", code=_CODE)
    fields = _fields(value)
    chain_id = fields.raw("chain_id", None, cap=32)
    return Countersignature(
        facts=_read_facts(fields),
        receipt=fields.raw("receipt", 32),
        origin=LogOrigin(int.from_bytes(chain_id, "big"), fields.raw("hub", 20), fields.raw("sms", 20)),
        issued_at=fields.number(IAT),
        collateral=fields.raw("collateral", None, cap=MAX_COLLATERAL),
        log=_read_log(fields),
    )


def _read_facts(fields: Fields) -> SessionFacts:
    match fields.value("evidence"):
        case [str(kind), bytes(digest)] if 0 < len(kind) <= 64:
            fields.check_raw(digest, 32, "evidence")
        case _:
            raise fields.refusal("evidence")
    return SessionFacts(
        task_id=fields.raw("task_id", 32),
        challenge=fields.raw("challenge", 20),
        evidence_kind=kind,
        evidence_digest=digest,
        judgement=_read_judgement(fields),
        dataset=fields.use(fields.value("dataset"), "dataset"),
        bulk=_read_bulk(fields),
    )


def _read_judgement(fields: Fields) -> Judgement:
    match fields.value("appraisal"):
        case [tcb, list(marks), bytes(platform), int(appraised_at), bytes(policy)] if len(marks) <= MAX_MARKS:
            texts = tuple(
                text for text in (fields.check_cause(mark, "appraisal") for mark in marks) if text is not None
            )
            if len(texts) != len(marks):
                raise fields.refusal("appraisal")
            return Judgement(
                fields.check_cause(tcb, "appraisal"),
                texts,
                fields.check_raw(platform, None, "appraisal", cap=256),
                fields.check_number(appraised_at, "appraisal"),
                fields.check_raw(policy, 32, "appraisal"),
            )
        case _:
            raise fields.refusal("appraisal")


def _read_bulk(fields: Fields) -> tuple[tuple[bytes, DatasetUse | None], ...] | None:
    value = fields.value("bulk")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_BULK or fields.value("dataset") is not None:
        raise fields.refusal("bulk")
    items: list[tuple[bytes, DatasetUse | None]] = []
    for item in value:
        match item:
            case [bytes(address), use]:
                items.append((fields.check_raw(address, 20, "bulk"), fields.use(use, "bulk")))
            case _:
                raise fields.refusal("bulk")
    return tuple(items)


def _read_log(fields: Fields) -> LogProof:
    match fields.value("log"):
        case [int(index), int(size), bytes(entry), list(path), int(timestamp), bytes(signature)]:
            return LogProof(
                fields.check_number(index, "log"),
                fields.check_number(size, "log"),
                fields.check_raw(entry, None, "log", cap=MAX_ENTRY),
                check_path(path),
                fields.check_number(timestamp, "log"),
                fields.check_raw(signature, 65, "log"),
            )
        case _:
            raise fields.refusal("log")


def _parse_entry(entry: bytes) -> dict[str, Any]:
    try:
        value = json.loads(check_depth(entry))
    except (ValueError, DecodeError) as error:
        raise VerificationError("the log's entry is not JSON", code=_PROOF) from error
    if not isinstance(value, dict):
        raise VerificationError("the log's entry is not an object", code=_PROOF)
    return value


def _hex(raw: bytes | None) -> str | None:
    return None if raw is None else "0x" + raw.hex()
