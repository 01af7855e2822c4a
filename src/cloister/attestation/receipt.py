"""Receipts: one signed file that proves what ran on which data, checked offline and years later.

A receipt is a COSE_Sign1 (RFC 9052) over CWT claims (RFC 8392, EAT profile), signed with ES256K (RFC 8812) by the key
that was born in the enclave. The evidence inside binds that key to task, app, SMS and chain. Beside it, in the
unprotected header, stands the SMS's countersignature (``attestation.countersignature``): what it appraised, with which
collateral, what it released, and where that is in its log. So the file needs no other witness but the roots that its
reader trusts. Everything is deterministic CBOR; unknown members are refused.

    18([h'a1 01 38 2e', {"countersignature": h'…'}, claims, signature r || s (64 bytes, low s)])
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cloister.attestation.assurance import warning_for
from cloister.attestation.cbor import Value, parse_cbor
from cloister.attestation.collateral import Collateral, parse_documents
from cloister.attestation.cose import Sign1, check_signer, parse_sign1
from cloister.attestation.countersignature import (
    Countersignature,
    check_receipt_digest,
    receipt_digest,
    unverified_countersignature,
    verify_countersignature,
    verify_log_proof,
)
from cloister.attestation.evidence import Evidence, parse_evidence
from cloister.attestation.fields import REGISTERED, Fields
from cloister.attestation.issuance import (
    CNF,
    EAT_PROFILE,
    IAT,
    MAX_RECEIPT,
    NONCE,
    PROFILE,
    PROTECTED,
    BulkUse,
    DatasetUse,
    InputDigest,
    ReceiptClaims,
    build_claims,
    build_receipt,
)
from cloister.attestation.policy import CLOCK_SKEW, AppraisalPolicy
from cloister.attestation.report import ReportBinding, build_report_data
from cloister.attestation.signers import address_of
from cloister.attestation.transparency import SignedHead
from cloister.attestation.verify import Appraisal, appraise
from cloister.errors import DecodeError, LocalError, RemoteError, TooLarge, VerificationError

MAX_INPUTS = 1000
MAX_BULK = 100
MAX_DRIFT = 3600
"""How far the enclave's clock, which its host sets, may be from the SMS's, in seconds."""

__all__ = [
    "BulkUse",
    "DatasetUse",
    "InputDigest",
    "Receipt",
    "ReceiptClaims",
    "VerifiedReceipt",
    "build_receipt",
    "parse_receipt",
    "verify_receipt",
]

_MALFORMED = "receipt-malformed"
_SIGNATURE = "receipt-signature"
_SEAL = object()


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that parses. It proves nothing until ``verify_receipt`` has answered."""

    claims: ReceiptClaims
    signature: bytes
    countersignature: bytes
    encoded: bytes

    @property
    def warning(self) -> str | None:
        """The words that must stand beside anything that rests on this receipt."""
        return warning_for(self.claims.evidence.kind)


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """Proof that both signatures, the log proof and the evidence hold under the caller's policy. Built by
    ``verify_receipt`` only. ``statement`` is the SMS's, ``head`` the log's as it signed it.
    """

    receipt: Receipt
    appraisal: Appraisal
    statement: Countersignature
    head: SignedHead
    _seal: object

    def __post_init__(self) -> None:
        if self._seal is not _SEAL:
            raise LocalError("a verified receipt is built by verify_receipt() only")

    @property
    def claims(self) -> ReceiptClaims:
        """What the enclave states."""
        return self.receipt.claims

    @property
    def simulated(self) -> bool:
        """Whether it rests on software alone."""
        return self.appraisal.simulated

    @property
    def warning(self) -> str | None:
        """The words that must stand beside anything that rests on this receipt."""
        return self.appraisal.warning


def parse_receipt(encoded: bytes) -> Receipt:
    """Read a receipt. Proves nothing.

    Raises:
        TooLarge: over 768 KiB. DecodeError: not exactly the format above. ``part`` names where.
    """
    return _parse(encoded)[0]


def _parse(encoded: bytes) -> tuple[Receipt, Sign1]:
    with _part("header"):
        if len(encoded) > MAX_RECEIPT:
            raise TooLarge(f"a receipt of {len(encoded)} bytes is over the cap of {MAX_RECEIPT}")
        document = parse_sign1(bytes(encoded), PROTECTED, what="receipt", code=_MALFORMED)
        match document.unprotected:
            case {"countersignature": bytes(countersignature)} if len(document.unprotected) == 1:
                pass
            case _:
                raise DecodeError("the receipt does not carry a countersignature alone", code=_MALFORMED)
    with _part("claims"):
        claims = _parse_claims(document.payload)
    return Receipt(claims, document.signature, countersignature, bytes(encoded)), document


def verify_receipt(
    receipt: Receipt | bytes,
    *,
    policy: AppraisalPolicy,
    collateral: Collateral,
    now: int,
    expected_result_digest: bytes | None = None,
) -> VerifiedReceipt:
    """Prove a receipt offline.

    The checks, in this order:

    1. it parses, and no two claims contradict each other;
    2. the SMS that the claims name made the countersignature;
    3. the key in the claims signed them, and its address is the attested challenge;
    4. the countersignature is for exactly these claims and this signature;
    5. what the SMS states agrees with what the enclave states: chain, task, key, evidence, data and grants;
    6. the release is in the log whose head the SMS signed;
    7. the times are in order and not ahead of ``now`` (unix seconds);
    8. the evidence binds that key, the app, the task, the SMS and the chain, and passes ``policy`` as of the moment when
       the SMS appraised it (a receipt outlives certificates), with the documents that the SMS used.

    Roots come from ``collateral`` alone, never from the receipt. ``expected_result_digest`` (32 bytes) is the digest that
    the caller has from the chain; None says that the caller compares it.

    Raises:
        DecodeError, TooLarge: it does not parse. VerificationError: a check fails. PolicyRejected: the policy says no.
        ``part`` names what of the receipt is at fault: ``header``, ``claims`` or ``claims.<name>``, ``enclave signature``,
        ``countersignature`` or ``countersignature.<name>``, ``log proof``, ``evidence``, ``collateral``.
    """
    # The claims of an object may be anybody's; only the bytes are signed.
    receipt, document = _parse(receipt if isinstance(receipt, bytes) else receipt.encoded)
    claims = receipt.claims
    statement = _verify_signatures(receipt, document)
    with _part("log proof"):
        head = verify_log_proof(statement)
    _check_times(claims, statement, now)
    with _part("collateral"):
        documents = parse_documents(statement.collateral)
    with _part("evidence"):
        appraisal = appraise(
            claims.evidence,
            policy=policy,
            expected_report_data=build_report_data(claims.binding),
            now=statement.facts.judgement.appraised_at,
            collateral=collateral.with_documents(documents),
            expected_app_digest=claims.binding.app_digest,
        )
        if appraisal.claims.platform != statement.facts.judgement.platform:
            raise VerificationError(
                "the sms appraised another machine than the evidence is of", code="countersignature"
            )
    if expected_result_digest is not None and not hmac.compare_digest(claims.result_digest, expected_result_digest):
        error = VerificationError("the receipt is for another result", code="receipt-result")
        error.part = "claims.result"
        raise error
    return VerifiedReceipt(receipt, appraisal, statement, head, _SEAL)


@contextmanager
def _part(name: str) -> Iterator[None]:
    """Name the part of the receipt whose check failed."""
    try:
        yield
    except RemoteError as error:
        error.part = error.part or name
        raise


def _verify_signatures(receipt: Receipt, document: Sign1) -> Countersignature:
    """Checks 2 to 5. Where one fails, what the other still says tells which part was changed."""
    claims = receipt.claims
    try:
        statement = verify_countersignature(receipt.countersignature, sms=claims.binding.sms)
    except RemoteError as error:
        error.part = error.part or _blame_countersignature(receipt, document)
        _verify_enclave(receipt, document, None)
        raise
    _verify_enclave(receipt, document, statement)
    with _part("countersignature"):
        check_receipt_digest(statement, _digest(document))
        different = _differences(claims, statement)
        if different:
            refusal = VerificationError(
                f"enclave and sms disagree: {', '.join(different[:4])}", code="countersignature-disagrees"
            )
            refusal.part = f"claims.{different[0]}"
            raise refusal
    return statement


def _verify_enclave(receipt: Receipt, document: Sign1, statement: Countersignature | None) -> None:
    claims = receipt.claims
    try:
        check_signer(document, address_of(claims.public_key), what="receipt", code=_SIGNATURE)
    except VerificationError as error:
        if statement is None:
            # Both signatures fail, and the one claim that both rest on is the SMS's address.
            error.part = "claims.sms"
        else:
            different = _differences(claims, statement)
            if not different and address_of(claims.public_key) != claims.binding.challenge:
                different = ["cnf"]
            error.part = f"claims.{different[0]}" if different else "claims or enclave signature"
        raise
    if address_of(claims.public_key) != claims.binding.challenge:
        refusal = VerificationError("the receipt is signed by another key than the attested one", code="receipt-key")
        refusal.part = "claims.cnf"
        raise refusal


def _differences(claims: ReceiptClaims, statement: Countersignature) -> list[str]:
    """The claims of which the SMS states something else."""
    binding, facts, origin = claims.binding, statement.facts, statement.origin
    digest = hashlib.sha256(claims.evidence.payload).digest()
    bulk = None if claims.bulk is None else tuple((item.address, item.released) for item in claims.bulk)
    stated = (
        ("chain_id", binding.chain_id, origin.chain_id),
        ("hub", binding.hub, origin.hub),
        ("sms", binding.sms, origin.sms),
        ("task_id", binding.task_id, facts.task_id),
        ("challenge", binding.challenge, facts.challenge),
        ("evidence", (claims.evidence.kind.value, digest), (facts.evidence_kind, facts.evidence_digest)),
        ("dataset", claims.dataset, facts.dataset),
        ("bulk", bulk, facts.bulk),
    )
    return [name for name, ours, theirs in stated if ours != theirs]


def _blame_countersignature(receipt: Receipt, document: Sign1) -> str:
    """Which part of a countersignature whose signature fails was changed, as far as the rest tells."""
    try:
        statement = unverified_countersignature(receipt.countersignature)
    except RemoteError as error:
        return error.part or "countersignature"
    try:
        check_receipt_digest(statement, _digest(document))
    except VerificationError:
        return "countersignature.receipt"
    different = _differences(receipt.claims, statement)
    if different:
        return f"countersignature.{different[0]}"
    try:
        verify_log_proof(statement)
    except RemoteError:
        return "log proof"
    return "countersignature"


def _digest(document: Sign1) -> bytes:
    return receipt_digest(document.signed_bytes(), document.signature)


def _check_times(claims: ReceiptClaims, statement: Countersignature, now: int) -> None:
    appraised = statement.facts.judgement.appraised_at
    in_order = claims.started_at <= claims.finished_at and appraised <= statement.issued_at
    if not in_order or max(claims.finished_at, statement.issued_at) > now + CLOCK_SKEW:
        raise VerificationError("the receipt's times are out of order or ahead of the clock", code="receipt-times")
    if abs(claims.started_at - appraised) > MAX_DRIFT:
        # The enclave has its time from its host; the SMS has its own.
        raise VerificationError(
            f"the enclave's clock was {abs(claims.started_at - appraised)} seconds off the sms's", code="receipt-times"
        )


_LABELS = frozenset(
    {IAT, CNF, NONCE, EAT_PROFILE}
    | {
        "chain_id",
        "hub",
        "sms",
        "task_id",
        "app_digest",
        "challenge",
        "hpke_key",
        "deal_id",
        "index",
        "worker",
        "requester",
        "app",
        "dataset",
        "inputs",
        "result",
        "output",
        "started_at",
        "evidence",
        "report_data",
        "simulated",
        "cause",
    }
)


def _parse_claims(payload: bytes) -> ReceiptClaims:
    value = parse_cbor(payload)
    if not isinstance(value, dict) or set(value) - {"bulk"} != _LABELS:
        raise DecodeError("the receipt does not have exactly the claims of its profile", code=_MALFORMED)
    claims = _Claims(value, what="receipt's claim", part="claims", code=_MALFORMED)
    if value[EAT_PROFILE] != PROFILE:
        error = DecodeError("the receipt has another profile", code=_MALFORMED)
        error.part = "claims.eat_profile"
        raise error
    try:
        receipt = _read_claims(claims)
        _check_spelling(value, build_claims(receipt), payload)
    except LocalError as error:
        raise DecodeError(f"a claim of the receipt is out of range: {error.message}", code=_MALFORMED) from error
    return receipt


def _check_spelling(value: dict[Value, Value], built: bytes, payload: bytes) -> None:
    """Refuse claims that are not what the other claims make them."""
    if built == payload:
        return
    again = parse_cbor(built)
    different = [label for label in value if isinstance(again, dict) and again.get(label) != value[label]]
    error = DecodeError("two claims of the receipt contradict each other", code=_MALFORMED)
    error.part = f"claims.{_name(different[0])}" if different else "claims"
    raise error


def _name(label: Value) -> str:
    return REGISTERED.get(label, str(label)) if isinstance(label, int | str) else "?"


def _read_claims(claims: _Claims) -> ReceiptClaims:
    binding = ReportBinding(
        chain_id=int.from_bytes(claims.raw("chain_id", None), "big"),
        hub=claims.raw("hub", 20),
        sms=claims.raw("sms", 20),
        task_id=claims.raw("task_id", 32),
        nonce=claims.raw(NONCE, 32),
        app_digest=claims.raw("app_digest", 32),
        challenge=claims.raw("challenge", 20),
        hpke_key_hash=claims.raw("hpke_key", 32),
    )
    return ReceiptClaims(
        binding=binding,
        public_key=claims.public_key(),
        deal_id=claims.raw("deal_id", 32),
        index=claims.number("index"),
        worker=claims.raw("worker", 20),
        requester=claims.raw("requester", 20),
        app=claims.raw("app", 20),
        dataset=claims.dataset(),
        inputs=claims.inputs(),
        result_digest=claims.raw("result", 32),
        output_digest=claims.raw("output", 32),
        started_at=claims.number("started_at"),
        finished_at=claims.number(IAT),
        evidence=claims.evidence(),
        cause=claims.cause(),
        bulk=claims.bulk(),
    )


class _Claims(Fields):
    """Typed reads from the decoded claims map."""

    def public_key(self) -> bytes:
        match self.value(CNF):
            case {1: dict(key)} if set(key) == {1, -1, -2, -3} and key[1] == 2 and key[-1] == 8:
                return self.check_raw(key[-2], 32, CNF) + self.check_raw(key[-3], 32, CNF)
            case _:
                raise self.refusal(CNF)

    def dataset(self) -> DatasetUse | None:
        return self.use(self.value("dataset"), "dataset")

    def bulk(self) -> tuple[BulkUse, ...] | None:
        if not self.has("bulk"):
            return None
        value = self.value("bulk")
        # A task is for one dataset or for a slice; a receipt that says both was not written by an enclave of ours.
        if not isinstance(value, list) or len(value) > MAX_BULK or self.value("dataset") is not None:
            raise self.refusal("bulk")
        return tuple(self._item(item) for item in value)

    def _item(self, value: Value) -> BulkUse:
        match value:
            case [bytes(address), use, digest, cause]:
                item = BulkUse(
                    self.check_raw(address, 20, "bulk"),
                    self.use(use, "bulk"),
                    None if digest is None else self.check_raw(digest, 32, "bulk"),
                    self.check_cause(cause, "bulk"),
                )
            case _:
                raise self.refusal("bulk")
        opened = item.sha256 is not None
        if opened == (item.cause is not None) or (opened and item.released is None):
            raise self.refusal("bulk")
        if item.released is not None and item.released.address != item.address:
            raise self.refusal("bulk")
        return item

    def inputs(self) -> tuple[InputDigest, ...]:
        value = self.value("inputs")
        if not isinstance(value, list) or len(value) > MAX_INPUTS:
            raise self.refusal("inputs")
        result = []
        for item in value:
            match item:
                case [str(name), bytes(digest)] if 0 < len(name) <= 256:
                    result.append(InputDigest(name, self.check_raw(digest, 32, "inputs")))
                case _:
                    raise self.refusal("inputs")
        return tuple(result)

    def evidence(self) -> Evidence:
        match self.value("evidence"):
            case [str(kind), bytes(payload)]:
                try:
                    return parse_evidence(kind, payload)
                except DecodeError as error:
                    error.part = "claims.evidence"
                    raise
            case _:
                raise self.refusal("evidence")

    def cause(self) -> str | None:
        return self.check_cause(self.value("cause"), "cause")
