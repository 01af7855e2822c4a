"""What the agent does beside a running iApp: carry its connections, pass on its progress.

The agent has one thread. A companion's descriptors are watched in the same loop that holds the iApp to its limits, so
what a companion does when it is called must not block: it reads what is there, and writes what is taken. The one
exception is the channel to the host, whose other end always reads.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from typing import Protocol

Ready = Callable[[selectors.SelectorKey, int], None]
"""Called with the key and the events of a descriptor that is ready; it is what a companion registers as ``data``."""


class Companion(Protocol):
    """Something that goes on while an iApp runs. Errors that it raises end the task; of the iApp's faults it makes none."""

    def begin(self, selector: selectors.BaseSelector) -> None:
        """The iApp is about to start: register descriptors, each with a ``Ready`` as its data."""
        ...

    def tick(self, now: float) -> None:
        """Called some forty times a second. ``now`` is monotonic."""
        ...

    def close(self) -> None:
        """The iApp has ended, or never began: finish, take every descriptor out of the selector, close it. May be called
        again.
        """
        ...
