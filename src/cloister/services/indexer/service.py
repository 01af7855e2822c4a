"""Runs queries: parse, judge the cost, validate, execute in one read transaction."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from graphql import (
    GraphQLError,
    GraphQLSchema,
    execute_sync,
    parse,
    specified_rules,
    validate,
)
from graphql.validation import VariablesInAllowedPositionRule
from sqlalchemy import select

from cloister.errors import CloisterError, InputError
from cloister.services.database import Database
from cloister.services.indexer.dialect import QueryContext, build_schema
from cloister.services.indexer.entities import SUBGRAPHS
from cloister.services.indexer.limits import MAX_QUERY, MAX_TOKENS, check_cost
from cloister.services.indexer.loading import Loader
from cloister.services.indexer.tables import CURSORS

log = logging.getLogger("cloister.indexer")

# Clients declare ids as String and times as Int; The Graph lets that pass, and filters here read every spelling.
_RULES = [rule for rule in specified_rules if rule is not VariablesInAllowedPositionRule]
_MAX_ERRORS = 10


class QueryService:
    """Answers GraphQL queries about the subgraphs. Safe to call from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._schemas: dict[str, GraphQLSchema] = {name: build_schema(subgraph) for name, subgraph in SUBGRAPHS.items()}

    def run(
        self, subgraph: str, query: str, variables: Mapping[str, Any] | None, operation: str | None
    ) -> dict[str, Any]:
        """Answer one query: ``{"data": …}``, and ``errors`` when there are some.

        Raises: UnavailableError when the database does not answer.
        """
        schema = self._schemas[subgraph]
        try:
            if len(query) > MAX_QUERY:
                raise InputError(f"the query has more than {MAX_QUERY} characters")
            document = parse(query, max_tokens=MAX_TOKENS)
            check_cost(document)
        except GraphQLError as error:
            return {"errors": [error.formatted]}
        except CloisterError as error:
            return {"errors": [{"message": error.message}]}
        errors = validate(schema, document, _RULES, max_errors=_MAX_ERRORS)
        if errors:
            return {"errors": [error.formatted for error in errors]}
        with self._database.read_scope() as session:
            row = session.execute(select(CURSORS.c.block).where(CURSORS.c.name == "indexer")).first()
            indexed = max(0, row.block) if row is not None else 0

            def loader_at(block: int | None) -> Loader:
                if block is not None and not 0 <= block <= indexed:
                    raise InputError(f"block {block} is not indexed yet; the last one is {indexed}")
                return Loader(session, SUBGRAPHS[subgraph], block)

            def meta() -> dict[str, Any]:
                block = {"number": indexed, "hash": None, "timestamp": None}
                return {"block": block, "deployment": f"cloister/{subgraph}", "hasIndexingErrors": False}

            result = execute_sync(
                schema,
                document,
                variable_values=dict(variables or {}),
                operation_name=operation,
                context_value=QueryContext(loader_at, meta),
            )
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer["errors"] = [_public(error) for error in result.errors[:_MAX_ERRORS]]
        return answer


def _public(error: GraphQLError) -> Mapping[str, Any]:
    """Reduce an error to what a stranger may see."""
    original = error.original_error
    if original is None or isinstance(original, InputError):
        return error.formatted
    if isinstance(original, CloisterError):
        raise original
    log.error("a query failed inside the service", exc_info=original)
    return {"message": "internal error", "path": error.path}
