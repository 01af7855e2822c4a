"""What a probe of this machine finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cloister.worker.machine import Machine, short


class State(StrEnum):
    """``works`` was tried; ``absent`` is not here; ``broken`` is here and does not work."""

    WORKS = "works"
    ABSENT = "absent"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: ``what`` it is, its ``state`` and what was seen, what it ``gives``, and what to do when it is missed.

    ``advice`` is None when it works, or when nothing that can be installed would help.
    """

    name: str
    what: str
    state: State
    seen: str
    gives: str
    advice: str | None = None

    @property
    def works(self) -> bool:
        return self.state is State.WORKS

    def to_json(self) -> dict[str, object]:
        """As JSON."""
        return {
            "name": self.name,
            "what": self.what,
            "state": str(self.state),
            "seen": self.seen,
            "gives": self.gives,
            "advice": self.advice,
        }


Probe = Callable[[Machine], Finding]


def ask_program(
    machine: Machine, head: tuple[str, str], gives: str, name: str, arguments: tuple[str, ...], advice: str
) -> Finding:
    """A program that must answer a harmless question."""
    found = machine.program(name)
    if found is None:
        return Finding(*head, State.ABSENT, "not installed", gives, advice)
    ran = machine.run(found, *arguments)
    if ran.code == 0:
        return Finding(*head, State.WORKS, short(ran.said), gives)
    return Finding(*head, State.BROKEN, short(ran.said), gives, advice)
