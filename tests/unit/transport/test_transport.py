"""HTTP toward peers that behave and peers that do not."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.http import Answer, Peer, Reply

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
)
from cloister.transport import Http, build_query

Start = Callable[[Answer], Peer]


def test_json_goes_and_comes(peer: Start) -> None:
    running = peer(lambda request: Reply(body=b'{"ok":true}'))
    answer = Http(running.url).json("POST", "/a/b", query={"z": True, "a": [1, "x y"], "n": None}, body={"k": "é"})
    assert answer == {"ok": True}
    (request,) = running.requests
    assert request["method"] == "POST"
    assert request["target"] == "/a/b?a=1&a=x+y&z=true"
    assert json.loads(request["body"]) == {"k": "é"}
    assert request["headers"]["content-type"] == "application/json"
    assert request["headers"]["accept-encoding"] == "identity"


def test_a_path_before_every_path(peer: Start) -> None:
    running = peer(lambda request: Reply(body=b"[]"))
    http = Http(running.url + "/v2/key/")
    http.json("GET", "/x")
    http.json("POST", "", body={})
    assert [request["target"] for request in running.requests] == ["/v2/key/x", "/v2/key"]


def test_nothing_comes_as_none(peer: Start) -> None:
    assert Http(peer(lambda _: Reply(status=204)).url).json("PUT", "/") is None


def test_head_has_no_body(peer: Start) -> None:
    answer = Http(peer(lambda _: Reply(body=b"12345", headers={"X-Size": "5"})).url).raw("HEAD", "/")
    assert (answer.status, answer.body, answer.headers["x-size"]) == (200, b"", "5")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InputError),
        (401, Unauthenticated),
        (403, Denied),
        (404, NotFound),
        (405, InputError),
        (409, Conflict),
        (413, TooLarge),
        (422, InputError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
def test_refusals_are_told_in_our_own_errors(peer: Start, status: int, kind: type[CloisterError]) -> None:
    body = json.dumps({"error": "no such thing", "code": "gone", "hint": "look elsewhere"}).encode()
    http = Http(peer(lambda _: Reply(status=status, body=body)).url)
    with pytest.raises(CloisterError) as caught:
        http.json("GET", "/thing", query={"token": "sesame"})
    error = caught.value
    assert type(error) is kind
    assert "no such thing" in error.message
    assert (error.code, error.hint) == ("gone", "look elsewhere")
    assert "sesame" not in error.message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"error":5}',
        b'{"error":["a","b"]}',
        b'{"error":"' + b"x" * 10_000 + b'"}',
        b"\xff" * 200_000,
    ],
)
def test_refusals_in_any_form_stay_short(peer: Start, body: bytes) -> None:
    with pytest.raises(NotFound) as caught:
        Http(peer(lambda _: Reply(status=404, body=body)).url).raw("GET", "/")
    assert len(caught.value.message) < 400
    assert caught.value.code == "not-found"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_refused(peer: Start, status: int) -> None:
    elsewhere = peer(lambda _: Reply(body=b"{}"))
    running = peer(lambda _: Reply(status=status, headers={"location": elsewhere.url}))
    with pytest.raises(RemoteError, match="redirect"):
        Http(running.url).json("GET", "/")
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"x" * 2000),
        Reply(body=b"x", announce=2000),
        Reply(body=b"x" * 2000, chunked=True),
        Reply(body=b"x" * 2000, chunked=True, drip=0.001, piece=500),
    ],
)
def test_more_than_the_cap_is_refused(peer: Start, reply: Reply) -> None:
    with pytest.raises(TooLarge):
        Http(peer(lambda _: reply).url, max_response=1000).raw("GET", "/")


def test_an_endless_body_is_cut_at_the_cap(peer: Start) -> None:
    http = Http(peer(lambda _: Reply(body=b"x" * 50_000_000, chunked=True, drip=1e-9, piece=100_000)).url)
    received: list[int] = []

    def read() -> None:
        with http.stream("GET", "/", max_response=1_000_000) as answer:
            received.extend(len(chunk) for chunk in answer.chunks)

    with pytest.raises(TooLarge):
        read()
    assert sum(received) <= 1_000_000


def test_a_dripping_body_is_cut_at_the_timeout(peer: Start) -> None:
    """Abuse 60: each byte comes in time, the body never does."""
    http = Http(peer(lambda _: Reply(body=b"x" * 1000, drip=0.05)).url, timeout=0.5)
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="slowly"):
        http.raw("GET", "/")
    assert time.monotonic() - started < 5


def test_a_silent_peer_is_cut_at_the_timeout(peer: Start) -> None:
    with pytest.raises(UnavailableError, match="did not answer within"):
        Http(peer(lambda _: Reply(hang=2)).url, timeout=0.2).raw("GET", "/")


def test_a_stream_that_stalls_is_cut(peer: Start) -> None:
    http = Http(peer(lambda _: Reply(body=b"x" * 10, drip=2)).url)
    with pytest.raises(UnavailableError), http.stream("GET", "/", timeout=0.2) as answer:
        list(answer.chunks)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_short_body_is_an_error(peer: Start, chunked: bool) -> None:
    reply = (
        Reply(body=b"abc", announce=10)
        if not chunked
        else Reply(body=b"abc", chunked=True, headers={"connection": "close"})
    )
    http = Http(peer(lambda _: reply).url)
    if chunked:
        assert http.raw("GET", "/").body == b"abc"
        return
    with pytest.raises(UnavailableError, match="broke off"):
        http.raw("GET", "/")


def test_compressed_answers_are_refused(peer: Start) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    with pytest.raises(RemoteError, match="compressed"):
        Http(peer(lambda _: Reply(body=bomb, headers={"content-encoding": "gzip"})).url).raw("GET", "/")


@pytest.mark.parametrize(
    "reply", [Reply(body=b"{}", headers={"content-type": "text/html"}), Reply(body=b"{"), Reply(body=b"")]
)
def test_what_is_not_json_is_refused(peer: Start, reply: Reply) -> None:
    with pytest.raises(DecodeError):
        Http(peer(lambda _: reply).url).json("GET", "/")


def test_bodies_stream_both_ways(peer: Start) -> None:
    running = peer(lambda request: Reply(body=request["body"], headers={"content-type": "application/octet-stream"}))

    def pieces() -> Iterator[bytes]:
        for number in range(50):
            yield bytes([number]) * 10_000

    with Http(running.url).stream("POST", "/", body=pieces()) as answer:
        received = b"".join(answer.chunks)
    assert received == b"".join(pieces())
    assert running.requests[0]["headers"]["transfer-encoding"] == "chunked"


def test_a_stream_that_is_left_early_does_not_spoil_the_next_call(peer: Start) -> None:
    running = peer(lambda request: Reply(body=b"x" * 5_000_000 if request["target"] == "/big" else b"{}"))
    http = Http(running.url)
    with http.stream("GET", "/big") as answer:
        next(answer.chunks)
    assert http.json("GET", "/small") == {}


def test_connections_are_kept(peer: Start) -> None:
    running = peer(lambda _: Reply(body=b"{}"))
    http = Http(running.url)
    started = time.monotonic()
    for _ in range(50):
        http.json("GET", "/")
    assert len(running.requests) == 50
    assert time.monotonic() - started < 10


def test_threads_share_a_client(peer: Start) -> None:
    running = peer(lambda request: Reply(body=request["body"]))
    http = Http(running.url)
    wrong: list[object] = []

    def work(number: int) -> None:
        for item in range(10):
            answer = http.json("POST", "/", body=[number, item])
            if answer != [number, item]:
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def serve_then_drop(answers: int) -> tuple[str, list[bytes]]:
    """A raw peer that closes each connection after one answer without saying so, ``answers`` times in all."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def run() -> None:
        for number in range(answers + 1):
            connection, _ = listener.accept()
            request = connection.recv(65536)
            if number:
                seen.append(request)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
            connection.close()
        listener.close()

    threading.Thread(target=run, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", seen


def test_what_may_be_repeated_is_asked_again_when_the_connection_dropped() -> None:
    url, seen = serve_then_drop(1)
    assert Http(url).json("GET", "/") == {}
    assert len(seen) == 1


def test_what_may_not_be_repeated_is_not() -> None:
    url, seen = serve_then_drop(1)
    with pytest.raises(UnavailableError, match="dropped"):
        Http(url).json("POST", "/", body={})
    assert seen == []


def test_nobody_there() -> None:
    with pytest.raises(UnavailableError) as caught:
        Http("http://127.0.0.1:9").raw("GET", "/")
    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://a",
        "http://",
        "http://user:pass@a",
        "http://a/?q=1",
        "http://a/#f",
        "127.0.0.1:80",
        "file:///etc/passwd",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Http(url)


def test_paths_begin_with_a_slash(peer: Start) -> None:
    with pytest.raises(InputError):
        Http(peer(lambda _: Reply()).url).raw("GET", "x")


def test_queries_are_sorted_and_complete() -> None:
    assert build_query(None) == build_query({}) == build_query({"a": None}) == ""
    assert build_query({"b": 2, "a": "é&"}) == "?a=%C3%A9%26&b=2"
    assert build_query({"f": False, "l": ["x", "y"]}) == "?f=false&l=x&l=y"
