"""Waiting that ends: retries of what is unavailable, until a deadline or until the task is called off."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cloister.errors import Conflict, UnavailableError

T = TypeVar("T")


class CalledOff(Conflict):
    """The task was aborted or the worker stops: whatever was being tried is not wanted any more."""

    code = "called-off"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on, and how to pause. ``first`` and ``cap`` in seconds; ``until`` on the monotonic clock.

    Pauses double and are shortened by a random part, so that many workers do not come back at the same moment.
    """

    first: float
    cap: float
    until: float
    off: threading.Event

    def pause(self, turn: int) -> bool:
        """Sleep before try ``turn`` + 1. False when the time is over.

        Raises:
            CalledOff: the task was called off meanwhile.
        """
        length = min(self.cap, self.first * 2 ** min(turn, 20)) * random.uniform(0.5, 1.0)  # noqa: S311
        left = self.until - time.monotonic()
        if left <= 0:
            return False
        if self.off.wait(min(length, left)):
            raise CalledOff("the task was called off")
        return True

    def retry(self, action: Callable[[], T]) -> T:
        """Do ``action`` until it does not fail with ``UnavailableError``.

        Raises:
            UnavailableError: it still failed so when the time was over.
            CalledOff: the task was called off.
        """
        turn = 0
        while True:
            if self.off.is_set():
                raise CalledOff("the task was called off")
            try:
                return action()
            except UnavailableError:
                if not self.pause(turn):
                    raise
                turn += 1


class SharedPatience:
    """One patience for several tries side by side: it begins with the first trouble after one of them got further, so
    that what is away for all is given up once and not once for each. Safe to use from several threads.
    """

    def __init__(self, begin: Callable[[], Patience]) -> None:
        self._begin = begin
        self._patience: Patience | None = None

    def moved(self) -> None:
        """One of them got further."""
        self._patience = None

    def pause(self, turn: int) -> bool:
        """See ``Patience.pause``."""
        patience = self._patience
        if patience is None:
            patience = self._patience = self._begin()
        return patience.pause(turn)
