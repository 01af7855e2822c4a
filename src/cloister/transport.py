"""HTTP toward other machines: capped, timed, without redirects, its failures in our own error tree.

Nothing that a peer sends can make a call take more memory than its cap or (header lines aside, which the standard
library reads) more time than its timeout. Compressed answers are refused, so a cap counts what was sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NoReturn
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, SSLError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

from cloister.errors import (
    CloisterError,
    ConfigurationError,
    Conflict,
    DecodeError,
    Denied,
    InputError,
    NotFound,
    RemoteError,
    TooLarge,
    Unauthenticated,
    UnavailableError,
    quoted,
)
from cloister.protocol.codec import canonical_json, parse_json

DEFAULT_TIMEOUT: Final = 30.0
"""Longest that one call takes, in seconds, unless the caller says otherwise."""
DEFAULT_MAX_RESPONSE: Final = 8 * 1024 * 1024
CHUNK: Final = 256 * 1024
MIN_RATE: Final = 4 * 1024
"""Slowest average at which a stream is followed, in bytes a second, once ``RATE_GRACE`` has passed."""
RATE_GRACE: Final = 20.0
BROKEN_OFF: Final = "broken-off"
"""Code of the error when an answer began and did not end."""
_ERROR_CAP: Final = 64 * 1024
_POOL_SIZE: Final = 16
_SAFE_METHODS: Final = frozenset({"GET", "HEAD"})

QueryValue = str | int | bool | None | Sequence[str]
Query = Mapping[str, QueryValue]
Body = bytes | Iterable[bytes] | None

_BY_STATUS: Final[Mapping[int, type[CloisterError]]] = {
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: UnavailableError,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """An answer whose body is read as it comes. ``chunks`` may be iterated once, inside the ``with``."""

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]


def build_query(query: Query | None) -> str:
    """Write a query string with its ``?``: keys sorted, None dropped, booleans as true and false, lists repeated."""
    if not query:
        return ""
    pairs: list[tuple[str, str]] = []
    for key in sorted(query):
        value = query[key]
        if value is None:
            continue
        values: Iterable[object] = [value] if isinstance(value, str | int | bool) else value
        pairs.extend((key, str(item).lower() if isinstance(item, bool) else str(item)) for item in values)
    return "?" + urlencode(pairs) if pairs else ""


class Http:
    """One origin (with an optional path before every path). Safe to use from several threads; keeps connections open.

    Every method raises: ``UnavailableError`` (network failure, timeout, 5xx, 429), ``NotFound`` (404),
    ``Unauthenticated`` (401), ``Denied`` (403), ``Conflict`` (409), ``TooLarge`` (413, or an answer over its cap),
    ``InputError`` (other 4xx), ``RemoteError`` (a redirect or a compressed answer), ``DecodeError`` (not the JSON that
    was expected).
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_response: int = DEFAULT_MAX_RESPONSE,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username
            or parts.query
            or parts.fragment
        ):
            raise ConfigurationError(f"{quoted(base_url)} is not an http(s) url without user, query or fragment")
        self.base_url = base_url.rstrip("/")
        self._prefix = parts.path.rstrip("/")
        self._peer = f"{parts.scheme}://{parts.netloc}"
        self._timeout = timeout
        self._max_response = max_response
        self._headers = {
            "user-agent": "cloister",
            "accept-encoding": "identity",
            **{name.lower(): value for name, value in (headers or {}).items()},
        }
        self._pool = urllib3.connection_from_url(self._peer, maxsize=_POOL_SIZE, block=False, retries=False)

    def __repr__(self) -> str:
        return f"Http({self.base_url!r})"

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def json(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        repeatable: bool | None = None,
    ) -> object:
        """Send ``body`` as JSON (None sends no body) and return the parsed JSON of the answer; None for 204.

        ``repeatable`` says that sending twice does no harm: then a connection that the peer had closed is opened again.
        It is the default of GET and HEAD.
        """
        sent = None if body is None else canonical_json(body)
        every = {"accept": "application/json", **(headers or {})}
        if sent is not None:
            every.setdefault("content-type", "application/json")
        answer = self.raw(method, path, query=query, body=sent, headers=every, timeout=timeout, repeatable=repeatable)
        if answer.status == 204 and not answer.body:
            return None
        if "json" not in answer.headers.get("content-type", ""):
            raise DecodeError(f"{self._peer} answered {method} {quoted(path)} with no json")
        return parse_json(answer.body, cap=self._max_response)

    def raw(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        max_response: int | None = None,
        repeatable: bool | None = None,
    ) -> Answer:
        """Send a request and return the whole answer (2xx)."""
        limit = self._timeout if timeout is None else timeout
        cap = self._max_response if max_response is None else max_response
        deadline = time.monotonic() + limit
        response = self._open(method, path, query, body, headers, limit, repeatable)
        try:
            received = b"".join(self._read(response, cap, deadline, rate=0))
        except BaseException:
            # Bytes that nobody will read are still coming: the connection cannot serve another request.
            response.close()
            raise
        response.release_conn()
        return Answer(response.status, _lower(response.headers), received)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Body = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        total: float | None = None,
        max_response: int | None = None,
    ) -> Iterator[StreamedAnswer]:
        """Send a request and read the answer (2xx) as it comes.

        ``timeout`` bounds the wait for the next bytes, ``total`` the whole transfer; without ``total`` the average rate
        must stay over ``MIN_RATE``.
        """
        idle = self._timeout if timeout is None else timeout
        cap = self._max_response if max_response is None else max_response
        deadline = float("inf") if total is None else time.monotonic() + total
        response = self._open(method, path, query, body, headers, idle, None)
        try:
            rate = MIN_RATE if total is None else 0
            yield StreamedAnswer(
                response.status, _lower(response.headers), self._read(response, cap, deadline, rate=rate)
            )
        finally:
            response.close()

    def _open(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: Body,
        headers: Mapping[str, str] | None,
        timeout: float,
        repeatable: bool | None,
    ) -> urllib3.BaseHTTPResponse:
        """Send and return the answer with its body unread, once its status is known to be 2xx."""
        if path and not path.startswith("/"):
            raise InputError(f"a path begins with a slash: {quoted(path)}")
        target = (self._prefix + path or "/") + build_query(query)
        every = {**self._headers, **{name.lower(): value for name, value in (headers or {}).items()}}
        may_repeat = repeatable if repeatable is not None else method in _SAFE_METHODS
        attempts = 2 if may_repeat and (body is None or isinstance(body, bytes)) else 1
        response = self._send(method, target, body, every, timeout, attempts)
        if 200 <= response.status < 300:
            if response.headers.get("content-encoding", "identity") != "identity":
                response.close()
                raise RemoteError(f"{self._peer} sent a compressed answer nobody asked for")
            return response
        try:
            self._refuse(response, method, path, time.monotonic() + timeout)
        finally:
            response.close()

    def _send(
        self, method: str, target: str, body: Body, headers: Mapping[str, str], timeout: float, attempts: int
    ) -> urllib3.BaseHTTPResponse:
        while True:
            attempts -= 1
            try:
                return self._pool.urlopen(
                    method,
                    target,
                    body=body,
                    headers=headers,
                    timeout=urllib3.Timeout(connect=min(timeout, 10.0), read=timeout),
                    redirect=False,
                    retries=False,
                    preload_content=False,
                    decode_content=False,
                )
            except ProtocolError as error:
                if attempts == 0:
                    raise UnavailableError(f"{self._peer} dropped the connection") from error
            except NewConnectionError as error:
                raise _unreachable(self._peer) from error
            except PoolTimeoutError as error:
                raise UnavailableError(f"{self._peer} did not answer within {timeout:g} s") from error
            except SSLError as error:
                raise RemoteError(
                    f"{self._peer} showed no trusted certificate", code="untrusted-certificate"
                ) from error
            except (HTTPError, OSError) as error:
                raise _unreachable(self._peer) from error

    def _read(self, response: urllib3.BaseHTTPResponse, cap: int, deadline: float, *, rate: int) -> Iterator[bytes]:
        """Yield the body in pieces, refusing what is too large or too slow."""
        declared = response.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > cap and response.status != 304:
            raise TooLarge(f"{self._peer} announced {quoted(declared)} bytes, the cap is {cap}")
        started = time.monotonic()
        received = 0
        while True:
            # read1 gives what one read of the socket gave: a peer that drips cannot hold us past the deadline.
            try:
                chunk = response.read1(CHUNK)
            except PoolTimeoutError as error:
                raise UnavailableError(f"{self._peer} stopped sending") from error
            except (HTTPError, OSError) as error:
                raise UnavailableError(f"{self._peer} broke off its answer", code=BROKEN_OFF) from error
            if not chunk:
                return
            received += len(chunk)
            if received > cap:
                raise TooLarge(f"{self._peer} sent more than {cap} bytes")
            elapsed = time.monotonic() - started
            if time.monotonic() > deadline or (elapsed > RATE_GRACE and received < rate * elapsed):
                raise UnavailableError(f"{self._peer} sends too slowly")
            yield chunk

    def _refuse(self, response: urllib3.BaseHTTPResponse, method: str, path: str, deadline: float) -> NoReturn:
        """Turn an answer that is not 2xx into an error of our tree, with the peer's own words when it gave any."""
        status = response.status
        if 300 <= status < 400:
            raise RemoteError(f"{self._peer} redirects {method} {quoted(path)}; redirects are not followed")
        try:
            body = b"".join(self._read(response, _ERROR_CAP, deadline, rate=0))
        except CloisterError:
            body = b""
        text, code, hint = _error_words(body)
        # The peer's own words come first: they are what a person needs. Who said it stands behind.
        source = f"{self._peer} answered {method} {quoted(path.split('?', 1)[0])} with {status}"
        message = f"{text} ({source})" if text else source
        kind = _BY_STATUS.get(status) or (UnavailableError if status >= 500 or status < 200 else InputError)
        raise kind(message, code=code, hint=hint)


def _unreachable(peer: str) -> UnavailableError:
    return UnavailableError(f"cannot reach {peer}", hint="is it running, and is the address right?")


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _error_words(body: bytes) -> tuple[str | None, str | None, str | None]:
    """Find text, code and hint in an error body: ours (``error``, ``code``, ``hint``) or iExec's (``error`` alone)."""
    try:
        value = parse_json(body, cap=_ERROR_CAP)
    except DecodeError:
        return None, None, None
    if not isinstance(value, dict):
        return None, None, None
    words = value.get("error")
    if isinstance(words, list):
        words = ", ".join(item for item in words if isinstance(item, str))
    code, hint = value.get("code"), value.get("hint")
    return (
        quoted(words) if isinstance(words, str) and words else None,
        code if isinstance(code, str) and 0 < len(code) <= 64 and code.isascii() else None,
        quoted(hint) if isinstance(hint, str) and hint else None,
    )
