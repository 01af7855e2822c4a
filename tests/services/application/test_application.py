"""The skeleton, driven over a real socket."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import urllib3
from tests.services.application.parts import SECRET, Bazaar, Faulty, Shelf

from cloister.errors import ConfigurationError, UnavailableError
from cloister.services.application import ApplicationSettings, BackgroundServer, build_application
from cloister.services.edge import EdgeLimits

SETTINGS = ApplicationSettings(
    limits=EdgeLimits(max_body=1000, max_target=2000, max_headers=30, max_header_bytes=4000, body_idle_seconds=0.5)
)


class Peer:
    def __init__(self, url: str, shelf: Shelf, bazaar: Bazaar) -> None:
        self.url = url
        self.shelf = shelf
        self.bazaar = bazaar
        self.pool = urllib3.PoolManager(retries=False)

    def ask(self, method: str, path: str, **more: object) -> urllib3.BaseHTTPResponse:
        return self.pool.request(method, self.url + path, timeout=10, **more)  # type: ignore[arg-type]

    def connect(self) -> socket.socket:
        place = urlsplit(self.url)
        return socket.create_connection((place.hostname, place.port), timeout=10)


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    shelf, bazaar = Shelf(), Bazaar()
    with BackgroundServer(build_application([shelf, bazaar], settings=SETTINGS)) as server:
        yield Peer(server.url, shelf, bazaar)


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("missing", 404, {"error": "no such book", "code": "not-found", "hint": "look elsewhere"}),
        ("conflict", 409, {"error": "taken already", "code": "taken", "hint": None}),
        ("denied", 403, {"error": "not for you", "code": "denied", "hint": None}),
        ("unknown", 401, {"error": "who are you", "code": "unauthenticated", "hint": None}),
        ("busy", 503, {"error": "come back later", "code": "unavailable", "hint": None}),
    ],
)
def test_errors_of_the_tree_become_status_and_json(peer: Peer, kind: str, status: int, body: dict[str, object]) -> None:
    answer = peer.ask("GET", f"/shelf/fail/{kind}")
    assert (answer.status, answer.json()) == (status, body)
    assert answer.headers["content-type"] == "application/json"
    assert ("retry-after" in answer.headers) == (status == 503)
    assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("kind", ["bug", "crash"])
def test_an_unforeseen_error_shows_a_constant_text_and_an_id_that_the_log_has(
    peer: Peer, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "cloister.errors"):
        answer = peer.ask("GET", f"/shelf/fail/{kind}")
    assert answer.status == 500
    identifier = answer.headers["x-request-id"]
    assert answer.json() == {
        "error": "internal error",
        "code": "internal",
        "hint": f"give the operator this id: {identifier}",
    }
    assert any(identifier in record.getMessage() for record in caplog.records)
    assert SECRET.encode() not in answer.data


def test_a_part_renders_its_own_failures_for_every_path_that_is_its_own(peer: Peer) -> None:
    assert peer.ask("GET", "/bazaar/denied").json() == {"ok": False, "error": "secret reason"}
    assert peer.ask("GET", "/bazaar/denied").status == 403
    assert peer.ask("GET", "/bazaar/nowhere").json() == {"ok": False, "error": "no such path"}
    assert peer.ask("DELETE", "/bazaar/denied").json() == {"ok": False, "error": "method not allowed"}
    crashed = peer.ask("GET", "/bazaar/crash")
    assert (crashed.status, crashed.json()) == (500, {"ok": False, "error": "internal error"})
    assert peer.ask("POST", "/bazaar/items", json={"name": "x"}).json() == {
        "ok": False,
        "error": "body.count: field required",
    }
    too_large = peer.ask("POST", "/bazaar/items", body=b"x" * 1001)
    assert (too_large.status, too_large.json()["ok"]) == (413, False)


def test_unknown_paths_and_methods(peer: Peer) -> None:
    assert peer.ask("GET", "/nowhere").json() == {"error": "no such path", "code": "not-found", "hint": None}
    wrong = peer.ask("GET", "/shelf/items")
    assert (wrong.status, wrong.json()["code"], wrong.headers["allow"]) == (405, "method-not-allowed", "POST")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "body.1: JSON decode error"),
        (b'{"name": "a"}', "body.count: field required"),
        (b'{"name": 1, "count": "x"}', "body.name: input should be a valid string (and 1 more)"),
        (b"[" * 900, None),
    ],
)
def test_a_body_that_does_not_fit_is_refused_without_repeating_it(peer: Peer, body: bytes, error: str | None) -> None:
    answer = peer.ask("POST", "/shelf/items", body=body, headers={"content-type": "application/json"})
    assert (answer.status, answer.json()["code"]) == (400, "invalid-input")
    if error is not None:
        assert answer.json()["error"].lower() == error.lower()


def test_announced_body_over_the_cap_is_refused_before_it_is_sent(peer: Peer) -> None:
    with peer.connect() as plug:
        plug.sendall(b"POST /shelf/items HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
        head = plug.recv(65536)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in head.lower()


def test_chunked_body_over_the_cap_is_refused_where_it_crosses(peer: Peer) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100_000):
            yield b"x" * 500

    try:
        answer = peer.ask("POST", "/shelf/items", body=endless(), chunked=True)
    except urllib3.exceptions.ProtocolError:
        return  # the server closed while we were still sending, which a client may see before the answer
    assert answer.status == 413


def test_route_caps_take_the_place_of_the_default(peer: Peer) -> None:
    assert peer.ask("POST", "/shelf/small", body=b"x" * 10).json() == {"size": 10}
    refused = peer.ask("POST", "/shelf/small", body=b"x" * 11)
    assert (refused.status, refused.json()["error"]) == (413, "request body exceeds 10 bytes")
    assert peer.ask("POST", "/shelf/stream", body=b"x" * 500_000).json() == {"size": 500_000}


def test_a_body_that_stalls_is_given_up(peer: Peer) -> None:
    with peer.connect() as plug:
        plug.sendall(b"POST /shelf/stream HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        head = plug.recv(65536)
    assert head.startswith(b"HTTP/1.1 408 ")


def test_head_caps(peer: Peer) -> None:
    assert peer.ask("GET", "/-/health?" + "x" * 2000).status == 414
    assert peer.ask("GET", "/-/health", headers={f"x-{i}": "1" for i in range(40)}).status == 431
    assert peer.ask("GET", "/-/health", headers={"x-long": "x" * 4000}).status == 431


def test_browsers_on_other_origins_may_call(peer: Peer) -> None:
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "PUT",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = peer.ask("OPTIONS", "/shelf/items", headers=asked)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    refused = peer.ask("GET", "/shelf/fail/crash", headers={"origin": "https://app.example"})
    assert refused.headers["access-control-allow-origin"] == "*"


def test_readiness_names_the_part_that_cannot_serve(peer: Peer) -> None:
    assert peer.ask("GET", "/-/ready").json() == {"ready": True, "parts": {"shelf": "ok", "bazaar": "ok"}}
    peer.shelf.unready = UnavailableError("the chain does not answer")
    peer.bazaar.unready = RuntimeError(SECRET)
    try:
        answer = peer.ask("GET", "/-/ready")
        assert answer.status == 503
        assert answer.json()["parts"] == {"shelf": "the chain does not answer", "bazaar": "internal error"}
        assert peer.ask("GET", "/-/health").json() == {"status": "ok"}
    finally:
        peer.shelf.unready = peer.bazaar.unready = None


def test_metrics_count_by_route_and_not_by_path(peer: Peer) -> None:
    for name in ("one", "two", "three"):
        assert peer.ask("GET", f"/shelf/named/{name}").status == 200
    page = peer.ask("GET", "/-/metrics").data.decode()
    line = 'cloister_http_requests_total{method="GET",route="/shelf/named/{name}",status="200"} 3.0'
    assert line in page.splitlines()
    assert "/shelf/named/one" not in page


def test_access_log_has_no_query_and_is_json(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cloister.access"):
        answer = peer.ask("GET", f"/shelf/named/x?token={SECRET}", headers={"authorization": SECRET})
        deadline = time.monotonic() + 5
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
    entry = json.loads(caplog.records[-1].getMessage())
    assert (entry["path"], entry["status"], entry["id"]) == ("/shelf/named/x", 200, answer.headers["x-request-id"])
    assert SECRET not in caplog.text


def test_an_answer_that_breaks_half_way_does_not_look_complete(peer: Peer) -> None:
    with pytest.raises(urllib3.exceptions.HTTPError):
        peer.ask("GET", "/shelf/broken-stream")


def test_version_names_the_parts(peer: Peer) -> None:
    from cloister import __version__

    assert peer.ask("GET", "/-/version").json() == {"version": __version__, "parts": ["shelf", "bazaar"]}


def test_a_stop_lets_answers_under_way_end() -> None:
    shelf = Shelf()
    server = BackgroundServer(build_application([shelf]))
    server.start()
    seen: list[int] = []

    def ask() -> None:
        seen.append(urllib3.request("GET", f"{server.url}/shelf/slow", timeout=10, retries=False).status)

    asking = threading.Thread(target=ask)
    asking.start()
    assert shelf.slow_entered.wait(10)
    server.stop()
    asking.join(10)
    assert seen == [200]
    assert shelf.events == ["start", "stop"]


def test_a_part_that_does_not_start_stops_the_others() -> None:
    shelf, faulty = Shelf(), Faulty()
    server = BackgroundServer(build_application([shelf, faulty]))
    with pytest.raises(UnavailableError, match="no chain here"):
        server.start()
    assert shelf.events == ["start", "stop"]
    assert faulty.events == ["start", "stop"]


def test_a_taken_port_is_a_clear_error() -> None:
    with (
        BackgroundServer(build_application([])) as server,
        pytest.raises(ConfigurationError, match=r"cannot listen on 127\.0\.0\.1 port"),
    ):
        BackgroundServer(build_application([]), port=urlsplit(server.url).port or 0)


def test_parts_may_not_share_names_or_paths() -> None:
    with pytest.raises(ConfigurationError, match="share a name"):
        build_application([Shelf(), Shelf()])
    other = Shelf()
    other.name = "other"
    with pytest.raises(ConfigurationError, match="both serve"):
        build_application([Shelf(), other])
