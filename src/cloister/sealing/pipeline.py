"""Run the making of chunks and their use side by side, on two threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from cloister.errors import InputError, LocalError

T = TypeVar("T")

_POLL = 0.1
"""Seconds after which a side that waits looks whether the other is still there."""


class _Producer(threading.Thread, Generic[T]):
    """Puts chunks into ``ready`` as (chunk, None), then (None, None) or (None, the error that ended it)."""

    def __init__(self, chunks: Iterable[T], depth: int) -> None:
        super().__init__(name="content-ahead", daemon=True)
        self.ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
        self.stopped = threading.Event()
        self._chunks = chunks

    def _offer(self, chunk: T | None, error: BaseException | None) -> bool:
        while not self.stopped.is_set():
            try:
                self.ready.put((chunk, error), timeout=_POLL)
            except queue.Full:
                continue
            return True
        return False

    def run(self) -> None:
        iterator = iter(self._chunks)
        try:
            for chunk in iterator:
                if not self._offer(chunk, None):
                    break
            else:
                self._offer(None, None)
        except BaseException as error:  # noqa: BLE001  # handed to the consumer, who raises it
            self._offer(None, error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def take(self) -> tuple[T | None, BaseException | None]:
        while True:
            try:
                return self.ready.get(timeout=_POLL)
            except queue.Empty:
                # The producer always says how it ended; should it ever not, its consumer must not wait for ever.
                if not self.is_alive() and self.ready.empty():
                    raise LocalError("the producer of a pipeline ended without a word") from None


def run_ahead(chunks: Iterable[T], *, depth: int = 2) -> Iterator[T]:
    """Yield ``chunks`` in order while a thread makes up to ``depth`` of them ahead.

    AES, SHA-256, CRC-32 and file reads release the interpreter lock, so two stages overlap. An error of the producer is
    raised here, after the chunks before it. Closing the iterator (or dropping it) stops the producer at its next chunk.
    A yielded chunk must not be reused by the producer. Raises InputError for a ``depth`` under 1.

    More depth is not faster: chunks made by one thread and freed by the other cost page faults.
    """
    if depth < 1:
        raise InputError(f"a pipeline runs 1 or more chunks ahead, not {depth}")
    producer: _Producer[T] = _Producer(chunks, depth)
    producer.start()
    try:
        while True:
            chunk, error = producer.take()
            if error is not None:
                raise error
            if chunk is None:
                return
            yield chunk
    finally:
        producer.stopped.set()
        producer.join()
