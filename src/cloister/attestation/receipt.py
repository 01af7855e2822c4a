"""Receipts: one signed file that proves what ran on which data, checked offline and years later.

A receipt is a COSE_Sign1 (RFC 9052) over CWT claims (RFC 8392, EAT profile), signed with ES256K (RFC 8812) by the key
that was born in the enclave. The evidence inside binds that key to task, app, SMS and chain, so the file needs no
other witness. Everything is deterministic CBOR; unknown members are refused.

    18([h'a1 01 38 2e', {}, claims, signature r || s (64 bytes, low s)])
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

import coincurve
from Crypto.Hash import keccak

from cloister.attestation.assurance import warning_for
from cloister.attestation.cbor import Tagged, Value, parse_cbor
from cloister.attestation.collateral import Collateral
from cloister.attestation.evidence import Evidence, parse_evidence
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
    signed_bytes,
)
from cloister.attestation.policy import CLOCK_SKEW, AppraisalPolicy
from cloister.attestation.report import ReportBinding, build_report_data
from cloister.attestation.verify import Appraisal, appraise
from cloister.errors import CloisterError, DecodeError, LocalError, TooLarge, VerificationError

MAX_INPUTS = 1000
MAX_BULK = 100
MAX_CAUSE = 256

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

_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_SEAL = object()


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that parses. It proves nothing until ``verify_receipt`` has answered."""

    claims: ReceiptClaims
    signature: bytes
    encoded: bytes

    @property
    def warning(self) -> str | None:
        """The words that must stand beside anything that rests on this receipt."""
        return warning_for(self.claims.evidence.kind)


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """Proof that the receipt's signature and evidence hold under the caller's policy. Built by ``verify_receipt``
    only.
    """

    receipt: Receipt
    appraisal: Appraisal
    _seal: object

    def __post_init__(self) -> None:
        if self._seal is not _SEAL:
            raise LocalError("a verified receipt is built by verify_receipt() only")

    @property
    def claims(self) -> ReceiptClaims:
        return self.receipt.claims

    @property
    def simulated(self) -> bool:
        return self.appraisal.simulated

    @property
    def warning(self) -> str | None:
        return self.appraisal.warning


def parse_receipt(encoded: bytes) -> Receipt:
    """Read a receipt. Proves nothing.

    Raises:
        TooLarge: over 256 KiB. DecodeError: not exactly the format above.
    """
    if len(encoded) > MAX_RECEIPT:
        raise TooLarge(f"a receipt of {len(encoded)} bytes is over the cap of {MAX_RECEIPT}")
    match parse_cbor(encoded):
        case Tagged(tag=18, value=[bytes(protected), dict(unprotected), bytes(payload), bytes(signature)]):
            pass
        case _:
            raise DecodeError("a receipt is a tagged COSE_Sign1", code="receipt-malformed")
    if protected != PROTECTED or unprotected:
        raise DecodeError("the receipt's header is not that of ES256K alone", code="receipt-malformed")
    if len(signature) != 64:
        raise DecodeError(f"the receipt's signature has {len(signature)} bytes instead of 64", code="receipt-malformed")
    return Receipt(_parse_claims(payload), signature, bytes(encoded))


def verify_receipt(
    receipt: Receipt | bytes,
    *,
    policy: AppraisalPolicy,
    collateral: Collateral,
    now: int,
    expected_result_digest: bytes | None = None,
) -> VerifiedReceipt:
    """Prove a receipt offline.

    The checks: the signature holds under the key in the claims; that key's address is the challenge; the evidence
    binds that challenge, the app, the task, the SMS and the chain; the evidence passes ``policy`` at the time the
    task started (a receipt outlives certificates); the times are in order and not ahead of ``now``.
    ``expected_result_digest`` (32 bytes) is the digest that the caller has from the chain; None says that the caller
    compares it.

    Raises:
        DecodeError, TooLarge: it does not parse. VerificationError: a check fails. PolicyRejected: the policy says no.
    """
    # The claims of an object may be anybody's; only the bytes are signed.
    receipt = parse_receipt(receipt if isinstance(receipt, bytes) else receipt.encoded)
    claims = receipt.claims
    _verify_signature(claims.public_key, signed_bytes(build_claims(claims)), receipt.signature)
    if keccak.new(digest_bits=256, data=claims.public_key).digest()[12:] != claims.binding.challenge:
        raise VerificationError("the receipt is signed by another key than the attested one", code="receipt-key")
    if not claims.started_at <= claims.finished_at <= now + CLOCK_SKEW:
        raise VerificationError("the receipt's times are out of order or ahead of the clock", code="receipt-times")
    appraisal = appraise(
        claims.evidence,
        policy=policy,
        expected_report_data=build_report_data(claims.binding),
        now=claims.started_at,
        collateral=collateral,
    )
    if expected_result_digest is not None and not hmac.compare_digest(claims.result_digest, expected_result_digest):
        raise VerificationError("the receipt is for another result", code="receipt-result")
    return VerifiedReceipt(receipt, appraisal, _SEAL)


def _verify_signature(public_key: bytes, message: bytes, signature: bytes) -> None:
    if not 0 < int.from_bytes(signature[32:], "big") <= _HALF_ORDER:
        raise VerificationError("the receipt's signature has a high s", code="receipt-signature")
    try:
        recoverable = [
            coincurve.PublicKey.from_signature_and_message(signature + bytes([parity]), message).format(
                compressed=False
            )
            for parity in (0, 1)
        ]
    except Exception as error:
        raise VerificationError("the receipt's signature is not one", code="receipt-signature") from error
    if b"\x04" + public_key not in recoverable:
        raise VerificationError("the receipt's signature does not hold", code="receipt-signature")


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
        raise DecodeError("the receipt does not have exactly the claims of its profile", code="receipt-malformed")
    if value[EAT_PROFILE] != PROFILE:
        raise DecodeError("the receipt has another profile", code="receipt-malformed")
    claims = _Claims(value)
    try:
        receipt = _read_claims(claims)
        if build_claims(receipt) != payload:
            raise DecodeError("two claims of the receipt contradict each other", code="receipt-malformed")
    except LocalError as error:
        raise DecodeError(
            f"a claim of the receipt is out of range: {error.message}", code="receipt-malformed"
        ) from error
    return receipt


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


class _Claims:
    """Typed reads from the decoded claims map."""

    def __init__(self, values: dict[Value, Value]) -> None:
        self._values = values

    def raw(self, label: str | int, size: int | None) -> bytes:
        return _bytes(self._values[label], size, label)

    def number(self, label: str | int) -> int:
        value = self._values[label]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
            raise _refusal(label)
        return value

    def public_key(self) -> bytes:
        match self._values[CNF]:
            case {1: dict(key)} if set(key) == {1, -1, -2, -3} and key[1] == 2 and key[-1] == 8:
                return _bytes(key[-2], 32, "cnf") + _bytes(key[-3], 32, "cnf")
            case _:
                raise _refusal("cnf")

    def dataset(self) -> DatasetUse | None:
        return _read_use(self._values["dataset"], "dataset")

    def bulk(self) -> tuple[BulkUse, ...] | None:
        if "bulk" not in self._values:
            return None
        value = self._values["bulk"]
        # A task is for one dataset or for a slice; a receipt that says both was not written by an enclave of ours.
        if not isinstance(value, list) or len(value) > MAX_BULK or self._values["dataset"] is not None:
            raise _refusal("bulk")
        return tuple(_read_item(item) for item in value)

    def inputs(self) -> tuple[InputDigest, ...]:
        value = self._values["inputs"]
        if not isinstance(value, list) or len(value) > MAX_INPUTS:
            raise _refusal("inputs")
        result = []
        for item in value:
            match item:
                case [str(name), bytes(digest)] if 0 < len(name) <= 256:
                    result.append(InputDigest(name, _bytes(digest, 32, "inputs")))
                case _:
                    raise _refusal("inputs")
        return tuple(result)

    def evidence(self) -> Evidence:
        match self._values["evidence"]:
            case [str(kind), bytes(payload)]:
                return parse_evidence(kind, payload)
            case _:
                raise _refusal("evidence")

    def cause(self) -> str | None:
        return _read_cause(self._values["cause"], "cause")


def _read_cause(value: Value, label: str) -> str | None:
    if value is None or (isinstance(value, str) and 0 < len(value) <= MAX_CAUSE):
        return value
    raise _refusal(label)


def _read_use(value: Value, label: str) -> DatasetUse | None:
    match value:
        case None:
            return None
        case [bytes(address), bytes(checksum), order_hash, policy_hash]:
            return DatasetUse(
                _bytes(address, 20, label),
                _bytes(checksum, 32, label),
                None if order_hash is None else _bytes(order_hash, 32, label),
                None if policy_hash is None else _bytes(policy_hash, 32, label),
            )
        case _:
            raise _refusal(label)


def _read_item(value: Value) -> BulkUse:
    match value:
        case [bytes(address), use, digest, cause]:
            item = BulkUse(
                _bytes(address, 20, "bulk"),
                _read_use(use, "bulk"),
                None if digest is None else _bytes(digest, 32, "bulk"),
                _read_cause(cause, "bulk"),
            )
        case _:
            raise _refusal("bulk")
    opened = item.sha256 is not None
    if opened == (item.cause is not None) or (opened and item.released is None):
        raise _refusal("bulk")
    if item.released is not None and item.released.address != item.address:
        raise _refusal("bulk")
    return item


def _bytes(value: Value, size: int | None, label: str | int) -> bytes:
    if not isinstance(value, bytes) or (size is not None and len(value) != size) or len(value) > MAX_RECEIPT:
        raise _refusal(label)
    return value


def _refusal(label: str | int) -> CloisterError:
    return DecodeError(f"the receipt's claim {label} has the wrong type, size or range", code="receipt-malformed")
