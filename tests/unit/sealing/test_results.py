"""sealing.results: the native sealed result."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.errors import InputError, VerificationError
from cloister.sealing import envelope, results
from cloister.sealing.envelope import HpkePrivateKey

BENEFICIARY = HpkePrivateKey(bytes(range(32)))
TASK = b"\x11" * 32


def seal(data: bytes, *, context: bytes = TASK, public: envelope.HpkePublicKey = BENEFICIARY.public) -> bytes:
    return b"".join(
        results.seal_result(
            public,
            [data],
            content_key=os.urandom(32),
            salt=os.urandom(32),
            nonce_prefix=os.urandom(7),
            context=context,
        )
    )


def open_all(sealed: bytes, context: bytes | None = TASK, piece: int = 10_000) -> bytes:
    chunks = (sealed[start : start + piece] for start in range(0, len(sealed), piece))
    return b"".join(results.open_result(BENEFICIARY, chunks, context=context))


@given(st.binary(max_size=3000), st.binary(min_size=1, max_size=100), st.integers(1, 4000))
@settings(max_examples=30, deadline=None)
def test_opens_what_was_sealed(data: bytes, context: bytes, piece: int) -> None:
    sealed = seal(data, context=context)
    assert len(sealed) == results.sealed_result_size(len(data), context)
    assert open_all(sealed, context, piece) == data
    assert open_all(sealed, None, piece) == data


def test_a_result_larger_than_a_segment_opens() -> None:
    data = os.urandom(3_000_000)
    assert open_all(seal(data)) == data


def test_a_flipped_byte_anywhere_is_refused() -> None:
    sealed = seal(b"result")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(VerificationError):
            open_all(bytes(changed), None)


def test_a_cut_anywhere_is_refused() -> None:
    sealed = seal(b"result")
    for size in range(len(sealed)):
        with pytest.raises(VerificationError):
            open_all(sealed[:size])


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(VerificationError):
        open_all(seal(b"result") + b"\0")


def test_the_result_of_another_task_is_refused() -> None:
    with pytest.raises(VerificationError) as refusal:
        open_all(seal(b"result", context=b"\x22" * 32))
    assert refusal.value.code == "result-swapped"


def test_the_result_of_another_beneficiary_is_refused() -> None:
    with pytest.raises(VerificationError):
        open_all(seal(b"result", public=HpkePrivateKey.generate(os.urandom).public))


def test_an_envelope_of_another_result_is_refused() -> None:
    mine, other = seal(b"mine"), seal(b"other")
    head = len(mine) - 40 - 4 - 16
    with pytest.raises(VerificationError):
        open_all(mine[:head] + other[head:])


def test_a_long_envelope_length_is_refused_without_reading_on() -> None:
    read = []

    def endless() -> object:
        yield results.MAGIC + b"\xff\xff\xff\xff"
        while True:
            read.append(1)
            yield bytes(1000)

    with pytest.raises(VerificationError):
        results.open_result(BENEFICIARY, endless(), context=None)  # type: ignore[arg-type]
    assert read == []


def test_what_is_no_result_says_so() -> None:
    with pytest.raises(VerificationError, match="not a sealed result"):
        open_all(b"PK\x03\x04" + bytes(100))


@pytest.mark.parametrize("context", [b"", bytes(results.MAX_CONTEXT + 1)])
def test_a_context_has_bounds(context: bytes) -> None:
    with pytest.raises(InputError):
        seal(b"", context=context)


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(InputError):
        results.seal_result(
            BENEFICIARY.public, [], content_key=b"", salt=bytes(32), nonce_prefix=bytes(7), context=TASK
        )
