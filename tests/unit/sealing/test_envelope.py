"""sealing.envelope: HPKE with MLKEM768-X25519."""

from __future__ import annotations

import base64
import os
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.vectors.loading import load_cases

from cloister.errors import DecodeError, InputError, TooLarge, VerificationError
from cloister.sealing import envelope
from cloister.sealing.envelope import HpkePrivateKey, HpkePublicKey

BENEFICIARY = HpkePrivateKey(bytes(range(32)))
INFO = b"cloister/test/v1"


@pytest.mark.parametrize("case", load_cases("sealing/hpke_xwing.json"))
def test_opens_what_another_implementation_sealed(case: dict[str, Any]) -> None:
    private = HpkePrivateKey(bytes.fromhex(case["seed"]))
    assert private.public.raw == base64.b64decode(case["public"])
    opened = envelope.open(private, base64.b64decode(case["sealed"]), bytes.fromhex(case["info"]))
    assert opened.hex() == case["plaintext"]


@given(st.binary(max_size=2000), st.binary(min_size=1, max_size=200))
@settings(max_examples=30, deadline=None)
def test_opens_what_was_sealed(plaintext: bytes, info: bytes) -> None:
    sealed = envelope.seal(BENEFICIARY.public, plaintext, info)
    assert len(sealed) == len(plaintext) + envelope.OVERHEAD
    assert envelope.open(BENEFICIARY, sealed, info) == plaintext


def test_two_envelopes_of_the_same_content_differ() -> None:
    assert envelope.seal(BENEFICIARY.public, b"x", INFO) != envelope.seal(BENEFICIARY.public, b"x", INFO)


def test_a_flipped_byte_anywhere_is_refused() -> None:
    sealed = envelope.seal(BENEFICIARY.public, b"secret", INFO)
    texts = set()
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 0x40
        with pytest.raises(VerificationError) as refusal:
            envelope.open(BENEFICIARY, bytes(changed), INFO)
        texts.add(str(refusal.value))
    assert len(texts) == 1


@pytest.mark.parametrize(
    "change", [lambda s: s[:-1], lambda s: s + b"\0", lambda s: b"", lambda s: s[:1120], lambda s: s[1:]]
)
def test_a_cut_or_extended_envelope_is_refused(change: Any) -> None:
    with pytest.raises(VerificationError):
        envelope.open(BENEFICIARY, change(envelope.seal(BENEFICIARY.public, b"secret", INFO)), INFO)


def test_another_key_and_another_use_are_refused_in_the_same_words() -> None:
    sealed = envelope.seal(BENEFICIARY.public, b"secret", INFO)
    with pytest.raises(VerificationError) as other_key:
        envelope.open(HpkePrivateKey.generate(os.urandom), sealed, INFO)
    with pytest.raises(VerificationError) as other_use:
        envelope.open(BENEFICIARY, sealed, INFO + b"2")
    assert str(other_key.value) == str(other_use.value)


def test_a_use_must_be_named() -> None:
    with pytest.raises(InputError):
        envelope.seal(BENEFICIARY.public, b"", b"")
    with pytest.raises(InputError):
        envelope.open(BENEFICIARY, b"", b"")


def test_sizes_are_capped() -> None:
    with pytest.raises(InputError):
        envelope.seal(BENEFICIARY.public, bytes(envelope.MAX_PLAINTEXT + 1), INFO)
    with pytest.raises(TooLarge):
        envelope.open(BENEFICIARY, bytes(envelope.MAX_PLAINTEXT + envelope.OVERHEAD + 1), INFO)


@pytest.mark.parametrize("raw", [b"", bytes(1215), bytes(1217), b"\xff" * 1216])
def test_what_is_no_public_key_is_refused(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        HpkePublicKey(raw)


@pytest.mark.parametrize("size", [0, 31, 33, 96])
def test_a_private_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(InputError):
        HpkePrivateKey(bytes(size))


def test_keys_go_round_and_name_themselves() -> None:
    private = HpkePrivateKey.generate(os.urandom)
    again = HpkePrivateKey(private.raw)
    assert again == private
    assert again.public == HpkePublicKey(private.public.raw)
    assert hash(again.public) == hash(private.public)
    assert len(private.public.key_id) == 64
    assert private.public.key_id != BENEFICIARY.public.key_id
    assert private != BENEFICIARY


def test_a_private_key_hides_itself_and_can_be_wiped() -> None:
    private = HpkePrivateKey.generate(os.urandom)
    raw = private.raw
    assert raw.hex() not in repr(private)
    assert repr(raw)[2:-1] not in repr(private)
    with pytest.raises(TypeError):
        pickle.dumps(private)
    with pytest.raises(TypeError):
        hash(private)
    sealed = envelope.seal(private.public, b"x", INFO)
    private.wipe()
    with pytest.raises(InputError, match="wiped"):
        envelope.open(private, sealed, INFO)
    with pytest.raises(InputError, match="wiped"):
        _ = private.raw
