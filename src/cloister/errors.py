"""The whole exception tree.

Every error carries a stable code (for machines), an HTTP status (for services), an exit code (for the CLI), a public text
and a hint. The public text and the hint may be shown to anybody, so they never hold a secret.

==================  =======  ====  =============================================================
class               HTTP     exit  meaning
==================  =======  ====  =============================================================
LocalError          500      70    our own bug
ConfigurationError  500      78    a setting is missing or wrong
InputError          400      2     the caller gave something unusable
RemoteError         502      69    a peer, document, quote or chain is at fault
DecodeError         400      65    bytes from outside do not parse
VerificationError   403      76    a signature, hash or piece of evidence does not prove what it must
PolicyRejected      403      77    the proof is sound, but a policy says no
Denied              403      77    the caller may not do this
Unauthenticated     401      77    the caller did not prove who they are
NotFound            404      66    there is no such thing
Conflict            409      73    the state of the world forbids it
TooLarge            413      65    a byte cap was hit
UnavailableError    503      75    a part is down or busy: retry later
==================  =======  ====  =============================================================
"""

from __future__ import annotations

from typing import ClassVar

QUOTE_CAP = 120
"""Longest piece of foreign input that a message repeats, in characters."""


def quoted(value: object) -> str:
    """Render foreign input for a message: printable, on one line, at most ``QUOTE_CAP`` characters."""
    text = value if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "\ufffd" for c in text[: QUOTE_CAP + 1])
    return f"{text[:QUOTE_CAP]}…" if len(text) > QUOTE_CAP else text


class CloisterError(Exception):
    """Root of the tree. ``message`` is public; ``hint`` says what to do next; ``code`` names the reason for machines.

    ``part`` names the part of a document that is at fault, where somebody knows it.
    """

    code: str = "error"
    part: str | None = None
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code is not None:
            self.code = code


class LocalError(CloisterError):
    """Our own bug, or a rule of ours broken by ourselves."""

    code = "internal"


class ConfigurationError(LocalError):
    """A setting is missing or wrong."""

    code = "configuration"
    exit_code = 78


class InputError(CloisterError):
    """The caller gave something unusable."""

    code = "invalid-input"
    http_status = 400
    exit_code = 2


class RemoteError(CloisterError):
    """A peer, document, quote or chain is at fault."""

    code = "remote"
    http_status = 502
    exit_code = 69


class DecodeError(RemoteError):
    """Bytes from outside do not parse."""

    code = "malformed"
    http_status = 400
    exit_code = 65


class TooLarge(DecodeError):
    """Something from outside is larger than its cap."""

    code = "too-large"
    http_status = 413


class VerificationError(RemoteError):
    """A signature, hash or piece of evidence does not prove what it must."""

    code = "verification-failed"
    http_status = 403
    exit_code = 76


class PolicyRejected(RemoteError):
    """The proof is sound, but a policy says no; ``code`` names the rule."""

    code = "policy-rejected"
    http_status = 403
    exit_code = 77


class Denied(CloisterError):
    """The caller may not do this."""

    code = "denied"
    http_status = 403
    exit_code = 77


class Unauthenticated(Denied):
    """The caller did not prove who they are."""

    code = "unauthenticated"
    http_status = 401


class NotFound(CloisterError):
    """There is no such thing."""

    code = "not-found"
    http_status = 404
    exit_code = 66


class Conflict(CloisterError):
    """The state of the world forbids it."""

    code = "conflict"
    http_status = 409
    exit_code = 73


class UnavailableError(CloisterError):
    """A part is down or busy: the same call may succeed later."""

    code = "unavailable"
    http_status = 503
    exit_code = 75
