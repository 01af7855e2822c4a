"""From an exception to what a peer sees: status, code, public text and hint, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from cloister.errors import CloisterError, Unauthenticated, UnavailableError, quoted
from cloister.services.part import Failure

INTERNAL_TEXT = "internal error"
"""The only text that a peer sees of an error that nobody foresaw."""

_STATUS_CODES = {
    400: "invalid-input",
    401: "unauthenticated",
    403: "denied",
    404: "not-found",
    405: "method-not-allowed",
    408: "timeout",
    409: "conflict",
    413: "too-large",
    414: "too-large",
    415: "unsupported-media-type",
    416: "range-not-satisfiable",
    429: "rate-limited",
    431: "too-large",
    503: "unavailable",
}


class CarriedError(HTTPException):
    """An error of the tree raised while the framework reads a body: it lets only HTTP exceptions pass as they are."""

    def __init__(self, status: int, error: CloisterError, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(status_code=status, detail=error.message, headers=headers)
        self.error = error


def describe_error(error: CloisterError) -> Failure | None:
    """Reduce an error of the tree to its public face, or ``None`` when it is our own bug and must be logged instead."""
    if error.http_status == 500:
        return None
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Unauthenticated):
        headers = (("www-authenticate", "Cloister"),)
    elif isinstance(error, UnavailableError):
        headers = (("retry-after", "1"),)
    return Failure(error.http_status, error.code, error.message, error.hint, headers)


def describe_http_exception(error: HTTPException) -> Failure:
    """Reduce the framework's own exceptions (no such path, method not allowed, unreadable body)."""
    headers = tuple((name.lower(), value) for name, value in (error.headers or {}).items())
    if isinstance(error, CarriedError):
        return Failure(error.status_code, error.error.code, error.error.message, error.error.hint, headers)
    if isinstance(error.__cause__, CloisterError):
        carried = describe_error(error.__cause__)
        if carried is not None:
            return carried
    message = str(error.detail) if error.detail else "request refused"
    message = {404: "no such path", 405: "method not allowed"}.get(error.status_code, message[:1].lower() + message[1:])
    return Failure(error.status_code, _STATUS_CODES.get(error.status_code, "http"), message, None, headers)


def describe_validation_error(error: RequestValidationError) -> Failure:
    """Name the first value that does not fit its schema; the value itself is never repeated, it may be a secret."""
    faults: Sequence[dict[str, object]] = error.errors()
    if not faults:
        return Failure(400, "invalid-input", "request does not fit its schema")
    first = faults[0]
    location = first.get("loc")
    parts = [str(part) for part in location] if isinstance(location, list | tuple) else []
    text = quoted(str(first.get("msg", "does not fit its schema")))
    text = text.removeprefix("Value error, ")
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    name = quoted(".".join(parts))
    return Failure(400, "invalid-input", f"{name}: {text[:1].lower()}{text[1:]}{more}" if name else text)


def internal_failure(identifier: str) -> Failure:
    """The face of an error that nobody foresaw: constant text and the id under which the log has the rest."""
    return Failure(500, "internal", INTERNAL_TEXT, f"give the operator this id: {identifier}")


def render_failure(failure: Failure) -> Response:
    """The default body: ``{"error": text, "code": machine word, "hint": text or null}``."""
    return JSONResponse(
        {"error": failure.message, "code": failure.code, "hint": failure.hint}, status_code=failure.status
    )
