"""sealing.cbc: the content encryption of iExec's clients."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.vectors.loading import load_cases

from cloister.errors import InputError, TooLarge, VerificationError
from cloister.sealing.checksum import ChecksumStream, verify_checksum
from cloister.sealing.iexec import open_cbc, seal_cbc, sealed_cbc_size

KEY, IV = bytes(range(32)), bytes(range(16))


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def test_seals_the_vector_of_the_reference() -> None:
    sealed = ChecksumStream(seal_cbc(KEY, [b"he", b"llo"], iv=IV))
    assert (
        b"".join(bytes(c) for c in sealed).hex() == "000102030405060708090a0b0c0d0e0f7fd12dafb7e9599d0b849ad8c2e3c21f"
    )
    assert sealed.hex == "0xd444ba4f22123cee100f8753bb4d8cc26fb6d00bb63e430c48a51682bca49816"
    assert sealed.size == 32


@pytest.mark.parametrize("case", load_cases("sealing/iexec_cbc.json"))
def test_opens_and_seals_as_the_reference_client(case: dict[str, Any]) -> None:
    key, plain = base64.b64decode(case["key"]), base64.b64decode(case["plaintext"])
    sealed = base64.b64decode(case["encrypted"])
    checked = verify_checksum(pieces(sealed, 5), bytes.fromhex(case["checksum"][2:]), max_size=len(sealed))
    assert b"".join(open_cbc(key, checked)) == plain
    assert b"".join(seal_cbc(key, pieces(plain, 9), iv=sealed[:16])) == sealed


@given(data=st.binary(max_size=200), piece=st.integers(1, 50), other=st.integers(1, 50))
def test_opens_what_was_sealed_whatever_the_chunks(data: bytes, piece: int, other: int) -> None:
    sealed = b"".join(seal_cbc(KEY, pieces(data, piece), iv=IV))
    assert len(sealed) == sealed_cbc_size(len(data))
    assert b"".join(open_cbc(KEY, pieces(sealed, other))) == data


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 33, 47])
def test_a_cut_content_is_refused(size: int) -> None:
    sealed = b"".join(seal_cbc(KEY, [b"0123456789abcdef" * 3], iv=IV))
    with pytest.raises(VerificationError):
        list(open_cbc(KEY, [sealed[:size]]))


def test_wrong_key_bad_padding_and_cut_have_one_text() -> None:
    sealed = b"".join(seal_cbc(KEY, [b"content"], iv=IV))
    texts = set()
    for key, content in ((bytes(32), sealed), (KEY, sealed[:-1]), (KEY, sealed[:-16] + bytes(16)), (KEY, b"")):
        with pytest.raises(VerificationError) as refusal:
            list(open_cbc(key, [content]))
        texts.add(str(refusal.value))
    assert len(texts) == 1


def test_wrong_sizes_are_refused_and_the_key_is_not_told() -> None:
    secret = os.urandom(31)
    for attempt in (lambda: seal_cbc(secret, [], iv=IV), lambda: open_cbc(secret, [])):
        with pytest.raises(InputError, match="must be base64 encoded 256 bits key") as refusal:
            attempt()
        assert base64.b64encode(secret).decode() not in str(refusal.value)
    with pytest.raises(InputError):
        seal_cbc(KEY, [], iv=b"short")


def test_the_checksum_refuses_other_bytes_and_endless_ones() -> None:
    with pytest.raises(VerificationError, match="checksum"):
        list(verify_checksum([b"other"], bytes(32), max_size=100))

    def endless() -> Any:
        while True:
            yield b"x" * 1000

    with pytest.raises(TooLarge):
        list(verify_checksum(endless(), bytes(32), max_size=10_000))
    with pytest.raises(InputError):
        list(verify_checksum([], b"short", max_size=1))
