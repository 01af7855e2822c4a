"""Downloads of one task: each runs in a thread of its own, a few pieces ahead of the enclave that reads it.

An enclave says what it will ask for next, so that a hundred small data do not take a hundred times the way to storage
and back. And whatever a server does, dripping its header lines included, the one who waits here can stop waiting.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cloister.errors import CloisterError, LocalError, UnavailableError, quoted
from cloister.worker.patience import CalledOff

MOST_AT_ONCE = 8
"""Downloads of one task that run or wait to be read."""
PIECES = 4
SILENCE_SECONDS = 240.0
"""How long a download may stand still; less than an enclave waits for its host."""
_STEP = 0.5


@dataclass(frozen=True, slots=True)
class Wanted:
    """A location that an enclave asks for: an app, a dataset or an input file (``purpose``)."""

    location: str
    purpose: str
    max_bytes: int


class Downloads:
    """The downloads of one enclave. Used by one thread; ``fetch`` is called from others and may raise anything of our
    tree.
    """

    def __init__(self, fetch: Callable[[Wanted], Iterator[bytes]], off: threading.Event) -> None:
        self._fetch = fetch
        self._off = off
        self._begun: dict[Wanted, _Download] = {}

    def read(self, wanted: Wanted, *, seconds: float, ahead: tuple[Wanted, ...] = ()) -> Iterator[bytes]:
        """Yield the bytes of ``wanted`` while those of ``ahead`` begin to come.

        Raises:
            UnavailableError: it stands still, or takes longer than ``seconds``. CalledOff: nobody wants it any more.
            CloisterError: what ``fetch`` raised.
        """
        download = self._begun.pop(wanted, None) or _Download(self._fetch, wanted)
        for item in ahead:
            if len(self._begun) < MOST_AT_ONCE - 1 and item not in self._begun:
                self._begun[item] = _Download(self._fetch, item)
        try:
            yield from download.pieces(seconds, self._off)
        finally:
            download.close()

    def close(self) -> None:
        """Drop what was begun and never asked for."""
        for download in self._begun.values():
            download.close()
        self._begun.clear()


class _Download:
    """One location on its way, in at most ``PIECES`` pieces of memory."""

    def __init__(self, fetch: Callable[[Wanted], Iterator[bytes]], wanted: Wanted) -> None:
        self._fetch = fetch
        self._wanted = wanted
        self._pieces: queue.Queue[bytes | Exception | None] = queue.Queue(PIECES)
        self._closed = threading.Event()
        threading.Thread(target=self._run, name=f"fetch-{wanted.purpose}", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        try:
            for piece in self._fetch(self._wanted):
                if not self._put(piece):
                    return
            self._put(None)
        except CloisterError as error:
            self._put(error)
        except Exception as error:  # noqa: BLE001  # whoever reads must hear of it, whatever it is
            self._put(LocalError(f"the download failed: {type(error).__name__}"))

    def _put(self, piece: bytes | Exception | None) -> bool:
        while not self._closed.is_set():
            try:
                self._pieces.put(piece, timeout=_STEP)
            except queue.Full:
                continue
            return True
        return False

    def pieces(self, seconds: float, off: threading.Event) -> Iterator[bytes]:
        deadline = time.monotonic() + seconds
        while True:
            piece = self._take(deadline, off)
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def _take(self, deadline: float, off: threading.Event) -> bytes | Exception | None:
        silent = time.monotonic() + SILENCE_SECONDS
        while True:
            if time.monotonic() >= deadline:
                raise UnavailableError(f"{quoted(self._wanted.location)} took too long", code="too-slow")
            try:
                return self._pieces.get(timeout=_STEP)
            except queue.Empty:
                if off.is_set():
                    raise CalledOff("the task was called off") from None
                if time.monotonic() >= silent:
                    raise UnavailableError(f"{quoted(self._wanted.location)} stands still") from None
