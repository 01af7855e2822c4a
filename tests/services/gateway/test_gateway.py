"""The gateway over a real socket, with requests as Kubo's clients and browsers send them."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import time
from urllib.parse import urlsplit

import cbor2
import pytest
import urllib3
from tests.services.gateway.desk import DATA, MAX_FILE, SIZE, Desk

from cloister.storage.cid import Cid
from cloister.storage.unixfs import CHUNK_SIZE
from cloister.storage.varint import parse_varint


def test_an_upload_as_iexecs_clients_send_it(desk: Desk) -> None:
    body = (
        b'--bound\r\nContent-Disposition: form-data; name="file"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\nhello world\r\n--bound--\r\n"
    )
    answer = desk.ask(
        "POST",
        "/api/v0/add?stream-channels=true&progress=false",
        body=iter([body[:50], body[50:]]),
        headers={"content-type": "multipart/form-data; boundary=bound"},
    )
    cid = "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"
    assert answer.data == b'{"Name":"%s","Hash":"%s","Size":"19"}\n' % (cid.encode(), cid.encode())
    for method in ("GET", "HEAD"):
        read = desk.ask(method, f"/ipfs/{cid}", headers={"accept": "application/zip"})
        assert (read.status, read.data) == (200, b"hello world" if method == "GET" else b"")
        assert read.headers["content-length"] == "11"


def test_directories_are_answered_inside_out(desk: Desk) -> None:
    rows = desk.added([("d/a.txt", b""), ("d/e/b", b"1"), ("top", b"2")], "&wrap-with-directory=true")
    assert [row["Name"] for row in rows] == ["d/a.txt", "d/e/b", "top", "d/e", "d", ""]
    root = rows[-1]["Hash"]
    assert desk.ask("GET", f"/ipfs/{root}/d/e/b").data == b"1"
    assert desk.ask("POST", f"/api/v0/cat?arg={root}/top").data == b"2"
    listing = desk.ask("GET", f"/ipfs/{root}/d?format=json").json()
    assert [entry["name"] for entry in listing["entries"]] == ["a.txt", "e"]
    page = desk.ask("GET", f"/ipfs/{root}/d/")
    assert page.headers["content-type"].startswith("text/html")
    assert f'href="/ipfs/{root}/d/a.txt"' in page.data.decode()


def test_listings_escape_what_uploaders_wrote(desk: Desk) -> None:
    name = "<script>alert(1)"
    root = desk.added([(f"d/{name}", b"x")])[-1]["Hash"]
    page = desk.ask("GET", f"/ipfs/{root}").data.decode()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_options_that_change_the_cid(fresh: Desk) -> None:
    assert fresh.added([("", b"hello world")], "&cid-version=1")[0]["Hash"].startswith("bafkrei")
    assert fresh.added([("", b"hello world")], "&cid-version=1&raw-leaves=false")[0]["Hash"].startswith("bafybei")
    assert fresh.added([("", b"hello world")], "&raw-leaves=true")[0]["Hash"].startswith("bafkrei")
    for query in ("&trickle=true", "&inline=true", "&nocopy=true", "&chunker=rabin", "&hash=blake3", "&cid-version=2"):
        answer = fresh.add([("", b"x")], query)
        assert answer.status == 400, query
        assert answer.json()["Message"]
    hashed = fresh.added([("d/x", DATA)], "&only-hash=true")
    assert fresh.ask("GET", f"/ipfs/{hashed[0]['Hash']}").status == 404
    assert fresh.added([("d/x", DATA)]) == hashed


@pytest.mark.parametrize("name", ["../x", "a/../b", "a\0b", "x" * 300, "/".join("a" * 40)])
def test_names_that_climb_or_do_not_fit_are_refused(desk: Desk, name: str) -> None:
    assert desk.add([(name, b"x")]).status == 400


def test_a_name_twice_a_link_and_no_file_are_refused(desk: Desk) -> None:
    assert "twice" in desk.add([("a", b"x"), ("a", b"y")]).json()["error"]
    assert "both" in desk.add([("a", b"x"), ("a/b", b"y")]).json()["error"]
    assert "symbolic" in desk.add([("a", b"/etc/passwd")], kind="application/symlink").json()["error"]
    assert desk.ask("POST", "/api/v0/add", body=b"x", headers={"content-type": "text/plain"}).status == 400
    empty = desk.ask(
        "POST", "/api/v0/add", body=b"--b--\r\n", headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert empty.status == 400


def test_caps_on_size_count_and_quota(fresh: Desk) -> None:
    def status(files: list[tuple[str, bytes]]) -> int:
        try:
            return int(fresh.add(files).status)
        except urllib3.exceptions.ProtocolError:  # the server closed while the rest was being sent
            return 413

    assert status([("", bytes(MAX_FILE))]) == 200
    assert status([("", bytes(MAX_FILE + 1))]) == 413
    assert status([(str(n), b"") for n in range(21)]) == 413
    assert status([("", b"a" * MAX_FILE)]) == 200
    assert status([("", b"b" * MAX_FILE)]) == 200
    assert status([("", b"c")]) == 413  # the quota is full, and nothing is left of what did not fit
    assert list((fresh.root / "incoming").iterdir()) == []
    assert fresh.ask("GET", "/-/health").status == 200


RANGES = [
    ("bytes=0-0", 0, 1),
    ("bytes=0-", 0, SIZE),
    (f"bytes={CHUNK_SIZE - 1}-{CHUNK_SIZE}", CHUNK_SIZE - 1, CHUNK_SIZE + 1),
    ("bytes=-10", SIZE - 10, SIZE),
    (f"bytes=-{SIZE * 9}", 0, SIZE),
    (f"bytes=5-{SIZE * 9}", 5, SIZE),
]


@pytest.mark.parametrize(("header", "start", "end"), RANGES)
def test_a_range_is_answered_in_part(desk: Desk, header: str, start: int, end: int) -> None:
    cid = desk.added([("", DATA)])[0]["Hash"]
    answer = desk.ask("GET", f"/ipfs/{cid}", headers={"range": header})
    assert answer.status == 206
    assert answer.data == DATA[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start)
    head = desk.ask("HEAD", f"/ipfs/{cid}", headers={"range": header})
    assert (head.status, head.data, head.headers["content-length"]) == (206, b"", str(end - start))


def test_ranges_that_do_not_fit_or_are_not_understood(desk: Desk) -> None:
    cid = desk.added([("", DATA)])[0]["Hash"]
    for header in (f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 9}", "bytes=-0"):
        answer = desk.ask("GET", f"/ipfs/{cid}", headers={"range": header})
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{SIZE}"), header
    for header in ("bytes=0-1,5-6", "lines=0-1", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=٣-"):
        encoded = header.encode("utf-8").decode("latin-1")
        answer = desk.ask("GET", f"/ipfs/{cid}", headers={"range": encoded})
        assert (answer.status, len(answer.data)) == (200, SIZE), header


def test_content_is_cached_for_ever_and_asked_for_once(desk: Desk) -> None:
    cid = desk.added([("", DATA)])[0]["Hash"]
    first = desk.ask("GET", f"/ipfs/{cid}")
    assert "immutable" in first.headers["cache-control"]
    assert first.headers["etag"] == f'"{cid}"'
    assert desk.ask("GET", f"/ipfs/{cid}", headers={"if-none-match": first.headers["etag"]}).status == 304
    assert desk.ask("GET", f"/ipfs/{cid}", headers={"if-none-match": f'W/"{cid}", "x"'}).status == 304
    stale = desk.ask("GET", f"/ipfs/{cid}", headers={"range": "bytes=0-0", "if-range": '"other"'})
    assert (stale.status, len(stale.data)) == (200, SIZE)


def test_uploaded_pages_act_in_no_name_but_their_own(desk: Desk) -> None:
    root = desk.added([("d/page.html", b"<script>fetch('/secrets')</script>")])[-1]["Hash"]
    answer = desk.ask("GET", f"/ipfs/{root}/page.html")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    named = desk.ask("GET", f"/ipfs/{root}/page.html?download=true&filename=a%22%0d%0ab.html")
    disposition = named.headers["content-disposition"]
    assert disposition == "attachment; filename=\"a___b.html\"; filename*=UTF-8''a%22%0D%0Ab.html"


def test_blocks_prove_themselves(desk: Desk) -> None:
    cid = desk.added([("", DATA)])[0]["Hash"]
    block = desk.ask("GET", f"/ipfs/{cid}?format=raw")
    assert block.headers["content-type"] == "application/vnd.ipld.raw"
    assert hashlib.sha256(block.data).digest() == Cid.parse(cid).digest
    accepted = desk.ask("GET", f"/ipfs/{cid}", headers={"accept": "application/vnd.ipld.raw"})
    assert accepted.data == block.data
    assert desk.ask("POST", f"/api/v0/block/get?arg={cid}").data == block.data
    assert desk.ask("POST", f"/api/v0/block/stat?arg={cid}").json() == {"Key": cid, "Size": len(block.data)}


def test_a_car_holds_every_block_once_under_its_root(desk: Desk) -> None:
    root = desk.added([("d/a", DATA), ("d/b", DATA), ("d/c", bytes(3 * CHUNK_SIZE))])[-1]["Hash"]
    car = desk.ask("GET", f"/ipfs/{root}?format=car").data
    size, at = parse_varint(car)
    header = cbor2.loads(car[at : at + size])
    assert header["version"] == 1
    assert [Cid.from_raw(tag.value[1:]) for tag in header["roots"]] == [Cid.parse(root)]
    seen = _blocks(car)
    # The directory; one file twice (node and three leaves); one file of three equal leaves.
    assert len(seen) == len(set(seen)) == 1 + 4 + 2


def test_a_car_proves_the_path_and_holds_as_much_as_was_asked(desk: Desk) -> None:
    rows = {row["Name"]: row["Hash"] for row in desk.added([("d/e/long", DATA), ("d/e/b", b"x"), ("d/f/c", b"y")])}
    way = [rows["d"], rows["d/e"]]
    file, leaves = rows["d/e/long"], 3

    def cids(path: str, scope: str) -> list[str]:
        answer = desk.ask("GET", f"/ipfs/{path}?format=car{scope}")
        assert answer.status == 200, answer.data
        return [str(cid) for cid in _blocks(answer.data)]

    whole = cids(f"{rows['d']}/e/long", "")
    assert whole[:3] == [*way, file]
    assert len(whole) == 3 + leaves
    assert cids(f"{rows['d']}/e/long", "&dag-scope=entity") == whole
    assert cids(f"{rows['d']}/e/long", "&dag-scope=block") == [*way, file]
    assert cids(f"{rows['d']}/e", "&dag-scope=entity") == way
    assert len(cids(f"{rows['d']}/e", "&dag-scope=all")) == 2 + 1 + 1 + leaves
    assert desk.ask("GET", f"/ipfs/{rows['d']}?format=car&dag-scope=some").status == 400
    tags = {
        desk.ask("HEAD", f"/ipfs/{path}?format=car{scope}").headers["etag"]
        for path in (file, f"{rows['d/e']}/long")
        for scope in ("", "&dag-scope=block")
    }
    assert len(tags) == 4


def _blocks(car: bytes) -> list[Cid]:
    size, at = parse_varint(car)
    at += size
    seen: list[Cid] = []
    while at < len(car):
        size, at = parse_varint(car, at)
        cid = Cid.from_raw(car[at : at + 34])
        cid.verify_block(car[at + 34 : at + size])
        seen.append(cid)
        at += size
    return seen


def test_node_calls(desk: Desk) -> None:
    cid = desk.added([("", b"hello world")])[0]["Hash"]
    assert desk.ask("POST", "/api/v0/version").json()["Repo"].isdigit()
    assert desk.ask("POST", "/api/v0/id").json()["AgentVersion"].startswith("cloister/")
    assert desk.ask("POST", f"/api/v0/pin/add?arg={cid}").json() == {"Pins": [cid]}
    assert cid in desk.ask("POST", "/api/v0/pin/ls").json()["Keys"]
    assert desk.ask("POST", f"/api/v0/pin/ls?arg={cid}&stream=true").json() == {"Cid": cid, "Type": "recursive"}
    assert desk.ask("POST", f"/api/v0/files/stat?arg=/ipfs/{cid}").json()["Size"] == 11
    assert desk.ask("POST", f"/api/v0/cat?arg={cid}&offset=6&length=3").data == b"wor"
    absent = desk.ask("POST", "/api/v0/pin/add?arg=QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi")
    assert (absent.status, absent.json()["Type"]) == (404, "error")
    assert desk.ask("GET", "/api/v0/version").status == 405


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ipfs/nonsense", 400),
        ("/ipfs/QmSAY4mYRkCvdDzcD3A3sDeN5nChyn82p88xt7HhYHqXfi", 404),
        ("/ipfs/bafyreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy", 400),
        ("/ipfs/Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD?format=ipns-record", 400),
        ("/ipfs/Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD/deeper", 404),
        ("/ipfs/Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD/%2e%2e/x", 400),
    ],
)
def test_paths_that_lead_nowhere(desk: Desk, path: str, status: int) -> None:
    desk.added([("", b"hello world")])
    answer = desk.ask("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/json")


def test_damage_on_the_disk_breaks_the_answer_and_is_never_served(
    fresh: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    cid = fresh.added([("", DATA)])[0]["Hash"]
    path = fresh.part.store.content_path(Cid.parse(cid).digest)
    damaged = bytearray(path.read_bytes())
    damaged[CHUNK_SIZE + 1] ^= 1
    path.write_bytes(damaged)
    with caplog.at_level(logging.INFO), pytest.raises(urllib3.exceptions.HTTPError):
        fresh.ask("GET", f"/ipfs/{cid}")
    assert fresh.ask("GET", f"/ipfs/{cid}", headers={"range": "bytes=0-99"}).data == DATA[:100]
    for _ in range(500):
        if any(record.name == "uvicorn.error" for record in caplog.records):
            break
        time.sleep(0.01)
    loud = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.name for record in loud] == ["cloister.gateway", "uvicorn.error"]
    assert not [record for record in loud if record.exc_info], "one line for each, and no traceback"
    # What cannot be read from its first byte is refused with a status.
    assert fresh.ask("GET", f"/ipfs/{cid}", headers={"range": f"bytes={CHUNK_SIZE}-"}).status == 403


def test_an_upload_that_breaks_off_leaves_nothing_and_is_no_error_of_ours(
    fresh: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    place = urlsplit(fresh.url)
    head = (
        b"POST /api/v0/add HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n'
    )
    with caplog.at_level(logging.INFO), socket.create_connection((place.hostname, place.port), timeout=10) as plug:
        plug.sendall(head + bytes(3 * 1024 * 1024))
        for _ in range(500):
            if list((fresh.root / "incoming").iterdir()):
                break
            time.sleep(0.01)
        plug.close()
        for _ in range(500):
            if any(record.name == "cloister.access" for record in caplog.records):
                break
            time.sleep(0.01)
    line = next(record.getMessage() for record in caplog.records if record.name == "cloister.access")
    assert json.loads(line)["status"] == 499
    assert list((fresh.root / "incoming").iterdir()) == []
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_readiness_tells_of_a_full_store(fresh: Desk) -> None:
    assert fresh.ask("GET", "/-/ready").json()["parts"] == {"gateway": "ok"}
    for fill in (b"1", b"2", b"3"):
        fresh.add([("", fill * MAX_FILE)])
    assert fresh.ask("GET", "/-/ready").status == 503


def test_a_directory_with_an_index_is_a_page(desk: Desk) -> None:
    rows = desk.added([("d/index.html", b"<p>home"), ("d/sub/a", b"1")])
    root = rows[-1]["Hash"]
    moved = desk.ask("GET", f"/ipfs/{root}?x=1")
    assert (moved.status, moved.headers["location"]) == (301, f"/ipfs/{root}/?x=1")
    page = desk.ask("GET", f"/ipfs/{root}/")
    assert (page.status, page.data) == (200, b"<p>home")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("sandbox;")
    assert page.headers["x-ipfs-roots"] == f"{root},{rows[0]['Hash']}"
    listed = desk.ask("GET", f"/ipfs/{root}/sub")
    assert f'href="/ipfs/{root}">..' in listed.data.decode()
    assert listed.headers["x-ipfs-roots"] == f"{root},{rows[2]['Hash']}"


def test_every_form_has_its_tag(desk: Desk) -> None:
    root = desk.added([("d/a", DATA)])[-1]["Hash"]
    seen = set()
    for query in ("", "?format=raw", "?format=car", "?format=tar", "?format=dag-json", "?format=json"):
        first = desk.ask("GET", f"/ipfs/{root}{query}")
        head = desk.ask("HEAD", f"/ipfs/{root}{query}")
        assert (first.status, head.status, head.data) == (200, 200, b"")
        assert head.headers["etag"] == first.headers["etag"]
        assert head.headers["content-type"] == first.headers["content-type"]
        seen.add(first.headers["etag"])
        again = desk.ask("GET", f"/ipfs/{root}{query}", headers={"if-none-match": first.headers["etag"]})
        assert (again.status, again.data) == (304, b"")
    assert len(seen) == 6


def test_a_browsers_reader_may_ask_from_anywhere(desk: Desk) -> None:
    cid = desk.added([("", DATA)])[0]["Hash"]
    answer = desk.ask("GET", f"/ipfs/{cid}", headers={"origin": "https://app.example", "range": "bytes=0-3"})
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    assert desk.ask("OPTIONS", "/api/v0/add", headers=asked).status == 200
