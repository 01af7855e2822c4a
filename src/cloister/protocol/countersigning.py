"""Asking the SMS to countersign a receipt: the enclave's own key asks, and gives the digest alone.

The request travels through the host, which learns that there is a receipt and nothing of what it says.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from cloister.errors import InputError, VerificationError
from cloister.protocol.codec import (
    Address,
    Bytes32,
    canonical_json,
    check_keys,
    keccak256,
    parse_address,
    parse_hex,
    parse_word,
    to_hex,
)
from cloister.protocol.signatures import PrivateKey, message_digest, recover_address

DOMAIN: Final = "cloister/countersign/v1"
REQUEST_CAP: Final = 4 * 1024
"""Largest request in bytes of JSON."""
COUNTERSIGNATURE_CAP: Final = 640 * 1024
"""Largest countersignature in bytes."""


@dataclass(frozen=True, slots=True)
class CountersignRequest:
    """One enclave's wish for its one receipt. ``signature`` is the challenge key's personal signature over ``digest()``."""

    task_id: Bytes32
    enclave_challenge: Address
    receipt_digest: Bytes32
    signature: bytes = b""

    def __post_init__(self) -> None:
        if len(self.signature) not in (0, 65):
            raise InputError(f"a signature has 65 bytes, got {len(self.signature)}")

    def _members(self) -> dict[str, object]:
        return {
            "task_id": self.task_id,
            "enclave_challenge": self.enclave_challenge,
            "receipt_digest": self.receipt_digest,
        }

    def to_json(self) -> dict[str, object]:
        """Return the request as JSON members."""
        return {**self._members(), "signature": to_hex(self.signature)}

    def digest(self) -> bytes:
        """Return keccak256 of the canonical JSON of domain and members, without the signature."""
        return keccak256(canonical_json({"domain": DOMAIN, **self._members()}))

    def signed_by(self, key: PrivateKey) -> CountersignRequest:
        """Return the request signed by the enclave's challenge key.

        Raises:
            InputError: the key is not the challenge's.
        """
        if key.address != self.enclave_challenge:
            raise InputError("a receipt is sent by the key of its enclave challenge")
        return dataclasses.replace(self, signature=key.sign_message(self.digest()))


def parse_countersign_request(value: object) -> CountersignRequest:
    """Read a request from parsed JSON. Proves nothing.

    Raises:
        DecodeError: a missing, unknown or unreadable member.
    """
    keys = ("task_id", "enclave_challenge", "receipt_digest", "signature")
    given = check_keys("countersign request", value, required=keys)
    return CountersignRequest(
        parse_word("task_id", given["task_id"]),
        parse_address("enclave_challenge", given["enclave_challenge"]),
        parse_word("receipt_digest", given["receipt_digest"]),
        parse_hex(given["signature"], length=65),
    )


def verify_countersign_request(request: CountersignRequest) -> Address:
    """Return the enclave challenge when its key signed the request.

    Raises:
        VerificationError: unsigned, malformed, malleable or signed by another key.
    """
    recovered = recover_address(message_digest(request.digest()), request.signature)
    if recovered != request.enclave_challenge:
        raise VerificationError("the request is not signed by its enclave challenge", code="wrong-signer")
    return recovered
