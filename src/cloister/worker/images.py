"""Apps that are container images on a registry, as iExec's are: ``docker.io/user/app:1.0``.

What is pulled is the digest on chain; a tag decides nothing, and an enclave proves every part. The registry is asked without
credentials, through the same checks of addresses as any other server, and the archive is written while its parts arrive:
nothing is kept on disk, and no container program is needed.

Source: OCI distribution-spec 1.1 (pulling manifests and blobs), Docker registry token authentication.
"""

from __future__ import annotations

import hashlib
import platform
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from cloister.errors import DecodeError, Denied, InputError, NotFound, TooLarge, UnavailableError, quoted
from cloister.protocol.codec import canonical_json, parse_json
from cloister.protocol.images import (
    DOCUMENT_CAP,
    Descriptor,
    architecture_of,
    choose_manifest,
    is_index,
    parse_document,
    parse_image_manifest,
)

ACCEPTED = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_DOCKER = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_DOCKER_HOST = "registry-1.docker.io"
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1)(:[0-9]{1,5})?")
_REGISTRY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(:[0-9]{1,5})?")
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHALLENGE = re.compile(r'([a-z]+)="([^"]{0,1024})"')
_TOKEN_CAP = 64 << 10
_BLOCK = 512

Pieces = Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said. ``chunks`` must be read or closed."""

    status: int
    headers: Mapping[str, str]
    chunks: Pieces = field(repr=False)


Ask = Callable[[str, Mapping[str, str]], Answer]
"""GET a URL with headers. Redirects are followed, to addresses that may be asked only, without the headers."""


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image by name. ``digest`` is what the name itself says, if it does."""

    registry: str
    path: str
    digest: str | None = None

    @property
    def url(self) -> str:
        """Where its parts are. As other programs do, a registry on this machine is spoken to without TLS."""
        host = _DOCKER_HOST if self.registry in _DOCKER else self.registry
        return f"{'http' if _LOOPBACK.fullmatch(host) else 'https'}://{host}/v2/{self.path}"


def parse_reference(text: str) -> ImageReference:
    """Read ``[registry/]path[:tag][@sha256:…]`` as Docker does: without a registry it is Docker Hub's.

    Raises:
        InputError: it is none.
    """
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InputError(f"image {quoted(text)} has a digest that is not sha256:<64 hex digits>")
    first, slash, rest = name.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost")
    registry, path = (first, rest) if named else ("docker.io", name)
    path, colon, tag = path.partition(":")
    if registry in _DOCKER and "/" not in path:
        path = f"library/{path}"
    well = _REGISTRY.fullmatch(registry) and _PATH.fullmatch(path) and len(path) <= 255
    if not well or (colon and not _TAG.fullmatch(tag)):
        raise InputError(f"{quoted(text)} is not the name of an image", hint="for example docker.io/user/app:1.0")
    return ImageReference(registry, path, digest.removeprefix("sha256:") if at else None)


def pull_image(reference: ImageReference, digest: bytes, ask: Ask, *, max_bytes: int) -> Pieces:
    """Yield the OCI archive of the image of ``digest`` (SHA-256 of its manifest, or of an index that has one for this
    machine), the same bytes every time.

    Raises:
        InputError: the name itself says another digest. NotFound, Denied: the registry does not have it, or not for
        everybody. DecodeError: what it has is no image. TooLarge: more than ``max_bytes``. UnavailableError: it does not
        answer.
    """
    if reference.digest is not None and reference.digest != digest.hex():
        raise InputError(
            f"the app's image is named by the digest {reference.digest} and has {digest.hex()} on chain",
            code="image-digest",
        )
    registry = _Registry(reference, ask)
    documents = [registry.document(digest.hex())]
    parsed = parse_document(documents[0])
    if is_index(parsed):
        chosen = choose_manifest(parsed, architecture_of(platform.machine()))
        documents.append(registry.document(chosen.digest))
        parsed = parse_document(documents[1])
    manifest = parse_image_manifest(parsed)
    blobs = list(dict.fromkeys((manifest.config, *(layer for layer, _ in manifest.layers))))
    total = sum(len(document) for document in documents) + sum(blob.size for blob in blobs)
    if total > max_bytes:
        raise TooLarge(f"the image has {total} bytes; at most {max_bytes}")
    return _archive(registry, documents, blobs)


def _archive(registry: _Registry, documents: list[bytes], blobs: list[Descriptor]) -> Pieces:
    index = {
        "schemaVersion": 2,
        "manifests": [{"digest": f"sha256:{_sha256(documents[0])}", "size": len(documents[0])}],
    }
    yield from _member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    yield from _member("index.json", canonical_json(index))
    for document in documents:
        yield from _member(f"blobs/sha256/{_sha256(document)}", document)
    for blob in blobs:
        yield _header(f"blobs/sha256/{blob.digest}", blob.size)
        yield from registry.blob(blob)
        yield bytes(-blob.size % _BLOCK)
    yield bytes(2 * _BLOCK)


class _Registry:
    """One repository on a registry, asked without credentials; the token that a public one wants anyway is fetched."""

    def __init__(self, reference: ImageReference, ask: Ask) -> None:
        self._reference = reference
        self._ask = ask
        self._token: str | None = None

    def document(self, digest: str) -> bytes:
        """An index or a manifest, which is what its digest says."""
        content = _read(self._get(f"manifests/sha256:{digest}"), DOCUMENT_CAP)
        if _sha256(content) != digest:
            raise Denied(
                f"registry {self._reference.registry} answered with another document than {digest}", code="image-digest"
            )
        return content

    def blob(self, blob: Descriptor) -> Pieces:
        """The bytes of a part, as many as its manifest says."""
        left = blob.size
        for chunk in self._get(f"blobs/sha256:{blob.digest}").chunks:
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
        if left:
            raise UnavailableError(f"registry {self._reference.registry} sent another number of bytes than {blob.size}")

    def _get(self, what: str) -> Answer:
        name = f"{self._reference.registry}/{self._reference.path}"
        answer = self._ask(f"{self._reference.url}/{what}", self._headers())
        if answer.status == 401 and self._token is None:
            self._token = self._fetch_token(answer.headers.get("www-authenticate", ""))
            answer = self._ask(f"{self._reference.url}/{what}", self._headers())
        if answer.status == 200:
            return answer
        if answer.status == 404:
            raise NotFound(f"image {quoted(name)} has no {quoted(what)}")
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise UnavailableError(f"the registry of {quoted(name)} answered {answer.status}")
        raise Denied(
            f"the registry of {quoted(name)} answered {answer.status}: the image is not public, and workers have no credentials",
            code="image-private",
        )

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": ", ".join(ACCEPTED)}
        return headers if self._token is None else {**headers, "Authorization": f"Bearer {self._token}"}

    def _fetch_token(self, challenge: str) -> str:
        kind, _, rest = challenge.partition(" ")
        said = dict(_CHALLENGE.findall(rest))
        realm = said.get("realm", "")
        secure = realm.startswith("https://") or self._reference.url.startswith("http://")
        if kind.lower() != "bearer" or not secure:
            raise Denied(
                f"registry {self._reference.registry} wants credentials, and workers have none", code="image-private"
            )
        query = {"scope": f"repository:{self._reference.path}:pull"}
        if "service" in said:
            query["service"] = said["service"]
        answer = self._ask(f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}", {})
        if answer.status != 200:
            raise Denied(f"registry {self._reference.registry} gives no access to everybody", code="image-private")
        value: Any = parse_json(_read(answer, _TOKEN_CAP), cap=_TOKEN_CAP)
        token = (value.get("token") or value.get("access_token")) if isinstance(value, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise DecodeError(f"registry {self._reference.registry} gave no token")
        return token


def _read(answer: Answer, cap: int) -> bytes:
    content = b""
    for chunk in answer.chunks:
        content += chunk
        if len(content) > cap:
            raise TooLarge(f"a registry's document is larger than {cap} bytes")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _member(name: str, content: bytes) -> Pieces:
    yield _header(name, len(content))
    yield content + bytes(-len(content) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT, "utf-8")
