"""The enclave session: what an enclave asks of the SMS and what it is given (docs/architecture.md).

``SessionRequest`` is signed by the key that was born in the enclave. ``SessionCall`` is that request with what the
host adds; nothing in it is trusted for being there. ``Release`` is what the SMS seals; the agent trusts only it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Final

from cloister.errors import DecodeError, InputError, TooLarge, VerificationError, quoted
from cloister.protocol.codec import (
    ZERO_ADDRESS,
    Address,
    Bytes32,
    build_base64,
    canonical_json,
    check_keys,
    keccak256,
    parse_address,
    parse_base64,
    parse_hex,
    parse_text,
    parse_uint,
    parse_word,
    to_hex,
)
from cloister.protocol.orders import DatasetOrder, parse_order
from cloister.protocol.releases import (
    Release,
    ReleasedApp,
    ReleasedDataset,
    ResultFormat,
    build_release,
    parse_release,
)
from cloister.protocol.signatures import PrivateKey, message_digest, recover_address

__all__ = [
    "FINAL_REFUSALS",
    "NonceGrant",
    "Release",
    "ReleasedApp",
    "ReleasedDataset",
    "ResultFormat",
    "SessionAnswer",
    "SessionCall",
    "SessionEvidence",
    "SessionRequest",
    "build_release",
    "parse_nonce_grant",
    "parse_release",
    "parse_session_answer",
    "parse_session_call",
    "parse_session_request",
    "verify_session_signature",
]

VERSION: Final = 1
CONTEXT: Final = b"cloister/session/v1"
RELEASE_CONTEXT: Final = b"cloister/release/v1"
EVIDENCE_CAP: Final = 128 * 1024
"""Largest evidence payload in bytes."""
COLLATERAL_CAP: Final = 512 * 1024
"""Largest collateral in bytes of canonical JSON."""
HPKE_KEY_CAP: Final = 4 * 1024
SEALED_CAP: Final = 512 * 1024
"""Largest sealed release in bytes; its base64 stays under ``CALL_CAP``."""
PURPOSE_CAP: Final = 16
NAME_CAP: Final = 64
CALL_CAP: Final = 1024 * 1024
"""Largest ``SessionCall`` in bytes of JSON."""
FINAL_REFUSALS: Final = frozenset(
    {
        # the deal and what its requester signed
        "deal-not-tee",
        "params-refused",
        "requester-secret-missing",
        "result-key-missing",
        "result-key-malformed",
        "release-too-large",
        # the data, its key and its grant
        "dataset-unknown",
        "dataset-key-missing",
        "order-signature",
        "order-closed",
        "restriction",
        # the access policy of the grant
        "policy-missing",
        "no-longer-valid",
        "purpose-missing",
        "purpose-refused",
        "app-purpose-refused",
        # the slice of a bulk request
        "bulk-not-served",
        "bulk-with-dataset",
        "bulk-root-malformed",
        "bulk-index-missing",
        "bulk-slice-malformed",
    }
)
"""Codes of refusals that rest on the deal, the grant or the data alone: no other worker, enclave or moment of this task
is likely to hear anything else, so that asking again is of no use. What may change by itself or with another machine
(``not-yet-valid``, ``enclave-refused``, evidence, a task that may be reopened) is not among them."""


def _check_version(what: str, value: object) -> None:
    if value != VERSION or isinstance(value, bool):
        raise DecodeError(f"{what}: version {quoted(value)} is not {VERSION}")


def _parse_purposes(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > PURPOSE_CAP:
        raise DecodeError(f"purposes: expected a list of at most {PURPOSE_CAP}")
    return tuple(parse_text("purpose", item, cap=NAME_CAP) for item in value)


@dataclass(frozen=True, slots=True)
class SessionEvidence:
    """What the hardware signed, as it travels: the kind names the verifier, the payload is the kind's own."""

    kind: str
    payload: bytes

    def __post_init__(self) -> None:
        if not 0 < len(self.kind) <= NAME_CAP:
            raise InputError(f"evidence kind {quoted(self.kind)} is not 1 to {NAME_CAP} characters")
        if len(self.payload) > EVIDENCE_CAP:
            raise TooLarge(f"evidence of {len(self.payload)} bytes is over the cap of {EVIDENCE_CAP}")


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What an enclave asks of the SMS. ``signature`` is the challenge key's personal signature over ``digest()``."""

    task_id: Bytes32
    worker: Address
    nonce: Bytes32
    enclave_challenge: Address
    hpke_public_key: bytes
    app_digest: Bytes32
    evidence: SessionEvidence
    purposes: tuple[str, ...] = ()
    signature: bytes = b""

    def __post_init__(self) -> None:
        if not 0 < len(self.hpke_public_key) <= HPKE_KEY_CAP:
            raise InputError(f"an hpke public key has 1 to {HPKE_KEY_CAP} bytes, got {len(self.hpke_public_key)}")
        object.__setattr__(self, "purposes", _parse_purposes(self.purposes))
        if len(self.signature) not in (0, 65):
            raise InputError(f"a session signature has 65 bytes, got {len(self.signature)}")

    def _members(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "task_id": self.task_id,
            "worker": self.worker,
            "nonce": self.nonce,
            "enclave_challenge": self.enclave_challenge,
            "hpke_public_key": build_base64(self.hpke_public_key),
            "app_digest": self.app_digest,
            "purposes": list(self.purposes),
            "evidence": {"kind": self.evidence.kind, "payload": build_base64(self.evidence.payload)},
        }

    def to_json(self) -> dict[str, object]:
        """Return the request as JSON members, signature included."""
        return {**self._members(), "signature": to_hex(self.signature)}

    def digest(self) -> bytes:
        """Return keccak256 of the canonical JSON without the signature: what the challenge key personal_signs."""
        return keccak256(canonical_json(self._members()))

    def signed_by(self, key: PrivateKey) -> SessionRequest:
        """Return the request signed by the enclave's challenge key.

        Raises:
            InputError: the key is not the challenge's.
        """
        if key.address != self.enclave_challenge:
            raise InputError("a session request is signed by the key of its enclave challenge")
        return dataclasses.replace(self, signature=key.sign_message(self.digest()))

    def context(self) -> bytes:
        """Return the HPKE info that binds the answer to this very request, signature included."""
        return CONTEXT + hashlib.sha256(canonical_json(self.to_json())).digest()


def parse_session_request(value: object) -> SessionRequest:
    """Read a session request from parsed JSON. Proves nothing.

    Raises:
        DecodeError, TooLarge, InputError: a missing, unknown, oversized or unreadable member.
    """
    keys = ("version", "task_id", "worker", "nonce", "enclave_challenge", "hpke_public_key", "app_digest")
    given = check_keys("session request", value, required=(*keys, "purposes", "evidence", "signature"))
    _check_version("session request", given["version"])
    evidence = check_keys("evidence", given["evidence"], required=("kind", "payload"))
    return SessionRequest(
        task_id=parse_word("task_id", given["task_id"]),
        worker=parse_address("worker", given["worker"]),
        nonce=parse_word("nonce", given["nonce"]),
        enclave_challenge=parse_address("enclave_challenge", given["enclave_challenge"]),
        hpke_public_key=parse_base64("hpke_public_key", given["hpke_public_key"], cap=HPKE_KEY_CAP),
        app_digest=parse_word("app_digest", given["app_digest"]),
        purposes=_parse_purposes(given["purposes"]),
        evidence=SessionEvidence(
            parse_text("evidence kind", evidence["kind"], cap=NAME_CAP),
            parse_base64("evidence payload", evidence["payload"], cap=EVIDENCE_CAP),
        ),
        signature=parse_hex(given["signature"], length=65),
    )


def verify_session_signature(request: SessionRequest) -> Address:
    """Return the enclave challenge when its key signed the request.

    Raises:
        VerificationError: unsigned, malformed, malleable or signed by another key.
    """
    recovered = recover_address(message_digest(request.digest()), request.signature)
    if recovered != request.enclave_challenge or recovered == ZERO_ADDRESS:
        raise VerificationError("the session request is not signed by its enclave challenge", code="wrong-signer")
    return recovered


@dataclass(frozen=True, slots=True)
class SessionCall:
    """A session request with what the host adds beside it."""

    request: SessionRequest
    scheduler_authorization: bytes
    match_transaction: Bytes32
    dataset_order: DatasetOrder | None = None
    collateral: object = None

    def __post_init__(self) -> None:
        if len(self.scheduler_authorization) != 65:
            raise InputError(f"an authorization has 65 bytes, got {len(self.scheduler_authorization)}")
        if self.collateral is not None and len(canonical_json(self.collateral)) > COLLATERAL_CAP:
            raise TooLarge(f"collateral is over the cap of {COLLATERAL_CAP} bytes")

    def to_json(self) -> dict[str, object]:
        """Return the call as JSON members."""
        return {
            "request": self.request.to_json(),
            "scheduler_authorization": to_hex(self.scheduler_authorization),
            "match_transaction": self.match_transaction,
            "dataset_order": None if self.dataset_order is None else self.dataset_order.to_json(),
            "collateral": self.collateral,
        }


def parse_session_call(value: object) -> SessionCall:
    """Read a session call from parsed JSON. Proves nothing.

    Raises:
        DecodeError, TooLarge, InputError: a missing, unknown, oversized or unreadable member.
    """
    given = check_keys(
        "session",
        value,
        required=("request", "scheduler_authorization", "match_transaction"),
        optional=("dataset_order", "collateral"),
    )
    order = given.get("dataset_order")
    parsed = None if order is None else parse_order("datasetorder", order)
    return SessionCall(
        request=parse_session_request(given["request"]),
        scheduler_authorization=parse_hex(given["scheduler_authorization"], length=65),
        match_transaction=parse_word("match_transaction", given["match_transaction"]),
        dataset_order=parsed if isinstance(parsed, DatasetOrder) else None,
        collateral=given.get("collateral"),
    )


@dataclass(frozen=True, slots=True)
class SessionAnswer:
    """What the SMS answers: the sealed release, the right to contribute, who gave it, and its proof.

    ``signature`` is the SMS's personal signature over ``release_digest``. An envelope alone has no sender: without it
    the host could seal a release of its own making to the enclave, and have another result signed.
    """

    sealed: bytes
    authorization: bytes
    sms: Address
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.authorization) != 65:
            raise InputError(f"an authorization has 65 bytes, got {len(self.authorization)}")
        if len(self.signature) != 65:
            raise InputError(f"the signature over a release has 65 bytes, got {len(self.signature)}")
        if len(self.sealed) > SEALED_CAP:
            raise TooLarge(f"sealed release of {len(self.sealed)} bytes is over the cap of {SEALED_CAP}")

    def to_json(self) -> dict[str, object]:
        """Return the answer as JSON members."""
        return {
            "sealed": build_base64(self.sealed),
            "authorization": to_hex(self.authorization),
            "sms": self.sms,
            "signature": to_hex(self.signature),
        }


def release_digest(context: bytes, sealed: bytes) -> bytes:
    """Return the 32 bytes that the SMS personal_signs: this release, for the request of this ``context``."""
    return keccak256(RELEASE_CONTEXT + context + hashlib.sha256(sealed).digest())


def verify_session_answer(answer: SessionAnswer, request: SessionRequest, sms: Address) -> SessionAnswer:
    """Return the answer when ``sms``, which the enclave's evidence names, made it for this request.

    Raises:
        VerificationError: another service, or another request or release than was signed.
    """
    recovered = recover_address(message_digest(release_digest(request.context(), answer.sealed)), answer.signature)
    if recovered != sms or answer.sms != sms:
        raise VerificationError("the release is not signed by the sms that was attested to", code="wrong-signer")
    return answer


def parse_session_answer(value: object) -> SessionAnswer:
    """Read the SMS's answer from parsed JSON.

    Raises:
        DecodeError, TooLarge: a missing, unknown, oversized or unreadable member.
    """
    given = check_keys("session answer", value, required=("sealed", "authorization", "sms", "signature"))
    return SessionAnswer(
        parse_base64("sealed", given["sealed"], cap=SEALED_CAP),
        parse_hex(given["authorization"], length=65),
        parse_address("sms", given["sms"]),
        parse_hex(given["signature"], length=65),
    )


@dataclass(frozen=True, slots=True)
class NonceGrant:
    """A nonce for one session of one task, and until when it is good (unix seconds)."""

    nonce: Bytes32
    expires_at: int

    def to_json(self) -> dict[str, object]:
        """Return the grant as JSON members."""
        return {"nonce": self.nonce, "expires_at": self.expires_at}


def parse_nonce_grant(value: object) -> NonceGrant:
    """Read a nonce grant from parsed JSON.

    Raises:
        DecodeError: a missing, unknown or unreadable member.
    """
    given = check_keys("nonce", value, required=("nonce", "expires_at"))
    return NonceGrant(parse_word("nonce", given["nonce"]), parse_uint("expires_at", given["expires_at"]))
