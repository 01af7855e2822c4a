"""Joins the chain reads of threads that ask at the same moment into one request.

Whoever finds nobody at work sends what waits, its own question and those of others; who comes meanwhile waits for
the next round. Alone, a thread waits for nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from cloister.errors import LocalError

Request = tuple[str, Sequence[object]]
MAX_ROUND = 64
"""Most threads whose questions go into one request."""


class _Question:
    __slots__ = ("answers", "error", "leads", "requests", "turn")

    def __init__(self, requests: Sequence[Request]) -> None:
        self.requests = requests
        self.answers: list[object] | None = None
        self.error: BaseException | None = None
        self.leads = False
        self.turn = threading.Event()


class Coalescer:
    """Wraps ``JsonRpc.try_batch``. Safe to use from several threads."""

    def __init__(self, send: Callable[[Sequence[Request]], list[object]]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waiting: list[_Question] = []
        self._busy = False

    def ask(self, requests: Sequence[Request]) -> list[object]:
        """Return the answers to ``requests`` in order. Raises: what sending raises."""
        question = _Question(requests)
        with self._lock:
            self._waiting.append(question)
            question.leads = not self._busy
            self._busy = True
        if not question.leads:
            question.turn.wait()
        if question.leads:
            self._lead()
        if question.error is not None:
            raise question.error
        if question.answers is None:
            raise LocalError("a coalesced read ended without an answer")
        return question.answers

    def _lead(self) -> None:
        """Send one round, then hand over to somebody who waits."""
        with self._lock:
            part, self._waiting = self._waiting[:MAX_ROUND], self._waiting[MAX_ROUND:]
        try:
            answers = self._send([request for question in part for request in question.requests])
            start = 0
            for question in part:
                question.answers = answers[start : start + len(question.requests)]
                start += len(question.requests)
        except BaseException as error:  # noqa: BLE001 - it belongs to everybody of this round
            for question in part:
                question.error = error
        with self._lock:
            following = self._waiting[0] if self._waiting else None
            self._busy = following is not None
            if following is not None:
                following.leads = True
        for question in part:
            question.turn.set()
        if following is not None:
            following.turn.set()
