"""Connections: many, idle, cut off, odd; and what a page or a load balancer may ask besides GET."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import urllib3
from tests.services.application.parts import Bazaar, Shelf
from tests.services.openapi.wire import Origin, build_request, read_answer

from cloister.errors import ConfigurationError
from cloister.services.application import ApplicationSettings, BackgroundServer, build_application
from cloister.services.edge import EdgeLimits

SETTINGS = ApplicationSettings(limits=EdgeLimits(max_body=1000, body_idle_seconds=0.5, body_total_seconds=1.5))


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with BackgroundServer(build_application([Shelf(), Bazaar()], settings=SETTINGS)) as server:
        yield Origin(server.url)


def test_head_is_get_without_the_body(origin: Origin) -> None:
    for target in ("/shelf/named/x", "/-/health", "/-/openapi.json", "/openapi.json"):
        whole, head = origin.ask("GET", target), origin.ask("HEAD", target)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == whole.headers["content-length"] == str(len(whole.body))
    assert origin.ask("HEAD", "/shelf/fail/missing").status == 404
    assert origin.ask("HEAD", "/shelf/items").status == 405
    assert origin.ask("HEAD", "/nowhere").status == 404


@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "HTTP://elsewhere.example", "https://[::1]:9"])
def test_an_absolute_target_is_its_path(origin: Origin, host: str) -> None:
    answer = origin.ask("GET", f"{host}/shelf/named/a%2Fb?x=1")
    assert answer.status == 404, "an escaped slash is a slash to the router, as without a host"
    assert origin.ask("GET", f"{host}/shelf/named/y?x=1").json() == {"name": "y"}
    assert origin.ask("GET", host).status == 404


def test_an_old_client_is_answered_and_let_go(origin: Origin) -> None:
    with origin.connect() as plug:
        plug.sendall(b"GET /shelf/named/x HTTP/1.0\r\n\r\n")
        assert read_answer(plug).json() == {"name": "x"}
        assert plug.recv(1) == b""


def test_two_ways_to_say_where_a_body_ends_are_refused(origin: Origin) -> None:
    data = b"POST /shelf/items HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with origin.connect() as plug:
        plug.sendall(data + b"GET /shelf/named/smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_answer(plug)
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert b"not both" in answer.body
        with contextlib.suppress(ConnectionResetError):
            assert plug.recv(1000) == b"", "the rest is no request"


@pytest.mark.parametrize("target", ["/shelf/items", "/shelf/small", "/bazaar/items", "/nowhere"])
def test_a_body_without_end_ends_the_connection(origin: Origin, target: str) -> None:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece, sent = b"4000\r\n" + b"7" * 0x4000 + b"\r\n", 0
    with origin.connect() as plug:
        plug.sendall(head.encode())
        with contextlib.suppress(OSError):
            while sent < 64 * 1024 * 1024:
                plug.sendall(piece)
                sent += len(piece)
    assert sent < 32 * 1024 * 1024


def test_a_body_that_drips_is_refused_and_ends_the_connection(origin: Origin) -> None:
    with origin.connect() as plug:
        plug.sendall(b"POST /shelf/items HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n")
        began = time.monotonic()
        with contextlib.suppress(OSError):
            for _ in range(60):
                plug.sendall(b" ")
                time.sleep(0.05)
        assert time.monotonic() - began < 20
        with contextlib.suppress(ConnectionResetError):
            answer = read_answer(plug)
            assert (answer.status, answer.headers["connection"]) == (408, "close")


def test_many_idle_connections_leave_room_for_another(origin: Origin) -> None:
    with contextlib.ExitStack() as stack:
        plugs = [stack.enter_context(origin.connect()) for _ in range(300)]
        ask = build_request("GET", "/shelf/named/x")
        for plug in plugs:
            plug.sendall(ask)
        for plug in plugs:
            assert read_answer(plug).status == 200
        assert origin.ask("GET", "/shelf/named/y").status == 200
        for plug in plugs[::50]:
            plug.sendall(ask)
            assert read_answer(plug).status == 200, "a connection is used again"


def test_peers_who_vanish_leave_nothing_behind(origin: Origin) -> None:
    for _ in range(100):
        with origin.connect() as plug:
            plug.sendall(b"POST /shelf/items HTTP/1.1\r\nHost: x\r\nContent-Length: 900\r\n\r\n{")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        page = origin.ask("GET", "/-/metrics").body.decode()
        if "cloister_http_requests_in_flight 1.0" in page:
            return
        time.sleep(0.05)
    pytest.fail("requests whose peers are gone are still under way")


def test_a_stop_under_load_cuts_no_answer_short() -> None:
    server = BackgroundServer(build_application([Shelf()]))
    server.start()
    ended: list[object] = []
    gate = threading.Barrier(17)

    def ask_on() -> None:
        gate.wait()
        with urllib3.PoolManager(retries=False) as pool:
            while True:
                try:
                    answer = pool.request("GET", f"{server.url}/shelf/slow", timeout=15)
                except urllib3.exceptions.NewConnectionError:
                    return
                except urllib3.exceptions.ProtocolError as error:
                    if "IncompleteRead" in str(error):
                        ended.append(error)
                    return  # not taken any more
                ended.append((answer.status, answer.data))

    askers = [threading.Thread(target=ask_on) for _ in range(16)]
    for asker in askers:
        asker.start()
    gate.wait()
    time.sleep(0.2)
    server.stop()
    for asker in askers:
        asker.join(20)
        assert not asker.is_alive()
    assert set(ended) == {(200, b'{"slow":"done"}')}
    assert len(ended) >= 16, "all that were under way came to their end"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_taken_port_is_a_matter_of_configuration(family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family is socket.AF_INET else "::1"
    with socket.socket(family) as taken:
        try:
            taken.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on {host} port {port}") as refused:
            BackgroundServer(build_application([]), host=host, port=port)
        assert (refused.value.exit_code, bool(refused.value.hint)) == (78, True)
    with BackgroundServer(build_application([]), host=host, port=port) as server:
        assert urlsplit(server.url).port == port
