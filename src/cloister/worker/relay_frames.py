"""What an agent's frames say, read by the host. All of it comes from inside an enclave that runs foreign code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloister.errors import DecodeError
from cloister.protocol.channel import Frame
from cloister.protocol.codec import parse_hex, parse_json

MAX_AHEAD = 16
LOG_CHARACTERS = 100_000


@dataclass(frozen=True, slots=True)
class FetchQuestion:
    """A location that the agent wants, for what, and how much of it in how many seconds; ``ahead`` will come next."""

    location: str
    purpose: str
    max_bytes: int
    seconds: int
    ahead: tuple[str, ...]


def parse_fetch(frame: Frame) -> FetchQuestion:
    """Read a ``fetch`` frame.

    Raises:
        DecodeError: a missing or malformed member.
    """
    location, purpose = frame.header.get("location"), frame.header.get("purpose")
    most, seconds = (_parse_number(frame.header.get(name)) for name in ("max_bytes", "seconds"))
    if not isinstance(location, str) or most is None:
        raise DecodeError("the agent's fetch has no location or no max_bytes")
    if not seconds:
        raise DecodeError("the agent's fetch has no seconds")
    return FetchQuestion(location, str(purpose), most, seconds, _parse_ahead(frame.body))


def parse_result(header: Mapping[str, Any]) -> tuple[int, bytes]:
    """Read size and SHA-256 of a ``result`` frame.

    Raises:
        DecodeError: a missing or malformed member.
    """
    size, sha256 = _parse_number(header.get("size")), parse_hex(header.get("sha256"), length=32)
    if size is None:
        raise DecodeError("the agent's result has no size")
    return size, sha256


def parse_logs(body: bytes) -> Mapping[str, object]:
    """Read the streams, and the exit code where the agent says it.

    Raises:
        DecodeError: anything else.
    """
    value = parse_json(body)
    if not isinstance(value, dict) or set(value) - {"exit_code"} != {"stdout", "stderr"}:
        raise DecodeError("the agent's logs are not stdout and stderr")
    logs: dict[str, object] = {}
    for name in ("stdout", "stderr"):
        text = value[name]
        if not isinstance(text, str):
            raise DecodeError("the agent's logs are not text")
        logs[name] = text[-LOG_CHARACTERS:]
    code = value.get("exit_code")
    if code is not None:
        if not isinstance(code, int) or isinstance(code, bool) or not -(2**31) <= code < 2**31:
            raise DecodeError("the agent's exit code is not one")
        logs["exit_code"] = code
    return logs


def _parse_ahead(body: bytes) -> tuple[str, ...]:
    """Read the locations that will be asked for next."""
    if not body:
        return ()
    value = parse_json(body)
    if not isinstance(value, list) or len(value) > MAX_AHEAD or not all(isinstance(item, str) for item in value):
        raise DecodeError(f"the agent's locations to come are not at most {MAX_AHEAD} texts")
    return tuple(value)


def _parse_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
