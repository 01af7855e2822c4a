"""The network of iApps that name hosts, end to end: the agent in its sandbox, the relay, real servers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.resources import as_file, files
from pathlib import Path

import pytest
from tests.enclave.test_node import needs_node, write_app
from tests.enclave.world import APP_LOCATION, HELLO, TestPlatform, World, build_world
from tests.support.tcp import Server, deaf, drip, echo, firehose, serving, swap

from cloister.errors import InputError
from cloister.generator.bundle import build_bundle
from cloister.worker.addresses import Addresses
from cloister.worker.connecting import Connector
from cloister.worker.relay import EnclaveFailed
from cloister.worker.runtimes.bubblewrap import BubblewrapRuntime

Make = Callable[..., World]
HOST = "rates.example.org:443"


@pytest.fixture(scope="module")
def mock_api() -> Iterator[tuple[str, str]]:
    """Place of the mock API of the template web-api, for rates.example.org; its authority."""
    with as_file(files("cloister.generator") / "templates" / "web-api") as template:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen([sys.executable, template / "mock" / "api.py", str(port)])
        try:
            until = time.monotonic() + 20
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert time.monotonic() < until
                time.sleep(0.02)
            yield f"127.0.0.1:{port}", (template / "ca.pem").read_text()
        finally:
            process.kill()
            process.wait()


DIAL = (
    HELLO
    + """
import socket, threading, time
from urllib.parse import urlsplit
PROXY = urlsplit(os.environ["HTTPS_PROXY"])
seen = {}

def talk(request, half=True):
    connection = socket.create_connection((PROXY.hostname, PROXY.port), 15)
    connection.sendall(request)
    return connection

def head(connection):
    answer = b""
    while not answer.endswith(b"\\r\\n\\r\\n"):
        byte = connection.recv(1)
        if not byte:
            break
        answer += byte
    return answer.decode()

def status(request):
    with talk(request) as connection:
        first = head(connection).split("\\r\\n")[0]
    return first.removeprefix("HTTP/1.1 ")

def dial(target="rates.example.org:443"):
    connection = talk(f"CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n".encode())
    answer = head(connection)
    assert answer.startswith("HTTP/1.1 200 "), answer
    return connection

def attempt(name, action):
    try:
        action()
        seen[name] = "allowed"
    except Exception as error:
        seen[name] = type(error).__name__
"""
)
SAY = '\njson.dump(seen, open("/iexec_out/seen.json", "w"))\n'


def run(task: World, runtime: BubblewrapRuntime, connect_to: Mapping[str, str]) -> dict[str, object]:
    """Run a task whose app says what it saw."""
    task.connector = Connector(Addresses(), connect_to)
    outcome = task.run(runtime)
    assert outcome.cause is None, outcome.logs
    files = task.files()
    return dict(json.loads(files["seen.json"])) if "seen.json" in files else {}


ANSWERS = (
    DIAL
    + r"""
def connect(target):
    return status(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())

for target in ("rates.example.org:443", "RATES.example.org:443", "second.example.org:8443", "other.example.org:443",
    "rates.example.org:80", "rates.example.org", "rates.example.org.:443", "x.rates.example.org:443", "127.0.0.1:443",
    "10.0.0.1:443", "[::1]:443", "169.254.169.254:80", "*:443", "rates.example.org:0443", "rates.example.org:443/x",
    "user@rates.example.org:443", "away.example.org:443", "%72ates.example.org:443"):
    seen[target] = connect(target)
seen["get"] = status(b"GET http://rates.example.org/secret HTTP/1.1\r\n\r\n")
seen["post"] = status(b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
seen["tls"] = status(b"\x16\x03\x01" + b"x" * 200 + b"\r\n\r\n")
seen["line break"] = status(b"CONNECT rates.example.org:443\nHTTP/1.1\r\n\r\n")
seen["two spaces"] = status(b"CONNECT  rates.example.org:443 HTTP/1.1\r\n\r\n")
seen["http/2"] = status(b"PRI * HTTP/2.0\r\n\r\n")
seen["giant header"] = status(b"CONNECT rates.example.org:443 HTTP/1.1\r\nX: " + b"x" * 9000)
seen["long target"] = status(b"CONNECT " + b"a" * 7000 + b" HTTP/1.1\r\n\r\n")
early = talk(b"CONNECT rates.example.org:443 HTTP/1.1\r\n\r\nearly")
head(early)
seen["early"] = early.recv(5, socket.MSG_WAITALL).decode()
early.shutdown(socket.SHUT_WR)
seen["after the end"] = early.recv(10).decode()
"""
    + SAY
)


def test_only_hosts_of_the_manifest_are_reached(world: Make, runtime: BubblewrapRuntime) -> None:
    names = ("rates.example.org", "second.example.org:8443", "away.example.org")
    task = world(ANSWERS, network=names)
    with serving(echo) as server:
        places = {HOST: server.place, "second.example.org:8443": server.place, "away.example.org:443": "127.0.0.1:1"}
        seen = run(task, runtime, places)
    for target in ("rates.example.org:443", "RATES.example.org:443", "second.example.org:8443"):
        assert seen.pop(target) == "200 Connection established"
    assert seen.pop("early") == "early"
    assert seen.pop("after the end") == ""
    assert server.accepted == 4
    assert seen.pop("away.example.org:443") == "502 away.example.org:443 cannot be reached"
    assert str(seen.pop("get")).startswith("405 GET is not served, only CONNECT")
    assert str(seen.pop("post")).startswith("405 POST is not served")
    for name in ("tls", "line break", "two spaces", "http/2"):
        assert seen.pop(name) == "400 this is no HTTP/1.1 request", name
    assert seen.pop("giant header") == "431 a request's header is at most 8192 bytes"
    assert (
        seen.pop("long target")
        == f"403 {'a' * 120}... is not in the network list of this iApp's manifest (network in iapp.toml)"
    )
    for target, answer in seen.items():
        assert answer == f"403 {target} is not in the network list of this iApp's manifest (network in iapp.toml)"
    assert len(seen) == 14


DOORS = (
    DIAL
    + r"""
import ctypes, errno, struct
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("udp over ipv6", lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
attempt("dns", lambda: socket.getaddrinfo("rates.example.org", 443))
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
attempt("vsock", lambda: socket.socket(40, socket.SOCK_STREAM))
attempt("mptcp", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
attempt("sctp", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132))
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
attempt("abstract name through a pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].connect("\0name"))
attempt("bind", lambda: socket.socket().bind(("127.0.0.1", 0)))
attempt("listen", lambda: socket.socket().listen())
attempt("accept", lambda: socket.socket().accept())
attempt("tls in the kernel", lambda: dial().setsockopt(socket.IPPROTO_TCP, 31, b"tls"))
attempt("public address", lambda: socket.create_connection(("1.1.1.1", 443), 1))
attempt("public address over ipv6", lambda: socket.create_connection(("2606:4700:4700::1111", 443), 1))
for port in (1, 22, 80, 443, 7300, 8545):
    attempt(f"port {port} of the loopback", lambda: socket.create_connection(("127.0.0.1", port), 1))
attempt("loopback over ipv6", lambda: socket.create_connection(("::1", PROXY.port), 1))
with open("/proc/net/dev") as table:
    seen["devices"] = sorted(line.split(":")[0].strip() for line in table.readlines()[2:])
STORES = ("/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/pki", "/usr/share/ca-certificates/mozilla")
seen["certificates"] = [path for path in STORES if os.path.exists(path)]
seen["environment"] = {name: value for name, value in os.environ.items() if "proxy" in name.lower() or "SSL" in name}
"""
    + SAY
)


def test_nothing_but_the_proxy_is_there(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(DOORS, network=(HOST,))
    with serving(echo) as server:
        seen = run(task, runtime, {HOST: server.place})
    assert seen.pop("devices") == ["lo"]
    assert seen.pop("certificates") == []
    environment = seen.pop("environment")
    assert isinstance(environment, dict)
    assert set(environment) == {"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "NODE_USE_ENV_PROXY"}
    assert [name for name, end in seen.items() if end == "allowed"] == []
    for name in (
        "udp",
        "raw",
        "packet",
        "netlink",
        "vsock",
        "mptcp",
        "sctp",
        "unix",
        "bind",
        "listen",
        "tls in the kernel",
    ):
        assert seen[name] == "PermissionError", name
    assert seen["port 8545 of the loopback"] == "ConnectionRefusedError"


def test_an_app_that_names_no_hosts_gets_no_socket(world: Make, runtime: BubblewrapRuntime) -> None:
    code = HELLO + (
        "import socket\n"
        "assert not [name for name in os.environ if 'proxy' in name.lower()]\n"
        "for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):\n"
        "    try:\n"
        "        socket.socket(family)\n"
        "    except PermissionError:\n"
        "        continue\n"
        "    raise SystemExit(f'{family} is open')\n"
    )
    task = world(code)
    task.network = False
    assert run(task, runtime, {}) == {}


def test_an_operator_may_refuse_apps_with_a_network(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(HELLO, network=(HOST,))
    task.network = False
    with pytest.raises(EnclaveFailed, match="runs no iApps that name hosts") as failure:
        task.run(runtime)
    assert failure.value.cause == "NETWORK_REFUSED"
    assert not task.requests, "no key was asked for"


def test_an_address_in_the_manifest_is_refused_when_it_is_built(world: Make) -> None:
    with pytest.raises(InputError, match="is an address"):
        world(HELLO, network=("10.0.0.1:443",))


MANY = (
    DIAL
    + """
def work():
    for _ in range(50):
        with dial() as connection:
            connection.sendall(b"ping")
            assert connection.recv(4, socket.MSG_WAITALL) == b"ping"
    seen["done"] = seen.get("done", 0) + 50

idle = [socket.create_connection((PROXY.hostname, PROXY.port), 15) for _ in range(20)]
crowd = [socket.socket() for _ in range(700)]
for connection in crowd:
    connection.setblocking(False)
    connection.connect_ex((PROXY.hostname, PROXY.port))
for connection in crowd + idle:
    connection.close()
workers = [threading.Thread(target=work) for _ in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
"""
    + SAY
)


def test_a_crowd_waits_its_turn(world: Make, runtime: BubblewrapRuntime) -> None:
    task = world(MANY, network=(HOST,), resources={"processes": 64})
    with serving(echo) as server:
        seen = run(task, runtime, {HOST: server.place})
    assert seen["done"] == 200
    assert server.accepted == 200
    assert server.peak <= 32


@pytest.mark.nightly
def test_a_thousand_connections_at_once(world: Make, runtime: BubblewrapRuntime) -> None:
    code = DIAL + (
        "def work():\n"
        "    with dial() as connection:\n"
        "        connection.sendall(b'x' * 1000)\n"
        "        assert len(connection.recv(1000, socket.MSG_WAITALL)) == 1000\n"
        "        seen['done'] = seen.get('done', 0) + 1\n"
        "threading.stack_size(1 << 18)\n"
        "workers = [threading.Thread(target=work) for _ in range(1000)]\n"
        "for worker in workers: worker.start()\n"
        "for worker in workers: worker.join()\n" + SAY
    )
    task = world(code, network=(HOST,), resources={"processes": 2000, "seconds": 50})
    with serving(echo) as server:
        assert run(task, runtime, {HOST: server.place})["done"] == 1000
    assert server.peak <= 32


TRANSFER = (
    DIAL
    + """
SIZE = {size}
connection = dial()
connection.settimeout(60)
started = time.monotonic()
connection.sendall(SIZE.to_bytes(8))
def give():
    left, piece = SIZE, bytes(1 << 18)
    while left:
        left -= connection.send(piece[:left])
giver = threading.Thread(target=give)
giver.start()
taken = 0
while taken < SIZE:
    taken += len(connection.recv(min(1 << 18, SIZE - taken)))
giver.join()
seen["end"] = connection.recv(4, socket.MSG_WAITALL).decode()
seen["seconds"] = time.monotonic() - started
"""
    + SAY
)


@pytest.mark.parametrize("size", [8 << 20, pytest.param(256 << 20, marks=pytest.mark.nightly)])
def test_much_goes_both_ways_at_once(world: Make, runtime: BubblewrapRuntime, size: int) -> None:
    task = world(TRANSFER.replace("{size}", str(size)), network=(HOST,))
    with serving(swap) as server:
        seen = run(task, runtime, {HOST: server.place})
    assert seen["end"] == "done"
    print(f"{2 * (size >> 20)} MiB in {seen['seconds']} s")


ODD = (
    DIAL
    + """
def attack(name, target, action):
    try:
        seen[name] = action(dial(target))
    except Exception as error:
        seen[name] = type(error).__name__

def push(connection):
    connection.settimeout(1)
    sent = 0
    try:
        while sent < 64 << 20:
            sent += connection.send(bytes(1 << 16))
    except TimeoutError:
        return sent

def wait(connection):
    connection.settimeout(0.5)
    return connection.recv(1)

def drops(connection):
    said = b""
    while data := connection.recv(100):
        said += data
    return said.decode()

# All at once: one that stands still must not hold up the others.
work = [
    threading.Thread(target=attack, args=("pushed", "deaf.example.org:443", push)),
    threading.Thread(target=attack, args=("waited", "deaf.example.org:443", wait)),
    threading.Thread(target=attack, args=("dripped", "drip.example.org:443", drops)),
]
full = dial("firehose.example.org:443")  # never read
for thread in work:
    thread.start()
for thread in work:
    thread.join()
with dial() as connection:
    connection.sendall(b"still here")
    seen["echo"] = connection.recv(10, socket.MSG_WAITALL).decode()
keep = [dial("firehose.example.org:443") for _ in range(8)] + [full]
for connection in keep[:4]:
    connection.recv(1 << 20)
"""
    + SAY
)


def test_servers_that_stand_still_hold_up_nobody(world: Make, runtime: BubblewrapRuntime) -> None:
    """The app ends with its connections open, and with more on its way to it than it ever reads."""
    names = (HOST, "deaf.example.org", "drip.example.org", "firehose.example.org")
    task = world(ODD, network=names)
    with serving(echo) as one, serving(deaf) as two, serving(drip) as three, serving(firehose) as four:
        servers: dict[str, Server] = dict(zip(sorted(names), (two, three, four, one), strict=True))
        seen = run(
            task, runtime, {name if ":" in name else f"{name}:443": server.place for name, server in servers.items()}
        )
        # What nobody reads stays bounded: windows, and the kernel's own buffers.
        assert isinstance(seen["pushed"], int)
        assert seen["pushed"] < 16 << 20
    assert seen["waited"] == "TimeoutError"
    assert seen["dripped"] == "drop by drop"
    assert seen["echo"] == "still here"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("os.kill(os.getpid(), 9)", "APP_COMPUTE_FAILED"),
        ("time.sleep(60)", "APP_COMPUTE_TIMEOUT"),
        ("while True:\n    full[0].recv(1 << 16)", "APP_COMPUTE_TIMEOUT"),
        ("while True:\n    talk(b'GET / HTTP/1.1\\r\\n\\r\\n').close()", "APP_COMPUTE_TIMEOUT"),
    ],
)
def test_an_app_that_dies_takes_its_connections_along(
    world: Make, runtime: BubblewrapRuntime, code: str, cause: str
) -> None:
    task = world(DIAL + "full = [dial() for _ in range(8)]\n" + code, network=(HOST,), resources={"seconds": 1})
    with serving(firehose) as server:
        task.connector = Connector(Addresses(), {HOST: server.place})
        started = time.monotonic()
        assert task.run(runtime).cause == cause
        assert time.monotonic() - started < 20
        while server.open:  # the host lets go of them
            assert time.monotonic() - started < 30
            time.sleep(0.05)


TLS = (
    DIAL
    + r"""
import ssl, urllib.request
def ask(host, **trust):
    request = urllib.request.Request(f"https://{host}/v1/rate?from=EUR&to=JPY", headers={"X-Api-Key": "mock-key"})
    try:
        with urllib.request.urlopen(request, timeout=10, context=ssl.create_default_context(**trust)) as response:
            return response.read().decode()
    except OSError as error:
        return str(error)
seen["right"] = ask("rates.example.org", cadata=AUTHORITY)
seen["another server"] = ask("second.example.org", cadata=AUTHORITY)
seen["no authority"] = ask("rates.example.org")
"""
    + SAY
)


@pytest.mark.nightly
def test_a_host_that_leads_elsewhere_has_no_certificate(
    world: Make, runtime: BubblewrapRuntime, mock_api: tuple[str, str]
) -> None:
    place, authority = mock_api
    task = world(f"AUTHORITY = {authority!r}\n{TLS}", network=(HOST, "second.example.org"))
    seen = run(task, runtime, {HOST: place, "second.example.org": place})
    assert seen["right"] == '{"rate": "163.25"}'
    assert "CERTIFICATE_VERIFY_FAILED" in str(seen["no authority"])
    assert "not valid for 'second.example.org'" in str(seen["another server"])


NODE = """
import http from 'node:http';
import https from 'node:https';
import { writeFileSync } from 'node:fs';
const proxy = new URL(process.env.HTTPS_PROXY);
const connect = http.request({
  host: proxy.hostname, port: proxy.port, method: 'CONNECT', path: 'rates.example.org:443' });
connect.on('connect', (answer, socket) => {
  const path = '/v1/rate?from=EUR&to=USD';
  https.get({ host: 'rates.example.org', path, socket, agent: false, ca: AUTHORITY, headers: { 'X-Api-Key': 'mock-key' } },
    (response) => response.on('data', (data) => {
      writeFileSync('/iexec_out/seen.json', JSON.stringify({ status: answer.statusCode, ...JSON.parse(data) }));
      writeFileSync('/iexec_out/computed.json', '{"deterministic-output-path":"/iexec_out/seen.json"}');
    }));
}).end();
"""


@pytest.mark.nightly
@needs_node
def test_node_speaks_through_it(
    platform: TestPlatform, runtime: BubblewrapRuntime, mock_api: tuple[str, str], tmp_path: Path
) -> None:
    place, authority = mock_api
    folder = write_app(tmp_path / "node", f"const AUTHORITY = {json.dumps(authority)};\n{NODE}", processes=32)
    settings = folder / "iapp.toml"
    settings.write_text(f'network = ["rates.example.org"]\n{settings.read_text()}')
    built = build_bundle(folder, tmp_path / "node.bundle")
    task = build_world(platform, tmp_path / "iapp", "")
    task.content[APP_LOCATION], task.bundle = built.path.read_bytes(), built
    task.release = replace(task.release, app=replace(task.release.app, checksum=built.digest))
    assert run(task, runtime, {HOST: place}) == {"status": 200, "rate": "1.0875"}
