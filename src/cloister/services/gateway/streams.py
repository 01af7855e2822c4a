"""Answers that stream, and how one ends when its content turns out to be damaged on the way."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cloister.errors import CloisterError
from cloister.services.failures import CarriedError

log = logging.getLogger("cloister.gateway")


class ContentStream(StreamingResponse):
    """A stream that breaks off when its source raises: the peer sees a connection that ends before the content does.

    Once the head is sent nothing else is honest, and our log needs one line for it.
    """

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except (CloisterError, CarriedError) as error:
            # The server closes the connection of an answer that was not completed.
            told = error.error if isinstance(error, CarriedError) else error
            log.error("an answer broke off: %s (%s)", told.message, told.code)  # noqa: TRY400 - where is no riddle
        finally:
            close = getattr(self.body_iterator, "aclose", None)
            if close is not None:  # what it holds (an upload under way) is let go now, not when it is collected
                with anyio.CancelScope(shield=True):
                    await close()


class UploadStream(ContentStream):
    """A stream whose source reads the request itself, so nothing else may wait for the request's messages."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


def begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Fetch the first chunk now, so that content which cannot be read at all is refused with a status of its own."""
    first = list(itertools.islice(chunks, 1))
    return itertools.chain(first, chunks)


def line(row: Mapping[str, object]) -> bytes:
    """One JSON object and a line feed, spelled as Kubo spells it."""
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def ndjson(rows: Iterable[Mapping[str, object]]) -> ContentStream:
    """One JSON object a line."""
    lines = begun(line(row) for row in rows)
    return ContentStream(lines, media_type="application/json", headers={"x-chunked-output": "1"})


def upload_ndjson(first: bytes, rest: AsyncGenerator[bytes, None]) -> UploadStream:
    """Lines that are written while the request still comes in."""

    async def lines() -> AsyncIterator[bytes]:
        async with aclosing(rest):
            yield first
            async for more in rest:
                yield more

    return UploadStream(lines(), media_type="application/json", headers={"x-chunked-output": "1"})


def octets(chunks: Iterator[bytes], *, media_type: str = "application/octet-stream") -> ContentStream:
    """Bytes as Kubo's RPC streams them."""
    return ContentStream(begun(chunks), media_type=media_type, headers={"x-stream-output": "1"})
