"""Kubo's RPC beyond uploads, as its command line and its clients in other languages call it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import logging
import socket
import tarfile
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.services.gateway.desk import DATA, SIZE, Desk

from cloister.storage.cid import Cid

HELLO = "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"
ABSENT = "QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi"


def call(desk: Desk, command: str, *args: str, **options: Any) -> Any:
    fields = [("arg", arg) for arg in args]
    fields += [(name.replace("_", "-"), str(value).lower()) for name, value in options.items()]
    query = "&".join(f"{name}={value}" for name, value in fields)
    answer = desk.ask("POST", f"/api/v0/{command}?{query}")
    assert answer.status == 200, answer.data
    return answer


def tree(desk: Desk) -> dict[str, str]:
    """A directory of two files and one more directory; CIDs by name."""
    rows = desk.added([("d/a.txt", b"hello world"), ("d/e/long.bin", DATA)])
    return {row["Name"]: row["Hash"] for row in rows}


def lines(answer: Any) -> list[Any]:
    return [json.loads(line) for line in answer.data.decode().splitlines()]


def test_listings(desk: Desk) -> None:
    cids = tree(desk)
    file = {"Name": "a.txt", "Hash": HELLO, "Size": 11, "Type": 2, "Target": ""}
    folder = {"Name": "e", "Hash": cids["d/e"], "Size": 0, "Type": 1, "Target": ""}
    assert call(desk, "ls", cids["d"]).json() == {"Objects": [{"Hash": cids["d"], "Links": [file, folder]}]}
    each = lines(call(desk, "ls", cids["d"], stream=True))
    assert [row["Objects"][0]["Links"] for row in each] == [[file], [folder]]
    unlooked = call(desk, "ls", cids["d"], size=False, resolve_type=False).json()["Objects"][0]["Links"]
    assert [(row["Size"], row["Type"]) for row in unlooked] == [(0, 0), (0, 0)]
    assert call(desk, "ls", f"{cids['d']}/a.txt").json()["Objects"][0]["Links"] == []
    assert len(call(desk, "ls", cids["d"], cids["d/e"]).json()["Objects"]) == 2


def test_several_files_are_one_stream(desk: Desk) -> None:
    cids = tree(desk)
    both = b"hello world" + DATA
    assert call(desk, "cat", HELLO, cids["d/e/long.bin"]).data == both
    assert call(desk, "cat", HELLO, cids["d/e/long.bin"], offset=6, length=100).data == both[6:106]
    assert call(desk, "cat", HELLO, cids["d/e/long.bin"], offset=11, length=3).data == both[11:14]
    assert call(desk, "cat", HELLO, offset=500).data == b""
    assert desk.ask("POST", f"/api/v0/cat?arg={cids['d']}").status == 400
    assert desk.ask("POST", "/api/v0/cat").status == 400


def test_archives_open_with_anybodys_tar(desk: Desk) -> None:
    deep = "d/" + "n" * 120 + "/ü"
    cids = tree(desk)
    rows = desk.added([("d/a.txt", b"hello world"), ("d/e/long.bin", DATA), (deep, b"x")])
    root = rows[-1]["Hash"]
    with tarfile.open(fileobj=io.BytesIO(call(desk, "get", root).data)) as archive:
        names = {name.removeprefix(root) for name in archive.getnames()}
        assert names == {"", "/a.txt", "/e", "/e/long.bin", deep[1:-2], deep[1:]}
        member = archive.extractfile(f"{root}/e/long.bin")
        assert member is not None
        assert member.read() == DATA
    packed = call(desk, "get", f"{cids['d']}/a.txt", archive=True, compress=True).data
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as archive:
        assert archive.getnames() == ["a.txt"]
    assert call(desk, "get", HELLO).headers["content-type"] == "application/x-tar"


def test_blocks_as_data(desk: Desk) -> None:
    cids = tree(desk)
    folder = call(desk, "dag/get", cids["d"]).json()
    assert folder["Data"] == {"/": {"bytes": "CAE"}}
    assert [(link["Name"], link["Hash"]) for link in folder["Links"]] == [
        ("a.txt", {"/": HELLO}),
        ("e", {"/": cids["d/e"]}),
    ]
    raw = desk.added([("", b"hello world")], "&cid-version=1")[0]["Hash"]
    leaf = call(desk, "dag/get", raw).json()["/"]["bytes"]
    assert base64.b64decode(leaf + "=" * (-len(leaf) % 4)) == b"hello world"
    assert call(desk, "dag/resolve", f"{cids['d']}/a.txt").json() == {"Cid": {"/": HELLO}, "RemPath": ""}
    assert call(desk, "resolve", f"/ipfs/{cids['d']}/a.txt").json() == {"Path": f"/ipfs/{HELLO}"}
    car = desk.ask("GET", f"/ipfs/{cids['d']}?format=car").data
    assert call(desk, "dag/export", cids["d"]).data == car
    for query in (
        f"dag/get?arg={cids['d']}/a.txt",
        f"dag/get?arg={HELLO}&output-codec=dag-cbor",
        "resolve?arg=/ipns/x",
    ):
        assert desk.ask("POST", f"/api/v0/{query}").status in (400, 404)


def test_sizes_of_a_block(desk: Desk) -> None:
    cids = tree(desk)
    block = call(desk, "block/get", cids["d/e/long.bin"]).data
    stat = call(desk, "object/stat", cids["d/e/long.bin"]).json()
    assert stat["NumLinks"] == 3
    assert stat["BlockSize"] == len(block) == stat["LinksSize"] + stat["DataSize"]
    assert stat["CumulativeSize"] > SIZE


def test_references(desk: Desk) -> None:
    cids = tree(desk)
    assert [row["Ref"] for row in lines(call(desk, "refs", cids["d"]))] == [HELLO, cids["d/e"]]
    below = [row["Ref"] for row in lines(call(desk, "refs", cids["d"], recursive=True))]
    assert len(below) == 2 + 1 + 3
    assert below[:2] == [HELLO, cids["d/e"]]
    assert lines(call(desk, "refs", cids["d"], recursive=True, max_depth=2))[-1]["Ref"] == cids["d/e/long.bin"]
    same = desk.added([("s/1", b"same"), ("s/2", b"same")])[-1]["Hash"]
    assert len(lines(call(desk, "refs", same))) == 2
    assert len(lines(call(desk, "refs", same, unique=True))) == 1


def test_pins_are_everything_that_was_put(desk: Desk) -> None:
    tree(desk)
    assert HELLO in call(desk, "pin/ls", type="recursive").json()["Keys"]
    assert call(desk, "pin/ls", type="direct").json() == {"Keys": {}}
    assert {"Type": "recursive", "Cid": HELLO} in lines(call(desk, "pin/ls", stream=True))
    assert lines(call(desk, "pin/add", HELLO, progress=True)) == [{"Pins": [HELLO]}]
    assert desk.ask("POST", "/api/v0/pin/ls?type=wrong").status == 400
    assert desk.ask("POST", f"/api/v0/pin/ls?arg={ABSENT}").status == 404


def test_the_repository(fresh: Desk) -> None:
    fresh.added([("", b"hello world")])
    stat = call(fresh, "repo/stat").json()
    assert (stat["RepoSize"], stat["NumObjects"]) == (11, 1)
    assert call(fresh, "swarm/peers").json() == {"Peers": []}


@pytest.mark.parametrize(
    "command", ["block/put", "dag/put", "name/publish", "key/gen", "files/write", "pin/rm", "repo/gc", "x", "add/", ""]
)
def test_what_is_not_offered_is_refused_as_kubo_refuses(desk: Desk, command: str) -> None:
    answer = desk.ask("POST", f"/api/v0/{command}")
    assert answer.status == 404
    told = answer.json()
    assert told["Message"].endswith("is not offered by this node")
    assert (told["Code"], told["Type"]) == (0, "error")


def test_calls_are_posts(desk: Desk) -> None:
    for command in ("add", "cat?arg=x", "version", "anything"):
        answer = desk.ask("GET", f"/api/v0/{command}")
        assert (answer.status, answer.json()["Type"]) == (405, "error")


class TestProgress:
    def test_lines_come_while_the_upload_goes_on(self, desk: Desk) -> None:
        with _uploading(desk, "progress=true") as peer:
            peer.sendall(_chunk(_HEAD) + 3 * _chunk(bytes(1024 * 1024)))
            heard = b""
            while b'"Bytes":1048576' not in heard:
                heard += peer.recv(65536)
            assert heard.startswith(b"HTTP/1.1 200")
            assert b'"Hash"' not in heard
            peer.sendall(_chunk(b"\r\n--b--\r\n") + _chunk(b""))
            while more := peer.recv(65536):
                heard += more
        rows = [json.loads(row) for row in heard.splitlines() if row.startswith(b"{")]
        steps = [row["Bytes"] for row in rows[:-1]]
        assert steps == [*range(262144, 3 * 1024 * 1024 + 1, 262144), 3 * 1024 * 1024]
        assert {row["Name"] for row in rows} == {"long.bin"}
        assert (rows[-1]["Name"], Cid.parse(rows[-1]["Hash"]).version) == ("long.bin", 0)

    def test_small_files_are_told_too(self, desk: Desk) -> None:
        answer = desk.add([("a", b"hello world"), ("e", b"")], "&progress=true")
        assert lines(answer) == [
            {"Name": "a", "Bytes": 11},
            {"Name": "a", "Hash": HELLO, "Size": "19"},
            {"Name": "e", "Bytes": 0},
            {"Name": "e", "Hash": "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH", "Size": "6"},
        ]

    def test_an_upload_that_fails_early_has_a_status(self, desk: Desk) -> None:
        assert desk.add([("../x", b"x")], "&progress=true").status == 400

    def test_an_upload_that_fails_late_breaks_off(self, fresh: Desk, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO), _uploading(fresh, "progress=true") as peer:
            peer.sendall(_chunk(_HEAD) + 3 * _chunk(bytes(1024 * 1024)))
            heard = b""
            while b'"Bytes":1048576' not in heard:
                heard += peer.recv(65536)
            try:
                peer.sendall(6 * _chunk(bytes(1024 * 1024)))
                while more := peer.recv(65536):
                    heard += more
            except ConnectionError:
                pass
            assert not heard.endswith(b"0\r\n\r\n")
            assert b'"Hash"' not in heard
            _until(lambda: not list((fresh.root / "incoming").iterdir()))
        assert fresh.part.store.used() == 0
        _until(lambda: any("broke off" in record.getMessage() for record in caplog.records))
        assert not [record for record in caplog.records if record.exc_info]

    def test_a_client_that_goes_away_leaves_nothing(self, fresh: Desk) -> None:
        with _uploading(fresh, "progress=true") as peer:
            peer.sendall(_chunk(_HEAD) + 3 * _chunk(bytes(1024 * 1024)))
            peer.recv(100)
        _until(lambda: not list((fresh.root / "incoming").iterdir()))
        assert fresh.part.store.used() == 0

    def test_silence_is_an_option(self, desk: Desk) -> None:
        for query in ("&silent=true", "&silent=true&progress=true"):
            answer = desk.add([("a", b"hello world")], query)
            assert (answer.status, answer.data) == (200, b"")


def test_unnamed_files_may_be_the_same(desk: Desk) -> None:
    assert [row["Hash"] for row in desk.added([("", b"hello world"), ("", b"hello world")])] == [HELLO, HELLO]


_HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="long.bin"\r\n\r\n'


def _uploading(desk: Desk, query: str) -> socket.socket:
    place = urlsplit(desk.url)
    peer = socket.create_connection((place.hostname or "", place.port or 0), timeout=10)
    peer.sendall(
        f"POST /api/v0/add?{query} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode()
    )
    return peer


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _until(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("did not come about")
