"""Who asks is answered from a state that is not older than the question, if that is to be had soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cloister.chain.events import Batch
from cloister.errors import CloisterError, UnavailableError
from cloister.services.following import BatchSource, Follower

WAIT_SECONDS = 1.0
"""Longest wait for the chain's newest number."""
_KEPT = 7


class SharedHead:
    """The chain's newest block number, asked once for all who ask at the same moment. Safe to use from several threads.

    A node that hangs costs each of them ``WAIT_SECONDS`` and no more.
    """

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask
        self._changed = threading.Condition()
        self._begun = self._done = float("-inf")
        self._asking = False
        self._number = -1

    def block_number(self) -> int:
        """A number that was asked for after this call began. Raises: UnavailableError when it does not come in time."""
        since = time.monotonic()
        deadline = since + WAIT_SECONDS
        with self._changed:
            while self._done < since:
                if not self._asking:
                    self._asking = True
                    threading.Thread(target=self._fetch, name="indexer head", daemon=True).start()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise UnavailableError("the chain does not tell its newest block in time")
                self._changed.wait(left)
            if self._number < 0:
                raise UnavailableError("the chain does not answer")
            return self._number

    def _fetch(self) -> None:
        begun = time.monotonic()
        number = -1
        try:
            number = self._ask()
        except CloisterError:
            pass
        finally:
            with self._changed:
                self._asking = False
                # Answers who came before the question was put, and nobody else.
                self._done, self._number = begun, number
                self._changed.notify_all()


class NewestBlock:
    """Knows the last block that was taken in. The store hears only of blocks that hold something of interest."""

    def __init__(self) -> None:
        self._told: dict[int, tuple[str, int]] = {}
        self._follower: Follower | None = None

    def watch(self, source: BatchSource) -> BatchSource:
        """Listen to what a source tells."""
        return _Listening(source, self)

    def follow(self, follower: Follower) -> None:
        """Set who takes in what was told."""
        self._follower = follower

    def hear(self, batch: Batch) -> None:
        """Remember the last block of a batch that is about to be taken in."""
        if batch.blocks and batch.blocks[-1].number == batch.through:
            recent = list(self._told.items())[-_KEPT:]
            head = batch.blocks[-1]
            # Replaced whole: others read it meanwhile.
            self._told = {**dict(recent), batch.through: (str(head.hash), head.timestamp)}

    def known(self) -> tuple[int, str | None, int | None]:
        """Number, hash and time of the last block that was taken in; -1 before the first."""
        number = -1 if self._follower is None else self._follower.block
        name, moment = self._told.get(number, (None, None))
        return number, name, moment


class _Listening:
    def __init__(self, source: BatchSource, listener: NewestBlock) -> None:
        self._source = source
        self._listener = listener

    def poll(self) -> Batch:
        batch = self._source.poll()
        self._listener.hear(batch)
        return batch
