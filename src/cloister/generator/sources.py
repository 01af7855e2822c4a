"""The author's own files: which of a folder's files are the iApp."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from cloister.enclave.bundle import check_member_name
from cloister.errors import DecodeError, InputError, quoted
from cloister.generator.settings import SETTINGS_NAME

OUTSIDE = (
    SETTINGS_NAME,
    "requirements.in",
    "requirements.txt",
    "README.md",
    "Containerfile",
    "tests",
    "mock",
    "input",
    "output",
    "build",
)
"""What lies beside the code and is not part of it, at the top of the folder."""
_NOISE = ("__pycache__", "*.pyc", "*.pyo", "*.orig", "*.rej", "*~", "#*#", "*.swp", "*.swo", "Thumbs.db", "desktop.ini")
"""What interpreters, editors and desktops leave behind, wherever it lies."""


def source_files(folder: Path, outside: tuple[str, ...] = ()) -> Iterator[tuple[str, Path]]:
    """Every file of the iApp with its name relative to ``folder``. Hidden files and folders are never part of it.

    ``outside``: more names at the top that are not part of it.

    Raises:
        InputError: a symbolic link, a special file, or a name that cannot stand in a bundle.
    """
    yield from walk(folder, folder, (*OUTSIDE, *outside), hidden=False)


def walk(root: Path, folder: Path, without: tuple[str, ...] = (), *, hidden: bool = True) -> Iterator[tuple[str, Path]]:
    """Every file below ``folder`` with its name relative to ``root``, in the order of the names of each folder.

    ``without``: entries of ``folder`` itself that are passed over; ``hidden``: whether names with a dot in front count.

    Raises:
        InputError: see :func:`source_files`.
    """
    for entry in sorted(folder.iterdir()):
        if entry.name in without or is_noise(entry.name) or (not hidden and entry.name.startswith(".")):
            continue
        name = member_name(root, entry)
        if entry.is_symlink():
            raise InputError(f"{quoted(name)} is a symbolic link", hint="a bundle holds files only: copy it")
        if entry.is_file():
            yield name, entry
        elif entry.is_dir():
            yield from walk(root, entry, hidden=hidden)
        else:
            raise InputError(f"{quoted(name)} is neither a file nor a folder")


def is_noise(name: str) -> bool:
    """Whether a file or folder of this name is a leftover of tools."""
    return any(fnmatchcase(name, pattern) for pattern in _NOISE)


def member_name(root: Path, path: Path) -> str:
    """The name of ``path`` in a bundle: relative to ``root``, the same whatever the encoding of this machine's locale.

    Raises:
        InputError: it is not UTF-8, or may not stand in a bundle.
    """
    raw = os.fsencode(path.relative_to(root).as_posix())
    try:
        return check_member_name(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"the file name {quoted(raw)} is not UTF-8", hint="rename it") from error
    except DecodeError as error:
        raise InputError(error.message, hint="rename it") from error
