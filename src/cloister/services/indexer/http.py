"""GraphQL over HTTP: ``POST /subgraphs/name/{network}/{subgraph}``."""

# Annotations are evaluated here, not kept as text: FastAPI reads them inside functions.
import contextlib
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from cloister.errors import CloisterError, InputError, NotFound, quoted
from cloister.protocol.codec import parse_json
from cloister.services.database import Database
from cloister.services.following import Follower
from cloister.services.indexer.entities import SUBGRAPHS
from cloister.services.indexer.service import QueryService
from cloister.services.part import body_cap

BODY_CAP = 256 * 1024
"""A query and its variables: a thousand addresses take 45 KiB."""
FRESH_SECONDS = 1.0
"""How long a query waits for what was just mined."""


class IndexerPart:
    """The indexer as a part of an application."""

    name = "indexer"

    def __init__(self, *, database: Database, queries: QueryService, follower: Follower) -> None:
        self._database = database
        self._queries = queries
        self._follower = follower

    def start(self) -> None:
        self._database.upgrade("indexer")
        self._follower.start()

    def stop(self) -> None:
        self._follower.stop()

    def check_ready(self) -> None:
        self._database.check_ready()
        self._follower.check_ready()

    def router(self) -> APIRouter:
        router = APIRouter(tags=["indexer"])

        @router.post("/subgraphs/name/{network}/{subgraph}")
        @body_cap(BODY_CAP)
        async def query(request: Request, network: str, subgraph: str) -> JSONResponse:
            if subgraph not in SUBGRAPHS:
                raise NotFound(f"no subgraph is named {quoted(subgraph)}", hint=f"known: {', '.join(SUBGRAPHS)}")
            document, variables, operation = _parse_request(parse_json(await request.body(), cap=BODY_CAP))
            return JSONResponse(await run_sync(self._answer, subgraph, document, variables, operation))

        return router

    def _answer(
        self, subgraph: str, document: str, variables: dict[str, Any] | None, operation: str | None
    ) -> dict[str, Any]:
        # An answer that is a little old is better than none; ``_meta`` tells which block it is of.
        with contextlib.suppress(CloisterError):
            self._follower.catch_up(FRESH_SECONDS)
        return self._queries.run(subgraph, document, variables, operation)


def _parse_request(value: object) -> tuple[str, dict[str, Any] | None, str | None]:
    if not isinstance(value, dict):
        raise InputError("the body must be an object")
    document, variables, operation = value.get("query"), value.get("variables"), value.get("operationName")
    if not isinstance(document, str):
        raise InputError("query: expected a string")
    if variables is not None and not isinstance(variables, dict):
        raise InputError("variables: expected an object")
    if operation is not None and not isinstance(operation, str):
        raise InputError("operationName: expected a string")
    return document, variables, operation
