"""sealing.rsa_results: the result archive that iExec's clients open."""

from __future__ import annotations

import base64
import io
import zipfile
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from tests.vectors.loading import load_vectors

from cloister.errors import DecodeError, InputError, TooLarge, VerificationError
from cloister.sealing import rsa_results
from cloister.sealing.iexec import (
    open_result_rsa,
    parse_result_private_key,
    parse_result_public_key,
    seal_result_rsa,
)

VECTORS = load_vectors("sealing/rsa_results.json")
KEY = parse_result_private_key(VECTORS["private_key"])
INNER = base64.b64decode(VECTORS["cases"][0]["inner"])


def seal(inner: bytes = INNER) -> bytes:
    return b"".join(seal_result_rsa(KEY.public_key(), [inner[:5], inner[5:]], aes_key=bytes(range(32)), iv=bytes(16)))


def open_all(archive: bytes, key: rsa.RSAPrivateKey = KEY) -> bytes:
    return b"".join(open_result_rsa(key, io.BytesIO(archive)))


def repack(**changes: bytes) -> bytes:
    """Today's archive with other content under some names."""
    outer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seal())) as old, zipfile.ZipFile(outer, "w") as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name.split(".")[-1], old.read(name)))
    return outer.getvalue()


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_opens_what_openssl_sealed(case: dict[str, Any]) -> None:
    assert open_all(base64.b64decode(case["archive"])) == base64.b64decode(case["inner"])


def test_opens_what_was_sealed_and_holds_exactly_the_two_entries() -> None:
    archive = seal()
    assert open_all(archive) == INNER
    with zipfile.ZipFile(io.BytesIO(archive)) as outer:
        assert outer.namelist() == ["aes-key.rsa", "iexec_out.zip.aes"]
        assert len(outer.read("aes-key.rsa")) == 256
        assert outer.testzip() is None


def test_a_large_result_passes() -> None:
    inner = b"PK\x03\x04" + bytes(3_000_000)
    assert open_all(seal(inner)) == inner


def test_whatever_fails_inside_has_one_text() -> None:
    sealed = zipfile.ZipFile(io.BytesIO(seal())).read("iexec_out.zip.aes")
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    larger = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    attempts = [
        (seal(), other),
        (seal(), larger),
        (repack(rsa=bytes(256)), KEY),
        (repack(rsa=b"\xff" * 256), KEY),
        (repack(rsa=b""), KEY),
        (repack(rsa=bytes(255)), KEY),
        (repack(rsa=base64.b64encode(bytes(256))), KEY),
        (repack(aes=sealed[:-1]), KEY),
        (repack(aes=sealed[:-16]), KEY),
        (repack(aes=b""), KEY),
        (repack(aes=sealed[:-1] + bytes([sealed[-1] ^ 1])), KEY),
        (seal(b"not a zip"), KEY),
        (seal(b""), KEY),
    ]
    texts = set()
    for archive, key in attempts:
        with pytest.raises(VerificationError) as refusal:
            open_all(archive, key)
        assert refusal.value.__cause__ is None
        texts.add((str(refusal.value), refusal.value.hint, refusal.value.code))
    assert len(texts) == 1


def archive_of(*entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return outer.getvalue()


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"not a zip",
        archive_of(("aes-key.rsa", b"")),
        archive_of(("aes-key.rsa", b""), ("iexec_out.zip.aes", b""), ("more", b"")),
        archive_of(("iexec_out.zip.aes", b""), ("other", b"")),
        seal()[:-30],
    ],
    ids=["empty", "no-zip", "key-alone", "one-more", "no-key", "cut"],
)
def test_what_is_no_result_archive_is_refused(archive: bytes) -> None:
    with pytest.raises(DecodeError):
        open_all(archive)


def test_a_bomb_is_refused_before_it_is_opened() -> None:
    bomb = archive_of(
        ("aes-key.rsa", bytes(256)), ("iexec_out.zip.aes", bytes(10_000_000)), method=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(TooLarge):
        open_all(bomb)
    lzma = archive_of(("aes-key.rsa", bytes(256)), ("iexec_out.zip.aes", bytes(32)), method=zipfile.ZIP_LZMA)
    with pytest.raises(DecodeError):
        open_all(lzma)


def test_a_result_that_clients_cannot_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsa_results, "MAX_SEALED_RESULT", 1000)
    with pytest.raises(TooLarge, match="larger than 1000"):
        seal(bytes(2000))


def pem(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def test_public_keys_are_read_as_pem_and_as_clients_push_them() -> None:
    expected = KEY.public_key().public_numbers()
    for text in (pem(KEY), pem(KEY).decode(), base64.b64encode(pem(KEY)), base64.b64encode(pem(KEY)).decode()):
        assert parse_result_public_key(text).public_numbers() == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        base64.b64encode(b"nonsense"),
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505  # too short on purpose
        b"A" * 100_000,
        "é",
    ],
    ids=["empty", "nonsense", "base64-nonsense", "elliptic", "short", "huge", "not-ascii"],
)
def test_what_is_no_rsa_public_key_is_refused(text: str | bytes) -> None:
    with pytest.raises(DecodeError):
        parse_result_public_key(text)


def test_what_is_no_private_key_is_refused_and_not_repeated() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    secret = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for text in (secret, b"nonsense", VECTORS["private_key"][:200]):
        with pytest.raises(InputError) as refusal:
            parse_result_private_key(text)
        assert "MII" not in f"{refusal.value} {refusal.value.hint}"


def test_wrong_sizes_are_refused_before_anything_is_read() -> None:
    with pytest.raises(InputError):
        seal_result_rsa(KEY.public_key(), [], aes_key=b"", iv=bytes(16))
    with pytest.raises(InputError):
        seal_result_rsa(KEY.public_key(), [], aes_key=bytes(32), iv=b"")
