"""Naming a mock in ``mock/run.toml``: one line is added or replaced, everything else stays as its author wrote it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cloister.errors import Conflict
from cloister.files import write_durably
from cloister.generator.rehearsal.settings import RUN_NAME, load_mock_run

_LINE = re.compile(r"^(data|bulk)[ \t]*=[^\n\[\]{}]*(\[[^\[\]]*\])?[^\n\[\]{}]*\n?", re.MULTILINE)
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)
_HEAD = "# What `cloister iapp test` runs when it is told nothing else.\n"


def name_in_run(project: Path, names: list[str], *, replace: bool) -> bool:
    """Have ``run.toml`` name these files as its protected data, where it names none or ``replace`` says so. Tells whether it
    does now.

    Raises:
        InputError: the file does not read. Conflict: what it says of data is no line that can be replaced.
    """
    now = load_mock_run(project)
    wanted = names[0] if len(names) == 1 else None
    many = None if len(names) == 1 else tuple(names)
    if now.data == wanted and now.bulk == many:
        return True
    there = now.data is not None or now.bulk is not None
    if there and not replace:
        return False
    path = now.folder / RUN_NAME
    text = path.read_text("utf-8") if path.is_file() else _HEAD
    line = f"data = {json.dumps(wanted)}\n" if many is None else f"bulk = {json.dumps(list(many))}\n"
    write_durably(path, _with_line(text, line, there=there, path=path).encode())
    done = load_mock_run(project)
    if done.data != wanted or done.bulk != many:
        write_durably(path, text.encode())
        raise Conflict(f"{path} could not be changed", hint=f"write into it: {line.strip()}")
    return True


def _with_line(text: str, line: str, *, there: bool, path: Path) -> str:
    """The text with ``line`` in place of the one on data, or before the first table."""
    table = _TABLE.search(text)
    head, rest = (text, "") if table is None else (text[: table.start()], text[table.start() :])
    if there:
        found = _LINE.search(head)
        if found is None:
            raise Conflict(f"{path} names its data in a way that is not changed here", hint=f"write: {line.strip()}")
        return head[: found.start()] + line + head[found.end() :] + rest
    if head and not head.endswith("\n"):
        head += "\n"
    if rest and head.endswith("\n\n"):
        return head[:-1] + line + "\n" + rest
    return head + line + ("\n" if rest else "") + rest
