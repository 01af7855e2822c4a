"""Apps on a registry: what the host pulls is the digest on chain, or nothing; the enclave's own reader takes it."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.support.images import (
    ARCHITECTURE,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    INDEX,
    HandMade,
    entry,
    layer,
)

from cloister.enclave.images.image import unpack_image
from cloister.errors import CloisterError, Denied, InputError, NotFound, TooLarge, UnavailableError
from cloister.protocol.codec import Bytes32
from cloister.storage.local import LocalStore
from cloister.worker.fetching import ContentFetcher
from cloister.worker.hosting import HostServices
from cloister.worker.images import ImageReference, parse_reference
from cloister.worker.patience import Patience

LOOPBACK = (ip_network("127.0.0.0/8"),)
TOKEN = "for-everybody"  # what a public registry gives anybody


@dataclass
class TinyRegistry:
    """What a registry does of the distribution spec: manifests and blobs by digest, a token, blobs elsewhere."""

    images: dict[str, HandMade] = field(default_factory=dict)
    wants_token: bool = False
    gives_token: bool = True
    truncates: bool = False
    swaps: bool = False
    breaks: int = 0
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        self.asked.append((path, authorization))
        if path == "/v2/":
            return 200, {}, b""
        if path.startswith("/token"):
            return 200, {}, json.dumps({"token": TOKEN}).encode()
        if path.startswith("/elsewhere/"):
            if self.breaks and len([seen for seen, _ in self.asked if seen.startswith("/elsewhere/")]) == 2:
                self.breaks -= 1
                return 503, {}, b""
            digest = path.removeprefix("/elsewhere/")
            content = next(image.blobs[digest] for image in self.images.values() if digest in image.blobs)
            return 200, {}, content[:-1] if self.truncates else content
        if self.wants_token and (authorization != f"Bearer {TOKEN}" or not self.gives_token):
            realm = f"http://127.0.0.1:{self.port}/token"
            return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="tiny"'}, b""
        name, _, rest = path.removeprefix("/v2/").partition("/manifests/" if "/manifests/" in path else "/blobs/")
        digest = rest.removeprefix("sha256:")
        image = self.images.get(name)
        if image is None or digest not in image.blobs:
            return 404, {}, b""
        if "/blobs/" in path:
            return 307, {"Location": f"/elsewhere/{digest}"}, b""
        return 200, {"Content-Type": image.media[0]}, image.blobs[digest] + (b" " if self.swaps else b"")


@pytest.fixture
def registry() -> Iterator[TinyRegistry]:
    tiny = TinyRegistry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = tiny.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    tiny.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield tiny
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def image() -> HandMade:
    return HandMade([layer(entry("hello", b"hi" * 1000)), layer(entry("two"))], config={"Cmd": ["/hello"]})


def pull(
    registry: TinyRegistry, tmp_path: Path, name: str, digest: bytes, *, allowed: bool = True, most: int = 1 << 30
) -> bytes:
    fetcher = ContentFetcher(LocalStore(tmp_path / "store"), allowed_networks=LOOPBACK if allowed else ())
    location = f"127.0.0.1:{registry.port}/{name}"
    return b"".join(fetcher.fetch(location, "app", most, digest=digest))


@pytest.mark.parametrize("kind", ["oci", "docker", "index", "token"])
def test_what_is_pulled_is_what_the_enclave_takes(
    registry: TinyRegistry, image: HandMade, tmp_path: Path, kind: str
) -> None:
    match kind:
        case "docker":
            media = (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
            image = HandMade(image.layers, config=image.config, media=media)
        case "index":
            place = {"os": "linux", "architecture": ARCHITECTURE}
            other = {"os": "linux", "architecture": "s390x"}
            described = image.add(image.blobs[image.digest.hex()], image.media[0])
            manifests = [
                {**described, "digest": f"sha256:{'0' * 64}", "platform": other},
                {**described, "platform": place},
            ]
            image.settle({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
        case "token":
            registry.wants_token = True
    registry.images["user/app"] = image
    archive = pull(registry, tmp_path, "user/app:1.0", image.digest)
    assert archive == pull(registry, tmp_path, f"user/app@sha256:{image.digest.hex()}", image.digest), (
        "same bytes again"
    )
    taken = unpack_image([archive], tmp_path / "out", expected_digest=image.digest)
    assert taken.command == ("/hello",)
    tokens = {authorization for path, authorization in registry.asked if path.startswith(("/elsewhere", "/token"))}
    assert tokens == {None}, "a token goes to the registry only"


def refusal(
    registry: TinyRegistry, tmp_path: Path, digest: bytes, name: str = "user/app", **options: object
) -> CloisterError:
    with pytest.raises(CloisterError) as refused:
        pull(registry, tmp_path, name, digest, **options)
    return refused.value


def test_what_is_not_the_image_on_chain_is_refused_by_name(
    registry: TinyRegistry, image: HandMade, tmp_path: Path
) -> None:
    registry.images["user/app"] = image
    digest = image.digest
    assert isinstance(refusal(registry, tmp_path, bytes(32)), NotFound)
    assert isinstance(refusal(registry, tmp_path, digest, "user/other"), NotFound)
    assert isinstance(refusal(registry, tmp_path, digest, most=100), TooLarge)
    said = refusal(registry, tmp_path, digest, f"user/app@sha256:{'1' * 64}")
    assert (type(said), said.code) == (InputError, "image-digest")
    registry.truncates = True
    assert isinstance(refusal(registry, tmp_path, digest), UnavailableError)
    registry.truncates, registry.swaps = False, True
    assert refusal(registry, tmp_path, digest).code == "image-digest"


def test_private_images_and_private_registries_are_refused(
    registry: TinyRegistry, image: HandMade, tmp_path: Path
) -> None:
    registry.images["user/app"] = image
    assert refusal(registry, tmp_path, image.digest, allowed=False).code == "private-address"
    assert registry.asked == [], "nobody was asked"
    registry.wants_token, registry.gives_token = True, False
    refused = refusal(registry, tmp_path, image.digest)
    assert (type(refused), refused.code) == (Denied, "image-private")


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("alpine", ImageReference("docker.io", "library/alpine")),
        ("user/app:1.0-tdx", ImageReference("docker.io", "user/app")),
        ("docker.io/user/app:1", ImageReference("docker.io", "user/app")),
        ("docker.io/python", ImageReference("docker.io", "library/python")),
        ("ghcr.io/a/b/c@sha256:" + "a" * 64, ImageReference("ghcr.io", "a/b/c", "a" * 64)),
        ("localhost:5000/x:y", ImageReference("localhost:5000", "x")),
    ],
)
def test_names_of_images(text: str, reference: ImageReference) -> None:
    assert parse_reference(text) == reference


def test_where_a_name_leads() -> None:
    assert parse_reference("alpine").url == "https://registry-1.docker.io/v2/library/alpine"
    assert parse_reference("ghcr.io/a/b").url == "https://ghcr.io/v2/a/b"
    assert parse_reference("localhost:5000/b").url == "http://localhost:5000/v2/b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "UPPER/case",
        "a/../b",
        "user@host.example/app",
        "a b",
        "x:y:z",
        "ghcr.io/a@sha256:12",
        "h.example:99999999/a",
        "-a/b",
    ],
)
def test_what_names_no_image(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        parse_reference(text)
    fetcher = ContentFetcher(LocalStore(tmp_path / "store"), allowed_networks=LOOPBACK)
    with pytest.raises(InputError):
        fetcher.fetch("docker.io/user/app", "input", 100, digest=bytes(32))


def test_another_program_pulls_the_same_from_this_registry(
    registry: TinyRegistry, image: HandMade, tmp_path: Path
) -> None:
    """That the registry here is one is not only our own word; and skopeo's archive is taken like ours."""
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    registry.images["user/app"] = image
    source = f"docker://127.0.0.1:{registry.port}/user/app@sha256:{image.digest.hex()}"
    command = [skopeo, "copy", "--quiet", "--src-tls-verify=false", source, f"oci-archive:{tmp_path / 'skopeo.tar'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    archive = (tmp_path / "skopeo.tar").read_bytes()
    taken = unpack_image([archive], tmp_path / "out", expected_digest=image.digest)
    assert taken.command == ("/hello",)


def test_a_host_pulls_what_the_lease_names_and_goes_on_after_a_break(
    registry: TinyRegistry, image: HandMade, tmp_path: Path
) -> None:
    """The registry breaks off once; what the enclave gets is one archive without a gap."""
    registry.images["user/app"] = image
    off = threading.Event()
    app = SimpleNamespace(checksum=Bytes32.from_raw(image.digest))
    services = HostServices(
        lease=SimpleNamespace(app=app),  # type: ignore[arg-type]  # of a lease only the app is looked at
        folder=tmp_path,
        scheduler=None,  # type: ignore[arg-type]
        sms=None,  # type: ignore[arg-type]
        hub=None,  # type: ignore[arg-type]
        fetcher=ContentFetcher(LocalStore(tmp_path / "store"), allowed_networks=LOOPBACK),
        connector=None,  # type: ignore[arg-type]
        patience=lambda: Patience(0.05, 0.1, time.monotonic() + 10.0, off),
        heard=lambda _: None,
    )
    registry.breaks = 1
    archive = b"".join(services.fetch(f"127.0.0.1:{registry.port}/user/app:1.0", "app", 1 << 30, seconds=20))
    services.close()
    assert registry.breaks == 0
    assert unpack_image([archive], tmp_path / "out", expected_digest=image.digest).command == ("/hello",)
