"""GraphQL over HTTP: ``POST`` and ``GET /subgraphs/name/{network}/{subgraph}``, as The Graph serves it.

A query that is refused is answered 200 with ``errors``; a request that holds no query, 4xx, also with ``errors``.
"""

# Annotations are evaluated here, not kept as text: FastAPI reads them inside functions.
import contextlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from cloister.errors import CloisterError, DecodeError, InputError, NotFound, UnavailableError, quoted
from cloister.protocol.codec import parse_json
from cloister.services.database import Database
from cloister.services.descriptions import Description
from cloister.services.following import Follower
from cloister.services.indexer.description import INDEXER
from cloister.services.indexer.service import QueryService
from cloister.services.indexer.slices import SliceReader
from cloister.services.indexer.subgraphs import SUBGRAPHS
from cloister.services.part import Failure, body_cap

BODY_CAP = 256 * 1024
"""A query and its variables: a thousand addresses take 45 KiB."""
FRESH_SECONDS = 1.0
"""How long a query waits for what was just mined."""
AT_ONCE = 8
"""Queries that run at once; others of this process keep their threads."""
WAITING = 256
"""Queries that may wait for one of those."""

_REQUEST = {
    "type": "object",
    "required": ["query"],
    "properties": {
        "query": {"type": "string"},
        "variables": {"type": "object", "nullable": True},
        "operationName": {"type": "string", "nullable": True},
    },
}
_ANSWER = {
    "type": "object",
    "properties": {
        "data": {"type": "object", "nullable": True},
        "errors": {
            "type": "array",
            "items": {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}},
        },
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": _ANSWER}}}
    for status, text in (
        (200, "The answer, or `errors` that say why the query is refused"),
        (400, "The request holds no query"),
        (404, "No such subgraph"),
        (413, "The request is too large"),
        (503, "The indexer is busy or its database does not answer"),
    )
}


class IndexerPart:
    """The indexer as a part of an application."""

    name = "indexer"

    def __init__(self, *, database: Database, queries: QueryService, follower: Follower, slices: SliceReader) -> None:
        self._database = database
        self._queries = queries
        self._follower = follower
        self._slices = slices
        self._limiter: CapacityLimiter | None = None

    def start(self) -> None:
        self._database.upgrade("indexer")
        self._follower.start()
        self._slices.start()

    def stop(self) -> None:
        self._slices.stop()
        self._follower.stop()

    def check_ready(self) -> None:
        self._database.check_ready()
        self._follower.check_ready()

    def render_failure(self, failure: Failure) -> Response:
        """Errors in GraphQL's form: clients read ``errors`` whatever the status."""
        extensions = {"code": failure.code} | ({} if failure.hint is None else {"hint": failure.hint})
        return _json({"errors": [{"message": failure.message, "extensions": extensions}]}, status=failure.status)

    def describe(self) -> Description:
        """What the document at ``/openapi.json`` says."""
        return INDEXER

    def router(self) -> APIRouter:
        router = APIRouter(tags=["indexer"])
        path = "/subgraphs/name/{network}/{subgraph}"

        @router.post(
            path,
            summary="Query a subgraph",
            responses=_RESPONSES,
            response_class=Response,
            openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}}},
        )
        @body_cap(BODY_CAP)
        async def post_query(request: Request, network: str, subgraph: str) -> Response:
            _check_name(subgraph)
            return await self._respond(subgraph, parse_json(await request.body(), cap=BODY_CAP))

        @router.get(path, summary="Query a subgraph by URL", responses=_RESPONSES, response_class=Response)
        async def get_query(
            network: str,
            subgraph: str,
            query: Annotated[str | None, Query()] = None,
            variables: Annotated[str | None, Query(description="a JSON object")] = None,
            operation: Annotated[str | None, Query(alias="operationName")] = None,
        ) -> Response:
            _check_name(subgraph)
            if query is None:
                raise InputError(
                    "this is a GraphQL endpoint: the request holds no query", hint="POST {query, variables} as JSON"
                )
            given = parse_json(variables, cap=BODY_CAP) if variables else None
            return await self._respond(subgraph, {"query": query, "variables": given, "operationName": operation})

        return router

    async def _respond(self, subgraph: str, request: object) -> Response:
        document, variables, operation = _parse_request(request)
        if self._limiter is None:
            self._limiter = CapacityLimiter(AT_ONCE)
        if self._limiter.statistics().tasks_waiting >= WAITING:
            raise UnavailableError("the indexer is busy", hint="try again in a moment")
        answer = await run_sync(self._answer, subgraph, document, variables, operation, limiter=self._limiter)
        return _json(answer)

    def _answer(
        self, subgraph: str, document: str, variables: dict[str, Any] | None, operation: str | None
    ) -> dict[str, Any]:
        # An answer that is a little old is better than none; ``_meta`` tells which block it is of.
        with contextlib.suppress(CloisterError):
            self._follower.catch_up(FRESH_SECONDS)
        return self._queries.run(subgraph, document, variables, operation)


def _json(value: Mapping[str, Any], *, status: int = 200) -> Response:
    # ASCII: a message may repeat half a character of the query, which UTF-8 has no bytes for.
    body = json.dumps(value, separators=(",", ":")).encode("ascii")
    return Response(body, status_code=status, media_type="application/json")


def _check_name(subgraph: str) -> None:
    if subgraph not in SUBGRAPHS:
        raise NotFound(f"no subgraph is named {quoted(subgraph)}", hint=f"known: {', '.join(SUBGRAPHS)}")


def _parse_request(value: object) -> tuple[str, dict[str, Any] | None, str | None]:
    if not isinstance(value, dict):
        raise DecodeError("the body must be an object", hint="send {query, variables}")
    document, variables, operation = value.get("query"), value.get("variables"), value.get("operationName")
    if not isinstance(document, str):
        raise InputError("query: expected a string")
    if variables is not None and not isinstance(variables, dict):
        raise InputError("variables: expected an object")
    if operation is not None and not isinstance(operation, str):
        raise InputError("operationName: expected a string")
    return document, variables, operation
