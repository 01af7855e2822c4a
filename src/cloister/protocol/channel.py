"""Frames between the agent in an enclave and its host: length-prefixed, typed, capped.

Wire: header length (4 bytes, big-endian), body length (4 bytes, big-endian), header (canonical JSON object with the
member ``kind``), body (bytes). The parser works on bytes alone; it neither reads nor waits. Once it has refused a byte
it refuses all that follow.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cloister.errors import DecodeError, InputError, TooLarge, quoted
from cloister.protocol.codec import canonical_json, parse_json

HEADER_CAP: Final = 64 * 1024
BODY_CAP: Final = 4 * 1024 * 1024
KIND_CAP: Final = 64
TUNNEL: Final = "tunnel"
"""The kind of frames that carry an iApp's connections (``protocol.tunnels``)."""
_LENGTHS: Final = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class FrameCaps:
    """The most that one frame may hold, in bytes."""

    header: int = HEADER_CAP
    body: int = BODY_CAP


@dataclass(frozen=True, slots=True)
class Frame:
    """One message: what it is, its named values, its bytes."""

    kind: str
    header: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.kind) <= KIND_CAP:
            raise InputError(f"a frame's kind is 1 to {KIND_CAP} characters, got {quoted(self.kind)}")
        if "kind" in self.header:
            raise InputError("a frame's header does not repeat its kind")


def build_frame(frame: Frame, *, caps: FrameCaps = FrameCaps()) -> bytes:
    """Write a frame.

    Raises:
        TooLarge: header or body over its cap.
        InputError: a header that JSON cannot hold.
    """
    header = canonical_json({**frame.header, "kind": frame.kind})
    if len(header) > caps.header or len(frame.body) > caps.body:
        raise TooLarge(f"frame {frame.kind} of {len(header)} + {len(frame.body)} bytes is over its cap")
    return _LENGTHS.pack(len(header), len(frame.body)) + header + frame.body


class FrameParser:
    """Cuts a byte stream into frames. Not thread-safe."""

    def __init__(self, caps: FrameCaps = FrameCaps()) -> None:
        self._caps = caps
        self._buffer = bytearray()
        self._broken = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that they complete.

        Raises:
            TooLarge: a length over its cap; nothing of that size is ever buffered.
            DecodeError: a header that is not canonical, or bytes after an earlier refusal.
        """
        if self._broken:
            raise DecodeError("the channel is broken")
        self._buffer += data
        frames: list[Frame] = []
        try:
            while (frame := self._next()) is not None:
                frames.append(frame)
        except (DecodeError, InputError):
            self._broken = True
            self._buffer.clear()
            raise
        return frames

    def close(self) -> None:
        """Say that the stream ended.

        Raises:
            DecodeError: it ended inside a frame.
        """
        if self._buffer or self._broken:
            self._broken = True
            raise DecodeError("the channel ended inside a frame")

    def _next(self) -> Frame | None:
        if len(self._buffer) < _LENGTHS.size:
            return None
        header_length, body_length = _LENGTHS.unpack_from(self._buffer)
        if header_length > self._caps.header or body_length > self._caps.body:
            raise TooLarge(f"frame of {header_length} + {body_length} bytes is over its cap")
        body_start = _LENGTHS.size + header_length
        end = body_start + body_length
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            raw = bytes(view[_LENGTHS.size : body_start])
            body = bytes(view[body_start:end])
        del self._buffer[:end]
        header = parse_json(raw, cap=self._caps.header)
        if not isinstance(header, dict) or canonical_json(header) != raw:
            raise DecodeError("frame header is not a canonical json object")
        kind = header.pop("kind", None)
        if not isinstance(kind, str) or not 0 < len(kind) <= KIND_CAP:
            raise DecodeError(f"frame has no kind: {quoted(kind)}")
        return Frame(kind, header, body)
