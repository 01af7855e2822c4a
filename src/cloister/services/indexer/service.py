"""Runs queries: parse, judge the cost, validate, execute in one read transaction and in bounded time."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    execute_sync,
    parse,
    specified_rules,
    validate,
)
from graphql.validation import VariablesInAllowedPositionRule
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from cloister.chain.events import parse_cursor
from cloister.errors import CloisterError, InputError, UnavailableError, quoted
from cloister.protocol.codec import parse_json
from cloister.services.database import Database
from cloister.services.indexer.dialect import QueryContext, build_schema
from cloister.services.indexer.limits import MAX_QUERY, MAX_TOKENS, check_cost
from cloister.services.indexer.loading import Budget, Loader
from cloister.services.indexer.subgraphs import SUBGRAPHS
from cloister.services.indexer.tables import CURSORS

log = logging.getLogger("cloister.indexer")

MAX_SECONDS = 5.0
"""Longest time that one query may take."""
_CHECK_EVERY = 20_000
"""Steps of SQLite's machine between two looks at the clock: some hundred microseconds."""

# Clients declare ids as String and times as Int; The Graph lets that pass, and filters here read every spelling.
_RULES = [rule for rule in specified_rules if rule is not VariablesInAllowedPositionRule]
_MAX_ERRORS = 10
_MAX_MESSAGE = 500
"""Longest message, in characters: the library's own repeat what was asked."""


_Newest = tuple[int, str | None, int | None]


class Height(Protocol):
    """What is known of the newest block."""

    def known(self) -> _Newest:
        """The last block that was taken in, its hash and its time; -1 before the first."""
        ...


class QueryService:
    """Answers GraphQL queries about the subgraphs. Safe to call from several threads."""

    def __init__(self, database: Database, height: Height, *, max_seconds: float = MAX_SECONDS) -> None:
        self._database = database
        self._height = height
        self._max_seconds = max_seconds
        self._schemas: dict[str, GraphQLSchema] = {name: build_schema(subgraph) for name, subgraph in SUBGRAPHS.items()}

    def run(
        self, subgraph: str, query: str, variables: Mapping[str, Any] | None, operation: str | None
    ) -> dict[str, Any]:
        """Answer one query: ``{"data": …}``, and ``errors`` when there are some.

        Raises: UnavailableError when the database does not answer.
        """
        schema = self._schemas[subgraph]
        try:
            document = _read(query)
            errors = validate(schema, document, _RULES, max_errors=_MAX_ERRORS)
        except GraphQLError as error:
            return {"errors": [_formatted(error)]}
        except RecursionError:
            return {"errors": [{"message": "the query is nested too deep"}]}
        except InputError as error:
            return {"errors": [{"message": error.message}]}
        if errors:
            return {"errors": [_formatted(error) for error in errors]}
        newest = self._height.known()
        with self._database.read_scope() as session, _bounded_time(session, self._max_seconds) as clock:
            view = _View(session, subgraph, newest, clock)
            try:
                result = execute_sync(
                    schema,
                    document,
                    variable_values=dict(variables or {}),
                    operation_name=operation,
                    context_value=QueryContext(view.loader_at, view.meta),
                )
            except RecursionError:
                return {"errors": [{"message": "the variables are nested too deep"}]}
            answer: dict[str, Any] = {"data": result.data}
            if result.errors:
                answer["errors"] = [_public(error, clock) for error in result.errors[:_MAX_ERRORS]]
        return answer


def _read(query: str) -> DocumentNode:
    if len(query) > MAX_QUERY:
        raise InputError(f"the query has more than {MAX_QUERY} characters")
    document = parse(query, max_tokens=MAX_TOKENS)
    check_cost(document)
    return document


class _Clock:
    """A deadline; ``sources`` of it are the database's own and ours."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def is_over(self) -> bool:
        return time.monotonic() > self._end

    def error(self) -> InputError:
        return InputError(f"the query took longer than {self.seconds:g} seconds", hint="ask for less at once")


@contextmanager
def _bounded_time(session: Session, seconds: float) -> Iterator[_Clock]:
    """Have the database stop when the time is over, even inside of one statement."""
    clock = _Clock(seconds)
    driver = session.connection().connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        driver.set_progress_handler(clock.is_over, _CHECK_EVERY)
        try:
            yield clock
        finally:
            driver.set_progress_handler(None, 0)
    else:
        session.execute(text(f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}"))
        yield clock


class _View:
    """What one request sees: one transaction, one budget, one loader per block that it names."""

    def __init__(self, session: Session, subgraph: str, newest: _Newest, clock: _Clock):
        self._session = session
        self._name = subgraph
        self._clock = clock
        self._budget = Budget()
        self._loaders: dict[int | None, Loader] = {}
        row = session.execute(select(CURSORS).where(CURSORS.c.name == "indexer")).first()
        stored: _Newest = (row.block, row.block_hash, row.block_time) if row is not None else (-1, None, None)
        self._cursor: str | None = None if row is None else row.cursor
        # Blocks that hold nothing of interest are taken in without a write.
        self._block, self._hash, self._time = max(stored, newest, key=lambda known: known[0])

    def loader_at(self, height: object) -> Loader:
        """The loader of a block. Raises: InputError when that block is not indexed, or the time is over."""
        if self._clock.is_over():
            raise self._clock.error()
        block = self._number(height)
        if block not in self._loaders:
            self._loaders[block] = Loader(self._session, SUBGRAPHS[self._name], block, self._budget)
        return self._loaders[block]

    def meta(self, height: object) -> dict[str, Any]:
        """What ``_meta`` answers."""
        number = self._number(height)
        newest = number is None or number == self._block
        block = {
            "number": max(0, self._block) if number is None else number,
            "hash": self._hash if newest else self._remembered().get(number or 0),
            "timestamp": self._time if newest else None,
        }
        return {"block": block, "deployment": f"cloister/{self._name}", "hasIndexingErrors": False}

    def _number(self, height: object) -> int | None:
        if height is None:
            return None
        if not isinstance(height, Mapping):
            raise InputError(f"block: expected number, number_gte or hash, got {quoted(height)}")
        given = {name: value for name, value in height.items() if value is not None}
        if len(given) > 1:
            raise InputError("block: only one of number, number_gte and hash can be given")
        for name, value in given.items():
            if name == "hash":
                return self._of_hash(value)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= self._block:
                raise InputError(
                    f"block {quoted(value)} is not indexed yet; the last one is {max(0, self._block)}",
                    hint="ask again in a moment",
                )
            return value if name == "number" else None
        return None

    def _of_hash(self, value: object) -> int:
        for number, name in self._remembered().items():
            if isinstance(value, str) and name == value.lower():
                return number
        raise InputError(f"block {quoted(value)} is none of the newest blocks", hint="name older blocks by number")

    def _remembered(self) -> dict[int, str]:
        known: dict[int, str] = {}
        if self._cursor is not None:
            known = {number: str(name) for number, name in parse_cursor(parse_json(self._cursor)).recent}
        if self._hash is not None:
            known[self._block] = self._hash
        return known


def _formatted(error: GraphQLError) -> Mapping[str, Any]:
    formatted = dict(error.formatted)
    message = str(formatted["message"])
    if len(message) > _MAX_MESSAGE:
        formatted["message"] = f"{message[:_MAX_MESSAGE]}…"
    return formatted


def _public(error: GraphQLError, clock: _Clock) -> Mapping[str, Any]:
    """Reduce an error to what a stranger may see."""
    original = error.original_error
    if original is None or isinstance(original, InputError | GraphQLError):
        return _formatted(error)
    if isinstance(original, DBAPIError) and clock.is_over():
        return {"message": clock.error().message, "path": error.path}
    if isinstance(original, CloisterError):
        raise original
    if isinstance(original, DBAPIError):
        raise UnavailableError("the database does not answer or is busy", hint="try again in a moment") from original
    if isinstance(original, RecursionError):
        return {"message": "the query is nested too deep", "path": error.path}
    log.error("a query failed inside the service", exc_info=original)
    return {"message": "internal error", "path": error.path}
