"""Make the vectors that Google's Tink and OpenSSL vouch for: python make_vectors.py FOLDER.

FOLDER gets tink_stream.json (tink) and rsa_results.json (the openssl command and Python's zipfile).
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import tink
from tink import secret_key_access, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

SIZES = (0, 1, 1000, 1048519, 1048520, 1048521, 2097080, 2097081, 3145640, 3145641)
INLINE = 1000
"""Largest plaintext whose ciphertext is kept whole; of larger ones the header and the SHA-256 are kept."""


def plaintext(size: int) -> bytes:
    """The bytes 0 1 2 … 250 0 1 …, ``size`` of them."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def tink_primitive(key: bytes) -> streaming_aead.StreamingAead:
    """Tink's AES256_GCM_HKDF_1MB over a raw 32-byte key."""
    streaming_aead.register()
    params = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingParams(
        ciphertext_segment_size=1 << 20, derived_key_size=32, hkdf_hash_type=common_pb2.SHA256
    )
    message = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(version=0, params=params, key_value=key)
    data = tink_pb2.KeyData(
        type_url="type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey",
        value=message.SerializeToString(),
        key_material_type=tink_pb2.KeyData.SYMMETRIC,
    )
    entry = tink_pb2.Keyset.Key(key_data=data, status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW)
    keyset = tink_pb2.Keyset(primary_key_id=1, key=[entry])
    handle = tink.proto_keyset_format.parse(keyset.SerializeToString(), secret_key_access.TOKEN)
    return handle.primitive(streaming_aead.StreamingAead)


class _Kept(io.BytesIO):
    """Keeps what was written when Tink closes it."""

    kept = b""

    def close(self) -> None:
        if not self.closed:
            self.kept = self.getvalue()
        super().close()


def tink_seal(key: bytes, content: bytes, associated_data: bytes) -> bytes:
    """Seal with Tink."""
    sink = _Kept()
    with tink_primitive(key).new_encrypting_stream(sink, associated_data) as stream:
        stream.write(content)
    return sink.kept


def tink_open(key: bytes, sealed: bytes, associated_data: bytes) -> bytes:
    """Open with Tink."""
    with tink_primitive(key).new_decrypting_stream(io.BytesIO(sealed), associated_data) as stream:
        return stream.read()


def stream_cases() -> list[dict[str, object]]:
    """One case a size."""
    cases: list[dict[str, object]] = []
    for number, size in enumerate(SIZES):
        key, associated_data = os.urandom(32), b"" if number % 2 else b"associated"
        sealed = tink_seal(key, plaintext(size), associated_data)
        case: dict[str, object] = {
            "key": key.hex(),
            "associated_data": associated_data.hex(),
            "size": size,
            "header": sealed[:40].hex(),
            "sealed_size": len(sealed),
            "sealed_sha256": hashlib.sha256(sealed).hexdigest(),
        }
        if size <= INLINE:
            case["sealed"] = base64.b64encode(sealed).decode()
        cases.append(case)
    return cases


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    """Run openssl with ``data`` on its input."""
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout


def rsa_cases(folder: Path) -> tuple[str, list[dict[str, str]]]:
    """A test key and archives of every shape that the reference client reads."""
    pem = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048").decode()
    public = openssl("pkey", "-pubout", data=pem.encode())
    public_file = folder / "public.pem"
    public_file.write_bytes(public)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(zipfile.ZipInfo("computed.json"), '{"deterministic-output-path":"/iexec_out/result.txt"}')
        archive.writestr(zipfile.ZipInfo("result.txt"), "hello")

    def wrap(content: bytes) -> bytes:
        return openssl(
            "pkeyutl",
            "-encrypt",
            "-pubin",
            "-inkey",
            str(public_file),
            "-pkeyopt",
            "rsa_padding_mode:pkcs1",
            data=content,
        )

    def case(name: str, wrapped: bytes, sealed: bytes, method: int) -> dict[str, str]:
        outer = io.BytesIO()
        with zipfile.ZipFile(outer, "w", method) as archive:
            archive.writestr(zipfile.ZipInfo("aes-key.rsa"), wrapped, method)
            archive.writestr(zipfile.ZipInfo("iexec_out.zip.aes"), sealed, method)
        return {"name": name, "archive": base64.b64encode(outer.getvalue()).decode()}

    key, iv, short = os.urandom(32), os.urandom(16), os.urandom(16)
    sealed = iv + openssl("enc", "-aes-256-cbc", "-K", key.hex(), "-iv", iv.hex(), data=inner.getvalue())
    legacy = openssl("enc", "-aes-128-ecb", "-K", short.hex(), data=inner.getvalue())
    cases = [
        case("today's archive", wrap(key), sealed, zipfile.ZIP_STORED),
        case("today's archive, deflated", wrap(key), sealed, zipfile.ZIP_DEFLATED),
        case(
            "legacy: base64 of the RSA block around base64 of the key, base64 of AES-128-ECB",
            base64.b64encode(wrap(base64.b64encode(short))),
            base64.b64encode(legacy),
            zipfile.ZIP_DEFLATED,
        ),
    ]
    public_file.unlink()
    return pem, [{**c, "inner": base64.b64encode(inner.getvalue()).decode()} for c in cases]


def main(folder: Path) -> None:
    """Write both files."""
    stream = {"made_by": f"tink {version('tink')} (Google), AES256_GCM_HKDF_1MB", "cases": stream_cases()}
    (folder / "tink_stream.json").write_text(json.dumps(stream, indent=1) + "\n")
    pem, cases = rsa_cases(folder)
    maker = openssl("version").decode().split(" (", maxsplit=1)[0]
    results = {"made_by": f"{maker.strip()} and Python's zipfile", "private_key": pem, "cases": cases}
    (folder / "rsa_results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
