"""The agent's end of tunnels, alone: a host that lies, clients that take their time, limits."""

from __future__ import annotations

import os
import random
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cloister.enclave import tunnels as module
from cloister.enclave.host import HostChannel
from cloister.enclave.sandbox import Limits, SandboxSpec
from cloister.enclave.tunnels import Tunnels, connect
from cloister.errors import CloisterError, DecodeError, UnavailableError
from cloister.protocol.channel import TUNNEL, Frame, FrameParser, build_frame
from cloister.protocol.destinations import Destination
from cloister.protocol.tunnels import (
    AT_ONCE,
    IDLE_SECONDS,
    IN_ALL,
    PIECE,
    WINDOW,
    Close,
    CloseCause,
    Data,
    End,
    Grant,
    Open,
    Opened,
    Tunnel,
    build_tunnel,
    parse_tunnel,
)

HOST = "rates.example.org:443"
DESTINATION = Destination("rates.example.org", 443)
CONNECT = f"CONNECT {HOST} HTTP/1.1\r\n\r\n".encode()


class Rig:
    """An agent's tunnels with this test as their host and their clients."""

    def __init__(self, budget: int = 1 << 40) -> None:
        self.host, theirs = socket.socketpair()
        self.host.settimeout(5)
        self.channel = HostChannel(theirs, timeout=5)
        self.tunnels = Tunnels(self.channel, (HOST,), budget=budget)
        self.selector = selectors.DefaultSelector()
        self.tunnels.begin(self.selector)
        self._parser = FrameParser()
        self._clients: list[socket.socket] = []
        self._theirs = theirs

    def close(self) -> None:
        self.tunnels.close()
        self.selector.close()
        for connection in (*self._clients, self.host, self._theirs):
            connection.close()

    def turn(self) -> None:
        """Serve what is ready, until nothing is."""
        while ready := self.selector.select(0.003):
            for key, events in ready:
                key.data(key, events)

    def client(self, *said: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", int(self.tunnels.url.rpartition(":")[2])), 5)
        self._clients.append(connection)
        for piece in said:
            connection.sendall(piece)
        self.turn()
        return connection

    def tell(self, *messages: Tunnel) -> None:
        for message in messages:
            self.host.sendall(build_frame(build_tunnel(message)))
            self.turn()

    def heard(self) -> list[Tunnel]:
        """What the agent has told the host since the last time."""
        frames: list[Frame] = []
        self.host.settimeout(0)
        with suppress(BlockingIOError):
            while True:
                frames += self._parser.feed(self.host.recv(1 << 20))
        self.host.settimeout(5)
        return [parse_tunnel(frame) for frame in frames]

    def opened(self, id_: int = 1) -> socket.socket:
        client = self.client(CONNECT)
        assert self.heard() == [Open(id_, DESTINATION)]
        self.tell(Opened(id_))
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        return client


@pytest.fixture
def rig() -> Iterator[Rig]:
    with closing(Rig()) as made:
        yield made


def answer(client: socket.socket) -> str:
    """The whole answer, to the end of the connection."""
    said = b""
    while data := client.recv(4096):
        said += data
    return said.decode()


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ([Data(2, b"x")], "was not asked for"),
        ([Opened(2)], "was not asked for"),
        ([Grant(2, 1)], "was not asked for"),
        ([Close(2, CloseCause.ENDED)], "was not asked for"),
        ([Open(1, DESTINATION)], "was not asked for"),
        ([End(1)], "was not asked for"),
        ([Opened(1)], "opens tunnel 1 twice"),
        ([Grant(1, 1)], "given 1 bytes more"),
        ([Data(1, bytes(PIECE))] * (WINDOW // PIECE) + [Data(1, b"x")] + [Data(1, bytes(PIECE))] * 70, "brings"),
    ],
)
def test_a_host_that_lies_ends_the_task(rig: Rig, lie: list[Tunnel], reason: str) -> None:
    rig.opened()
    with pytest.raises(DecodeError, match=reason):
        rig.tell(*lie)


@pytest.mark.parametrize("early", [Data(1, b"x"), Grant(1, 1)])
def test_a_host_that_uses_a_tunnel_before_it_is_open(rig: Rig, early: Tunnel) -> None:
    rig.client(CONNECT)
    with pytest.raises(DecodeError, match="before it is open"):
        rig.tell(early)


@pytest.mark.parametrize(
    "frame", [Frame("chunk", {}, b"x"), Frame("end"), Frame("session", {}), Frame(TUNNEL, {"op": "exec", "id": 1})]
)
def test_no_other_frame_belongs_here(rig: Rig, frame: Frame) -> None:
    rig.host.sendall(build_frame(frame))
    with pytest.raises(DecodeError):
        rig.turn()


def test_a_host_that_leaves_or_refuses_ends_the_task(rig: Rig) -> None:
    rig.host.sendall(build_frame(Frame("error", {"cause": "x", "message": "no"})))
    with pytest.raises(UnavailableError, match="no"):
        rig.turn()
    rig.host.shutdown(socket.SHUT_RDWR)
    with pytest.raises(UnavailableError, match="gone"):
        rig.turn()


def test_what_comes_too_late_is_passed_over(rig: Rig) -> None:
    client = rig.opened()
    client.close()
    rig.turn()
    assert rig.heard() == [End(1)]
    rig.tell(Data(1, b"x"), Data(1, b"x"))  # the second write tells that the client is gone
    assert Close(1, CloseCause.BROKEN) in rig.heard()
    rig.tell(Data(1, b"x"), Grant(1, 9), Close(1, CloseCause.ENDED))
    assert rig.heard() == []


def test_late_frames_do_not_disturb_the_agents_next_question(rig: Rig) -> None:
    rig.opened()
    rig.tunnels.close()
    assert rig.heard() == [Close(1, CloseCause.ENDED)]
    for message in (Data(1, b"x" * 1000), Grant(1, 5), Close(1, CloseCause.IDLE)):
        rig.host.sendall(build_frame(build_tunnel(message)))
    rig.host.sendall(build_frame(Frame("countersign", {}, b"signed")))
    assert rig.channel.ask("countersign").body == b"signed"


def test_bytes_go_both_ways_and_end_on_their_own(rig: Rig) -> None:
    client = rig.client(CONNECT + b"early")
    assert rig.heard() == [Open(1, DESTINATION)]
    rig.tell(Opened(1))
    assert rig.heard() == [Data(1, b"early")]
    client.sendall(b"more")
    client.shutdown(socket.SHUT_WR)
    rig.turn()
    assert rig.heard() == [Data(1, b"more"), End(1)]
    rig.tell(Data(1, b"answer"), Close(1, CloseCause.ENDED))
    assert answer(client) == "HTTP/1.1 200 Connection established\r\n\r\nanswer"
    assert rig.heard() == []


def test_a_client_that_sends_is_held_to_the_window(rig: Rig) -> None:
    client = rig.opened()
    client.setblocking(False)
    carried = 0
    with suppress(BlockingIOError):
        while True:
            client.send(bytes(1 << 16))
            rig.turn()
            carried += sum(len(item.content) for item in rig.heard() if isinstance(item, Data))
    assert carried == WINDOW
    rig.tell(Grant(1, 1000))
    assert sum(len(item.content) for item in rig.heard() if isinstance(item, Data)) == 1000


def test_a_client_that_does_not_read_is_given_no_more(rig: Rig) -> None:
    rig.opened()
    sent = granted = 0
    while sent - granted < WINDOW:
        rig.tell(Data(1, bytes(PIECE)))
        sent += PIECE
        granted += sum(item.size for item in rig.heard() if isinstance(item, Grant))
    # The rest lies in the kernel's buffers.
    assert sent < 32 << 20


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (CloseCause.TIMED_OUT, "504 rates.example.org:443 did not answer in time"),
        (CloseCause.UNKNOWN_HOST, "502 rates.example.org:443: there is no such host"),
        (CloseCause.DENIED, "502 rates.example.org:443 is at no public address"),
        (CloseCause.UNREACHABLE, "502 rates.example.org:443 cannot be reached"),
        (CloseCause.ENDED, "502 rates.example.org:443 cannot be reached"),
    ],
)
def test_why_there_is_no_connection(rig: Rig, cause: CloseCause, status: str) -> None:
    client = rig.client(CONNECT)
    rig.tell(Close(1, cause))
    said = answer(client)
    assert said.startswith(f"HTTP/1.1 {status}")
    head, _, body = said.partition("\r\n\r\n")
    assert f"Content-Length: {len(body)}" in head
    assert body.endswith("\n")
    assert status.partition(" ")[2] in body


def test_slow_requests_and_silent_hosts_are_given_up(rig: Rig) -> None:
    now = time.monotonic()
    slow = rig.client(b"CONNECT rates")
    waiting = rig.client(CONNECT)
    rig.tunnels.tick(now)
    assert rig.heard() == [Open(1, DESTINATION)]
    rig.tunnels.tick(now + module.HEADER_SECONDS + 1)
    assert answer(slow).startswith("HTTP/1.1 408 ")
    rig.tunnels.tick(now + 60)
    assert answer(waiting).startswith("HTTP/1.1 504 ")
    assert rig.heard() == [Close(1, CloseCause.TIMED_OUT)]


def test_silent_tunnels_end(rig: Rig) -> None:
    client = rig.opened()
    rig.tunnels.tick(time.monotonic() + IDLE_SECONDS - 1)
    assert rig.heard() == []
    rig.tunnels.tick(time.monotonic() + IDLE_SECONDS + 1)
    assert rig.heard() == [Close(1, CloseCause.IDLE)]
    assert client.recv(1) == b""


def test_clients_that_never_leave_are_left(rig: Rig) -> None:
    for _ in range(AT_ONCE):
        refused = rig.client(b"GET / HTTP/1.1\r\n\r\n")
        assert refused.recv(4096).startswith(b"HTTP/1.1 405 ")
        refused.sendall(b"more")
        rig.turn()
    rig.client(CONNECT)
    assert rig.heard() == []
    rig.tunnels.tick(time.monotonic() + 3)
    rig.turn()
    assert rig.heard() == [Open(1, DESTINATION)]


def test_a_full_house_takes_nobody_in(rig: Rig) -> None:
    clients = [rig.client(CONNECT) for _ in range(AT_ONCE + 3)]
    assert rig.heard() == [Open(number, DESTINATION) for number in range(1, AT_ONCE + 1)]
    clients[0].close()
    rig.tell(Close(1, CloseCause.UNREACHABLE))
    assert rig.heard() == [Open(AT_ONCE + 1, DESTINATION)]


def test_connections_are_counted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_ALL", 2)
    for _ in range(2):
        rig.client(CONNECT)
    assert answer(rig.client(CONNECT)).startswith("HTTP/1.1 503 ")
    assert rig.heard() == [Open(1, DESTINATION), Open(2, DESTINATION)]


def test_bytes_are_counted_both_ways() -> None:
    with closing(Rig(budget=1000)) as rig:
        client = rig.opened()
        client.sendall(bytes(600))
        rig.turn()
        rig.tell(Data(1, bytes(300)))
        assert rig.heard() == [Data(1, bytes(600))]
        rig.tell(Data(1, bytes(101)))
        assert rig.heard() == [Close(1, CloseCause.LIMIT)]
        assert answer(rig.client(CONNECT)).startswith("HTTP/1.1 503 ")


def test_the_app_is_told_where_the_proxy_is_and_of_its_own_authorities_only(rig: Rig, tmp_path: Path) -> None:
    limits = Limits(memory_bytes=1, disk_bytes=1, seconds=1, processes=1)
    spec = SandboxSpec(("a",), {"HOME": "/tmp", "HTTPS_PROXY": "http://elsewhere"}, (), "/", limits)
    assert not spec.online
    bare = connect(spec, rig.tunnels, tmp_path)
    assert bare.online
    assert bare.companions == (rig.tunnels,)
    url = rig.tunnels.url
    proxy = {"HTTPS_PROXY": url, "https_proxy": url, "NO_PROXY": "", "no_proxy": "", "NODE_USE_ENV_PROXY": "1"}
    assert dict(bare.environment) == {"HOME": "/tmp", **proxy}
    (tmp_path / "certifi").mkdir()
    (tmp_path / "certifi" / "cacert.pem").write_text("public authorities")
    assert connect(spec, rig.tunnels, tmp_path).environment["SSL_CERT_FILE"] == "/opt/iapp/lib/certifi/cacert.pem"
    assert "SSL_CERT_FILE" not in connect(spec, rig.tunnels, None).environment


def test_it_may_be_closed_at_any_time() -> None:
    for messages in ([], [CONNECT], [b"CONN"], [CONNECT + b"early"]):
        with closing(Rig()) as rig:
            rig.client(*messages)
            rig.host.close()
            rig.tunnels.close()
            rig.tunnels.close()
            assert not rig.selector.get_map()
    theirs, _ours = socket.socketpair()
    never_began = Tunnels(HostChannel(theirs), (HOST,))
    never_began.close()
    never_began.close()


@pytest.mark.parametrize("seed", range(20))
def test_no_order_of_events_breaks_it(seed: int) -> None:
    """Hosts, clients and clocks at random: only errors of our tree come out, and nothing stays behind."""
    chance = random.Random(seed)
    requests = [CONNECT, CONNECT[:20], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", os.urandom(30), CONNECT + b"x" * 500]
    with closing(Rig(budget=chance.choice([10_000, 1 << 30]))) as rig:
        clients: list[socket.socket] = []
        for _ in range(60):
            id_ = chance.randint(1, 6)
            choice = chance.randrange(8)
            with suppress(CloisterError, OSError):
                if choice == 0:
                    clients.append(rig.client(chance.choice(requests)))
                elif choice == 1 and clients:
                    chance.choice(clients).send(os.urandom(chance.randint(1, 5000)))
                elif choice == 2 and clients:
                    clients.pop(chance.randrange(len(clients))).close()
                elif choice == 3:
                    rig.tunnels.tick(time.monotonic() + chance.choice([0, 3, 30, 400]))
                elif choice == 4:
                    rig.tell(Opened(id_))
                elif choice == 5:
                    rig.tell(Data(id_, os.urandom(chance.randint(1, 5000))))
                elif choice == 6:
                    rig.tell(Grant(id_, chance.randint(1, 2000)))
                else:
                    rig.tell(Close(id_, chance.choice(list(CloseCause))))
                rig.turn()
        ids = [item.id for item in rig.heard() if isinstance(item, Open)]
        assert ids == sorted(set(ids))
        assert not ids or ids[-1] <= IN_ALL
        rig.tunnels.close()
        assert not rig.selector.get_map()
