"""What ``/openapi.json`` says: each service's own table of operations, laid over what the framework finds out itself.

The framework sees parameters and typed bodies. It does not see raw bodies, refusals, or answers made by hand, and
says 422 where this application says 400. A service that offers a ``Description`` fills that in; the document is then
the same whether the service runs alone or beside others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, runtime_checkable

Schema = Mapping[str, Any]

ADDRESS: Final[Schema] = {"type": "string", "pattern": "^0x[0-9a-fA-F]{40}$"}
WORD: Final[Schema] = {"type": "string", "pattern": "^0x[0-9a-fA-F]{64}$"}
SIGNATURE: Final[Schema] = {"type": "string", "pattern": "^0x[0-9a-f]{130}$"}
TEXT: Final[Schema] = {"type": "string"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
ANY_OBJECT: Final[Schema] = {"type": "object"}


def exactly(**members: Schema) -> Schema:
    """An object with these members and no others."""
    return {"type": "object", "properties": members, "required": list(members), "additionalProperties": False}


def with_members(**members: Schema) -> Schema:
    """An object with these members and perhaps more."""
    return {"type": "object", "properties": members, "required": list(members)}


def list_of(items: Schema) -> Schema:
    """A list of one kind of item."""
    return {"type": "array", "items": items}


def nullable(schema: Schema) -> Schema:
    """The schema, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


FAILURE: Final = exactly(error=TEXT, code=TEXT, hint=nullable(TEXT))
"""The default body of a refusal."""

TYPED_DATA: Final = with_members(types=ANY_OBJECT, domain=ANY_OBJECT, primaryType=TEXT, message=exactly(challenge=TEXT))
"""A login challenge to be signed as EIP-712 typed data."""

SECURITY: Final[Mapping[str, Schema]] = {
    "request": {
        "type": "apiKey",
        "in": "header",
        "name": "authorization",
        "description": "``Cloister <address>.<issued at>.<nonce>.<signature>`` over method, target and body",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "authorization",
        "description": "0x and 65 bytes: the owner's personal_sign of what is set",
    },
    "token": {"type": "apiKey", "in": "header", "name": "authorization", "description": "a token given before"},
    "login": {
        "type": "apiKey",
        "in": "header",
        "name": "authorization",
        "description": "``<hash>_<signature>_<address>`` of a challenge",
    },
}

_TEXTS: Final = {
    200: "the answer",
    204: "done, or there",
    206: "the part that was asked for",
    301: "a directory: its path ends with a slash",
    304: "not changed",
    400: "something in the request does not parse; the text names it",
    401: "not signed by whom it must be",
    403: "signed, but not allowed",
    404: "not there",
    409: "against what is already there",
    412: "a condition of the request does not hold",
    413: "too large",
    416: "no such range",
    500: "it cannot be made",
    507: "the store is full",
    503: "the chain, the database or a queue does not answer: try again",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. What is left empty stays as the framework describes it.

    ``answers`` maps a status to (media type, schema), or to None for an answer without body; ``refusals`` have the
    body of the service; 400 and 413 are added where they can happen, 503 and ``default`` everywhere.
    """

    name: str
    answers: Mapping[int, Mapping[str, Schema] | None] | None = None
    refusals: Sequence[int] = ()
    body: Mapping[str, Schema] | None = None
    parameters: Mapping[str, Schema] = field(default_factory=dict)
    security: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """The operations of one service by method and path, and the body of its refusals."""

    operations: Mapping[tuple[str, str], Operation]
    failure: Schema = field(default_factory=lambda: FAILURE)


@runtime_checkable
class Described(Protocol):
    """A part that describes its operations."""

    def describe(self) -> Description: ...


def answer(schema: Schema, media: str = "application/json") -> Mapping[str, Schema]:
    """A body of one media type."""
    return {media: schema}


def complete_description(document: dict[str, Any], descriptions: Sequence[Description]) -> dict[str, Any]:
    """Lay the tables over the framework's document, which is changed in place and returned.

    Raises:
        ValueError: a table names an operation that is not served: it is out of date.
    """
    paths = document["paths"]
    schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
    for description in descriptions:
        for (method, path), told in description.operations.items():
            found = paths.get(path, {}).get(method.lower())
            if found is None:
                raise ValueError(f"{method} {path} is described and not served")
            _lay_over(found, told, description.failure, is_head=method == "HEAD")
            if told.security is not None:
                schemes.setdefault(told.security, dict(SECURITY[told.security]))
    if not schemes:
        del document["components"]["securitySchemes"]
    for item in paths.values():
        for operation in item.values():
            # Input that does not fit is answered with 400 here, and every table says so.
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"].get("schemas", {}).pop(name, None)
    return document


def _lay_over(operation: dict[str, Any], told: Operation, failure: Schema, *, is_head: bool) -> None:
    operation["operationId"] = told.name
    if told.text is not None:
        operation["description"] = told.text
    for parameter in operation.get("parameters", ()):
        if parameter["name"] in told.parameters:
            parameter["schema"] = dict(told.parameters[parameter["name"]])
    if told.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(told.body)}
    if told.security is not None:
        operation["security"] = [{told.security: []}]
    if told.answers is not None:
        operation["responses"] = {
            str(status): {"description": _TEXTS[status]} | ({} if body is None else {"content": _content(body)})
            for status, body in told.answers.items()
        }
    responses = operation["responses"]
    refused = {*told.refusals, 503}
    if operation.get("parameters") or "requestBody" in operation:
        refused.add(400)
    if "requestBody" in operation:
        refused.add(413)
    shape = {} if is_head else {"content": _content({"application/json": failure})}
    for status in sorted(refused):
        responses.setdefault(str(status), {"description": _TEXTS[status], **shape})
    responses.setdefault("default", {"description": "any other refusal has the same form", **shape})


def _content(bodies: Mapping[str, Schema]) -> dict[str, Any]:
    return {media: {"schema": schema} for media, schema in bodies.items()}
