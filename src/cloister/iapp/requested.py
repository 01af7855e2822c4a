"""Input files: what the request named by URL, or gave sealed, as files in ``/iexec_in``."""

from __future__ import annotations

import os
from pathlib import Path

from cloister.errors import InputError, NotFound, quoted


def inputs() -> tuple[Path, ...]:
    """The request's input files, in the order in which it names them; none when it names none."""
    text = os.environ.get("IEXEC_INPUT_FILES_NUMBER") or "0"
    if not text.isascii() or not text.isdigit():
        raise InputError(f"IEXEC_INPUT_FILES_NUMBER is not a number: {quoted(text)}")
    folder = os.environ.get("IEXEC_INPUT_FILES_FOLDER") or os.environ.get("IEXEC_IN") or "."
    found = []
    for number in range(1, int(text) + 1):
        name = os.environ.get(f"IEXEC_INPUT_FILE_NAME_{number}")
        if not name:
            raise NotFound(f"input file {number} has no name: IEXEC_INPUT_FILE_NAME_{number} is not set")
        found.append(Path(folder) / name)
    return tuple(found)


def input(number: int = 1) -> Path:  # noqa: A001  # iapp.input(1) says it best
    """Input file ``number``, counted from 1.

    Raises:
        NotFound: the request named fewer. InputError: no number that counts from 1.
    """
    if type(number) is not int or number < 1:
        raise InputError(f"input files count from 1, got {quoted(number)}")
    found = inputs()
    if number > len(found):
        raise NotFound(f"no input file {number}: the request named {len(found) or 'none'}")
    return found[number - 1]
