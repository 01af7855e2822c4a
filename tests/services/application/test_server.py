"""The server under signals, and peers who send their heads slowly or never."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3
from tests.services.application.parts import Shelf

from cloister.services.application import BackgroundServer, build_application

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BackgroundServer]:
    monkeypatch.setattr("cloister.services.server.HEAD_SECONDS", 0.4)
    with BackgroundServer(build_application([Shelf()])) as running:
        yield running


def connect(server: BackgroundServer) -> socket.socket:
    place = urlsplit(server.url)
    return socket.create_connection((place.hostname, place.port), timeout=10)


def receive(plug: socket.socket, end: bytes) -> bytes:
    seen = b""
    while not seen.endswith(end) and (more := plug.recv(65536)):
        seen += more
    return seen


def test_a_peer_who_says_nothing_is_dropped(server: BackgroundServer) -> None:
    with connect(server) as plug:
        assert plug.recv(100) == b""


def test_a_head_that_drips_is_dropped_also_on_a_connection_in_use(server: BackgroundServer) -> None:
    with connect(server) as plug:
        plug.sendall(b"GET /-/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert receive(plug, b"}").startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        with pytest.raises(OSError, match="gone"):
            drip(plug)
        assert time.monotonic() - began < 5


def drip(plug: socket.socket) -> None:
    plug.settimeout(0.05)
    for byte in b"GET /-/health HTTP/1.1\r\nX-Endless: " + b"x" * 200:
        plug.send(bytes([byte]))
        try:
            if plug.recv(100) == b"":
                raise OSError("gone")
        except TimeoutError:
            continue


def test_a_slow_answer_and_an_idle_connection_are_not_dropped(server: BackgroundServer) -> None:
    with connect(server) as plug:
        for _ in range(2):
            plug.sendall(b"GET /shelf/slow HTTP/1.1\r\nHost: x\r\n\r\n")
            assert receive(plug, b"}").startswith(b"HTTP/1.1 200")
            time.sleep(0.6)


def test_requests_sent_at_once_are_answered_in_order(server: BackgroundServer) -> None:
    with connect(server) as plug:
        plug.sendall(b"".join(b"GET /shelf/named/%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(3)))
        seen = b""
        while seen.count(b'{"name":') < 3:
            seen += plug.recv(65536)
    assert seen.index(b'"0"') < seen.index(b'"1"') < seen.index(b'"2"')


PROGRAM = """
import sys
from cloister.services.application import build_application, serve
from tests.services.application.parts import Shelf
shelf = Shelf()
serve(build_application([shelf]), port=int(sys.argv[1]))
print(shelf.events, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_answers_under_way_then_the_parts_then_the_caller(number: signal.Signals) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(port)],
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"},
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(500):
            try:
                urllib3.request("GET", f"{url}/-/health", retries=False, timeout=1)
                break
            except urllib3.exceptions.HTTPError:
                time.sleep(0.02)
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port), timeout=10) as plug:
            plug.sendall(b"GET /shelf/slow HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.2)
            running.send_signal(number)
            assert receive(plug, b"}").startswith(b"HTTP/1.1 200")
        output, _ = running.communicate(timeout=20)
        assert (output, running.returncode) == (b"['start', 'stop']\n", 0)
    finally:
        running.kill()
        running.wait()
