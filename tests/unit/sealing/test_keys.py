"""sealing.keys: the data key as the SMS stores it."""

from __future__ import annotations

import base64
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import InputError
from cloister.sealing.keys import (
    ContentFormat,
    ContentKey,
    build_content_key,
    generate_content_key,
    open_content,
    parse_content_key,
    seal_content,
    sealed_content_size,
)

FORMATS = list(ContentFormat)


@given(st.sampled_from(FORMATS), st.binary(min_size=32, max_size=32))
def test_parses_what_it_builds(content_format: ContentFormat, raw: bytes) -> None:
    key = ContentKey(content_format, raw)
    assert parse_content_key(build_content_key(key)) == key


def test_the_texts_are_the_ones_that_clients_exchange() -> None:
    raw = bytes(range(32))
    encoded = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert build_content_key(ContentKey(ContentFormat.AES256_CBC, raw)) == encoded
    native = build_content_key(ContentKey(ContentFormat.AES256_GCM_HKDF_1MB, raw))
    assert native == f"AES256_GCM_HKDF_1MB:{encoded}"
    assert parse_content_key(f" {encoded}\n").format is ContentFormat.AES256_CBC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AAECAw==",
        "AES256_GCM_HKDF_1MB:",
        "AES256_GCM_HKDF_1MB:AAECAw==",
        "AES128:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "aes256_gcm_hkdf_1mb:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=!",
        "A" * 100_000,
        "é" * 44,
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_content_key(text)
    assert text == "" or text[:20] not in f"{refusal.value} {refusal.value.hint}" or text.startswith("AES256_GCM")
    assert "AAECAwQF" not in f"{refusal.value} {refusal.value.hint}"


def test_a_key_hides_itself() -> None:
    raw = os.urandom(32)
    key = ContentKey(ContentFormat.AES256_CBC, raw)
    shown = f"{key!r} {key} {[key]}"
    assert raw.hex() not in shown
    assert base64.b64encode(raw).decode() not in shown
    assert repr(raw) not in shown
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        hash(key)


def test_equality_looks_at_format_and_bytes() -> None:
    raw = bytes(32)
    assert ContentKey(ContentFormat.AES256_CBC, raw) == ContentKey(ContentFormat.AES256_CBC, raw)
    assert ContentKey(ContentFormat.AES256_CBC, raw) != ContentKey(ContentFormat.AES256_GCM_HKDF_1MB, raw)
    assert ContentKey(ContentFormat.AES256_CBC, raw) != ContentKey(ContentFormat.AES256_CBC, b"\1" * 32)
    assert ContentKey(ContentFormat.AES256_CBC, raw) != "text"


def test_a_wiped_key_is_gone() -> None:
    key = generate_content_key(os.urandom)
    key.wipe()
    with pytest.raises(InputError, match="wiped"):
        build_content_key(key)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(InputError):
        ContentKey(ContentFormat.AES256_CBC, bytes(size))


@pytest.mark.parametrize("content_format", FORMATS)
@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 20, (1 << 20) + 5])
def test_content_goes_round_in_the_format_of_its_key(content_format: ContentFormat, size: int) -> None:
    key, data = generate_content_key(os.urandom, content_format), os.urandom(size)
    sealed = b"".join(seal_content(key, [data], entropy=os.urandom))
    assert len(sealed) == sealed_content_size(content_format, size)
    assert b"".join(open_content(key, [sealed])) == data
    assert b"".join(seal_content(key, [data], entropy=os.urandom)) != sealed
