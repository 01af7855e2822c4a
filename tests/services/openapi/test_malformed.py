"""Input that no client of ours would send: it is refused by name, in the form of the service, and harms nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from tests.services.openapi.wire import Answer, Origin
from tests.support.network import LiveNetwork

from cloister.protocol import authorization
from cloister.protocol.codec import ZERO_ADDRESS, ZERO_BYTES32
from cloister.protocol.signatures import PrivateKey

pytestmark = pytest.mark.xdist_group("openapi")

CHAIN = 421614
ADDRESS, WORD, SIGNATURE = "0x" + "5b" * 20, "0x" + "00" * 32, "0x" + "11" * 65
LOGIN = PrivateKey(b"\x21" * 32)
DEEP = "[" * 50_000

NUMBER, PLACE, HASH, TEXT = "number", "address", "word", "text"
ORDERS: dict[str, dict[str, str]] = {
    "apporders": {
        "app": PLACE,
        "appprice": NUMBER,
        "volume": NUMBER,
        "tag": HASH,
        "salt": HASH,
        **dict.fromkeys(("datasetrestrict", "workerpoolrestrict", "requesterrestrict"), PLACE),
    },
    "datasetorders": {
        "dataset": PLACE,
        "datasetprice": NUMBER,
        "volume": NUMBER,
        "tag": HASH,
        "salt": HASH,
        **dict.fromkeys(("apprestrict", "workerpoolrestrict", "requesterrestrict"), PLACE),
    },
    "workerpoolorders": {
        "workerpool": PLACE,
        "workerpoolprice": NUMBER,
        "volume": NUMBER,
        "tag": HASH,
        "salt": HASH,
        "category": NUMBER,
        "trust": NUMBER,
        **dict.fromkeys(("apprestrict", "datasetrestrict", "requesterrestrict"), PLACE),
    },
    "requestorders": {
        "app": PLACE,
        "dataset": PLACE,
        "workerpool": PLACE,
        "requester": PLACE,
        "beneficiary": PLACE,
        "callback": PLACE,
        "params": TEXT,
        "volume": NUMBER,
        "tag": HASH,
        "salt": HASH,
        "category": NUMBER,
        **dict.fromkeys(("appmaxprice", "datasetmaxprice", "workerpoolmaxprice", "trust"), NUMBER),
    },
}
GOOD: dict[str, Any] = {NUMBER: 1, PLACE: str(ZERO_ADDRESS), HASH: str(ZERO_BYTES32), TEXT: "{}"}

# As they stand in the document: JSON that no writer of ours would write.
NEVER = (
    "null",
    "true",
    "[]",
    "{}",
    '""',
    '"' + "x" * 5000 + '"',
    '"\\u0000"',
    '"\\ud800"',
    "NaN",
    "Infinity",
    "1" + "0" * 400,
)
BAD: dict[str, tuple[str, ...]] = {
    NUMBER: (
        *("-1", '"-1"', "1.5", '"1.5"', '"1e3"', '"0x5"', '"\u0663"', '" 1"', '"+1"', '"1_0"'),
        *(str(2**53), str(2**53 + 1), str(2**256), f'"{2**256}"', '"' + "9" * 5000 + '"', "1e400", "-0.5"),
    ),
    PLACE: (
        "0",
        "1.5",
        '"0x"',
        '"0x12"',
        '"5b"',
        f'"0x{"g" * 40}"',
        f'"0x{"١" * 40}"',
        f'"0x{"5b" * 21}"',
        '"0x00\\u0000"',
    ),
    HASH: ("0", '"0x"', '"0x1"', f'"0x{"g" * 64}"', f'"0x{"00" * 33}"', f'"{"0" * 64}"'),
    TEXT: ("0",),
}


def bad_values(form: str) -> Iterator[str]:
    for value in (*NEVER, *BAD[form]):
        # A text may be empty, long or hold anything; what a text means is judged after its form.
        if form != TEXT or value[0] != '"':
            yield value


def check_refusal(answer: Answer, *statuses: int) -> str:
    """A refusal in a form that clients read, with a short text that repeats no more than a little; returns the text."""
    assert answer.status in statuses, (answer.status, answer.body[:300])
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["content-type"] == "application/json"
    assert b"Traceback" not in answer.body
    body = answer.json()
    text = body["errors"][0]["message"] if "errors" in body else body["error"]
    text = text[0] if isinstance(text, list) else text
    assert 0 < len(text) < 400, text
    return str(text)


def log_in(origin: Origin, target: str, name: str, chain: int, *, path: str = "data") -> str:
    """The header for the live challenge at ``target``, signed in the domain ``name`` of ``chain``."""
    body = origin.ask("GET", f"{target}?chainId={CHAIN}&address={LOGIN.address}").json()
    challenge = (body[path] if path else body)["message"]["challenge"]
    digest = authorization.challenge_digest(name, chain, challenge)
    return authorization.build_challenge_header(digest, LOGIN.sign_digest(digest), LOGIN.address)


def publish(origin: Origin, kind: str, document: str) -> Answer:
    header = log_in(origin, "/challenge", "iExec Gateway", CHAIN)
    headers = (("authorization", header), ("content-type", "application/json"))
    return origin.ask("POST", f"/{kind}?chainId={CHAIN}", headers=headers, body=document.encode("utf-8"))


def write_order(fields: dict[str, str], **changed: str) -> str:
    """The document that publishes an order; ``changed`` members stand as they are given."""
    members = {name: json.dumps(GOOD[form]) for name, form in fields.items()}
    members |= {"sign": json.dumps(SIGNATURE), **changed}
    return '{"order":{' + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}}"


@pytest.mark.parametrize("kind", list(ORDERS))
def test_every_field_of_an_order_is_looked_at(origin: Origin, kind: str) -> None:
    fields = ORDERS[kind]
    well_formed = publish(origin, kind, write_order(fields))
    assert check_refusal(well_formed, 403) != "invalid authorization", "the form is right, and the market judges it"
    for name, form in fields.items():
        for value in bad_values(form):
            answer = publish(origin, kind, write_order(fields, **{name: value}))
            text = check_refusal(answer, 400)
            assert answer.json()["ok"] is False
            if value not in ("NaN", "Infinity"):  # no JSON at all
                assert name in text, (name, value, text)
        less = {other: kept for other, kept in fields.items() if other != name}
        assert name in check_refusal(publish(origin, kind, write_order(less)), 400)
    for sign in ("null", "5", '"0x"', '"0x12"', f'"0x{"g" * 130}"', f'"0x{"11" * 5000}"', "[]"):
        check_refusal(publish(origin, kind, write_order(fields, sign=sign)), 400, 403, 413)
    assert origin.ask("GET", f"/{kind}?chainId={CHAIN}&app=any&dataset=any").status == 200


@pytest.mark.parametrize(
    "document",
    [
        *("", "null", "5", "[]", "{}", '{"order":null}', '{"order":[]}', '{"order":5}', '{"order":"x"}', "{", "\x00"),
        *('{"order":{}}', '{"order":{},"order":{}}', '{"order":{"app":1,"app":1}}', f'{{"order":{DEEP}}}', '"\\ud800"'),
    ],
)
def test_documents_that_are_no_order(origin: Origin, document: str) -> None:
    for kind in ORDERS:
        assert publish(origin, kind, document).status == 400
        headers = (("authorization", log_in(origin, "/challenge", "iExec Gateway", CHAIN)),)
        answer = origin.ask("PUT", f"/{kind}?chainId={CHAIN}", headers=headers, body=document.encode())
        check_refusal(answer, 400)


def test_a_member_too_many(origin: Origin) -> None:
    fields = ORDERS["apporders"]
    check_refusal(publish(origin, "apporders", write_order(fields, more="1")), 400, 403)


@pytest.mark.parametrize(
    ("challenge", "path", "name", "use"),
    [
        ("/challenge", "data", "iExec Gateway", "market"),
        ("/tasks/logs/challenge", "", "iExec Core", "scheduler"),
        ("/results/challenge", "", "iExec Result Repository", "resultproxy"),
    ],
)
def test_a_login_counts_for_its_service_and_chain_and_once(
    origin: Origin, challenge: str, path: str, name: str, use: str
) -> None:
    def attempt(header: str) -> Answer:
        if use == "resultproxy":
            return origin.ask("POST", f"/results/login?chainId={CHAIN}", body=header.encode())
        if use == "scheduler":
            return origin.ask("GET", f"/tasks/{WORD}/logs", headers=(("authorization", header),))
        body = b'{"target":"unpublish_all"}'
        return origin.ask("PUT", f"/requestorders?chainId={CHAIN}", headers=(("authorization", header),), body=body)

    passed = {"market": (403, "no open requestorder"), "scheduler": (404, "no task"), "resultproxy": (200, "")}[use]
    others = ("iExec Gateway", "iExec Core", "iExec Result Repository", "iExec", "")
    for domain, chain in [*((other, CHAIN) for other in others if other != name), (name, 1), (name, 134)]:
        check_refusal(attempt(log_in(origin, challenge, domain, chain, path=path)), 401, 403)
    header = log_in(origin, challenge, name, CHAIN, path=path)
    digest, signature, address = header.split("_")
    for broken in (
        f"{digest}_{signature}",
        f"{digest}_{signature}_{ADDRESS}",
        f"{WORD}_{signature}_{address}",
        "_" * 500,
    ):
        check_refusal(attempt(broken), 400, 401, 403)
    header = log_in(origin, challenge, name, CHAIN, path=path)
    answer = attempt(header)
    assert answer.status == passed[0], answer.body
    if answer.status != 200:
        assert passed[1] in check_refusal(answer, passed[0])
    check_refusal(attempt(header), 401, 403)


BAD_NUMBERS = (
    "-1",
    "1.5",
    "1e3",
    "0x5",
    "\u0663",
    "",
    "x",
    "NaN",
    str(2**53),
    str(2**64),
    str(2**256),
    "9" * 5000,
    "\0",
    "1,2",
)


@pytest.mark.parametrize("name", ["pageIndex", "pageSize", "page"])
def test_pages_are_numbers_in_a_range(origin: Origin, name: str) -> None:
    for path in (*ORDERS, "deals", "categories"):
        for value in BAD_NUMBERS:
            target = f"/{path}?chainId={CHAIN}&app=any&dataset=any&{name}={quote(value)}"
            assert name in check_refusal(origin.ask("GET", target), 400)
    assert origin.ask("GET", f"/deals?chainId={CHAIN}&pageSize=10").status == 200


@pytest.mark.parametrize(
    "value", ["", "1", "x", "0x66eee", "421614.0", "+421614", "42161４", "421614%00", "421614&chainId=1"]
)
def test_another_chain_is_refused(origin: Origin, value: str) -> None:
    for path in (*ORDERS, "deals", "categories", "metrics", "challenge", f"deals/{WORD}", "ohlc"):
        answer = origin.ask(
            "GET", f"/{path}?address={ADDRESS}&category=0&app=any&dataset=any&chainId={quote(value, '%&=')}"
        )
        assert "chainId" in check_refusal(answer, 400)


WRITES = [
    *(("POST", f"/{kind}?chainId={CHAIN}") for kind in ORDERS),
    *(("PUT", f"/{kind}?chainId={CHAIN}") for kind in ORDERS),
    ("POST", f"/secrets/web3?secretAddress={ADDRESS}"),
    ("POST", f"/secrets/web2?ownerAddress={ADDRESS}&secretName=x"),
    ("PUT", f"/secrets/web2?ownerAddress={ADDRESS}&secretName=x"),
    ("POST", f"/apps/{ADDRESS}/secrets"),
    ("POST", f"/requesters/{ADDRESS}/secrets/x"),
    ("POST", f"/tee/challenges/{WORD}"),
    ("POST", "/tee/sessions"),
    ("POST", "/enclave/v1/nonces"),
    ("POST", "/enclave/v1/sessions"),
    ("PUT", f"/policies/{WORD}"),
    ("POST", "/scheduler/v1/leases"),
    *(
        ("POST", f"/scheduler/v1/leases/{'0' * 32}/{act}")
        for act in ("heartbeat", "authorization", "logs", "progress", "outcome")
    ),
    ("POST", "/subgraphs/name/x/dataprotector-v2"),
    ("POST", "/subgraphs/name/x/poco-v5"),
    ("POST", "/v1/results/token"),
    ("POST", "/v1/results"),
    ("POST", f"/results/login?chainId={CHAIN}"),
    ("POST", "/api/v0/add"),
]
BODIES = {
    "none": b"",
    "cut": b'{"query": "{ prot',
    "null": b"null",
    "list": b"[]",
    "not UTF-8": b"\xff\xfe{}",
    "NUL": b"\0" * 50,
    "deep": DEEP.encode(),
    "twice": b'{"task_id":"0x1","task_id":"0x2","query":"{","query":"{"}',
    "not a number": b'{"task_id":NaN,"query":NaN}',
    "endless number": b'{"task_id":' + b"9" * 50_000 + b"}",
    "half a character": b'{"task_id":"\\ud800","query":"\\ud800"}',
    "an array": b'[{"query":"{_meta{block{number}}}"}]',
    "HTML": b"<html>",
    "zip": b"PK\x03\x04" + b"\0" * 500,
}
TYPES = (
    "application/json",
    "text/plain",
    "application/xml",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "",
    "\x80/é",
)


@pytest.mark.parametrize(("method", "target"), WRITES, ids=lambda value: value.partition("?")[0][:40])
def test_bodies_that_are_nothing(origin: Origin, method: str, target: str) -> None:
    for name, body in BODIES.items():
        for kind in TYPES if name in ("null", "cut") else TYPES[:1]:
            headers = (("content-type", kind), ("authorization", SIGNATURE))
            answer = origin.ask(method, target, headers=headers, body=body)
            if answer.status != 200:  # only GraphQL: it has its errors under 200
                check_refusal(answer, 400, 401, 403, 404, 413, 415)
            else:
                assert target.startswith("/subgraphs/"), (name, answer)
                assert answer.json()["errors"], name
    packed = origin.ask(method, target, headers=(("content-encoding", "gzip"),), body=b"\x1f\x8b\x08" + b"\0" * 20)
    check_refusal(packed, 400, 401, 403, 404, 415)


@pytest.mark.parametrize(("method", "target"), WRITES, ids=lambda value: value.partition("?")[0][:40])
def test_bodies_that_are_too_large(origin: Origin, method: str, target: str) -> None:
    announced = b"%s %s HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\nContent-Length: %d\r\n\r\n"
    size = 10**19
    if target in ("/api/v0/add", "/v1/results"):
        check_refusal(origin.send(announced % (method.encode(), target.encode(), size)), 400, 401, 413)
        return
    check_refusal(origin.send(announced % (method.encode(), target.encode(), size)), 413)
    with origin.connect() as plug:  # no length, and no end
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\nTransfer-Encoding: chunked\r\n\r\n"
        plug.sendall(head.encode())
        piece, sent = b"10000\r\n" + b"7" * 0x10000 + b"\r\n", 0
        try:
            while sent < 64 * 1024 * 1024:
                plug.sendall(piece)
                sent += 0x10000
        except OSError:
            pass
        assert sent < 32 * 1024 * 1024, "the server stopped listening"


NAMES = (
    *("%", "%zz", "%00", "%ff", "%c0%af", "..%2f..%2fetc%2fpasswd", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd"),
    *("%0d%0aX:%20y", "é", "%F0%9F%98%80", "%ed%a0%80", ".", "..", "//", "a" * 3000, "0x" + "1" * 64 + "%00", "%d9%a3"),
)
PATHS = (
    *("/ipfs/{}", "/tasks/{}", "/tasks/{}/logs", "/apps/{}/secrets", "/421614/workerpools/{}", "/421614/iapps/{}"),
    *("/{}/iapps/x", "/deals/{}?chainId=421614", "/categories/{}?chainId=421614", "/apporders/{}?chainId=421614"),
    *("/v1/results/{}/ipfshash", "/policies/{}", "/tee/properties/{}", "/subgraphs/name/x/{}", "/api/v0/{}", "/ws/{}"),
    *("/requesters/{}/secrets/x", "/requesters/" + ADDRESS + "/secrets/{}", "/data/{}/releases", "/{}", "/-/{}"),
    *("/secrets/web3?secretAddress={}", "/secrets/web2?ownerAddress=" + ADDRESS + "&secretName={}"),
    *(
        "/deals?chainId=421614&dealid={}&app={}",
        "/challenge?chainId=421614&address={}",
        "/ohlc?chainId=421614&category={}",
    ),
)


@pytest.mark.parametrize("path", PATHS)
def test_names_that_are_nonsense(origin: Origin, path: str) -> None:
    for name in NAMES:
        target = path.replace("{}", name)
        for method in ("GET", "HEAD", "POST", "DELETE"):
            answer = origin.ask(method, target, body=b"" if method == "POST" else None)
            assert 400 <= answer.status < 500, (method, target, answer)
            assert b"root:" not in answer.body
            assert b"Traceback" not in answer.body
            assert "x" not in answer.headers, "no header is made of a name"
            assert answer.headers["access-control-allow-origin"] == "*"


def test_a_query_key_that_comes_twice(origin: Origin) -> None:
    one = f"/secrets/web3?secretAddress={ADDRESS}&secretAddress="
    assert origin.ask("HEAD", one + "x").status in (400, 404)
    assert origin.ask("GET", f"/apporders?chainId={CHAIN}&app=any&app=nonsense").status in (200, 400)
    check_refusal(origin.ask("GET", f"/apporders?chainId={CHAIN}&chainId=1&app=any"), 400)


def test_everything_still_works(origin: Origin, live: LiveNetwork) -> None:
    ready = origin.ask("GET", "/-/ready")
    assert (ready.status, ready.json()["ready"]) == (200, True)
    assert set(ready.json()["parts"].values()) == {"ok"}
    metrics = origin.ask("GET", "/-/metrics").body.decode()
    assert "cloister_http_unforeseen_errors_total 0.0" in metrics, "no request of this file met an error of ours"
    assert live.connect("alice").orders is not None
