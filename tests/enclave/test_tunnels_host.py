"""The host's end of tunnels, alone: agents that lie, servers that stand still, where is connected to."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from tests.support.tcp import deaf, drip, echo, firehose, serving

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
from cloister.protocol.channel import TUNNEL, Frame
from cloister.protocol.codec import Address
from cloister.protocol.destinations import Destination
from cloister.protocol.tunnels import (
    AT_ONCE,
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
from cloister.worker import tunnels as module
from cloister.worker.addresses import Addresses, Network
from cloister.worker.connecting import Connector
from cloister.worker.settings import WorkerSettings
from cloister.worker.tunnels import HostTunnels

DESTINATION = Destination("rates.example.org", 443)
ADDRESS = Address("0x" + "11" * 20)


class Rig:
    """A host's tunnels with this test as their agent."""

    def __init__(self, connect: Callable[[str, int], socket.socket], budget: int = 1 << 40) -> None:
        self.frames: list[Frame] = []
        self._came = threading.Condition()
        self._taken = 0
        self.gone = False
        self.tunnels = HostTunnels(connect, self._send, budget=budget)

    def _send(self, frame: Frame) -> None:
        if self.gone:
            raise BrokenPipeError
        with self._came:
            self.frames.append(frame)
            self._came.notify_all()

    def close(self) -> None:
        self.tunnels.close()

    def tell(self, *messages: Tunnel) -> None:
        for message in messages:
            self.tunnels.take(build_tunnel(message))

    def next(self, seconds: float = 5) -> Tunnel:
        """The next message to the agent."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.frames) > self._taken, seconds), "the host says nothing"
            self._taken += 1
            return parse_tunnel(self.frames[self._taken - 1])

    def data(self, size: int) -> bytes:
        """So many bytes; windows that are given meanwhile are passed over."""
        content = b""
        while len(content) < size:
            message = self.next()
            if isinstance(message, Data):
                content += message.content
            else:
                assert isinstance(message, Grant), message
        return content

    def quiet(self, seconds: float = 0.2) -> bool:
        with self._came:
            return not self._came.wait_for(lambda: len(self.frames) > self._taken, seconds)


def to(port: int) -> Callable[[str, int], socket.socket]:
    return lambda host, _: socket.create_connection(("127.0.0.1", port), 5)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with serving(echo) as server, closing(Rig(to(server.port))) as made:
        yield made


def test_bytes_go_both_ways_to_the_end(rig: Rig) -> None:
    rig.tell(Open(1, DESTINATION), Data(1, b"early"))
    assert rig.next() == Opened(1)
    assert rig.data(5) == b"early"
    rig.tell(Data(1, b"more"), End(1))
    assert rig.data(4) == b"more"
    assert rig.next() == Close(1, CloseCause.ENDED)
    rig.tell(Data(1, b"late"), Grant(1, 1), End(1), Close(1, CloseCause.ENDED))
    assert rig.quiet()


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ([Data(2, b"x")], "did not ask for"),
        ([End(2)], "did not ask for"),
        ([Grant(2, 1)], "did not ask for"),
        ([Close(2, CloseCause.ENDED)], "did not ask for"),
        ([Opened(1)], "did not ask for"),
        ([Open(1, DESTINATION)], "opens tunnel 1 after 1"),
        ([Open(3, DESTINATION)], "opens tunnel 3 after 1"),
        ([Grant(1, 1)], "given 1 bytes more"),
    ],
)
def test_an_agent_that_lies_is_ended(rig: Rig, lie: list[Tunnel], reason: str) -> None:
    rig.tell(Open(1, DESTINATION))
    assert rig.next() == Opened(1)
    with pytest.raises(DecodeError, match=reason):
        rig.tell(*lie)


def test_windows_hold_for_the_agent() -> None:
    with serving(deaf) as server, closing(Rig(to(server.port))) as rig:
        rig.tell(Open(1, DESTINATION))
        assert rig.next() == Opened(1)
        with pytest.raises(DecodeError, match="brings"):
            rig.tell(*[Data(1, bytes(PIECE))] * 1000)
        rig.tell(End(1))
        with pytest.raises(DecodeError, match="after its end"):
            rig.tell(Data(1, b"x"))


def test_windows_hold_for_the_server() -> None:
    with serving(firehose) as server, closing(Rig(to(server.port))) as rig:
        rig.tell(Open(1, DESTINATION))
        assert rig.next() == Opened(1)
        assert len(rig.data(WINDOW)) == WINDOW
        assert rig.quiet()
        rig.tell(Grant(1, 1000))
        assert len(rig.data(1000)) == 1000
        assert rig.quiet()
        rig.tell(Close(1, CloseCause.ENDED))
        until = time.monotonic() + 5
        while server.open:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_drops_are_passed_on() -> None:
    with serving(drip) as server, closing(Rig(to(server.port))) as rig:
        rig.tell(Open(1, DESTINATION))
        assert rig.next() == Opened(1)
        assert rig.data(12) == b"drop by drop"
        assert rig.next() == Close(1, CloseCause.ENDED)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (Denied("private"), CloseCause.DENIED),
        (NotFound("no such host"), CloseCause.UNKNOWN_HOST),
        (InputError("no name"), CloseCause.UNREACHABLE),
        (UnavailableError("late", code="timed-out"), CloseCause.TIMED_OUT),
        (UnavailableError("refused"), CloseCause.UNREACHABLE),
        (ConnectionRefusedError("refused"), CloseCause.UNREACHABLE),
    ],
)
def test_why_there_is_no_connection(error: Exception, cause: CloseCause) -> None:
    def connect(host: str, port: int) -> socket.socket:
        raise error

    with closing(Rig(connect)) as rig:
        rig.tell(Open(1, DESTINATION))
        assert rig.next() == Close(1, cause)


def test_so_many_at_a_time_and_no_more() -> None:
    hold = threading.Event()

    def connect(host: str, port: int) -> socket.socket:
        hold.wait(10)
        raise NotFound("late")

    with closing(Rig(connect)) as rig:
        rig.tell(*(Open(number, DESTINATION) for number in range(1, AT_ONCE + 1)))
        with pytest.raises(DecodeError, match="more than 32"):
            rig.tell(Open(AT_ONCE + 1, DESTINATION))
        # Given up by the agent while names are still looked up: as many again, then no thread is left for more.
        rig.tell(*(Close(number, CloseCause.TIMED_OUT) for number in range(1, AT_ONCE + 1)))
        rig.tunnels._last = AT_ONCE
        rig.tell(*(Open(number, DESTINATION) for number in range(AT_ONCE + 1, 2 * AT_ONCE + 1)))
        rig.tell(Close(2 * AT_ONCE, CloseCause.ENDED), Open(2 * AT_ONCE + 1, DESTINATION))
        assert rig.next() == Close(2 * AT_ONCE + 1, CloseCause.UNREACHABLE)
        hold.set()


def test_bytes_are_counted_both_ways() -> None:
    with serving(firehose) as server, closing(Rig(to(server.port), budget=PIECE)) as rig:
        rig.tell(Open(1, DESTINATION))
        assert rig.next() == Opened(1)
        while isinstance(message := rig.next(), Data):
            pass
        assert message == Close(1, CloseCause.LIMIT)
        with pytest.raises(TooLarge, match="more than they may"):
            rig.tell(Data(1, b"x"))


def test_silent_tunnels_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.1)
    rig.tell(Open(1, DESTINATION))
    assert rig.next() == Opened(1)
    assert rig.next() == Close(1, CloseCause.IDLE)


def test_an_agent_that_is_gone_ends_its_connections() -> None:
    with serving(firehose) as server, closing(Rig(to(server.port))) as rig:
        rig.gone = True
        rig.tell(Open(1, DESTINATION), Open(2, DESTINATION))
        until = time.monotonic() + 5
        while server.accepted < 2 or server.open:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_closing_leaves_no_thread_behind() -> None:
    with serving(firehose) as server:
        before = threading.active_count()
        rig = Rig(to(server.port))
        rig.tell(*(Open(number, DESTINATION) for number in range(1, 9)))
        for _ in range(8):
            rig.next()
        rig.close()
        rig.close()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("tunnel-")]
        assert threading.active_count() <= before + 8  # the server's own


@pytest.mark.parametrize("seed", range(10))
def test_no_order_of_frames_breaks_it(seed: int) -> None:
    chance = random.Random(seed)
    with serving(echo) as server, closing(Rig(to(server.port))) as rig:
        for _ in range(80):
            id_ = chance.randint(1, 8)
            message: Tunnel = chance.choice(
                [
                    Open(rig.tunnels._last + 1, DESTINATION),
                    Open(id_, DESTINATION),
                    Data(id_, bytes(chance.randint(1, 9000))),
                    Grant(id_, chance.randint(1, 9000)),
                    End(id_),
                    Close(id_, CloseCause.ENDED),
                    Opened(id_),
                ]
            )
            with suppress(CloisterError):
                rig.tell(message)
            with suppress(CloisterError):
                rig.tunnels.take(
                    Frame(TUNNEL, {"op": chance.choice(["data", "x", "open"]), "id": chance.randint(-1, 9)})
                )
        for frame in list(rig.frames):
            parse_tunnel(frame)


# --- where is connected to ---


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names are these addresses, one list at each look-up; returns what was looked up."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *rest: object, **named: object) -> list[object]:
        if host[0].isdigit() or ":" in host:
            return real(host, port, *rest, **named)  # type: ignore[arg-type,return-value]
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(kinds[":" in item], socket.SOCK_STREAM, 6, "", (item, port)) for item in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["192.168.1.1"],
        ["100.64.0.1"],
        ["0.0.0.0"],  # noqa: S104
        ["224.0.0.1"],
        ["::1"],
        ["fe80::1"],
        ["fd00::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::"],
        ["93.184.216.34", "127.0.0.1"],
    ],
)
def test_names_of_private_addresses_are_not_connected_to(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, addresses)
    with pytest.raises(Denied, match="not a public address"):
        Connector(Addresses()).connect("rebind.example.org", 443)


def test_the_address_that_was_checked_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is a public address for the check would be a private one for the connection."""
    with serving(echo) as server:
        allowed: tuple[Network, ...] = WorkerSettings(ADDRESS, Path(), allowed_networks=("127.0.0.2/32",)).networks
        asked = resolving(monkeypatch, ["127.0.0.2"], ["127.0.0.1"])
        with suppress(UnavailableError):  # nobody listens on the address that was checked
            Connector(Addresses(allowed)).connect("rebind.example.org", server.port).close()
        assert asked == ["rebind.example.org"]
        assert server.accepted == 0


def test_an_operator_may_allow_private_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["127.0.0.1"])
    with serving(echo) as server:
        allowed = WorkerSettings(ADDRESS, Path(), allowed_networks=("127.0.0.0/8",)).networks
        with Connector(Addresses(allowed)).connect("inside.example.org", server.port) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"


def test_an_operator_may_lead_connections_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolving(monkeypatch, ["127.0.0.1"])
    with serving(echo) as server:
        connector = Connector(Addresses(), {"Rates.Example.org": server.place})
        connector.connect("rates.example.org", 443).close()
        for host, port in (("rates.example.org", 444), ("x.rates.example.org", 443)):
            with pytest.raises(Denied):
                connector.connect(host, port)
    assert asked == ["rates.example.org", "x.rates.example.org"]


def test_a_closed_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match="cannot be reached"):
        Connector(Addresses(), {"rates.example.org": "127.0.0.1:1"}).connect("rates.example.org", 443)


@pytest.mark.parametrize(
    "mapping",
    [
        {"rates.example.org:443": "127.0.0.1"},
        {"rates.example.org:443": "127.0.0.1:0"},
        {"rates.example.org:443": "127.0.0.1:65536"},
        {"rates.example.org:443": ":443"},
        {"rates.example.org:443": "127.0.0.1:http"},
        {"10.0.0.1:443": "127.0.0.1:443"},
        {"*.example.org": "127.0.0.1:443"},
    ],
)
def test_settings_that_make_no_sense_are_refused(mapping: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="connect_to"):
        WorkerSettings(ADDRESS, Path(), connect_to=mapping)
    assert WorkerSettings(ADDRESS, Path()).connect_to == {}
