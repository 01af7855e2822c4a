"""A file tree in memory, and the cpio archive that the kernel unpacks it from: the same tree, the same bytes.

Format: "newc" of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Times, owners, devices and
link counts are constants; inode numbers count up in the order of names.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloister.errors import LocalError

_END = "TRAILER!!!"
_ALIGN = 4


@dataclass(frozen=True, slots=True)
class Node:
    """``mode`` with its type bits; ``content`` is a file's bytes or a symbolic link's target."""

    mode: int
    content: bytes = field(default=b"", repr=False)


class Tree:
    """Names (relative, with slashes) and what they are. A folder that is not named comes with mode 0755."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}

    def add_file(self, name: str, content: bytes, *, executable: bool = False) -> None:
        """Put a file there, in place of what was."""
        self._add(name, Node(stat.S_IFREG | (0o755 if executable else 0o644), content))

    def add_link(self, name: str, target: str) -> None:
        """Put a symbolic link there."""
        self._add(name, Node(stat.S_IFLNK | 0o777, target.encode()))

    def add_folder(self, name: str, mode: int = 0o755) -> None:
        """Put an empty folder there."""
        self._add(name, Node(stat.S_IFDIR | mode))

    def _add(self, name: str, node: Node) -> None:
        if not name or name.startswith(("/", "..")) or posixpath.normpath(name) != name:
            raise LocalError(f"not a name in the image: {name!r}")
        self._nodes[name] = node

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Every file and its content, in the order of names."""
        for name in sorted(self._nodes):
            if stat.S_ISREG(self._nodes[name].mode):
                yield name, self._nodes[name].content

    def size(self) -> int:
        """Bytes of all files together."""
        return sum(len(content) for _, content in self.files())

    def write_to(self, folder: Path) -> None:
        """Write it below ``folder`` on disk, to run something in it."""
        for name, node in self._whole():
            path = folder / name
            if stat.S_ISDIR(node.mode):
                path.mkdir(mode=0o755)
            elif stat.S_ISLNK(node.mode):
                path.symlink_to(node.content.decode())
            else:
                path.write_bytes(node.content)
                path.chmod(stat.S_IMODE(node.mode))

    def build_cpio(self) -> bytes:
        """The archive, uncompressed."""
        out = bytearray()
        for number, (name, node) in enumerate(self._whole(), start=1):
            out += _record(name, node, number)
        out += _record(_END, Node(0), 0)
        return bytes(out)

    def _whole(self) -> list[tuple[str, Node]]:
        """All nodes, folders before what is in them."""
        nodes = dict(self._nodes)
        for name in self._nodes:
            while name := posixpath.dirname(name):
                nodes.setdefault(name, Node(stat.S_IFDIR | 0o755))
        return sorted(nodes.items(), key=lambda item: item[0].split("/"))


def _record(name: str, node: Node, inode: int) -> bytes:
    raw = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    fields = (inode, node.mode, 0, 0, links, 0, len(node.content), 0, 0, 0, 0, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % value for value in fields) + raw
    return _padded(head) + _padded(node.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGN)
