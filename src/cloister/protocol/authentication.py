"""How requests to our own services are signed: one signature per request, no sessions, no passwords.

``Authorization: Cloister <address>.<issued at>.<nonce>.<signature>`` over a text that names the service, the chain, the
hub, the method, the target and the body, so that a request is good for one service, once. The verifier keeps the nonce
until ``expires_at`` and refuses a second use; that memory is the service's, not this module's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cloister.errors import DecodeError, InputError, Unauthenticated, VerificationError
from cloister.protocol.codec import Address, parse_hex, to_hex
from cloister.protocol.signatures import PrivateKey, message_digest, recover_address

SCHEME: Final = "Cloister"
NONCE_LENGTH: Final = 16
MAX_AGE: Final = 120
"""How old a request may be, in seconds, unless the service says otherwise."""
MAX_SKEW: Final = 30
"""How far ahead of the service's clock a request may be dated, in seconds."""
_HEADER_CAP: Final = 400


@dataclass(frozen=True, slots=True)
class AuthenticatedRequest:
    """Proof that ``address`` signed this very request. Built only by ``verify_request``."""

    address: Address
    nonce: str
    issued_at: int
    expires_at: int
    """Until when the nonce must be remembered, in unix seconds."""


def audience(service: str, chain_id: int, hub: Address) -> str:
    """Name one service of one network: ``scheduler:421614:0x…``."""
    return f"{service}:{chain_id}:{hub}"


def _signed_text(audience: str, method: str, target: str, body: bytes, issued_at: int, nonce: str) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    lines = ("cloister-request/1", audience, method.upper(), target, digest, str(issued_at), nonce)
    if any("\n" in line or "\r" in line for line in lines):
        raise InputError("a signed request holds no line breaks")
    return "\n".join(lines).encode("utf-8")


def sign_request(
    key: PrivateKey, *, audience: str, method: str, target: str, body: bytes, issued_at: int, nonce: bytes
) -> str:
    """Return the value of the ``Authorization`` header.

    ``target`` is the path with its query as sent; ``nonce`` is 16 random bytes; ``issued_at`` is unix seconds.
    """
    if len(nonce) != NONCE_LENGTH:
        raise InputError(f"a request nonce has {NONCE_LENGTH} bytes, got {len(nonce)}")
    text = _signed_text(audience, method, target, body, issued_at, nonce.hex())
    return f"{SCHEME} {key.address}.{issued_at}.{nonce.hex()}.{to_hex(key.sign_message(text))}"


def verify_request(
    header: str | None,
    *,
    audience: str,
    method: str,
    target: str,
    body: bytes,
    now: int,
    max_age: int = MAX_AGE,
) -> AuthenticatedRequest:
    """Prove who signed a request. ``now`` is unix seconds of the service's clock.

    Raises:
        Unauthenticated: no header, another scheme or form, too old, dated in the future, or a wrong signature.
    """
    if header is None or not header.startswith(SCHEME + " ") or len(header) > _HEADER_CAP:
        raise Unauthenticated("the request is not signed", hint=f"send an authorization header of the scheme {SCHEME}")
    parts = header[len(SCHEME) + 1 :].split(".")
    if len(parts) != 4:
        raise Unauthenticated("the authorization header is malformed")
    try:
        address = Address(parts[0])
        nonce = parse_hex("0x" + parts[2], length=NONCE_LENGTH).hex()
        signature = parse_hex(parts[3], length=65)
    except DecodeError as error:
        raise Unauthenticated("the authorization header is malformed") from error
    if not parts[1].isascii() or not parts[1].isdigit() or len(parts[1]) > 12:
        raise Unauthenticated("the authorization header is malformed")
    issued_at = int(parts[1])
    if not now - max_age <= issued_at <= now + MAX_SKEW:
        raise Unauthenticated(
            f"the request is dated {issued_at}, the clock here says {now}", hint="set the clock of this machine"
        )
    text = _signed_text(audience, method, target, body, issued_at, nonce)
    try:
        recovered = recover_address(message_digest(text), signature)
    except VerificationError as error:
        raise Unauthenticated("the request's signature is wrong") from error
    if recovered != address:
        raise Unauthenticated("the request's signature is wrong")
    return AuthenticatedRequest(address, nonce, issued_at, issued_at + max_age)
