"""How deep JSON from outside may be nested. The standard reader recurses on the C stack as far as the interpreter was told,
and there are programs that tell it to go far: then a hundred kilobytes of brackets end the process.
"""

from __future__ import annotations

import re
from typing import Final

from cloister.errors import DecodeError

MAX_DEPTH: Final = 64
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")


def check_depth(content: bytes) -> bytes:
    """Return ``content``, JSON or not, unless it is nested deeper than 64.

    Raises:
        DecodeError: it is (``json-too-deep``).
    """
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return content
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", content)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise DecodeError(f"json is nested deeper than {MAX_DEPTH}", code="json-too-deep")
    return content
