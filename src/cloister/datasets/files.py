"""Files and folders as archive entries: the one place of this room that reads a file system.

A folder is taken with everything in it, in sorted order. Links, devices and sockets inside it are refused: a link could
bring in what the owner never meant to protect.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cloister.datasets.schema import HEAD_SIZE, MAX_DEPTH, detect_media_type
from cloister.datasets.zip_writer import Entry
from cloister.errors import InputError, NotFound, quoted

PIECE = 1 << 20
"""Bytes per read."""


def load_entries(path: Path, prefix: str = "") -> list[Entry]:
    """The entries of a file (named as it is) or of a folder's content, under ``prefix``.

    Only names, sizes and the first bytes are read now; the content when the archive is built.
    Raises NotFound, InputError for what cannot be packed.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        raise NotFound(f"there is no file or folder {quoted(str(path))}") from None
    if stat.S_ISDIR(status.st_mode):
        return list(_walk(path, prefix, 1))
    return [load_file(path, prefix + path.name)]


def load_file(path: Path, name: str) -> Entry:
    """One file as the entry ``name``. Raises NotFound, InputError when it is no regular file or cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{quoted(str(path))} is not a regular file")
        with path.open("rb", buffering=0) as file:
            head = file.read(HEAD_SIZE)
    except FileNotFoundError:
        raise NotFound(f"there is no file {quoted(str(path))}") from None
    except OSError as error:
        raise InputError(f"{quoted(str(path))} cannot be read: {error.strerror}") from error
    return Entry(name, _reader(path), status.st_size, detect_media_type(head))


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[Entry]:
    if depth > MAX_DEPTH:
        raise InputError(f"{quoted(str(folder))} is nested deeper than {MAX_DEPTH} folders")
    with os.scandir(folder) as found:
        items = sorted(found, key=lambda item: item.name)
    for item in items:
        if item.is_symlink():
            raise InputError(
                f"{quoted(item.path)} is a symbolic link", hint="put the file itself there, or leave the link out"
            )
        if item.is_dir():
            yield Entry(f"{prefix}{item.name}/")
            yield from _walk(Path(item.path), f"{prefix}{item.name}/", depth + 1)
        else:
            yield load_file(Path(item.path), prefix + item.name)


def _reader(path: Path) -> Callable[[], Iterator[bytes]]:
    def read() -> Iterator[bytes]:
        try:
            with path.open("rb", buffering=0) as file:
                while piece := file.read(PIECE):
                    yield piece
        except OSError as error:
            raise InputError(f"{quoted(str(path))} cannot be read: {error.strerror}") from error

    return read
