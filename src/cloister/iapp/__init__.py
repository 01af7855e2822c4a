"""What an iApp imports: its arguments, protected data, secrets, results and progress, inside the enclave.

    from cloister import iapp

    name = iapp.read("user.name", type="string")
    iapp.write("greeting.txt", f"hello {name}")

Every call reads the task's environment (``IEXEC_IN``, ``IEXEC_OUT``, …) at that moment, so the same code runs in a test
that sets those variables. Each name is imported when first used: the package itself costs next to nothing. Errors are
those of ``cloister.errors``: ``NotFound`` for what the task does not have, ``InputError`` for a call that cannot be right.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, whose import costs more than the rest

if TYPE_CHECKING:
    from cloister.datasets.reader import ProtectedDataReader as ProtectedDataReader
    from cloister.iapp.arguments import args as args
    from cloister.iapp.figures import plot as plot
    from cloister.iapp.outputs import callback as callback
    from cloister.iapp.outputs import deterministic as deterministic
    from cloister.iapp.outputs import output as output
    from cloister.iapp.outputs import write as write
    from cloister.iapp.progressing import progress as progress
    from cloister.iapp.protected import Item as Item
    from cloister.iapp.protected import data as data
    from cloister.iapp.protected import dataframe as dataframe
    from cloister.iapp.protected import items as items
    from cloister.iapp.protected import read as read
    from cloister.iapp.requested import input as input  # noqa: A004  # iapp.input is the name in use
    from cloister.iapp.requested import inputs as inputs
    from cloister.iapp.secrets import app_secret as app_secret
    from cloister.iapp.secrets import secret as secret
    from cloister.iapp.tasks import Task as Task

    task: Task
    """This very task; looked up at each use."""

_HOMES = {
    "ProtectedDataReader": "cloister.datasets.reader",
    "args": "cloister.iapp.arguments",
    "plot": "cloister.iapp.figures",
    "callback": "cloister.iapp.outputs",
    "deterministic": "cloister.iapp.outputs",
    "output": "cloister.iapp.outputs",
    "write": "cloister.iapp.outputs",
    "progress": "cloister.iapp.progressing",
    "Item": "cloister.iapp.protected",
    "data": "cloister.iapp.protected",
    "dataframe": "cloister.iapp.protected",
    "items": "cloister.iapp.protected",
    "read": "cloister.iapp.protected",
    "input": "cloister.iapp.requested",
    "inputs": "cloister.iapp.requested",
    "app_secret": "cloister.iapp.secrets",
    "secret": "cloister.iapp.secrets",
    "Task": "cloister.iapp.tasks",
}

__all__ = [
    "Item",
    "ProtectedDataReader",
    "Task",
    "app_secret",
    "args",
    "callback",
    "data",
    "dataframe",
    "deterministic",
    "input",
    "inputs",
    "items",
    "output",
    "plot",
    "progress",
    "read",
    "secret",
    "task",
    "write",
]

if not TYPE_CHECKING:  # a checker would take every name for one that is there

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name == "task":
            return import_module("cloister.iapp.tasks").load_task()
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
