"""A project's files around a rehearsal: where its results go, and whether anything was saved since."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.errors import InputError, quoted
from cloister.generator.rehearsal.bundle import STATE_FOLDER

if TYPE_CHECKING:
    from cloister.generator.rehearsal.outcome import Rehearsal

OUTPUT_FOLDER = "output"
_NOTE = "output.json"
_UNWATCHED = frozenset({OUTPUT_FOLDER, "build", "__pycache__"})
_WATCHED_MOST = 50_000


def save_result(run: Rehearsal, project: Path, output: Path | None) -> list[Path]:
    """Write the result's files under ``output``, or under the project's ``output/``, where those of the rehearsal before
    are taken away first. Returns their paths.

    Raises:
        InputError: they cannot be written there.
    """
    folder = output or project / OUTPUT_FOLDER
    note = project / STATE_FOLDER / _NOTE
    saved = []
    try:
        if output is None:
            _clear(folder, note)
        for name, content in run.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            saved.append(path)
        if output is None and saved:
            note.parent.mkdir(exist_ok=True)
            note.write_text(json.dumps(list(run.files)))
    except OSError as error:
        raise InputError(f"the result cannot be written to {quoted(str(folder))}: {error.strerror}") from error
    return saved


def _clear(folder: Path, note: Path) -> None:
    try:
        names = json.loads(note.read_text())
    except (OSError, ValueError):
        return
    for name in names if isinstance(names, list) else ():
        path = folder / str(name)
        if path.resolve().is_relative_to(folder.resolve()):
            with suppress(OSError):
                path.unlink()
    note.unlink()


def empty_folder(project: Path, name: str) -> Path:
    """A folder of that name in the project's state, with nothing in it."""
    folder = (project / STATE_FOLDER / name).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def fingerprint(project: Path) -> frozenset[tuple[str, int, int]]:
    """Path, time and size of every file that a rehearsal depends on, mock data included."""
    return frozenset(_states(project, top=True))


def _states(folder: Path, *, top: bool) -> Iterator[tuple[str, int, int]]:
    with suppress(OSError), os.scandir(folder) as found:
        for count, item in enumerate(found):
            if item.name in _UNWATCHED or (top and item.name.startswith(".")) or count > _WATCHED_MOST:
                continue
            with suppress(OSError):  # gone while we look
                if item.is_dir(follow_symlinks=False):
                    yield from _states(Path(item.path), top=False)
                else:
                    status = item.stat(follow_symlinks=False)
                    yield item.path, status.st_mtime_ns, status.st_size
