"""Rehearsals: an iApp runs here as it will in production, on mock data (``stage``).

run = rehearse("my-iapp", args="Ada", data={"email": "ada@example.org"})
assert run.cause is None, run.message
assert run.read("hello.txt") == b"Hello, Ada"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloister.generator.rehearsal.outcome import Rehearsal as Rehearsal
    from cloister.generator.rehearsal.request import Request as Request
    from cloister.generator.rehearsal.stage import Listener as Listener
    from cloister.generator.rehearsal.stage import Stage as Stage
    from cloister.generator.rehearsal.stage import rehearse as rehearse

_HOMES = {"Rehearsal": "outcome", "Request": "request", "Listener": "stage", "Stage": "stage", "rehearse": "stage"}

__all__ = ["Listener", "Rehearsal", "Request", "Stage", "rehearse"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
