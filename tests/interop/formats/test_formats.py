"""The reference clients themselves open what is made here.

Needs node and the packages of ``../package.json``: ``npm ci --ignore-scripts`` there. The other way
round, what they make and we open, is in the vectors and runs always.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.datasets.packing import pack
from cloister.sealing import envelope
from cloister.sealing.envelope import HpkePrivateKey
from cloister.sealing.iexec import seal_result_rsa

HERE = Path(__file__).parent
PACKAGES = HERE.parent
READY = shutil.which("node") is not None and (PACKAGES / "node_modules" / "iexec").is_dir()

pytestmark = pytest.mark.skipif(
    not READY, reason="node or the reference packages are missing: npm ci --ignore-scripts in tests/interop"
)


@pytest.fixture
def run_node(tmp_path: Path):  # type: ignore[no-untyped-def]  # a fixture that gives a function
    (tmp_path / "node_modules").symlink_to(PACKAGES / "node_modules")

    def run(script: str, *arguments: str) -> bytes:
        shutil.copy(HERE / script, tmp_path / script)
        command = ["node", str(tmp_path / script), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        return done.stdout

    return run


def test_the_deserializer_reads_what_is_packed_here(tmp_path: Path, run_node) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "large").write_bytes(bytes(range(256)) * 20_000)
    value = {
        "email": "héllo@b.c",
        "empty": "",
        "user": {"age": 42, "score": -0.1, "ok": True, "no": False, "deep": {"min": -(2**127), "max": 2**127 - 1}},
        "photo": b"\x89PNG\r\n\x1a\n" + bytes(1000),
        "streamed": tmp_path / "large",
    }
    archive = tmp_path / "data.zip"
    archive.write_bytes(b"".join(pack(value).chunks))
    wanted = [
        ("email", "string", "string", "héllo@b.c"),
        ("empty", "string", "string", ""),
        ("user.age", "i128", "bigint", "42"),
        ("user.score", "f64", "number", "-0.1"),
        ("user.ok", "bool", "boolean", "true"),
        ("user.no", "bool", "boolean", "false"),
        ("user.deep.min", "i128", "bigint", str(-(2**127))),
        ("user.deep.max", "i128", "bigint", str(2**127 - 1)),
        ("photo", "image/png", "bytes", base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(1000)).decode()),
        ("streamed", "application/octet-stream", "bytes", base64.b64encode((tmp_path / "large").read_bytes()).decode()),
    ]
    asked = json.dumps([[path, kind] for path, kind, _, _ in wanted])
    found = json.loads(run_node("read_archive.mjs", str(archive), asked))
    assert found == [{"kind": kind, "value": value} for _, _, kind, value in wanted]


def test_the_client_opens_a_result_that_is_sealed_here(tmp_path: Path, run_node) -> None:  # type: ignore[no-untyped-def]
    key = rsa.generate_private_key(public_exponent=65537, key_size=4096)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("computed.json", "{}")
        archive.writestr("result.bin", os.urandom(300_000))
    sealed = b"".join(seal_result_rsa(key.public_key(), [inner.getvalue()], aes_key=os.urandom(32), iv=os.urandom(16)))
    (tmp_path / "result.zip").write_bytes(sealed)
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    opened = run_node("open_result.mjs", str(tmp_path / "result.zip"), str(tmp_path / "key.pem"))
    assert opened == inner.getvalue()


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_another_hpke_opens_an_envelope_that_is_sealed_here(size: int, run_node) -> None:  # type: ignore[no-untyped-def]
    private, info, plaintext = HpkePrivateKey.generate(os.urandom), b"cloister/interop", os.urandom(size)
    sealed = base64.b64encode(envelope.seal(private.public, plaintext, info)).decode()
    opened = run_node("hpke_vectors.mjs", "open", private.raw.hex(), info.hex(), sealed)
    assert base64.b64decode(opened) == plaintext
