"""Quotes and signatures as TPMs marshal them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.tpm_authority import Attest, elliptic_key, sign_attest, sized

from cloister.attestation.tpm.quoting import verify_quote
from cloister.attestation.tpm.structures import EcdsaSignature, RsaSignature, parse_quote, parse_signature
from cloister.errors import DecodeError, VerificationError

KEY = elliptic_key("attestation key")


@settings(max_examples=60, deadline=None)
@given(
    extra_data=st.binary(max_size=66),
    pcrs=st.dictionaries(st.integers(0, 23), st.binary(min_size=32, max_size=32), min_size=1),
    clock=st.integers(0, 2**64 - 1),
    resets=st.integers(0, 2**32 - 1),
    restarts=st.integers(0, 2**32 - 1),
    safe=st.integers(0, 1),
    firmware=st.integers(0, 2**64 - 1),
)
def test_what_is_quoted_is_read(extra_data, pcrs, clock, resets, restarts, safe, firmware):
    attest = Attest(
        extra_data, pcrs, clock=clock, resets=resets, restarts=restarts, safe=safe, firmware=firmware
    ).encode()
    quote = verify_quote(KEY.public_key(), attest, sign_attest(KEY, attest), pcrs)
    assert (quote.extra_data, quote.pcrs, quote.clock) == (extra_data, tuple(sorted(pcrs)), clock)
    assert (quote.reset_count, quote.restart_count, quote.clock_safe) == (resets, restarts, bool(safe))
    assert quote.firmware_version == firmware


@pytest.mark.parametrize("length", range(0, 145, 7))
def test_a_quote_cut_anywhere_is_refused(length):
    attest = Attest(bytes(32), {0: bytes(32)}).encode()
    assert len(attest) == 145
    with pytest.raises(DecodeError):
        parse_quote(attest[:length])


def ecdsa(r: bytes, s: bytes) -> bytes:
    return struct.pack(">HH", 0x18, 11) + sized(r) + sized(s)


def test_numbers_may_lack_leading_zeros_and_nothing_else():
    assert parse_signature(ecdsa(b"\1" * 31, bytes(31) + b"\5")) == EcdsaSignature(int.from_bytes(b"\1" * 31), 5)
    for bad in (b"", b"\0\1", b"\1" * 33):
        with pytest.raises(DecodeError):
            parse_signature(ecdsa(bad, b"\1"))


def test_both_rsa_schemes_are_told_apart():
    assert parse_signature(struct.pack(">HH", 0x14, 11) + sized(b"x")) == RsaSignature(b"x", pss=False)
    assert parse_signature(struct.pack(">HH", 0x16, 11) + sized(b"x")) == RsaSignature(b"x", pss=True)


def test_a_signature_whose_number_is_short_verifies():
    """Found by search: one in 256 signatures has an r below 2**248, and TPMs differ in how they write it."""
    for counter in range(3000):
        attest = Attest(counter.to_bytes(4, "big"), {0: bytes(32)}).encode()
        signature = sign_attest(KEY, attest)
        if signature[6] == 0:
            break
    else:
        pytest.fail("no short number in 3,000 signatures")
    short = ecdsa(signature[7:38], signature[40:])
    for encoded in (signature, short):
        assert verify_quote(KEY.public_key(), attest, encoded, {0: bytes(32)}).pcrs == (0,)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_name(data):
    for parse in (parse_quote, parse_signature):
        try:
            parse(data)
        except DecodeError as refusal:
            assert refusal.code.startswith(("quote-", "signature-"))  # noqa: PT017
    with pytest.raises((DecodeError, VerificationError)):
        verify_quote(KEY.public_key(), data, data, {0: bytes(32)})
