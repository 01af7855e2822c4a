"""Signed reference values: what evidence on a network must rest on, in the words of its SMS.

The SMS's identity key signs, and the hub on the chain names that key (``teebroker``). So who knows the chain and the hub
need not believe the server that hands the values out.

JSON: ``{"version": 1, "chain_id", "hub", "sms", "issued_at", "values": {...}, "signature": "0x…65 bytes"}``. ``values`` are the
network's reference values as ``/-/reference-values.json`` writes them; this module does not look inside. Signed is the EIP-191
message of the 32 bytes ``keccak256("cloister/reference-values/v1\\n" || canonical JSON of all members but signature)``; canonical
is: keys sorted, no spaces, UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from Crypto.Hash import keccak

from cloister.attestation.depth import check_depth
from cloister.attestation.signers import recover_personal_signer
from cloister.errors import DecodeError, TooLarge, VerificationError, quoted

VERSION: Final = 1
MAX_DOCUMENT: Final = 256 * 1024
_DOMAIN: Final = b"cloister/reference-values/v1\n"
_MEMBERS: Final = frozenset({"version", "chain_id", "hub", "sms", "issued_at", "values", "signature"})

Sign = Callable[[bytes], bytes]
"""Signs a message as EIP-191 does: ``PrivateKey.sign_message``."""


@dataclass(frozen=True, slots=True)
class SignedReference:
    """Reference values whose signature holds. ``hub`` and ``sms`` have 20 bytes; ``issued_at`` is unix seconds."""

    chain_id: int
    hub: bytes
    sms: bytes
    issued_at: int
    values: Mapping[str, Any]


def build_reference(
    values: Mapping[str, Any], *, chain_id: int, hub: bytes, sms: bytes, issued_at: int, sign: Sign
) -> dict[str, object]:
    """Sign reference values; the result is JSON."""
    members: dict[str, object] = {
        "version": VERSION,
        "chain_id": chain_id,
        "hub": "0x" + hub.hex(),
        "sms": "0x" + sms.hex(),
        "issued_at": issued_at,
        "values": dict(values),
    }
    return {**members, "signature": "0x" + sign(_digest(members)).hex()}


def verify_reference(encoded: bytes, *, chain_id: int, hub: bytes, sms: bytes) -> SignedReference:
    """Prove that the SMS of this hub on this chain signed these values. All three are the caller's own knowledge.

    Raises:
        TooLarge: over 256 KiB. DecodeError: another form. VerificationError: signed by somebody else
        (``reference-signature``), or for another chain, hub or SMS (``reference-of-another-network``).
    """
    if len(encoded) > MAX_DOCUMENT:
        raise TooLarge(f"reference values of {len(encoded)} bytes are over the cap of {MAX_DOCUMENT}")
    given, signature = _parse(encoded)
    expected = {"chain_id": chain_id, "hub": "0x" + hub.hex(), "sms": "0x" + sms.hex()}
    for name, value in expected.items():
        if given[name] != value or isinstance(given[name], bool):
            raise VerificationError(
                f"these reference values are for {name} {quoted(given[name])} and not {value}",
                code="reference-of-another-network",
            )
    if recover_personal_signer(_digest(given), signature, code="reference-signature") != sms:
        raise VerificationError("the reference values are not signed by the SMS", code="reference-signature")
    return SignedReference(chain_id, hub, sms, given["issued_at"], given["values"])


def _parse(encoded: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        given = json.loads(check_depth(encoded), object_pairs_hook=_unique)
        if set(given) != _MEMBERS or given["version"] != VERSION:
            raise DecodeError(
                f"the reference values have not the members of version {VERSION}", code="reference-malformed"
            )
        text = given.pop("signature")
        signature = bytes.fromhex(text[2:]) if text[:2] == "0x" else b""
        well_typed = type(given["issued_at"]) is int and isinstance(given["values"], dict)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DecodeError("the reference values do not parse", code="reference-malformed") from error
    if not well_typed or len(signature) != 65:
        raise DecodeError("a member of the reference values has another type", code="reference-malformed")
    return given, signature


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice")
    return members


def _digest(members: Mapping[str, Any]) -> bytes:
    text = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    try:
        return keccak.new(digest_bits=256, data=_DOMAIN + text.encode()).digest()
    except UnicodeEncodeError as error:
        raise DecodeError("the reference values hold text that is none", code="reference-malformed") from error
