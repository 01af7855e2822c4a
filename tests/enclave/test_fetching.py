"""Fetching for a task: from the store and the public web, never from inside this network."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cloister.errors import (
    CloisterError,
    ConfigurationError,
    DecodeError,
    Denied,
    InputError,
    NotFound,
    TooLarge,
    UnavailableError,
)
from cloister.protocol.codec import Address
from cloister.storage.local import LocalStore
from cloister.worker import fetching
from cloister.worker.fetching import ContentFetcher
from cloister.worker.settings import WorkerSettings

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


REDIRECTS = {
    "/inside": "http://169.254.169.254/latest/meta-data",
    "/loop": "/loop",
    "/nowhere": "http://[::1/",
    "/once": "/file?moved",
    "/scheme": "file:///etc/passwd",
}


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path[1:].isdigit():
            self._answer(int(path[1:]), b"")
            return
        if path in REDIRECTS:
            self._answer(302, b"", Location=REDIRECTS[path])
            return
        match path:
            case "/file":
                self._answer(200, b"content of " + self.path.encode())
            case "/endless":
                self._drip(bytes(1 << 16), 0)
            case "/cut":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"short")
            case "/drip":
                self._drip(b".", 0.05)
            case "/host":
                self._answer(200, str(self.headers["Host"]).encode())
            case "/broken":
                self._answer(500, b"")
            case _:
                self._answer(404, b"")

    def _drip(self, piece: bytes, pause: float) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(piece)
                self.wfile.flush()
                time.sleep(pause)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    opened = LocalStore(tmp_path / "store")
    yield opened
    opened.close()


def fetch(fetcher: ContentFetcher, location: str, *, most: int = 1 << 20) -> bytes:
    return b"".join(fetcher.fetch(location, "input", most))


def test_from_the_store(store: LocalStore) -> None:
    stored = store.put([b"a" * 300_000])
    fetcher = ContentFetcher(store)
    for location in (f"/ipfs/{stored.cid}", f"/p2p/{stored.cid}", f"ipfs://{stored.cid}"):
        assert fetch(fetcher, location) == b"a" * 300_000
    with pytest.raises(TooLarge):
        fetch(fetcher, f"/ipfs/{stored.cid}", most=1000)


def test_the_store_behind_its_own_gateway(store: LocalStore) -> None:
    stored = store.put([b"a" * 300_000])
    fetcher = ContentFetcher(store, gateway="http://127.0.0.1:9/")
    assert fetch(fetcher, f"http://127.0.0.1:9/ipfs/{stored.cid}") == b"a" * 300_000
    for other in ("http://127.0.0.1:9/secrets", f"http://127.0.0.1:90/ipfs/{stored.cid}", "http://127.0.0.1:9/ipfs"):
        with pytest.raises(Denied):
            fetch(fetcher, other)
    with pytest.raises(DecodeError):
        fetch(fetcher, "http://127.0.0.1:9/ipfs/../secrets")


def test_missing_in_the_store(store: LocalStore) -> None:
    with pytest.raises(NotFound):
        fetch(ContentFetcher(store), "/ipfs/QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/file",
        "http://localhost:{port}/file",
        "http://[::1]:{port}/file",
        "http://[::ffff:127.0.0.1]:{port}/file",
        "http://0.0.0.0:{port}/file",
        "http://2130706433:{port}/file",
        "http://0x7f.1:{port}/file",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/",
        "http://[fd00::1]/",
        "http://[fe80::1]/",
        "http://224.0.0.1/",
        "http://[64:ff9b::127.0.0.1]/",
        "http://[64:ff9b::10.0.0.1]/",
        "http://[64:ff9b:1::10.0.0.1]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:a00:1::]/",
        "http://[2001::1]/",
        "http://[::127.0.0.1]/",
        "http://[fec0::1]/",
        "http://[ff02::1]/",
        "http://[::]/",
    ],
)
def test_inside_addresses_are_refused(store: LocalStore, web: str, url: str) -> None:
    with pytest.raises((Denied, UnavailableError)) as refused:
        fetch(ContentFetcher(store), url.format(port=web.rpartition(":")[2]))
    # A machine without IPv6 knows no such host; every other is refused by name.
    assert refused.value.code == "private-address" or "is unknown" in refused.value.message


def test_redirect_inside_is_refused(store: LocalStore, web: str) -> None:
    with pytest.raises(Denied, match=r"169\.254\.169\.254"):
        fetch(ContentFetcher(store, allowed_networks=LOOPBACK), f"{web}/inside")


def test_name_with_one_inside_address_is_refused(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("93.184.216.34", 80)), (*kind, ("10.0.0.7", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(Denied, match=r"10\.0\.0\.7"):
        fetch(ContentFetcher(store), "http://example.org/")


def test_the_address_that_was_checked_is_the_one_that_is_asked(
    store: LocalStore, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo
    port = int(web.rpartition(":")[2])

    def resolve(host: str, *rest: object, **named: object) -> object:
        asked.append(host)
        return real("127.0.0.1", *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    fetcher = ContentFetcher(store, allowed_networks=LOOPBACK)
    assert fetch(fetcher, f"http://rebinding.example:{port}/host") == f"rebinding.example:{port}".encode()
    assert asked.count("rebinding.example") == 1


def test_allowed_network(store: LocalStore, web: str) -> None:
    fetcher = ContentFetcher(store, allowed_networks=LOOPBACK)
    assert fetch(fetcher, f"{web}/file?a=1") == b"content of /file?a=1"
    assert fetch(fetcher, f"{web}/once") == b"content of /file?moved"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/none", NotFound),
        ("/broken", UnavailableError),
        ("/loop", Denied),
        ("/cut", UnavailableError),
        ("/scheme", InputError),
        ("/nowhere", Denied),
        ("/endless", TooLarge),
    ],
)
def test_web_failures_are_named(store: LocalStore, web: str, path: str, error: type[CloisterError]) -> None:
    started = time.monotonic()
    with pytest.raises(error):
        fetch(ContentFetcher(store, allowed_networks=LOOPBACK), f"{web}{path}")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("path", "error", "code"),
    [
        ("/401", Denied, "input-file-refused"),
        ("/403", Denied, "input-file-refused"),
        ("/410", NotFound, "not-found"),
        ("/429", UnavailableError, "unavailable"),
        ("/503", UnavailableError, "unavailable"),
    ],
)
def test_what_will_not_change_is_told_from_what_may(
    store: LocalStore, web: str, path: str, error: type[CloisterError], code: str
) -> None:
    with pytest.raises(error) as refused:
        fetch(ContentFetcher(store, allowed_networks=LOOPBACK), f"{web}{path}")
    assert refused.value.code == code


def test_a_host_that_does_not_exist_is_not_waited_for(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for errno, error in ((socket.EAI_NONAME, NotFound), (socket.EAI_AGAIN, UnavailableError)):

        def resolve(*_: object, errno: int = errno, **__: object) -> object:
            raise socket.gaierror(errno, "no")

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with pytest.raises(error, match="nowhere is unknown"):
            fetch(ContentFetcher(store), "http://nowhere/")


def test_a_server_that_drips_is_left_in_time(store: LocalStore, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes well before any timeout of the socket; only the clock over all of them ends it."""
    monkeypatch.setitem(fetching._SECONDS, "input", 0.5)
    fetcher = ContentFetcher(store, allowed_networks=LOOPBACK)
    got: list[bytes] = []
    with pytest.raises(UnavailableError, match="took too long"):
        got.extend(fetcher.fetch(f"{web}/drip", "input", 1 << 20))
    assert got


@pytest.mark.parametrize("text", ["10.0.0.0/8", "127.0.0.1", "fd00::/8"])
def test_networks_that_an_operator_may_allow(tmp_path: Path, text: str) -> None:
    settings = WorkerSettings(Address("0x" + "11" * 20), tmp_path, allowed_networks=(text,))
    assert settings.networks == (ipaddress.ip_network(text),)
    assert WorkerSettings(Address("0x" + "11" * 20), tmp_path).networks == (), "nothing is allowed unless it is named"


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "", "127.0.0.0/33"])
def test_networks_that_are_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed_networks"):
        WorkerSettings(Address("0x" + "11" * 20), tmp_path, allowed_networks=(text,))


@pytest.mark.parametrize(
    "location",
    [
        "http://[::1/",
        "http://x:99999/",
        "http://x:y/",
        "file:///etc/passwd",
        "ftp://example.org/a",
        "/etc/passwd",
        "",
        "http://user:pass@example.org/",
        "http:///a",
    ],
)
def test_other_locations_are_refused(store: LocalStore, location: str) -> None:
    with pytest.raises(CloisterError):
        fetch(ContentFetcher(store), location)
