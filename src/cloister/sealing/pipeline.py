"""Run the making of chunks and their use side by side, on two threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

from cloister.errors import InputError, LocalError

T = TypeVar("T")

_POLL = 0.1
"""Seconds after which a side that waits looks whether the other is still there."""


def run_ahead(chunks: Iterable[T], *, depth: int = 4) -> Iterator[T]:
    """Yield ``chunks`` in order while a thread makes up to ``depth`` of them ahead.

    AES, SHA-256, CRC-32 and file reads release the interpreter lock, so two stages overlap. An error of the producer is
    raised here, after the chunks before it. Closing the iterator (or dropping it) stops the producer at its next chunk.
    A yielded chunk must not be reused by the producer. Raises InputError for a ``depth`` under 1.
    """
    if depth < 1:
        raise InputError(f"a pipeline runs 1 or more chunks ahead, not {depth}")
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def offer(item: tuple[T | None, BaseException | None]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=_POLL)
            except queue.Full:
                continue
            return True
        return False

    def produce() -> None:
        iterator = iter(chunks)
        try:
            for chunk in iterator:
                if not offer((chunk, None)):
                    break
            else:
                offer((None, None))
        except BaseException as error:  # noqa: BLE001  # handed to the consumer, who raises it
            offer((None, error))
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    producer = threading.Thread(target=produce, name="content-ahead", daemon=True)
    producer.start()
    try:
        while True:
            try:
                chunk, error = ready.get(timeout=_POLL)
            except queue.Empty:
                # The producer always says how it ended; should it ever not, this must not wait for ever.
                if not producer.is_alive() and ready.empty():
                    raise LocalError("the producer of a pipeline ended without a word") from None
                continue
            if error is not None:
                raise error
            if chunk is None:
                return
            yield chunk
    finally:
        stopped.set()
        producer.join()
