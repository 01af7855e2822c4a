"""Notes what the chain changed lately, so that facts that were read before are not written after.

Publishing reads the chain, then writes an order. When the watcher takes in a transfer, a revocation or a withdrawal
in between, it finds no order to mark, and the order would stand open for good.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Iterable

_MAX_NOTES = 10_000


class Recency:
    """Says whether anything about some names changed since a mark. Safe between threads; remembers a bounded number
    of changes and takes what it forgot for changed.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._changed: OrderedDict[str, int] = OrderedDict()
        self._all_changed = 0
        self._last = 0
        self._lock = threading.Lock()

    def mark(self) -> int:
        """Take a mark; do it before the facts are read."""
        return self._last

    def note(self, names: Iterable[str]) -> None:
        """These changed: addresses of entries and accounts, hashes of orders."""
        with self._lock:
            number = next(self._numbers)
            for name in names:
                self._changed[name] = number
                self._changed.move_to_end(name)
            while len(self._changed) > _MAX_NOTES:
                _, forgotten = self._changed.popitem(last=False)
                self._all_changed = max(self._all_changed, forgotten)
            self._last = number

    def note_everything(self) -> None:
        """Anything may have changed: the chain took blocks back."""
        with self._lock:
            self._all_changed = self._last = next(self._numbers)

    def changed_since(self, mark: int, names: Iterable[str]) -> bool:
        """Whether any of these changed after the mark was taken."""
        with self._lock:
            return self._all_changed > mark or any(self._changed.get(name, 0) > mark for name in names)
