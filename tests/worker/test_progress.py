"""Progress on its way to a scheduler that is there, away, slow or refuses: nothing waits for it and nothing fails."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cloister.clients.scheduler import SchedulerClient
from cloister.protocol.codec import Address, parse_base64
from cloister.protocol.progress import UPDATE_CAP
from cloister.protocol.signatures import PrivateKey
from cloister.worker.progress import ProgressLine

LEASE = "a" * 32
KEY = PrivateKey(b"\x05" * 32)


class Scheduler(ThreadingHTTPServer):
    """Takes updates; may be told to be slow, or to refuse."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.told: list[tuple[str, int, bytes]] = []
        self.go = threading.Event()
        self.go.set()
        self.status = 200

    @property
    def line(self) -> ProgressLine:
        return line_to(self.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    server: Scheduler

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.go.wait(10)
        update = parse_base64("update", body["update"], cap=UPDATE_CAP)
        self.server.told.append((self.path, body["number"], update))
        answer = b'{"ok":true}' if self.server.status == 200 else b'{"error":"no","code":"x","hint":null}'
        self.send_response(self.server.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def line_to(port: int) -> ProgressLine:
    client = SchedulerClient(f"http://127.0.0.1:{port}", chain_id=1, hub=Address("0x" + "11" * 20))
    worker = client.worker(KEY)
    return ProgressLine(lambda number, update: worker.give_progress(LEASE, number, update))


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    server = Scheduler()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.go.set()
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def at_once() -> Iterator[None]:
    """Hours would be noticed; a loaded machine's hundred milliseconds are not."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 2


def until(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")


def threads() -> int:
    return sum(thread.name == "progress" for thread in threading.enumerate())


def test_updates_arrive_in_their_order_and_the_last_one_after_the_end(scheduler: Scheduler) -> None:
    line = scheduler.line
    for number in (1, 2, 3):
        line.tell(number, bytes([number]))
    line.close()
    until(lambda: len(scheduler.told) == 3)
    path = f"/scheduler/v1/leases/{LEASE}/progress"
    assert scheduler.told == [(path, number, bytes([number])) for number in (1, 2, 3)]
    until(lambda: threads() == 0)


def test_of_what_waits_for_a_slow_scheduler_the_newest_is_told(scheduler: Scheduler) -> None:
    scheduler.go.clear()
    line = scheduler.line
    with at_once():
        for number in range(1, 60):
            line.tell(number, b"x")
        line.close()
    scheduler.go.set()
    until(lambda: scheduler.told[-1:] != [] and scheduler.told[-1][1] == 59)
    assert len(scheduler.told) <= 6


@pytest.mark.parametrize("status", [404, 409, 500])
def test_a_scheduler_that_refuses_costs_decoration_only(scheduler: Scheduler, status: int) -> None:
    scheduler.status = status
    line = scheduler.line
    line.tell(1, b"x")
    until(lambda: len(scheduler.told) == 1)
    scheduler.status = 200
    line.tell(2, b"y")
    until(lambda: len(scheduler.told) == 2)
    line.close()


def test_nobody_is_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        line = line_to(unused.getsockname()[1])
        with at_once():
            line.tell(1, b"x")
            line.tell(2, b"x")
            line.close()
        until(lambda: threads() == 0)


def test_a_silent_app_costs_no_thread() -> None:
    line = line_to(9)
    assert threads() == 0
    line.close()
    assert threads() == 0
