"""sealing.stream: Tink's AES256_GCM_HKDF_1MB."""

from __future__ import annotations

import base64
import hashlib
import io
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import tink
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.vectors.loading import load_cases
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from cloister.errors import InputError, VerificationError
from cloister.sealing.segments import cut_segments
from cloister.sealing.stream import (
    FIRST_PLAIN,
    HEADER_SIZE,
    MAX_PLAIN_SIZE,
    REST_PLAIN,
    SEGMENT_SIZE,
    TAG_SIZE,
    SealedReader,
    open_stream,
    plain_size,
    seal_stream,
    sealed_size,
)

KEY, SALT, PREFIX = bytes(range(32)), bytes(range(100, 132)), b"prefix7"
EDGES = (0, 1, FIRST_PLAIN - 1, FIRST_PLAIN, FIRST_PLAIN + 1, FIRST_PLAIN + REST_PLAIN, FIRST_PLAIN + REST_PLAIN + 1)


def plaintext(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def seal(data: bytes, piece: int = 77_777, associated_data: bytes = b"") -> bytes:
    chunks = pieces(data, piece)
    return b"".join(seal_stream(KEY, chunks, salt=SALT, nonce_prefix=PREFIX, associated_data=associated_data))


def open_all(sealed: bytes, piece: int = 77_777, key: bytes = KEY, associated_data: bytes = b"") -> bytes:
    return b"".join(open_stream(key, pieces(sealed, piece), associated_data=associated_data))


def reader(sealed: bytes, **options: Any) -> SealedReader:
    return SealedReader(KEY, lambda offset, length: sealed[offset : offset + length], len(sealed), **options)


@pytest.mark.parametrize("case", load_cases("sealing/tink_stream.json"), ids=lambda case: str(case["size"]))
def test_seals_the_same_bytes_as_tink(case: dict[str, Any]) -> None:
    header = bytes.fromhex(case["header"])
    sealed = b"".join(
        seal_stream(
            bytes.fromhex(case["key"]),
            pieces(plaintext(case["size"]), 300_000),
            salt=header[1:33],
            nonce_prefix=header[33:],
            associated_data=bytes.fromhex(case["associated_data"]),
        )
    )
    assert len(sealed) == case["sealed_size"] == sealed_size(case["size"])
    assert hashlib.sha256(sealed).hexdigest() == case["sealed_sha256"]
    opened = open_all(sealed, 123_457, bytes.fromhex(case["key"]), bytes.fromhex(case["associated_data"]))
    assert opened == plaintext(case["size"])


@pytest.mark.parametrize("case", [c for c in load_cases("sealing/tink_stream.json") if "sealed" in c])
def test_opens_what_tink_sealed(case: dict[str, Any]) -> None:
    sealed = base64.b64decode(case["sealed"])
    key, associated_data = bytes.fromhex(case["key"]), bytes.fromhex(case["associated_data"])
    assert open_all(sealed, 7, key, associated_data) == plaintext(case["size"])


@pytest.fixture(scope="module")
def tink_primitive() -> Any:
    streaming_aead.register()
    params = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=SEGMENT_SIZE, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    message = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(version=0, params=params, key_value=KEY)
    data = tink_pb2.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
        value=message.SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    entry = tink_pb2.Keyset.Key(key_data=data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW)
    keyset = tink_pb2.Keyset(primary_key_id=1, key=[entry])
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


@pytest.mark.parametrize("size", [*EDGES, 5_000_000])
def test_tink_opens_what_is_sealed_here(tink_primitive: Any, size: int) -> None:
    sealed = seal(plaintext(size), associated_data=b"context")
    with tink_primitive.new_decrypting_stream(io.BytesIO(sealed), b"context") as stream:
        assert stream.read() == plaintext(size)


@given(
    size=st.integers(0, 3 * SEGMENT_SIZE), piece=st.integers(1000, 3 * SEGMENT_SIZE), other=st.integers(1000, 3_000_000)
)
@settings(max_examples=25, deadline=None)
def test_opens_what_was_sealed_whatever_the_chunks(size: int, piece: int, other: int) -> None:
    data = plaintext(size)
    sealed = seal(data, piece)
    assert len(sealed) == sealed_size(size)
    assert plain_size(len(sealed)) == size
    assert open_all(sealed, other) == data


@given(st.binary(max_size=300), st.lists(st.integers(0, 40), max_size=20), st.integers(1, 20), st.integers(1, 20))
def test_segments_hold_everything_in_order(data: bytes, sizes: list[int], first: int, rest: int) -> None:
    chunks, place = [], 0
    for size in sizes:
        chunks.append(data[place : place + size])
        place += size
    chunks.append(data[place:])
    found = [(bytes(segment), last) for segment, last in cut_segments(chunks, first, rest)]
    assert b"".join(segment for segment, _ in found) == data
    assert [last for _, last in found] == [False] * (len(found) - 1) + [True]
    limits = [first] + [rest] * (len(found) - 1)
    assert all(len(s) == limit for (s, _), limit in zip(found[:-1], limits[:-1], strict=True))
    assert len(found) == 1 or 1 <= len(found[-1][0]) <= rest


def test_every_flipped_bit_of_a_small_content_is_refused() -> None:
    sealed = seal(b"attack at dawn")
    for place in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[place] ^= 1 << bit
            with pytest.raises(VerificationError):
                open_all(bytes(changed))
            with pytest.raises(VerificationError):
                reader(bytes(changed))


@pytest.fixture(scope="module")
def three_segments() -> bytes:
    return seal(plaintext(FIRST_PLAIN + REST_PLAIN + 1000))


@pytest.mark.parametrize(
    "place", [0, 1, 33, 40, SEGMENT_SIZE - 1, SEGMENT_SIZE, 2 * SEGMENT_SIZE - 1, 2 * SEGMENT_SIZE, -1]
)
def test_a_flipped_byte_in_any_segment_is_refused(three_segments: bytes, place: int) -> None:
    changed = bytearray(three_segments)
    changed[place] ^= 1
    with pytest.raises(VerificationError):
        open_all(bytes(changed))


def damaged(sealed: bytes) -> dict[str, bytes]:
    first, second, third = sealed[:SEGMENT_SIZE], sealed[SEGMENT_SIZE : 2 * SEGMENT_SIZE], sealed[2 * SEGMENT_SIZE :]
    return {
        "empty": b"",
        "only a header": sealed[:HEADER_SIZE],
        "cut in the header": sealed[:20],
        "cut by one byte": sealed[:-1],
        "cut at a segment": first + second,
        "cut to the first segment": first,
        "cut by less than a tag": sealed[: -(TAG_SIZE - 1)],
        "one byte added": sealed + b"\0",
        "a segment added": sealed + third,
        "an empty segment added": sealed + bytes(TAG_SIZE),
        "segments swapped": first[:HEADER_SIZE] + second[HEADER_SIZE:] + first + third,
        "a segment missing": first + third,
        "a segment twice": first + second + second + third,
        "another header length": b"\x29" + sealed[1:],
    }


@pytest.mark.parametrize("name", damaged(b"").keys())
def test_a_damaged_content_is_refused(three_segments: bytes, name: str) -> None:
    content = damaged(three_segments)[name]
    with pytest.raises(VerificationError) as refusal:
        open_all(content)
    assert "does not open" in refusal.value.message
    with pytest.raises(VerificationError):
        reader(content).readall()


def test_a_content_of_another_one_cannot_be_spliced_in() -> None:
    mine = seal(plaintext(FIRST_PLAIN + 10))
    salted = b"".join(seal_stream(KEY, [plaintext(FIRST_PLAIN + 10)], salt=SALT[::-1], nonce_prefix=PREFIX))
    with pytest.raises(VerificationError):
        open_all(mine[:SEGMENT_SIZE] + salted[SEGMENT_SIZE:])


def test_the_wrong_key_and_the_wrong_context_are_refused_in_the_same_words() -> None:
    sealed = seal(b"content", associated_data=b"context")
    texts = set()
    for key, associated_data in ((bytes(32), b"context"), (KEY, b"other"), (KEY, b"")):
        with pytest.raises(VerificationError) as refusal:
            open_all(sealed, 10, key, associated_data)
        texts.add(str(refusal.value))
        assert key.hex() not in str(refusal.value)
    assert len(texts) == 1


@pytest.mark.parametrize(("key", "salt", "prefix"), [(b"", SALT, PREFIX), (KEY, b"", PREFIX), (KEY, SALT, b"12345678")])
def test_wrong_sizes_are_refused_before_anything_is_read(key: bytes, salt: bytes, prefix: bytes) -> None:
    with pytest.raises(InputError):
        seal_stream(key, iter(()), salt=salt, nonce_prefix=prefix)


def test_a_short_key_does_not_open() -> None:
    with pytest.raises(InputError):
        open_stream(b"short", [])
    with pytest.raises(InputError):
        SealedReader(b"short", lambda _offset, _length: seal(b"x")[:HEADER_SIZE], sealed_size(1))


@pytest.mark.parametrize("size", EDGES)
def test_sizes_are_known_beforehand(size: int) -> None:
    assert plain_size(sealed_size(size)) == size


@pytest.mark.parametrize(
    "sealed", [0, 39, 55, SEGMENT_SIZE + 1, SEGMENT_SIZE + TAG_SIZE, sealed_size(MAX_PLAIN_SIZE) + 1]
)
def test_no_content_has_these_sizes(sealed: int) -> None:
    with pytest.raises(VerificationError):
        plain_size(sealed)


@pytest.mark.parametrize("size", [-1, MAX_PLAIN_SIZE + 1])
def test_what_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(InputError):
        sealed_size(size)


@given(st.integers(0, 2_200_000), st.integers(0, 2_200_000))
@settings(max_examples=40, deadline=None)
def test_the_reader_gives_any_part(start: int, length: int) -> None:
    data = plaintext(FIRST_PLAIN + REST_PLAIN + 1000)
    opened = reader(_SEALED_THREE)
    assert opened.size == len(data)
    assert opened.seek(start) == opened.tell() == start
    assert opened.read(length) == data[start : start + min(length, _within_segment(start))]
    opened.seek(start)
    assert io.BufferedReader(opened, 100_000).read(length) == data[start : start + length]


def _within_segment(start: int) -> int:
    return FIRST_PLAIN - start if start < FIRST_PLAIN else REST_PLAIN - (start - FIRST_PLAIN) % REST_PLAIN


_SEALED_THREE = seal(plaintext(FIRST_PLAIN + REST_PLAIN + 1000))


def test_the_reader_reads_only_the_segments_it_needs() -> None:
    asked: list[tuple[int, int]] = []

    def read_at(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return _SEALED_THREE[offset : offset + length]

    opened = SealedReader(KEY, read_at, len(_SEALED_THREE))
    opened.seek(FIRST_PLAIN + 5)
    assert opened.read(10) == plaintext(FIRST_PLAIN + 15)[-10:]
    assert asked == [
        (0, HEADER_SIZE),
        (2 * SEGMENT_SIZE, len(_SEALED_THREE) - 2 * SEGMENT_SIZE),
        (SEGMENT_SIZE, SEGMENT_SIZE),
    ]


def test_the_reader_refuses_a_storage_that_gives_less() -> None:
    with pytest.raises(VerificationError):
        SealedReader(KEY, lambda offset, length: _SEALED_THREE[offset : offset + length - 1], len(_SEALED_THREE))


def test_the_reader_seeks_as_files_do() -> None:
    opened = reader(seal(b"0123456789"))
    assert opened.readable()
    assert opened.seekable()
    assert opened.seek(-3, io.SEEK_END) == 7
    assert opened.read() == b"789"
    assert opened.seek(-8, io.SEEK_CUR) == 2
    assert opened.read(1) == b"2"
    assert opened.seek(100) == 100
    assert opened.read() == b""
    with pytest.raises(InputError):
        opened.seek(-1)


def test_256_mib_pass_in_constant_memory() -> None:
    piece, count = bytes(1 << 20), 256
    tracemalloc.start()
    try:
        sealed = seal_stream(KEY, (piece for _ in range(count)), salt=SALT, nonce_prefix=PREFIX)
        total = sum(len(chunk) for chunk in open_stream(KEY, sealed))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == count << 20
    assert peak < 16 << 20
