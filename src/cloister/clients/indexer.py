"""The indexer's GraphQL API."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cloister.errors import DecodeError, InputError, quoted
from cloister.protocol.codec import Address, Bytes32, parse_hex, parse_uint

T = TypeVar("T")

ANSWER_CAP = 64 * 1024 * 1024
PAGE_SIZE = 1000
TASKS_PAGE_SIZE = 200
"""Tasks come with up to a hundred datasets each."""
_PROTECTED_DATA = """
query ($range: Int!, $where: ProtectedData_filter) {
  protectedDatas(where: $where, first: $range, orderBy: creationTimestamp, orderDirection: desc) {
    id name owner { id } jsonSchema multiaddr checksum creationTimestamp
  }
}
"""
_BULK_TASKS = """
query ($requestorder: String!, $after: String!, $range: Int!) {
  tasks(where: {deal_: {requestorder: $requestorder}, id_gt: $after}, first: $range, orderBy: id) {
    id index status deal { id } bulkSlice { datasets(first: 1000) { id } }
  }
}
"""


@dataclass(frozen=True, slots=True)
class ProtectedDataRecord:
    """Protected data as indexed. ``schema`` is the parsed JSON; ``multiaddr`` the bytes on chain; ``created`` unix
    seconds.
    """

    address: Address
    name: str
    owner: Address
    schema: Mapping[str, Any]
    multiaddr: bytes
    checksum: Bytes32
    created: int


@dataclass(frozen=True, slots=True)
class BulkTaskRecord:
    """A task of a request as indexed. ``datasets`` is None while its slice was not read (or when it has none)."""

    task_id: Bytes32
    deal_id: Bytes32
    index: int
    status: str
    datasets: tuple[Address, ...] | None


class IndexerClient:
    """Asks an indexer. ``base_url`` is its origin; ``network`` stands in the path and is the operator's choice.

    Safe to share between threads. Every method raises ``UnavailableError`` when the service does not answer.
    """

    def __init__(self, base_url: str, *, network: str = "cloister", timeout: float = 30.0) -> None:
        from cloister.transport import Http

        self._http = Http(base_url, timeout=timeout, max_response=ANSWER_CAP)
        self._network = network

    def query(
        self, document: str, variables: Mapping[str, Any] | None = None, *, subgraph: str = "dataprotector-v2"
    ) -> Mapping[str, Any]:
        """Run a query and return its ``data``.

        Raises: InputError with the indexer's words when it refuses the query.
        """
        answer = self._http.json(
            "POST",
            f"/subgraphs/name/{self._network}/{subgraph}",
            body={"query": document, "variables": dict(variables or {})},
        )
        if not isinstance(answer, dict):
            raise DecodeError("the indexer's answer is not an object")
        errors = answer.get("errors")
        if isinstance(errors, list) and errors:
            first = errors[0].get("message") if isinstance(errors[0], dict) else None
            raise InputError(f"the indexer refused the query: {quoted(first)}")
        data = answer.get("data")
        if not isinstance(data, dict):
            raise DecodeError("the indexer's answer has no data")
        return data

    def protected_data(
        self,
        *,
        address: str | None = None,
        owner: str | None = None,
        required_schema: Mapping[str, Any] | None = None,
        created_after: int | None = None,
    ) -> list[ProtectedDataRecord]:
        """List protected data, newest first; absent filters match anything.

        ``required_schema`` maps names to types (nested as the data is); a list of types means any of them.
        ``created_after`` is unix seconds.
        """
        conditions: list[dict[str, Any]] = []
        if address is not None:
            conditions.append({"id": Address(address).lower()})
        if owner is not None:
            conditions.append({"owner": Address(owner).lower()})
        if created_after is not None:
            conditions.append({"creationTimestamp_gte": created_after})
        conditions += _schema_conditions(required_schema or {})
        found: list[ProtectedDataRecord] = []
        after: list[dict[str, Any]] = []
        while True:
            where = {"and": [*conditions, *after]} if conditions or after else None
            data = self.query(_PROTECTED_DATA, {"range": PAGE_SIZE, "where": where})
            page = _parse_page(data, "protectedDatas", _parse_record)
            found += page
            if len(page) < PAGE_SIZE:
                return found
            # Pages go on from the last entry: indexers skip no further than 5000, and a skip shifts with what is new.
            last = page[-1]
            same = {"creationTimestamp": str(last.created), "id_lt": last.address.lower()}
            after = [{"or": [{"creationTimestamp_lt": str(last.created)}, same]}]

    def bulk_tasks(self, request_hash: Bytes32) -> list[BulkTaskRecord]:
        """The initialised tasks of a request, over all its deals, by deal and index, with the data of their slices."""
        found: list[BulkTaskRecord] = []
        after = ""
        while True:
            variables = {"requestorder": str(request_hash), "after": after, "range": TASKS_PAGE_SIZE}
            page = _parse_page(self.query(_BULK_TASKS, variables, subgraph="poco-v5"), "tasks", _parse_bulk_task)
            found += page
            if len(page) < TASKS_PAGE_SIZE:
                return sorted(found, key=lambda task: (task.deal_id, task.index))
            after = str(page[-1].task_id)

    def block(self, *, subgraph: str = "dataprotector-v2") -> int:
        """The last block that the indexer has taken in."""
        data = self.query("{ _meta { block { number } } }", subgraph=subgraph)
        try:
            return parse_uint("block", data["_meta"]["block"]["number"])
        except (KeyError, TypeError) as error:
            raise DecodeError("the indexer's answer names no block") from error


def _schema_conditions(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One condition for all entries that must be there, and one of alternatives for each list of types."""
    needed: list[str] = []
    conditions: list[dict[str, Any]] = []
    for path, kinds in _leaves(schema, ""):
        if len(kinds) == 1:
            needed.append(f"{path}:{kinds[0]}")
        else:
            conditions.append({"or": [{"schema_contains": [f"{path}:{kind}"]} for kind in kinds]})
    return ([{"schema_contains": needed}] if needed else []) + conditions


def _leaves(schema: Mapping[str, Any], prefix: str) -> list[tuple[str, Sequence[str]]]:
    found: list[tuple[str, Sequence[str]]] = []
    for name, value in schema.items():
        match value:
            case str():
                found.append((f"{prefix}{name}", [value]))
            case Mapping():
                found += _leaves(value, f"{prefix}{name}.")
            case list() | tuple() if value and all(isinstance(kind, str) for kind in value):
                found.append((f"{prefix}{name}", list(value)))
            case _:
                raise InputError(f"{prefix}{name}: expected a type, a list of types or a map, got {quoted(value)}")
    return found


def _parse_page(data: Mapping[str, Any], name: str, parse: Callable[[Any], T]) -> list[T]:
    page = data.get(name)
    if not isinstance(page, list) or len(page) > PAGE_SIZE:
        raise DecodeError(f"the indexer's answer has no page of {name}")
    return [parse(each) for each in page]


def _parse_bulk_task(value: Any) -> BulkTaskRecord:
    try:
        part = value["bulkSlice"]
        return BulkTaskRecord(
            task_id=Bytes32(value["id"]),
            deal_id=Bytes32(value["deal"]["id"]),
            index=parse_uint("index", value["index"]),
            status=str(value["status"]),
            datasets=None if part is None else tuple(Address(each["id"]) for each in part["datasets"]),
        )
    except (KeyError, TypeError) as error:
        raise DecodeError("the indexer listed a task that does not parse") from error


def _parse_record(value: Any) -> ProtectedDataRecord:
    try:
        return ProtectedDataRecord(
            address=Address(value["id"]),
            name=str(value["name"]),
            owner=Address(value["owner"]["id"]),
            schema=_parse_schema(value["jsonSchema"]),
            multiaddr=parse_hex(value["multiaddr"]),
            checksum=Bytes32(value["checksum"]),
            created=parse_uint("creationTimestamp", value["creationTimestamp"]),
        )
    except (KeyError, TypeError) as error:
        raise DecodeError("the indexer listed protected data that does not parse") from error


def _parse_schema(text: str) -> Mapping[str, Any]:
    """Read the schema; the chain takes any text, so one that is none reads as empty."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return schema if isinstance(schema, dict) else {}
