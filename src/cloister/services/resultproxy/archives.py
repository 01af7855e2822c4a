"""A result as it comes over the wire: one JSON object whose ``zip`` is read as a stream (reference 3.4).

iExec's Java worker writes ``zip`` as base64, its Rust post-compute as an array of bytes, four times as long. Neither is
ever held whole: the reader keeps one piece of the body and the small members.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

from cloister.errors import DecodeError, TooLarge, quoted

MEMBER_CAP: Final = 8 * 1024
"""Longest member beside ``zip``, in bytes of JSON."""

MEMBERS_CAP: Final = 32
_SPACE: Final = b" \t\r\n"
_SCALAR: Final = re.compile(rb"[-+.0-9A-Za-z]+")
_NUMBERS: Final = re.compile(rb"[0-9, \t\r\n]*")
_ZIP_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(slots=True)
class ResultArchive:
    """Reads one upload. Iterate ``chunks`` to its end; then ``members`` holds what stood beside the archive.

    ``body`` gives the request's bytes, ``max_zip`` caps the archive in bytes.
    """

    body: Iterable[bytes]
    max_zip: int
    members: dict[str, str | int | float | bool | None] = field(default_factory=dict)

    def chunks(self) -> Iterator[bytes]:
        """Yield the archive's bytes.

        Raises:
            DecodeError: not such an object, no ``zip`` in it, or the ``zip`` is no ZIP archive.
            TooLarge: the archive or a member is over its cap.
            Exception: what ``body`` raises.
        """
        source = _Source(self.body)
        seen_zip = False
        source.expect(b"{")
        while True:
            name = source.member_name()
            if name in self.members or (name == "zip" and seen_zip):
                raise DecodeError(f"result: member {quoted(name)} stands twice")
            source.expect(b":")
            if name == "zip":
                seen_zip = True
                yield from self._archive(source)
            elif len(self.members) >= MEMBERS_CAP:
                raise TooLarge(f"result: more than {MEMBERS_CAP} members")
            else:
                self.members[name] = source.scalar(name)
            if source.expect(b",}") == b"}":
                break
        source.expect_end()
        if not seen_zip:
            raise DecodeError("result: missing key zip")

    def _archive(self, source: _Source) -> Iterator[bytes]:
        opening = source.expect(b'"[')
        pieces = source.base64_text() if opening == b'"' else source.byte_array()
        size = 0
        head = b""
        for piece in pieces:
            size += len(piece)
            if size > self.max_zip:
                raise TooLarge(f"the result is larger than {self.max_zip} bytes")
            if len(head) < 4:
                head = (head + piece)[:4]
            yield piece
        if head not in _ZIP_MAGIC:
            raise DecodeError("zip: not a ZIP archive")


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(text)


class _Source:
    """A cursor over the body; holds what was received and not yet read."""

    def __init__(self, body: Iterable[bytes]) -> None:
        self._chunks = iter(body)
        self._held = b""

    def expect(self, any_of: bytes) -> bytes:
        """Skip space and take one of these characters."""
        self._skip_space()
        found = self._held[:1]
        if not found or found not in any_of:
            what = quoted(found.decode("latin-1")) if found else "the end"
            raise DecodeError(f"result: not valid json, found {what} where {any_of.decode()} belongs")
        self._held = self._held[1:]
        return found

    def expect_end(self) -> None:
        """Nothing but space may follow."""
        self._skip_space()
        if self._held:
            raise DecodeError("result: not valid json, bytes follow the object")

    def member_name(self) -> str:
        """Take the next name."""
        self.expect(b'"')
        return self._string("a member's name")

    def scalar(self, name: str) -> str | int | float | bool | None:
        """Take a string, number, boolean or null."""
        self._skip_space()
        if self._held[:1] == b'"':
            self._held = self._held[1:]
            return self._string(quoted(name))
        while not (match := _SCALAR.match(self._held)) or match.end() == len(self._held):
            if len(self._held) > MEMBER_CAP or (self._held and not match) or not self._more():
                raise DecodeError(f"result: member {quoted(name)} is not text, a number, true, false or null")
        token, self._held = match.group(), self._held[match.end() :]
        try:
            value = json.loads(token, parse_constant=_refuse_constant)
        except ValueError:
            value = b""
        if value is not None and not isinstance(value, str | int | float | bool):
            raise DecodeError(f"result: member {quoted(name)} is not text, a number, true, false or null")
        return value

    def base64_text(self) -> Iterator[bytes]:
        """Yield what a base64 string holds, from behind its opening quote."""
        text, is_padded = b"", False
        while True:
            end = self._held.find(b'"')
            text += self._held if end < 0 else self._held[:end]
            self._held = b"" if end < 0 else self._held[end + 1 :]
            # Some writers escape slashes; an escape that is cut waits for its other half.
            cut = 1 if text.endswith(b"\\") else 0
            text = text.replace(b"\\/", b"/")
            whole = (len(text) - cut) // 4 * 4 if end < 0 else len(text)
            piece, text = text[:whole], text[whole:]
            if piece and is_padded:  # padding ends base64; the standard library would go on
                raise DecodeError("zip: not base64")
            is_padded = piece.endswith(b"=") or is_padded
            try:
                yield base64.b64decode(piece, validate=True)
            except (binascii.Error, ValueError):
                raise DecodeError("zip: not base64") from None
            if end >= 0:
                return
            self._need("zip")

    def byte_array(self) -> Iterator[bytes]:
        """Yield what an array of bytes holds, from behind its opening bracket."""
        rest = b""
        is_first = True
        while True:
            end = self._held.find(b"]")
            text = rest + (self._held if end < 0 else self._held[:end])
            self._held = b"" if end < 0 else self._held[end + 1 :]
            if not _NUMBERS.fullmatch(text) or len(rest) > MEMBER_CAP:
                raise DecodeError("zip: not an array of bytes")
            if end < 0:
                text, comma, rest = text.rpartition(b",")
                if not comma:
                    self._need("zip")
                    continue
            elif is_first and not text.strip():
                return
            is_first = False
            if not text.strip():  # a comma too many
                raise DecodeError("zip: not an array of bytes")
            try:
                yield bytes(json.loads(b"[" + text + b"]"))
            except ValueError:
                raise DecodeError("zip: not an array of bytes") from None
            if end >= 0:
                return
            self._need("zip")

    def _string(self, name: str) -> str:
        """Take a short string from behind its opening quote."""
        position = 0
        while True:
            end = self._held.find(b'"', position)
            if end < 0:
                position = len(self._held)
                if position > MEMBER_CAP:
                    raise TooLarge(f"result: {name} is longer than {MEMBER_CAP} bytes")
                self._need(name)
                continue
            escapes = len(self._held[:end]) - len(self._held[:end].rstrip(b"\\"))
            position = end + 1
            if escapes % 2 == 0:
                break
        if end > MEMBER_CAP:
            raise TooLarge(f"result: {name} is longer than {MEMBER_CAP} bytes")
        raw, self._held = self._held[:end], self._held[end + 1 :]
        try:
            text = json.loads(b'"' + raw + b'"')
        except ValueError:
            raise DecodeError(f"result: {name} is not valid json") from None
        return str(text)

    def _skip_space(self) -> None:
        while True:
            self._held = self._held.lstrip(_SPACE)
            if self._held or not self._more():
                return

    def _need(self, name: str) -> None:
        if not self._more():
            raise DecodeError(f"result: not valid json, the body ends inside {name}")

    def _more(self) -> bool:
        """Receive more; False at the end of the body."""
        for chunk in self._chunks:
            if chunk:
                self._held += chunk
                return True
        return False
