"""Fetching what a task names: from the content store, or from the public web, and from nowhere inside this network.

URLs are chosen by requesters and data owners, so a worker that fetched any of them would be their hand inside its own
network. Only public addresses are asked, the address that was checked is the one that is connected to, and every hop
of a redirect is checked anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from urllib.parse import urljoin, urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from cloister.errors import Denied, InputError, NotFound, TooLarge, UnavailableError, quoted
from cloister.storage.content import ContentStore
from cloister.worker.addresses import Addresses, Network
from cloister.worker.images import Answer, parse_reference, pull_image

CHUNK = 1 << 20
MAX_REDIRECTS = 3
MAX_INPUT_FILE = 256 << 20
ARCHIVE_ROOM = 1 << 20
"""What an image's archive has beside the image."""
_CONNECT_SECONDS = 10.0
_SECONDS = {"app": 3600.0, "dataset": 6 * 3600.0, "input": 300.0}
_LATER = frozenset({408, 425, 429})
"""Statuses that say: ask again later."""
_PREFIXES = ("/ipfs/", "/p2p/", "ipfs://")


class ContentFetcher:
    """Fetches locations. Safe to use from several threads.

    ``allowed_networks``: private networks that may be asked all the same, for a network that lives on one machine.
    ``gateway``: URL of the gateway of ``store``; what lies under its ``/ipfs/`` is read from the store, wherever it listens.
    """

    def __init__(
        self, store: ContentStore, *, allowed_networks: tuple[Network, ...] = (), gateway: str | None = None
    ) -> None:
        self._store = store
        self._addresses = Addresses(allowed_networks)
        # Checked by CID like any other content, so nothing but public content can be had this way.
        self._prefixes = _PREFIXES if gateway is None else (*_PREFIXES, f"{gateway.rstrip('/')}/ipfs/")

    def fetch(self, location: str, purpose: str, max_bytes: int, *, digest: bytes | None = None) -> Iterator[bytes]:
        """Yield the content of an ``/ipfs/...`` location or an http(s) URL; or, of an app whose ``digest`` is known, the
        archive of the image that it names on a registry.

        Raises:
            Denied: an address that is not public, or a server that refuses. InputError: another kind of location.
            NotFound: it is not there, or no such host is. TooLarge: more than ``max_bytes``. UnavailableError: it does
            not answer, or not in time.
        """
        deadline = time.monotonic() + _SECONDS.get(purpose, 300.0)
        if purpose == "input":
            max_bytes = min(max_bytes, MAX_INPUT_FILE)
        for prefix in self._prefixes:
            if location.startswith(prefix):
                chunks = self._store.open(location.removeprefix(prefix), cap=max_bytes)
                return _timed(chunks, location, max_bytes, deadline)
        if location.startswith(("https://", "http://")):
            return _timed(self._web(location, deadline), location, max_bytes, deadline)
        if purpose == "app" and digest is not None:
            reference = parse_reference(location)
            chunks = pull_image(
                reference, digest, lambda url, more: self._ask(url, more, deadline), max_bytes=max_bytes
            )
            return _timed(chunks, location, max_bytes + ARCHIVE_ROOM, deadline)
        raise InputError(f"{quoted(location)} is neither an /ipfs/ location nor a web address")

    def _ask(self, url: str, headers: Mapping[str, str], deadline: float) -> Answer:
        """GET with headers, which are for the first server only: where it sends us to may be anybody's."""
        for _ in range(MAX_REDIRECTS + 1):
            response = self._request(url, deadline, headers)
            target = response.get_redirect_location()
            if not target:
                said = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, said, _body(response, url))
            response.close()
            url, headers = _redirected(url, target), {}
        raise Denied(f"{quoted(url)} redirects more than {MAX_REDIRECTS} times", code="app-refused")

    def _web(self, url: str, deadline: float) -> Iterator[bytes]:
        for _ in range(MAX_REDIRECTS + 1):
            response = self._request(url, deadline)
            try:
                target = response.get_redirect_location()
                if target:
                    url = _redirected(url, target)
                    continue
                _check_status(url, response.status)
                # read1 gives what one read of the socket gave: a peer that drips cannot hold us past the deadline.
                while chunk := response.read1(CHUNK, decode_content=False):
                    yield chunk
            except (HTTPError, OSError) as error:
                raise UnavailableError(f"{quoted(url)} broke off") from error
            else:
                return
            finally:
                response.close()
        raise Denied(f"{quoted(url)} redirects more than {MAX_REDIRECTS} times", code="input-file-refused")

    def _request(self, url: str, deadline: float, more: Mapping[str, str] | None = None) -> urllib3.BaseHTTPResponse:
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise InputError(f"{quoted(url)} is not a plain web address") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise InputError(f"{quoted(url)} is not a plain web address")
        address = self._addresses.resolve(parts.hostname, port)[0]
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=max(1.0, min(30.0, deadline - time.monotonic())))
        pool: urllib3.HTTPConnectionPool
        if parts.scheme == "https":
            pool = urllib3.HTTPSConnectionPool(
                address, port, timeout=timeout, server_hostname=parts.hostname, assert_hostname=parts.hostname
            )
        else:
            pool = urllib3.HTTPConnectionPool(address, port, timeout=timeout)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {**(more or {}), "Host": parts.netloc, "Accept-Encoding": "identity"}
        try:
            return pool.request("GET", target, headers=headers, redirect=False, retries=False, preload_content=False)
        except (HTTPError, OSError) as error:
            raise UnavailableError(f"{quoted(url)} does not answer") from error
        except ValueError as error:  # what may not stand in a request's lines
            raise InputError(f"{quoted(url)} is not a plain web address") from error


def _body(response: urllib3.BaseHTTPResponse, url: str) -> Iterator[bytes]:
    try:
        while chunk := response.read1(CHUNK, decode_content=False):
            yield chunk
    except (HTTPError, OSError) as error:
        raise UnavailableError(f"{quoted(url)} broke off") from error
    finally:
        response.close()


def _redirected(url: str, target: str) -> str:
    try:
        return urljoin(url, target)
    except ValueError as error:
        raise Denied(f"{quoted(url)} redirects to no web address", code="input-file-refused") from error


def _check_status(url: str, status: int) -> None:
    if status in (404, 410):
        raise NotFound(f"{quoted(url)} is not there")
    if 400 <= status < 500 and status not in _LATER:
        raise Denied(f"{quoted(url)} answered {status}", code="input-file-refused")
    if status != 200:
        raise UnavailableError(f"{quoted(url)} answered {status}")


def _timed(chunks: Iterator[bytes], location: str, max_bytes: int, deadline: float) -> Iterator[bytes]:
    """Pass chunks on until the cap or the deadline."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise TooLarge(f"{quoted(location)} is larger than {max_bytes} bytes")
        if time.monotonic() > deadline:
            raise UnavailableError(f"{quoted(location)} took too long")
        yield chunk
