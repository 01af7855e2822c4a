"""Abuse 60: a gateway that sends other bytes, an endless body, one byte a minute, or a tree that lies."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from tests.support.formula import content

from cloister.errors import CloisterError, DecodeError, RemoteError, TooLarge, UnavailableError, VerificationError
from cloister.storage import kubo
from cloister.storage.cid import Cid, Codec
from cloister.storage.dagpb import BLOCK_CAP, Link, build_node
from cloister.storage.kubo import KuboStore
from cloister.storage.unixfs import CHUNK_SIZE, FileBuilder, Layout

SIZE = 3 * CHUNK_SIZE + 9


class Gateway:
    """A gateway that does as the test says: honest blocks of one file unless a path's behaviour is replaced."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}
        self.bodies: dict[str, bytes] = {}
        self.stream: Callable[[BaseHTTPRequestHandler, bytes], None] | None = None
        self.answer_to_add = b"{}"
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append(self.path)
                place = urlsplit(self.path)
                name = place.path.removeprefix("/ipfs/")
                if parse_qs(place.query).get("format") == ["raw"]:
                    self._send(outer.blocks.get(name))
                elif outer.stream is not None:
                    outer.stream(self, outer.bodies[name])
                else:
                    self._send(outer.bodies.get(name))

            def do_POST(self) -> None:
                while True:  # a chunked body, read to its end
                    size = int(self.rfile.readline(), 16)
                    self.rfile.read(size + 2)
                    if size == 0:
                        break
                self._send(outer.answer_to_add)

            def _send(self, body: bytes | None) -> None:
                self.send_response(200 if body is not None else 404)
                self.send_header("content-length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def hold(self, data: bytes, layout: Layout) -> Cid:
        head_tail = layout.leaf_frame

        def leaf(built: object, part: memoryview) -> None:
            head, tail = head_tail(len(part))
            block = head + bytes(part) + tail
            self.blocks[str(layout.leaf_cid(built.cid.digest))] = block  # type: ignore[attr-defined]

        builder = FileBuilder(layout, on_leaf=leaf, on_node=lambda cid, block: self.blocks.update({str(cid): block}))
        builder.write(data)
        cid = builder.finish().cid
        self.bodies[str(cid)] = data
        return cid

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def gather(into: bytearray, chunks: Iterator[bytes]) -> None:
    for chunk in chunks:
        into += chunk


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    running = Gateway()
    yield running
    running.close()


DATA = b"".join(content(SIZE))


@pytest.mark.parametrize("layout", [Layout(), Layout(1, raw_leaves=True)])
def test_an_honest_gateway_without_ranges_is_read_rightly(gateway: Gateway, layout: Layout) -> None:
    cid = gateway.hold(DATA, layout)
    store = KuboStore(gateway.url)
    assert b"".join(store.open(cid)) == DATA
    assert b"".join(store.open(cid, offset=2 * CHUNK_SIZE + 1, length=5)) == DATA[2 * CHUNK_SIZE + 1 :][:5]


@pytest.mark.parametrize("layout", [Layout(), Layout(1, raw_leaves=True)])
@pytest.mark.parametrize("position", [0, CHUNK_SIZE, 2 * CHUNK_SIZE + 5, SIZE - 1])
def test_one_other_byte_is_refused_before_its_leaf_is_given(gateway: Gateway, layout: Layout, position: int) -> None:
    cid = gateway.hold(DATA, layout)
    changed = bytearray(DATA)
    changed[position] ^= 1
    gateway.bodies[str(cid)] = bytes(changed)
    got = bytearray()
    with pytest.raises(VerificationError):
        gather(got, KuboStore(gateway.url).open(cid))
    assert got == DATA[: position - position % CHUNK_SIZE]


def test_other_blocks_are_refused(gateway: Gateway) -> None:
    cid = gateway.hold(DATA, Layout())
    other = gateway.hold(b"other", Layout())
    gateway.blocks[str(cid)] = gateway.blocks[str(other)]
    for read in (KuboStore(gateway.url).open, KuboStore(gateway.url).stat):
        with pytest.raises(VerificationError):
            read(cid)


def test_content_that_ends_early_is_refused(gateway: Gateway) -> None:
    cid = gateway.hold(DATA, Layout())
    gateway.bodies[str(cid)] = DATA[:-1]
    with pytest.raises(VerificationError, match="ended 1 bytes early"):
        b"".join(KuboStore(gateway.url).open(cid))


def test_an_endless_body_costs_no_more_than_the_size_that_the_cid_proves(gateway: Gateway) -> None:
    cid = gateway.hold(DATA, Layout())

    def endless(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("connection", "close")
        handler.end_headers()
        handler.wfile.write(body)
        with contextlib.suppress(OSError):  # until the reader has had enough
            for _ in range(10_000):
                handler.wfile.write(bytes(65536))

    gateway.stream = endless
    received = bytearray()
    try:
        for chunk in KuboStore(gateway.url).open(cid):
            received += chunk
    except TooLarge as error:
        # Most reads end past the last proven byte and see that there is more.
        assert f"more than {SIZE} bytes" in error.message  # noqa: PT017  (both ends are right)
    else:
        # A read that ended right at it has all that was asked for, and never looks further.
        assert bytes(received) == DATA
    assert len(received) <= SIZE


def test_an_endless_block_is_refused_at_the_cap(gateway: Gateway) -> None:
    cid = gateway.hold(DATA, Layout())
    gateway.blocks[str(cid)] = bytes(BLOCK_CAP + 1)
    with pytest.raises(TooLarge):
        KuboStore(gateway.url).open(cid)


def test_one_byte_at_a_time_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloister.transport.RATE_GRACE", 0.5)
    cid = gateway.hold(DATA, Layout())

    def drip(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        with contextlib.suppress(OSError):
            for at in range(200):
                handler.wfile.write(body[at : at + 1])
                time.sleep(0.1)

    gateway.stream = drip
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="too slowly"):
        b"".join(KuboStore(gateway.url).open(cid))
    assert time.monotonic() - began < 10


def test_a_gateway_that_falls_silent_is_given_up(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubo, "_IDLE_SECONDS", 0.3)
    cid = gateway.hold(DATA, Layout())
    released = threading.Event()

    def silent(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        handler.send_response(200)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[:1000])
        released.wait(10)

    gateway.stream = silent
    with pytest.raises(UnavailableError, match="stopped sending"):
        b"".join(KuboStore(gateway.url).open(cid))
    released.set()


def forge(gateway: Gateway, links: list[Link], message: bytes) -> Cid:
    block = build_node(links, message)
    cid = Cid.of_block(block, version=0, codec=Codec.DAG_PB)
    gateway.blocks[str(cid)] = block
    gateway.bodies[str(cid)] = bytes(CHUNK_SIZE)
    return cid


def test_a_tree_whose_sizes_lie_is_refused(gateway: Gateway) -> None:
    leaf = gateway.hold(b"four", Layout())
    for said in (3, 5, CHUNK_SIZE):
        cid = forge(gateway, [Link(leaf, "", 12)], b"\x08\x02\x18" + _varint(said) + b"\x20" + _varint(said))
        with pytest.raises((DecodeError, VerificationError)):
            b"".join(KuboStore(gateway.url).open(cid))


def test_a_tree_of_exabytes_costs_only_what_is_asked(gateway: Gateway) -> None:
    size = CHUNK_SIZE
    cid = gateway.hold(b"\0" * size, Layout(1, raw_leaves=True))
    for _ in range(6):  # 100 times the same child, six times over
        block = build_node(
            [Link(cid, "", size + 1000)] * 100,
            b"\x08\x02\x18" + _varint(100 * size) + (b"\x20" + _varint(size)) * 100,
        )
        cid = Cid.of_block(block, version=0, codec=Codec.DAG_PB)
        gateway.blocks[str(cid)] = block
        size *= 100
    gateway.bodies[str(cid)] = b"\0" * 4096
    with pytest.raises(TooLarge):
        KuboStore(gateway.url).open(cid, cap=1 << 30)
    asked = len(gateway.asked)
    with pytest.raises(CloisterError):
        b"".join(KuboStore(gateway.url).open(cid, length=1000))
    assert len(gateway.asked) - asked < 20


def test_a_chain_of_nodes_is_left_at_its_depth(gateway: Gateway) -> None:
    cid = gateway.hold(b"\0" * 100, Layout())
    for _ in range(40):
        cid = forge(gateway, [Link(cid, "", 10_000)], b"\x08\x02\x18\x64\x20\x64")
    with pytest.raises(DecodeError, match="deeper"):
        b"".join(KuboStore(gateway.url).open(cid))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b'{"Name":"","Hash":"QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH","Size":"4"}', VerificationError),
        (b"{}", RemoteError),
        (b"", RemoteError),
        (b"[]", RemoteError),
        (b'{"Name":"","Hash":"nonsense"}', DecodeError),
        (b"nonsense", DecodeError),
        (b" " * 300_000, TooLarge),
    ],
)
def test_a_node_that_stored_something_else_is_not_believed(
    gateway: Gateway, answer: bytes, error: type[Exception]
) -> None:
    gateway.answer_to_add = answer
    with pytest.raises(error):
        KuboStore(gateway.url).put([b"hello"])


def test_unverified_reads_are_asked_for_by_name_and_capped(gateway: Gateway) -> None:
    cid = gateway.hold(DATA, Layout())
    gateway.bodies[str(cid)] = b"other bytes"
    assert b"".join(KuboStore(gateway.url).unverified_open(cid, cap=100)) == b"other bytes"
    with pytest.raises(TooLarge):
        b"".join(KuboStore(gateway.url).unverified_open(cid, cap=10))


def test_nobody_there_is_unavailable() -> None:
    store = KuboStore("http://127.0.0.1:9")
    with pytest.raises(UnavailableError):
        store.put([b"x"])
    with pytest.raises(UnavailableError):
        store.open("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH")


def _varint(value: int) -> bytes:
    from cloister.storage.varint import build_varint

    return build_varint(value)
