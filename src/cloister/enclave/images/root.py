"""Writing an image's file system into the root of a sandbox that stands and waits.

Written through one folder's descriptor, down and up again, every name a single one and nothing followed. The iApp has not
begun, so nobody else is there; and since contents move out of the enclave's store as they are written, an image lies in
memory once.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from cloister.enclave.images.layers import Layers
from cloister.enclave.images.tree import Content, Directory, File, Symlink

_PAGE = 4096
_SLACK = 1 << 20
_SENT = 1 << 26
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

COVERED = ("/proc", "/dev", "/iexec_in", "/iexec_out", "/opt/cloister")
"""Folders that are the sandbox's own, whatever an image has there."""


@dataclass(frozen=True, slots=True)
class ImageRoot:
    """Implements ``filesystem.Root``. ``user`` and ``group`` are the image's."""

    layers: Layers
    user: int
    group: int
    covered: tuple[str, ...] = COVERED

    @property
    def size(self) -> int:
        """Bytes of memory that it takes, whole pages."""
        return _SLACK + sum(-(-content.size // _PAGE) * _PAGE for content in self.layers.tree.contents())

    @property
    def entries(self) -> int:
        """How many files, folders and links it has."""
        return self.layers.tree.nodes()

    def write(self, root: int, *, owner: tuple[int, int] | None) -> None:
        """Write all of it below the folder ``root`` is a descriptor of. Once only.

        Raises:
            OSError: there is no room, or the folder is not empty but for what is covered.
        """
        written = _Written(self.layers, root, frozenset(self.covered), owner)
        written.fill(root, self.layers.tree.root, "")
        written.settle(root, _folder_mode(self.layers.tree.root.mode))


class _Written:
    """Where each content has been written first, for its hard links."""

    def __init__(self, layers: Layers, root: int, covered: frozenset[str], owner: tuple[int, int] | None) -> None:
        self._layers = layers
        self._root = root
        self._covered = covered
        self._owner = owner
        self._first: dict[int, str] = {}

    def settle(self, handle: int, mode: int) -> None:
        """Owner and mode of a file or folder."""
        if self._owner is not None:
            os.fchown(handle, *self._owner)
        os.fchmod(handle, mode)

    def fill(self, folder: int, node: Directory, place: str) -> None:
        for name, child in node.children.items():
            path = f"{place}/{name}"
            if path in self._covered:
                continue
            match child:
                case Symlink():
                    os.symlink(child.target, name, dir_fd=folder)
                case File():
                    self._file(folder, name, child.content, path)
                case Directory():
                    self._directory(folder, name, child, path)

    def _directory(self, folder: int, name: str, node: Directory, path: str) -> None:
        with suppress(FileExistsError):  # made for something that is mounted below it
            os.mkdir(name, 0o700, dir_fd=folder)
        inner = os.open(name, _FOLDER, dir_fd=folder)
        try:
            self.fill(inner, node, path)
            self.settle(inner, _folder_mode(node.mode))
        finally:
            os.close(inner)

    def _file(self, folder: int, name: str, content: Content, path: str) -> None:
        first = self._first.get(content.number)
        if first is not None:
            # Every folder on the way was made here, so none of its names is a link.
            os.link(first, name, src_dir_fd=self._root, dst_dir_fd=folder, follow_symlinks=False)
            return
        source = self._layers.path(content)
        target = os.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            with source.open("rb") as file:
                left = content.size
                while left and (sent := os.sendfile(target, file.fileno(), None, min(left, _SENT))):
                    left -= sent
            if left:
                raise OSError(5, "a file of the image is gone")
            self.settle(target, _file_mode(content.mode))
        finally:
            os.close(target)
        source.unlink()
        if content.names > 1:
            self._first[content.number] = path.removeprefix("/")


def _folder_mode(mode: int) -> int:
    """All belongs to the one user there is, who may do what some user might."""
    return mode | 0o700


def _file_mode(mode: int) -> int:
    return mode | 0o400 | (mode | mode << 3 | mode << 6) & 0o700
