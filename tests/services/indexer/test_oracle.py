"""Random filters, orders, pages and blocks against plain Python over the same rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.services.indexer.oracle import Oracle, Rows

from cloister.services.database import Database, open_database
from cloister.services.indexer.entities import Derived, Kind, Reference, References, Scalar, Subgraph
from cloister.services.indexer.filters import suffixes
from cloister.services.indexer.service import QueryService
from cloister.services.indexer.subgraphs import DATAPROTECTOR, POCO, SUBGRAPHS
from cloister.services.indexer.tables import EntityWriter

LAST = 9
ADDRESSES = [f"0x{n:040x}" for n in (1, 0xAB, 0xABCD, 0xFF00)]
NAMES = ["", "contact", "Contact", "CONTACT%", "con_act", "É", "é", "0xAB", "null", "a\\b'\"", "-1", "~"]
ENTRIES = ["email:string", "Email:string", "a.b:f64", "telegram_chatId:string"]
NUMBERS = [0, 1, 9, 10, 1_500_000_000, 2**255, 2**256 - 1]
WORDS = ["UNSET", "ACTIVE", "COMPLETED", "FAILLED"]

_VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BYTES: st.sampled_from([*ADDRESSES, "0x", "0xabcd", "0xABCD", "ab", "ff00"]),
    Kind.ID: st.sampled_from([*ADDRESSES, "1", "10", "null", "email:string", "0xABCD", ""]),
    Kind.STRING: st.sampled_from([*NAMES, "con", "ACT", "t", "%", "_", "\\", "É"]),
    Kind.BOOLEAN: st.booleans(),
    Kind.TASK_STATUS: st.sampled_from(WORDS),
    Kind.CONTRIBUTION: st.sampled_from(["UNSET", "PROVED"]),
    Kind.BIG_INT: st.one_of(
        st.sampled_from([*NUMBERS, -1, -(10**30), 2**256, 10**77]).map(str), st.sampled_from([0, 9, 10, -5])
    ),
    Kind.DECIMAL: st.sampled_from(
        ["0", "0.0", "1.5", "1.50", "00001.5", "0.000000001", "0.0000000015", "-1", "-0", "5", "1e", "10"]
    ).filter(lambda text: "e" not in text),
}


def fill(database: Database) -> dict[str, Rows]:
    """A small world with history: the same rows in the database and in memory."""
    data, poco = Rows(DATAPROTECTOR), Rows(POCO)
    with database.session_scope() as session:

        def put(rows: Rows, entity: str, identity: str, block: int, **values: Any) -> None:
            EntityWriter(session, rows.subgraph).put(entity, identity, block, **values)
            rows.put(entity, identity, block, values)

        for n, address in enumerate(ADDRESSES):
            put(data, "Account", address, n)
            put(poco, "Account", address, n)
        for entry in ENTRIES:
            path, _, kind = entry.rpartition(":")
            put(data, "SchemaEntry", entry, 0, path=path, type=kind)
        mined = {"transactionHash": "0xabcd", "blockNumber": 5}
        for n, identity in enumerate(("1", "10", "null")):
            put(data, "Collection", identity, n, owner=ADDRESSES[n], creationTimestamp=NUMBERS[n], **mined)
        for n in range(12):
            values = {
                "owner": ADDRESSES[n % 4],
                "name": NAMES[n],
                "jsonSchema": "{}",
                "schema": [entry for place, entry in enumerate(ENTRIES) if n >> place & 1],
                "collection": (None, "1", "10", "null")[n // 3],
                "isIncludedInSubscription": n % 2 == 0,
                "isRentable": n % 3 == 0,
                "isForSale": False,
                "multiaddr": "0x" if n % 2 else "0xabcd",
                "checksum": f"0x{n:02x}",
                "creationTimestamp": NUMBERS[n % 7],
                "transactionHash": "0x" if n == 3 else f"0x{n:04x}",
                "blockNumber": n,
            }
            put(data, "ProtectedData", f"0x{n * 37 % 256:040x}", n % 5, **values)
        for n in (0, 37, 74):
            identity = f"0x{n:040x}"
            put(data, "ProtectedData", identity, 6, owner=ADDRESSES[3], schema=ENTRIES[:1], isForSale=True)
            put(data, "ProtectedData", identity, 8, owner=ADDRESSES[0], collection=None, name="sold")
        for n in range(2):
            put(data, "AddOnlyAppWhitelist", f"0x{n + 7:040x}", 3, owner=ADDRESSES[n], apps=ADDRESSES[: n + 1])
        for address in ADDRESSES[:2]:
            put(data, "App", address, 2, owner=None)
        fill_poco(poco, put)
    return {rows.subgraph.name: rows for rows in (data, poco)}


def fill_poco(rows: Rows, put: Any) -> None:
    at = {"timestamp": 5, "blockNumber": 5, "transactionHash": "0xabcd"}
    for n in range(6):
        deal = f"0x{n:064x}"
        parties = dict.fromkeys(
            ("requester", "beneficiary", "sponsor", "appOwner", "workerpoolOwner"), ADDRESSES[n % 4]
        )
        put(
            rows,
            "Deal",
            deal,
            n % 3,
            **parties,
            **dict.fromkeys(("callback", "tag", "apporder", "datasetorder", "workerpoolorder"), "0x"),
            app=ADDRESSES[0],
            workerpool=ADDRESSES[1],
            dataset=ADDRESSES[2] if n % 2 else None,
            datasetOwner=None,
            appPrice=NUMBERS[n],
            datasetPrice=n * 500_000_000,
            workerpoolPrice=0,
            workerStake=1,
            trust=n,
            category="1",
            params=NAMES[n],
            startTime=NUMBERS[n],
            botFirst=0,
            botSize=1,
            schedulerRewardRatio=1,
            requestorder=f"0x{n // 2:064x}",
            bulk=None,
            **at,
        )
        put(
            rows,
            "Task",
            f"0x{n + 100:064x}",
            3,
            status=WORDS[n % 4],
            deal=deal,
            requester=ADDRESSES[0],
            index=n,
            contributionDeadline=1,
            finalDeadline=1,
            consensus=None,
            resultDigest=None,
            results=None,
            resultsCallback=None if n < 2 else "0x" if n < 4 else "0xabcd",
            **at,
        )
        put(rows, "Task", f"0x{n + 100:064x}", 7, status="COMPLETED", resultsCallback="0xff00")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[QueryService, dict[str, Rows]]]:
    if request.param == "sqlite":
        database = open_database(tmp_path_factory.mktemp("oracle") / "indexer.db")
    else:
        database = open_database(request.getfixturevalue("postgresql_cluster").new_database())
    database.upgrade("indexer")
    rows = fill(database)
    yield QueryService(database, Newest(), max_seconds=60.0), rows
    database.close()


class Newest:
    """Nine blocks were taken in."""

    def known(self) -> tuple[int, str | None, int | None]:
        return LAST, None, None


@cache
def conditions(subgraph_name: str, entity: str, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Filters on an entity, as deep as ``depth``. Kept, because building them costs more than asking."""
    subgraph = SUBGRAPHS[subgraph_name]
    single: list[st.SearchStrategy[dict[str, Any]]] = [
        st.integers(0, LAST + 1).map(lambda block: {"_change_block": {"number_gte": block}})
    ]
    for name, field in subgraph.entities[entity].fields.items():
        if not isinstance(field, Scalar) and depth > 0:
            single.append(st.deferred(lambda n=name, f=field: _nested(subgraph_name, n, f.entity, depth - 1)))
        if isinstance(field, Derived):
            continue
        if isinstance(field, References):
            values = st.lists(st.sampled_from([*ENTRIES, *ADDRESSES]), max_size=3)
            single += [_pair(f"{name}{suffix}", values) for suffix in ("", *(f"_{s}" for s in suffixes(field)))]
            continue
        kind = field.kind if isinstance(field, Scalar) else subgraph.entities[field.entity].id_kind
        plain = _VALUES[kind]
        nullable = isinstance(field, Scalar | Reference) and not field.required
        for suffix in ("", *suffixes(field)):
            key = f"{name}_{suffix}" if suffix else name
            if suffix in ("in", "not_in"):
                single.append(_pair(key, st.lists(plain, max_size=4)))
            elif suffix in ("", "not"):
                single.append(_pair(key, st.none() | plain if nullable else plain))
            else:
                single.append(_pair(key, plain))
    several = st.lists(st.one_of(single), min_size=0, max_size=3).map(
        lambda found: {k: v for d in found for k, v in d.items()}
    )
    if depth == 0:
        return several
    inner = st.deferred(lambda: conditions(subgraph_name, entity, depth - 1))
    joined = st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, max_size=3)).map(lambda pair: {pair[0]: pair[1]})
    return st.one_of(several, joined, st.tuples(several, joined).map(lambda both: {**both[0], **both[1]}))


def _pair(key: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return values.map(lambda value: {key: value})


def _nested(subgraph: str, name: str, entity: str, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    return conditions(subgraph, entity, depth).map(lambda where: {f"{name}_": where})


def literal(value: Any) -> str:
    """Write a filter into a query's text, with the freedoms that clients take: no commas, blank lines."""
    match value:
        case dict():
            return "{" + "\n ".join(f"{key}: {literal(each)}" for key, each in value.items()) + "}"
        case list():
            return "[" + " ".join(literal(each) for each in value) + "]"
        case _:
            return json.dumps(value)


def ordered(subgraph: Subgraph, entity: str) -> st.SearchStrategy[str]:
    fields = subgraph.entities[entity].fields
    return st.sampled_from([name for name, field in fields.items() if isinstance(field, Scalar | Reference)])


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    subgraph, entity = draw(
        st.sampled_from(
            [
                (DATAPROTECTOR, "ProtectedData"),
                (DATAPROTECTOR, "Account"),
                (DATAPROTECTOR, "App"),
                (POCO, "Deal"),
                (POCO, "Task"),
            ]
        )
    )
    return {
        "subgraph": subgraph,
        "entity": entity,
        "where": draw(st.none() | conditions(subgraph.name, entity, 2)),
        "order": draw(ordered(subgraph, entity)),
        "descending": draw(st.booleans()),
        "skip": draw(st.integers(0, 3)),
        "first": draw(st.integers(0, 20)),
        "block": draw(st.none() | st.integers(0, LAST)),
        "inline": draw(st.booleans()),
    }


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=questions())
def test_random_filters(filled: tuple[QueryService, dict[str, Rows]], asked: dict[str, Any]) -> None:
    queries, rows = filled
    subgraph, entity, where = asked["subgraph"], asked["entity"], asked["where"]
    plural = subgraph.entities[entity].plural
    arguments = f"orderBy: {asked['order']} skip: {asked['skip']} first: {asked['first']}"
    arguments += f" orderDirection: {'desc' if asked['descending'] else 'asc'}"
    if asked["block"] is not None:
        arguments += f" block: {{number: {asked['block']}}}"
    if asked["inline"] and where is not None:
        document, variables = f"{{ {plural}(where: {literal(where)} {arguments}) {{ id }} }}", None
    else:
        document = f"query ($where: {entity}_filter) {{ {plural}(where: $where, {arguments}) {{ id }} }}"
        variables = {"where": where}
    answer = queries.run(subgraph.name, document, variables, None)
    assert "errors" not in answer, (document, variables, answer)
    oracle = Oracle(rows[subgraph.name], LAST if asked["block"] is None else asked["block"])
    wanted = oracle.many(
        entity,
        where,
        order=asked["order"],
        descending=asked["descending"],
        skip=asked["skip"],
        first=asked["first"],
    )
    assert [each["id"] for each in answer["data"][plural]] == wanted, (document, variables)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    where=st.none() | conditions(DATAPROTECTOR.name, "ProtectedData", 1),
    order=ordered(DATAPROTECTOR, "ProtectedData"),
    descending=st.booleans(),
    skip=st.integers(0, 2),
    first=st.integers(1, 4),
    block=st.none() | st.integers(0, LAST),
)
def test_lists_inside_of_lists(
    filled: tuple[QueryService, dict[str, Rows]],
    where: dict[str, Any] | None,
    order: str,
    descending: bool,
    skip: int,
    first: int,
    block: int | None,
) -> None:
    """Each parent gets its own page of a derived list, and references lead where they lead."""
    queries, rows = filled
    at = "" if block is None else f"(block: {{number: {block}}})"
    document = f"""query ($where: ProtectedData_filter) {{ accounts{at} {{ id datasets(
      where: $where skip: {skip} first: {first} orderBy: {order}
      orderDirection: {"desc" if descending else "asc"}) {{ id owner {{ id }} schema {{ id path }} }} }} }}"""
    answer = queries.run(DATAPROTECTOR.name, document, {"where": where}, None)
    assert "errors" not in answer, answer
    oracle = Oracle(rows[DATAPROTECTOR.name], LAST if block is None else block)
    found = answer["data"]["accounts"]
    assert [each["id"] for each in found] == oracle.many("Account", None)
    for account in found:
        mine = oracle.related("Account", account["id"], "datasets")
        wanted = oracle.many(
            "ProtectedData", where, order=order, descending=descending, skip=skip, first=first, among=mine
        )
        assert [each["id"] for each in account["datasets"]] == wanted
        for each in account["datasets"]:
            assert each["owner"] == {"id": account["id"]}
            entries = oracle.related("ProtectedData", each["id"], "schema")
            assert [entry["id"] for entry in each["schema"]] == sorted(entries)
