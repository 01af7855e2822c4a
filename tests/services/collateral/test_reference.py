"""Reference values signed by the SMS: whoever knows chain, hub and SMS believes nobody else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.sms_world import CHAIN_ID, HUB, private_key

from cloister.attestation.reference import build_reference, verify_reference
from cloister.errors import CloisterError, DecodeError, TooLarge, VerificationError
from cloister.protocol.signatures import PrivateKey

SMS = private_key("teebroker")
VALUES = {"kinds": [{"kind": "tpm", "roots": ["AA=="], "measurements": ["ab" * 32]}], "note": "é ☃"}
KNOWN: dict[str, Any] = {"chain_id": CHAIN_ID, "hub": HUB.raw, "sms": SMS.address.raw}


def signed(key: PrivateKey = SMS, **changes: Any) -> dict[str, Any]:
    return build_reference(VALUES, **{**KNOWN, **changes}, issued_at=1_790_000_000, sign=key.sign_message)


def test_what_the_sms_signed_is_believed() -> None:
    found = verify_reference(json.dumps(signed()).encode(), **KNOWN)
    assert found.values == VALUES
    assert found.issued_at == 1_790_000_000
    # The order of members and the spaces between them are no part of what is signed.
    turned = dict(reversed(signed().items()))
    assert verify_reference(json.dumps(turned, indent=3, ensure_ascii=False).encode(), **KNOWN) == found


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (signed(private_key("stranger")), "reference-signature"),
        (signed(chain_id=1), "reference-of-another-network"),
        (signed(hub=bytes(20)), "reference-of-another-network"),
        (signed(private_key("stranger"), sms=private_key("stranger").address.raw), "reference-of-another-network"),
        ({**signed(), "issued_at": 7}, "reference-signature"),
        ({**signed(), "values": {}}, "reference-signature"),
        ({**signed(), "version": 2}, "reference-malformed"),
        ({**signed(), "more": 1}, "reference-malformed"),
        ({**signed(), "values": []}, "reference-malformed"),
        ({**signed(), "issued_at": True}, "reference-malformed"),
        ({**signed(), "signature": "0x00"}, "reference-malformed"),
        ({**signed(), "signature": 7}, "reference-malformed"),
        ({**signed(), "signature": "0x" + "00" * 65}, "reference-signature"),
        ({**signed(), "signature": "0x" + "ff" * 64 + "1b"}, "reference-signature"),
        ([], "reference-malformed"),
        (7, "reference-malformed"),
    ],
)
def test_anything_else_is_refused(given: object, code: str) -> None:
    with pytest.raises((VerificationError, DecodeError)) as refused:
        verify_reference(json.dumps(given).encode(), **KNOWN)
    assert refused.value.code == code


def test_the_other_form_of_a_signature_is_refused() -> None:
    good = signed()
    raw = bytes.fromhex(good["signature"][2:])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = (order - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big")
    other = raw[:32] + high + bytes([55 - raw[64]])
    with pytest.raises(VerificationError):
        verify_reference(json.dumps({**good, "signature": "0x" + other.hex()}).encode(), **KNOWN)


def test_every_changed_byte_is_refused() -> None:
    encoded = json.dumps(signed()).encode()
    for place in range(len(encoded)):
        changed = bytearray(encoded)
        changed[place] ^= 1
        if bytes(changed).lower() == encoded.lower():
            continue
        with pytest.raises(CloisterError):
            verify_reference(bytes(changed), **KNOWN)


def test_size_and_depth_are_bounded() -> None:
    with pytest.raises(TooLarge):
        verify_reference(b" " * 300_000, **KNOWN)
    with pytest.raises(DecodeError):
        verify_reference(b'{"values":' + b"[" * 100_000, **KNOWN)
    with pytest.raises(DecodeError):
        verify_reference(b'{"version":1,"version":1}', **KNOWN)
