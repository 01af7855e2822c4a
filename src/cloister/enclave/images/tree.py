"""The file system of an image as layers build it up: a model in memory, of names and of files kept elsewhere.

Layers come from strangers, so nothing that they name is ever looked up in a real file system: parents, links, whiteouts
and folders that hide others are settled here, and only the outcome is written (``root``), folder by folder, symbolic
links as the inert texts that they are.

Source: OCI image-spec 1.1 (layer.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cloister.errors import DecodeError, quoted

MAX_DEPTH = 128
MAX_NAME = 255
MAX_LINKS = 40
"""Symbolic links that one path may pass, as in Linux."""
MAX_FOLLOWED = 100_000
"""Symbolic links that are followed for one image in all."""
ROOT = -1
"""The layer of what is there without any."""


@dataclass(slots=True, eq=False)
class Content:
    """Bytes that are kept under ``number``; ``names`` counts the places where they stand."""

    number: int
    size: int
    mode: int
    names: int = 0


@dataclass(slots=True, eq=False)
class File:
    """One name of a content; its hard links are others."""

    content: Content
    layer: int


@dataclass(slots=True, eq=False)
class Symlink:
    """``target`` as it is written there."""

    target: str
    layer: int


@dataclass(slots=True, eq=False)
class Directory:
    """Names to nodes."""

    mode: int
    layer: int
    children: dict[str, Node] = field(default_factory=dict)


Node = File | Symlink | Directory


def split_path(path: str) -> tuple[str, ...]:
    """The names of a relative path; ``./`` in front and ``/`` behind are nothing.

    Raises:
        DecodeError: absolute, or with a parent, an empty part, or too deep or long a name.
    """
    parts = tuple(part for part in path.split("/") if part != ".")
    while parts and not parts[-1]:
        parts = parts[:-1]
    if path.startswith("/") or any(part in ("", "..") or "\0" in part for part in parts):
        raise DecodeError(f"the image's layer holds {quoted(path)}, which is no plain relative path", code="image-path")
    if len(parts) > MAX_DEPTH or any(len(part.encode("utf-8", "surrogateescape")) > MAX_NAME for part in parts):
        raise DecodeError(f"the image's layer holds {quoted(path)}, which is too deep or too long", code="image-path")
    return parts


class Tree:
    """``drop`` is called with the number of every content that stands nowhere any more."""

    def __init__(self, drop: Callable[[int], None] = lambda _: None) -> None:
        self.root = Directory(0o755, ROOT)
        self._drop = drop
        self._followed = 0

    # --- building ---

    def add_directory(self, parts: tuple[str, ...], mode: int, layer: int) -> None:
        """A folder; one that is there keeps what is in it."""
        if not parts:
            self.root.mode = mode
            return
        parent = self._parent(parts, layer)
        there = parent.children.get(parts[-1])
        if isinstance(there, Directory):
            there.mode, there.layer = mode, layer
        else:
            self._put(parent, parts[-1], Directory(mode, layer))

    def add_file(self, parts: tuple[str, ...], content: Content, layer: int) -> None:
        """A file, in place of whatever is there."""
        parent = self._parent(self._named(parts), layer)
        content.names += 1
        self._put(parent, parts[-1], File(content, layer))

    def add_symlink(self, parts: tuple[str, ...], target: str, layer: int) -> None:
        """A symbolic link, in place of whatever is there."""
        self._put(self._parent(self._named(parts), layer), parts[-1], Symlink(target, layer))

    def add_hardlink(self, parts: tuple[str, ...], target: tuple[str, ...], layer: int) -> None:
        """Another name of a file that is there.

        Raises:
            DecodeError: it is not, or is a folder.
        """
        folder = self._resolve(self._named(target)[:-1])
        node = folder.children.get(target[-1]) if isinstance(folder, Directory) else None
        parent = self._parent(self._named(parts), layer)
        if isinstance(node, File):
            node.content.names += 1
            self._put(parent, parts[-1], File(node.content, layer))
        elif isinstance(node, Symlink):
            self._put(parent, parts[-1], Symlink(node.target, layer))
        else:
            raise DecodeError(
                f"the image's layer links {quoted('/'.join(parts))} to {quoted('/'.join(target))}, which is no file of it",
                code="image-link",
            )

    def remove_lower(self, parts: tuple[str, ...], layer: int) -> None:
        """A whiteout: what lower layers have there is gone."""
        folder = self._resolve(parts[:-1])
        if isinstance(folder, Directory) and parts[-1] in folder.children:
            self._prune(folder, parts[-1], layer)

    def clear_lower(self, parts: tuple[str, ...], layer: int) -> None:
        """An opaque whiteout: what lower layers have in this folder is gone."""
        folder = self._resolve(parts)
        if isinstance(folder, Directory):
            for name in list(folder.children):
                self._prune(folder, name, layer)

    def remove(self, parts: tuple[str, ...]) -> None:
        """Take away whatever is at this real place."""
        folder = self._at(parts[:-1])
        if isinstance(folder, Directory) and parts[-1] in folder.children:
            self._forget(folder.children.pop(parts[-1]))

    # --- reading ---

    def find(self, path: str) -> tuple[tuple[str, ...], Node] | None:
        """What an absolute path leads to inside the image, and its real place."""
        try:
            parts = self._real(tuple(part for part in path.split("/") if part))
        except DecodeError:
            return None
        node = self._at(parts)
        return None if node is None else (parts, node)

    def make_directory(self, path: str, mode: int = 0o755) -> tuple[str, ...]:
        """The real place of a folder, which is made where it is missing.

        Raises:
            DecodeError: something else is there, or the path runs in a circle.
        """
        parts = self._real(tuple(part for part in path.split("/") if part))
        folder = self.root
        for name in parts:
            node = folder.children.get(name)
            if node is None:
                node = folder.children[name] = Directory(mode, ROOT)
            if not isinstance(node, Directory):
                raise DecodeError(f"{quoted(path)} of the image is no folder", code="image-path")
            folder = node
        return parts

    def contents(self) -> Iterator[Content]:
        """Every content that stands somewhere, once."""
        seen: set[int] = set()
        for node in self._nodes(self.root):
            if isinstance(node, File) and node.content.number not in seen:
                seen.add(node.content.number)
                yield node.content

    def nodes(self) -> int:
        """How many files, folders and links there are."""
        return sum(1 for _ in self._nodes(self.root))

    # --- inside ---

    @staticmethod
    def _named(parts: tuple[str, ...]) -> tuple[str, ...]:
        if not parts:
            raise DecodeError("the image's layer replaces the root folder", code="image-path")
        return parts

    def _parent(self, parts: tuple[str, ...], layer: int) -> Directory:
        """The folder that an entry goes to, made where it is missing. A link on the way is followed inside the image."""
        folder = self.root
        for name in self._real(parts[:-1]):
            node = folder.children.get(name)
            if node is None:
                node = folder.children[name] = Directory(0o755, layer)
            if not isinstance(node, Directory):
                raise DecodeError(
                    f"the image's layer puts {quoted('/'.join(parts))} below something that is no folder",
                    code="image-path",
                )
            folder = node
        return folder

    def _real(self, parts: tuple[str, ...]) -> tuple[str, ...]:
        """The place that a path names when its symbolic links are followed, which never leaves the image."""
        queue, place, passed = list(reversed(parts)), list[str](), 0
        while queue:
            name = queue.pop()
            if name in ("", "."):
                continue
            if name == "..":
                del place[-1:]
                continue
            node = self._at((*place, name))
            if not isinstance(node, Symlink):
                place.append(name)
                if len(place) > MAX_DEPTH:
                    raise DecodeError("a path of the image is too deep", code="image-path")
                continue
            passed += 1
            self._followed += 1
            queue += reversed(node.target.split("/"))
            if passed > MAX_LINKS or self._followed > MAX_FOLLOWED or len(queue) > 4 * MAX_DEPTH:
                raise DecodeError("a path of the image passes too many symbolic links", code="image-link")
            if node.target.startswith("/"):
                place.clear()
        return tuple(place)

    def _resolve(self, parts: tuple[str, ...]) -> Node | None:
        return self._at(self._real(parts))

    def _at(self, parts: tuple[str, ...]) -> Node | None:
        node: Node = self.root
        for name in parts:
            if not isinstance(node, Directory) or name not in node.children:
                return None
            node = node.children[name]
        return node

    def _put(self, parent: Directory, name: str, node: Node) -> None:
        there = parent.children.pop(name, None)
        parent.children[name] = node
        if there is not None:
            self._forget(there)

    def _forget(self, node: Node) -> None:
        for gone in self._nodes(node):
            if isinstance(gone, File):
                gone.content.names -= 1
                if gone.content.names == 0:
                    self._drop(gone.content.number)

    @staticmethod
    def _nodes(start: Node) -> Iterator[Node]:
        """A node and all below it."""
        queue = [start]
        while queue:
            node = queue.pop()
            yield node
            if isinstance(node, Directory):
                queue += node.children.values()

    def _prune(self, folder: Directory, name: str, layer: int) -> None:
        """Take away what is older than ``layer``; a folder stays for what is younger in it."""
        node = folder.children[name]
        if isinstance(node, Directory):
            for child in list(node.children):
                self._prune(node, child, layer)
            if node.children or node.layer >= layer:
                return
        elif node.layer >= layer:
            return
        del folder.children[name]
        if isinstance(node, File):
            self._forget(node)
