"""Which task this is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cloister.errors import InputError, NotFound, quoted


@dataclass(frozen=True, slots=True)
class Task:
    """``id`` and ``deal`` are 0x-prefixed hex. ``index`` is this task's in its deal; the deal has ``size`` tasks, the
    first of which has the index ``first``.
    """

    id: str
    deal: str
    index: int
    size: int
    first: int = 0


def load_task() -> Task:
    """Read the task's names from the environment.

    Raises:
        NotFound: this is no task. InputError: a number that is none.
    """
    name = os.environ.get("IEXEC_TASK_ID")
    if not name:
        raise NotFound("IEXEC_TASK_ID is not set: this is not running as a task")
    return Task(
        id=name,
        deal=os.environ.get("IEXEC_DEAL_ID", ""),
        index=_number("IEXEC_TASK_INDEX", "0"),
        size=_number("IEXEC_BOT_SIZE", "1"),
        first=_number("IEXEC_BOT_FIRST_INDEX", "0"),
    )


def _number(variable: str, absent: str) -> int:
    text = os.environ.get(variable) or absent
    if not text.isascii() or not text.isdigit():
        raise InputError(f"{variable} is not a number: {quoted(text)}")
    return int(text)
