"""How long work tells where it is: one small value, handed to whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One step's state. ``step`` is one of iExec's status titles (``ENCRYPT_FILE``, ``TASK_EXECUTION``, …).

    ``done`` and ``total`` count bytes or items where the step has a size; ``detail`` is text for people. ``fraction`` is 0 to
    1 where a running app itself says how far it is.
    """

    step: str
    finished: bool = False
    done: int | None = None
    total: int | None = None
    detail: str = ""
    fraction: float | None = None


Listener = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """Listen to nothing."""


def counted(chunks: Iterable[bytes], step: str, total: int | None, listener: Listener) -> Iterator[bytes]:
    """Pass chunks on and tell the listener how many bytes have gone by."""
    done = 0
    for chunk in chunks:
        done += len(chunk)
        yield chunk
        listener(Progress(step, done=done, total=total))
