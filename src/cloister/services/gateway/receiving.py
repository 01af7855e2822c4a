"""An upload as it comes in: stored batch by batch, answered at its end or, with ``progress``, all the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Final

import anyio
import anyio.to_thread
from starlette.responses import Response

from cloister.errors import InputError
from cloister.services.gateway.adding import Added, Adding, Progress
from cloister.services.gateway.settings import GatewaySettings
from cloister.services.gateway.streams import line, upload_ndjson

_BATCH: Final = 1024 * 1024
"""Bytes gathered before a thread is asked to store them: each hand-over costs as much as hashing 100 KiB."""


class Receiving:
    """Follows one upload. In any end nothing half stored stays."""

    def __init__(self, stream: AsyncIterator[bytes], adding: Adding, settings: GatewaySettings) -> None:
        self._stream = stream
        self._adding = adding
        self._settings = settings

    async def answer(self, *, silent: bool) -> Response:
        """Take everything, then answer what became of it.

        Raises: as ``Adding.feed`` and ``Adding.finish``; InputError for an upload that is too slow.
        """
        rows = [_line(event) async for event in self._events() if isinstance(event, Added)]
        return _plain(() if silent else rows)

    async def follow(self) -> Response:
        """Answer while the upload comes in. An upload that fails before there is anything to tell raises, as above."""
        lines = self._lines()
        try:
            first = await anext(lines)
        except StopAsyncIteration:
            return _plain(())
        return upload_ndjson(first, lines)

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        async with aclosing(self._events()) as events:
            async for event in events:
                yield _line(event)

    async def _events(self) -> AsyncGenerator[Progress | Added, None]:
        """Hand the body over in batches, storing one while the next comes in."""
        adding, settings = self._adding, self._settings
        started, received = time.monotonic(), 0
        batch: list[bytes] = []
        gathered = 0
        storing: asyncio.Task[None] | None = None
        try:
            async for chunk in self._stream:
                received += len(chunk)
                elapsed = time.monotonic() - started
                if elapsed > settings.rate_grace and received < settings.min_rate * elapsed:
                    raise InputError("the upload is too slow", code="timeout")
                batch.append(chunk)
                gathered += len(chunk)
                if gathered >= _BATCH:
                    if storing is not None:
                        await storing
                        for event in adding.take_events():
                            yield event
                    storing = asyncio.create_task(anyio.to_thread.run_sync(adding.feed, b"".join(batch)))
                    batch, gathered = [], 0
            if storing is not None:
                await storing
            await anyio.to_thread.run_sync(adding.feed, b"".join(batch))
            await anyio.to_thread.run_sync(adding.finish)
            for event in adding.take_events():
                yield event
        finally:
            with anyio.CancelScope(shield=True):
                if storing is not None:
                    await asyncio.gather(storing, return_exceptions=True)
                await anyio.to_thread.run_sync(adding.abort)


def _line(event: Progress | Added) -> bytes:
    if isinstance(event, Progress):
        return line({"Name": event.name, "Bytes": event.size})
    return line({"Name": event.name, "Hash": str(event.built.cid), "Size": str(event.built.total_size)})


def _plain(rows: Iterable[bytes]) -> Response:
    return Response(b"".join(rows), media_type="application/json", headers={"x-chunked-output": "1"})
