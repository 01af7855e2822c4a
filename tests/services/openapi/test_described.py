"""The description is whole: every operation has a name of its own, and says what it takes, gives and refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.services.openapi.wire import PAGE, Origin
from tests.support.network import LiveNetwork

from cloister.network.composition import SERVICES, build_part, load_backends
from cloister.services.application import EXPOSED_HEADERS, build_application

pytestmark = pytest.mark.xdist_group("openapi")

METHODS = {"get", "head", "post", "put", "delete"}
WITHOUT_BODY = {
    *("teeChallenge", "otherCommand", "cat", "get", "ls", "filesStat", "refs", "blockGet", "blockStat", "objectStat"),
    *("dagGet", "dagResolve", "dagExport", "resolve", "pinAdd", "pinLs", "nodeVersion", "nodeId", "repoStat"),
    *("repoVersion", "swarmPeers"),
}
"""Calls that are POST and have everything in the query, as Kubo's are."""


@pytest.fixture(scope="module")
def document(origin: Origin) -> dict[str, Any]:
    found: dict[str, Any] = origin.ask("GET", "/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, each) for path, item in document["paths"].items() for method, each in item.items()]


def test_every_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    found = operations(document)
    names = [each["operationId"] for _, _, each in found]
    assert len(found) > 85
    assert sorted(set(names)) == sorted(names)
    assert [name for name in names if not re.fullmatch("[a-z][A-Za-z0-9]*", name)] == []
    assert {method for method, _, _ in found} == METHODS
    tags = {tag for _, _, each in found for tag in each["tags"]}
    assert tags == {*SERVICES, "network", "operations"}


def test_every_operation_says_what_it_takes_gives_and_refuses(document: dict[str, Any]) -> None:
    for method, path, each in operations(document):
        where, responses = f"{method} {path}", each["responses"]
        parameters = {(one["in"], one["name"]): one["schema"] for one in each.get("parameters", [])}
        assert {name for kind, name in parameters if kind == "path"} == set(re.findall(r"{(\w+)}", path)), where
        assert all({"type", "anyOf", "enum", "$ref"} & set(schema) for schema in parameters.values()), where
        if method in ("post", "put"):
            assert ("requestBody" in each) == (each["operationId"] not in WITHOUT_BODY), where
        assert "422" not in responses, where
        assert "default" in responses, where
        good = [status for status in responses if status[0] in "23"]
        assert good or each["operationId"] == "otherCommand", where
        for status, response in responses.items():
            bodiless = method == "head" or status in ("204", "301", "304")
            assert bodiless != bool(response.get("content")), (where, status)
            assert response["description"], (where, status)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*(references(each) for each in value.values()))
        return set().union(*(references(each) for each in value)) if isinstance(value, list) else set()

    for reference in references(document):
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert place


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_alone_says_the_same(live: LiveNetwork, document: dict[str, Any], service: str) -> None:
    application = build_application([build_part(service, load_backends(live.name))])
    alone = application.openapi()
    paths = {path: item for path, item in alone["paths"].items() if not path.startswith("/-/")}
    assert paths
    for path, item in paths.items():
        assert item == document["paths"][path]


def test_pages_of_other_origins_may_ask_everything(origin: Origin, document: dict[str, Any]) -> None:
    for method, path, _ in operations(document):
        target = re.sub(r"{chain_id}", "421614", re.sub(r"{(?!chain_id)\w+}", "x", path))
        wanted = (
            ("Access-Control-Request-Method", method.upper()),
            ("Access-Control-Request-Headers", "authorization,content-type"),
        )
        preflight = origin.ask("OPTIONS", target, headers=wanted)
        assert preflight.status == 200, (method, path)
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert method.upper() in preflight.headers["access-control-allow-methods"].split(", ")
        assert preflight.headers["access-control-allow-headers"].lower() == "authorization,content-type"
        assert "origin" in preflight.headers["vary"].lower()
        answer = origin.ask(method.upper(), target, body=b"" if method in ("post", "put") else None)
        assert answer.status < 500
        assert answer.headers["access-control-allow-origin"] == "*", (method, path)
        assert answer.headers["access-control-expose-headers"].split(", ") == list(EXPOSED_HEADERS)
        for each in (preflight, answer):  # with a star, browsers send no cookies, and must not be told to
            assert "access-control-allow-credentials" not in each.headers
            assert PAGE not in str(each.headers)


@pytest.mark.parametrize(
    ("status", "request_bytes"),
    [
        (404, b"GET /nowhere HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\n\r\n"),
        (405, b"PATCH /deals HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\n\r\n"),
        (405, b"TRACE /secrets/web3 HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\n\r\n"),
        (405, b"OPTIONS /deals HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\n\r\n"),
        (413, b"POST /tee/sessions HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\nContent-Length: 99999999\r\n\r\n"),
        (414, b"GET /deals?" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\n\r\n"),
        (431, b"GET /deals HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n"),
        (431, b"GET /deals HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\nX: " + b"a" * 66_000),
        (431, b"GET /deals HTTP/1.1\r\nHost: x\r\nOrigin: https://a\r\n" + b"X: a\r\n" * 9_000 + b"\r\n"),
        (400, b"GET /deals HTTP/1.1\r\nOrigin: https://a\r\n\r\n"),
        (400, b"GET /deals HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        (400, b"POST /deals HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
        (400, b"POST /deals HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n"),
        (400, b"POST /deals HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 50 + b"\r\n\r\n"),
        (400, b"POST /tee/sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"),
        (501, b"POST /tee/sessions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ],
)
def test_refusals_of_the_edge_can_be_read_by_pages(origin: Origin, status: int, request_bytes: bytes) -> None:
    answer = origin.send(request_bytes)
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]
    if b"Origin" in request_bytes or status == 400:
        assert answer.headers["access-control-allow-origin"] == "*"
    assert origin.ask("GET", "/-/health").status == 200
