"""Applying the layers of an image, one after the other, to the model of its file system; contents go to a folder, numbered.

What a layer may hold: files, folders, links, whiteouts. Devices and pipes are left out where a sandbox has its own
(``/dev``, ``/run``) and refused elsewhere. Set-user-id bits are dropped, and owners are: there is one user.

Source: OCI image-spec 1.1 (layer.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cloister.enclave.exact import ExactStream
from cloister.enclave.images.tarball import Entry, Kind, read_entries
from cloister.enclave.images.tree import Content, Tree, split_path
from cloister.errors import DecodeError, TooLarge, quoted

MAX_UNPACKED = 8 << 30
"""Bytes of all layers together, unpacked."""
MAX_ENTRIES = 500_000
"""Entries of all layers together."""

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_PLACES_OF_DEVICES = frozenset({"dev", "run"})


class Layers:
    """Takes layers, the lowest first. ``folder`` must exist and be empty."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_UNPACKED, max_entries: int = MAX_ENTRIES) -> None:
        self.folder = folder
        self.tree = Tree(self._drop)
        self._max_bytes = max_bytes
        self._bytes_left = max_bytes
        self._max_entries = max_entries
        self._entries_left = max_entries
        self._layer = 0
        self._numbers = 0

    def apply(self, chunks: Iterable[bytes]) -> None:
        """Take one layer, a tar.

        Raises:
            DecodeError: malformed, or something that no image needs. TooLarge: more bytes or entries than allowed.
            OSError: there is no room.
        """
        counted = self._count(chunks)
        for entry in read_entries(
            ExactStream(counted, self._max_bytes, "a layer of the image"), most=self._max_entries
        ):
            self._entries_left -= 1
            if self._entries_left < 0:
                raise TooLarge(f"the image's layers have more than {self._max_entries} entries")
            self._take(entry)
        for _ in counted:
            pass
        self._layer += 1

    def path(self, content: Content) -> Path:
        """Where a content is kept."""
        return self.folder / str(content.number)

    def add_text(self, path: str, text: str) -> None:
        """Put a file of ours where the image has none, or an empty one."""
        found = self.tree.find(path)
        if found is not None and getattr(getattr(found[1], "content", None), "size", 1) > 0:
            return
        content = self._content(0o644)
        content.size = self.path(content).write_bytes(text.encode())
        folder, _, name = path.rpartition("/")
        self.tree.add_file((*self.tree.make_directory(folder or "/"), name), content, self._layer)

    def _count(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        for chunk in chunks:
            self._bytes_left -= len(chunk)
            if self._bytes_left < 0:
                raise TooLarge(f"the image's layers unpack to more than {self._max_bytes} bytes", code="image-bomb")
            yield chunk

    def _take(self, entry: Entry) -> None:
        parts = split_path(entry.path)
        name = parts[-1] if parts else ""
        if name.startswith(_WHITEOUT):
            self._remove(parts, entry)
            return
        match entry.kind:
            case Kind.DIRECTORY:
                self.tree.add_directory(parts, entry.mode & 0o1777, self._layer)
            case Kind.FILE:
                self._write(parts, entry)
            case Kind.SYMLINK:
                if not entry.link:
                    raise DecodeError(f"the image's layer holds the empty link {quoted(entry.path)}", code="image-link")
                self.tree.add_symlink(parts, entry.link, self._layer)
            case Kind.HARDLINK:
                self.tree.add_hardlink(parts, split_path(entry.link), self._layer)
            case Kind.DEVICE | Kind.FIFO:
                if not parts or parts[0] not in _PLACES_OF_DEVICES:
                    raise DecodeError(
                        f"the image's layer holds the {entry.kind} {quoted(entry.path)}", code="image-device"
                    )

    def _remove(self, parts: tuple[str, ...], entry: Entry) -> None:
        name = parts[-1]
        if name == _OPAQUE:
            self.tree.clear_lower(parts[:-1], self._layer)
        elif name.startswith(_WHITEOUT * 2):
            return  # bookkeeping of an old storage driver
        else:
            (hidden,) = split_path(name.removeprefix(_WHITEOUT)) or ("",)
            if not hidden:
                raise DecodeError(f"the image's layer holds the whiteout {quoted(entry.path)}", code="image-path")
            self.tree.remove_lower((*parts[:-1], hidden), self._layer)

    def _write(self, parts: tuple[str, ...], entry: Entry) -> None:
        content = self._content(entry.mode)
        content.size = entry.size
        # The name is our own number, so nothing that an image says is a path here.
        with self.path(content).open("xb") as file:
            for piece in entry.content():
                file.write(piece)
        self.tree.add_file(parts, content, self._layer)

    def _content(self, mode: int) -> Content:
        self._numbers += 1
        return Content(self._numbers, 0, mode & 0o777)

    def _drop(self, number: int) -> None:
        (self.folder / str(number)).unlink(missing_ok=True)
