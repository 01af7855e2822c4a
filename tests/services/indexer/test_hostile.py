"""Queries made to hurt: each is refused in words, in bounded time, and never as an error of our own."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.services.indexer.test_oracle import Newest, fill

from cloister.services.database import open_database
from cloister.services.indexer.service import QueryService

BY_VARIABLE = "query ($w: ProtectedData_filter) { protectedDatas(where: $w) { id } }"
BY_WRONG_VARIABLE = "query ($w: String) { protectedDatas(where: $w) { id } }"


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueryService]:
    database = open_database(tmp_path_factory.mktemp("hostile") / "indexer.db")
    database.upgrade("indexer")
    fill(database)
    yield QueryService(database, Newest())
    database.close()


def refusal(queries: QueryService, query: str, variables: dict[str, Any] | None = None) -> str:
    answer = queries.run("dataprotector-v2", query, variables, None)
    assert answer.get("errors"), answer
    json.dumps(answer)
    message = str(answer["errors"][0]["message"])
    assert message != "internal error"
    assert len(message) <= 501
    return message


def repeat(text: str, count: int) -> str:
    return " ".join(text.replace("#", str(n)) for n in range(count))


FRAGMENTS = repeat("fragment f# on Query { ...g# ...g# }", 25)
DOUBLING = "query { ...f0 } " + " ".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(40))
CIRCLE = "{ __schema { types { fields { type { fields { type { fields { type { fields { name } } } } } } } } } }"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("{" + "a{" * 1500, "nested"),
        ("{ protectedDatas(where: {and: " + "[" * 900 + "]" * 900 + "}) { id } }", "nested"),
        ("{ " + "... { " * 400 + "x" + " }" * 400 + " }", ""),
        (DOUBLING + " fragment f40 on Query { protectedDatas { id } }", "more than 500 fields"),
        ("{ x } " + repeat("fragment f# on Query { x }", 60), "operations and fragments"),
        ("{ " + repeat("a: protectedDatas { id }", 40) + " }", "one field more than 32 times"),
        ("{ " + repeat("a#: __typename", 501) + " }", "more than 500 fields"),
        ("{ " + repeat("a#: __schema { queryType { name } }", 4) + " }", "asks for the schema more than 3"),
        (CIRCLE, "introspection depth"),
        ("{ x" + " y" * 5000 + " }", "Syntax Error"),
        ("{ x }" + " " * 40_000, "more than 32768 characters"),
        ("#" * 30_000, "Syntax Error"),
        ("", "Syntax Error"),
        ("\x00", "Syntax Error"),
        ('{ protectedDatas(first: "\\ud800") { id } }', "Syntax Error"),
        ("{ protectedDatas(first: " + "9" * 5000 + ") { id } }", "Int"),
        ("{ protectedDatas(where: {creationTimestamp_gt: " + "9" * 5000 + "}) { id } }", "whole number"),
        ("{ protectedDatas(where: {creationTimestamp_gt: 1.5}) { id } }", "whole number"),
        (
            "{ protectedDatas(skip: 5001) { id } }",
            "The value of the argument `skip` must be between 0 and 5000, but is 5001",
        ),
        (
            "{ protectedDatas(first: 1001) { id } }",
            "The value of the argument `first` must be between 0 and 1000, but is 1001",
        ),
        ("{ protectedDatas(where: {isRentable_gt: true}) { id } }", "isRentable_gt"),
        ("{ protectedDatas(orderBy: sales) { id } }", "sales"),
        ('{ protectedDatas(block: {number: 1, hash: "0x00"}) { id } }', "only one of"),
        ('{ protectedDatas(block: {hash: "0x00"}) { id } }', "none of the newest blocks"),
        ("{ protectedDatas(block: {number_gte: 10}) { id } }", "block 10 is not indexed yet; the last one is 9"),
        ("query a { accounts { id } } query b { accounts { id } }", "operation"),
        ("subscription { accounts { id } }", "subscription"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_refused(queries: QueryService, query: str, text: str) -> None:
    began = time.monotonic()
    assert text in refusal(queries, query)
    # No measure of speed: what grows without bounds takes hours.
    assert time.monotonic() - began < 60


def nested(levels: int) -> dict[str, Any]:
    where: dict[str, Any] = {"id": "x"}
    for _ in range(levels):
        where = {"and": [where]}
    return where


@pytest.mark.parametrize(
    "where",
    [
        "text",
        [1],
        5,
        True,
        {"nothing": 1},
        {"and": "x"},
        {"and": [5]},
        {"owner_": 5},
        {"owner_": [{"id": "x"}]},
        {"creationTimestamp_in": [None]},
        {"creationTimestamp_gt": None},
        {"creationTimestamp": "1" * 100},
        {"creationTimestamp": {}},
        {"creationTimestamp": 1e400},
        {"creationTimestamp": True},
        {"isRentable": "x"},
        {"name": "\ud800"},
        {"name": "x" * 5000},
        {"name": {"a": 1}},
        {"id_in": ["0x"] * 1001},
        {"or": [{"name_contains": str(n)} for n in range(401)]},
        {"and": [{"id_in": ["x"] * 1000} for _ in range(11)]},
        {"schema_contains": ["a"] * 401},
        {"_change_block": {"number_gte": 2**70}},
        {"_change_block": {"number_gte": -1}},
        nested(7),
        nested(60),
        nested(3000),
    ],
    ids=lambda where: repr(where)[:40] if not isinstance(where, dict) or len(str(where)) < 500 else "long",
)
@pytest.mark.parametrize("query", [BY_VARIABLE, BY_WRONG_VARIABLE], ids=["filter", "string"])
def test_refused_variables(queries: QueryService, query: str, where: Any) -> None:
    refusal(queries, query, {"w": where})


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("query ($v: String) { protectedDatas(orderBy: $v) { id } }", "sales"),
        ("query ($v: String) { protectedDatas(orderDirection: $v) { id } }", "up"),
        ("query ($v: String) { protectedDatas(block: $v) { id } }", "x"),
        ("query ($v: String) { protectedDatas(first: $v) { id } }", "5"),
        ("query ($v: Boolean) { protectedDatas(first: $v) { id } }", True),
        ("query ($v: Int) { protectedDatas(first: $v) { id } }", 10**30),
        ("query ($v: Nothing) { protectedDatas(first: $v) { id } }", 1),
    ],
)
def test_variables_of_another_type(queries: QueryService, query: str, value: Any) -> None:
    refusal(queries, query, {"v": value})


def test_one_budget_for_all_fields_and_blocks(queries: QueryService) -> None:
    many = repeat("a#: accounts(block: {number: 9}) { datasets { id } }", 140)
    assert "lookups" in refusal(queries, f"{{ {many} }}")


def test_a_query_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    database = open_database(tmp_path / "indexer.db")
    database.upgrade("indexer")
    fill(database)
    where: dict[str, Any] = {"name_not_contains": "n"}
    for _ in range(2):
        where = {"owner_": {"datasets_": where}}
    slow = QueryService(database, Newest(), max_seconds=0.0)
    assert "the query took longer than 0 seconds" in refusal(slow, BY_VARIABLE, {"w": where})
    # The connection goes back without the limit.
    answer = QueryService(database, Newest()).run("dataprotector-v2", BY_VARIABLE, {"w": where}, None)
    assert "errors" not in answer
    database.close()


def test_names_that_no_field_holds(queries: QueryService) -> None:
    """Ids of any spelling name nothing, and nothing is found."""
    for identity in ('"0x"', '"' + "f" * 3000 + '"', "5", '"\\u0000"', "-5"):
        answer = queries.run("dataprotector-v2", f"{{ protectedData(id: {identity}) {{ id }} }}", None, None)
        assert answer == {"data": {"protectedData": None}}


_WORDS = st.sampled_from(
    [
        *("{", "}", "(", ")", "[", "]", ":", "$w", "!", "...", "@include(if: true)", "@skip(if: false)", "=", "|", ","),
        *("query", "mutation", "fragment f on Query", "on", "protectedDatas", "accounts", "where", "first", "orderBy"),
        *("id", "owner", "name", "schema", "__schema", "__typename", "_meta", "block", "number", "null", "true", "5"),
        *('"x"', '"""y"""', "-1", "1e5", "#", "\n", "\x00", "\ufeff", "é", "\ud800"),
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(words=st.lists(_WORDS, max_size=30), variables=st.none() | st.dictionaries(st.just("w"), st.text() | st.none()))
def test_noise(queries: QueryService, words: list[str], variables: dict[str, Any] | None) -> None:
    answer = queries.run("dataprotector-v2", " ".join(words), variables, None)
    assert set(answer) <= {"data", "errors"}
    assert all(error["message"] != "internal error" for error in answer.get("errors", ()))
    json.dumps(answer).encode("ascii")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["0x", "1", "-1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["and", "or", "id", "id_in", "owner_", "schema_contains", "name_contains", "creationTimestamp_gte", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(where=_JSON, query=st.sampled_from([BY_VARIABLE, BY_WRONG_VARIABLE]))
def test_noise_in_variables(queries: QueryService, where: Any, query: str) -> None:
    answer = queries.run("dataprotector-v2", query, {"w": where}, None)
    assert all(error["message"] != "internal error" for error in answer.get("errors", ()))
    json.dumps(answer).encode("ascii")


def test_nothing_of_ours_is_logged_as_a_failure(queries: QueryService, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        refusal(queries, BY_VARIABLE, {"w": {"owner_": 5}})
    assert caplog.records == []
