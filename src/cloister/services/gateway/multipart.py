"""Multipart bodies, parsed as they stream (RFC 2046 section 5.1, RFC 7578), in constant memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from cloister.errors import DecodeError, InputError, TooLarge, quoted

HEAD_CAP: Final = 16 * 1024
"""Most bytes of one part's headers."""

_BOUNDARY: Final = re.compile(r"""[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]""")
_PARAMETER: Final = re.compile(r""";\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s"]*))""")


@dataclass(frozen=True, slots=True)
class PartBegins:
    """A part begins. ``filename`` is freed of percent-escapes (Kubo's clients write them) and may be empty."""

    name: str
    filename: str
    content_type: str


@dataclass(frozen=True, slots=True)
class PartData:
    """Bytes of the part that began last."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnds:
    """The part that began last is complete."""


Event = PartBegins | PartData | PartEnds


def parse_boundary(content_type: str | None) -> bytes:
    """Read the boundary from a Content-Type header.

    Raises:
        InputError: not ``multipart/form-data`` or no usable boundary.
    """
    kind, _, _ = (content_type or "").partition(";")
    if kind.strip().lower() not in ("multipart/form-data", "multipart/mixed"):
        raise InputError(f"expected a multipart/form-data body, got {quoted(kind.strip() or 'no content type')}")
    boundary = _parameters(content_type or "").get("boundary", "")
    if not _BOUNDARY.fullmatch(boundary):
        raise InputError(f"unusable multipart boundary: {quoted(boundary)}")
    return boundary.encode("ascii")


class MultipartParser:
    """Feed bytes, get events; then call ``finish``. After an error the parser is of no more use.

    Raises ``DecodeError`` for a body that is not multipart and ``TooLarge`` for a part's headers over ``HEAD_CAP``.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # The first delimiter may stand at the very beginning, without the line break that belongs to the others.
        self._buffer = bytearray(b"\r\n")
        self._state = self._preamble

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of the body and return what they complete, in order."""
        self._buffer += data
        events: list[Event] = []
        while True:
            before = len(self._buffer)
            state = self._state
            events += self._state()
            if self._state == state and len(self._buffer) == before:
                return events

    def finish(self) -> None:
        """Check that the body was complete."""
        if self._state != self._epilogue:
            raise DecodeError("multipart body is cut short", hint="the upload broke off; send it again")

    def _preamble(self) -> Iterator[Event]:
        found = self._buffer.find(self._delimiter)
        if found >= 0:
            del self._buffer[: found + len(self._delimiter)]
            self._state = self._after_delimiter
        elif len(self._buffer) > HEAD_CAP:
            raise DecodeError("multipart body does not begin with its boundary")
        return iter(())

    def _after_delimiter(self) -> Iterator[Event]:
        if len(self._buffer) < 2:
            return iter(())
        if self._buffer.startswith(b"--"):
            self._state = self._epilogue
            return iter(())
        end = self._buffer.find(b"\r\n")
        if end < 0 and len(self._buffer) <= HEAD_CAP:
            return iter(())
        if end < 0 or self._buffer[:end].strip(b" \t"):
            raise DecodeError("multipart boundary is followed by other bytes")
        del self._buffer[:end]  # the line break stays: it ends an empty head as well as a full one
        self._state = self._head
        return iter(())

    def _head(self) -> Iterator[Event]:
        end = self._buffer.find(b"\r\n\r\n", 0, HEAD_CAP + 4)
        if end < 0:
            if len(self._buffer) > HEAD_CAP:
                raise TooLarge(f"multipart headers exceed {HEAD_CAP} bytes")
            return iter(())
        begins = _parse_head(bytes(self._buffer[:end]))
        # Two bytes stay, so that a delimiter right after an empty part's head is found like any other.
        del self._buffer[: end + 2]
        self._skip = 2
        self._state = self._body
        return iter((begins,))

    _skip = 0

    def _body(self) -> Iterator[Event]:
        found = self._buffer.find(self._delimiter)
        # What could be the beginning of a delimiter stays until more is known.
        keep = len(self._delimiter) - 1
        end = found if found >= 0 else max(len(self._buffer) - keep, self._skip)
        events: list[Event] = []
        if end > self._skip:
            with memoryview(self._buffer) as view:
                events.append(PartData(bytes(view[self._skip : end])))
        if found >= 0:
            events.append(PartEnds())
            del self._buffer[: found + len(self._delimiter)]
            self._state = self._after_delimiter
        elif end > self._skip:
            del self._buffer[:end]
            self._skip = 0
        return iter(events)

    def _epilogue(self) -> Iterator[Event]:
        self._buffer.clear()
        return iter(())


def _parse_head(head: bytes) -> PartBegins:
    headers: dict[str, str] = {}
    for line in head.split(b"\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if not colon:
            raise DecodeError("multipart header line has no colon")
        headers[name.strip().lower().decode("latin-1")] = value.strip().decode("utf-8", "replace")
    parameters = _parameters(headers.get("content-disposition", ""))
    return PartBegins(
        parameters.get("name", ""),
        unquote(parameters.get("filename", "")),
        headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower(),
    )


def _parameters(header: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(header):
        name, in_quotes, bare = match.groups()
        value = re.sub(r"\\(.)", r"\1", in_quotes) if in_quotes is not None else bare
        found.setdefault(name.lower(), value)
    return found
