"""One ``/api/v0/add``: a multipart body becomes files and directories in the store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from cloister.errors import InputError, TooLarge, quoted
from cloister.services.gateway.multipart import Event, MultipartParser, PartBegins, PartData, PartEnds
from cloister.storage.cid import Block
from cloister.storage.local import LocalStore, LocalWriter
from cloister.storage.unixfs import CHUNK_SIZE, Built, FileBuilder, Layout, build_directory, check_name

DEPTH_CAP: Final = 32
"""Deepest directory in an upload."""

_METADATA: Final = re.compile(r"[?&]m(ode|time|time-nsecs)=")
"""Kubo's clients write them behind a part's name; they would change the CID."""

_DIRECTORY_TYPE: Final = "application/x-directory"


@dataclass(frozen=True, slots=True)
class AddOptions:
    """Kubo's options of ``add`` that change what is stored."""

    layout: Layout = field(default_factory=Layout)
    only_hash: bool = False
    wrap: bool = False

    @classmethod
    def parse(
        cls,
        *,
        cid_version: int,
        raw_leaves: bool | None,
        only_hash: bool,
        wrap: bool,
        chunker: str,
        hash_name: str,
    ) -> AddOptions:
        """Check the options as the query gives them.

        Raises:
            InputError: one that would change the CID in a way this gateway does not build.
        """
        if chunker not in ("", f"size-{CHUNK_SIZE}"):
            raise InputError(f"chunker {quoted(chunker)} is not supported", hint=f"size-{CHUNK_SIZE} is")
        if hash_name not in ("", "sha2-256"):
            raise InputError(f"hash {quoted(hash_name)} is not supported", hint="sha2-256 is")
        raw = cid_version == 1 if raw_leaves is None else raw_leaves
        return cls(Layout(cid_version, raw_leaves=raw), only_hash, wrap)


PROGRESS_STEP: Final = 256 * 1024
"""Bytes between two reports on a file, as Kubo has them."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How many bytes of a file were taken in."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Added:
    """One line of the answer: the name in the upload, and what it became."""

    name: str
    built: Built


class _Hasher:
    """Stands where a writer does when only the CID is wanted."""

    def __init__(self, layout: Layout) -> None:
        self._builder = FileBuilder(layout)

    def write(self, chunk: Block) -> None:
        self._builder.write(chunk)

    def commit(self) -> Built:
        return self._builder.finish()

    def abort(self) -> None: ...


class _Keeper:
    """A writer of the store, giving what a directory needs to know of its entries."""

    def __init__(self, writer: LocalWriter) -> None:
        self._writer = writer
        self.write = writer.write
        self.abort = writer.abort

    def commit(self) -> Built:
        try:
            return self._writer.commit_built()
        finally:
            self._writer.abort()


_Tree = dict[str, "Built | _Tree"]


class Adding:
    """Takes the body piece by piece. Call ``abort`` in every case; files complete before stay, as on an IPFS node."""

    def __init__(
        self, store: LocalStore, options: AddOptions, boundary: bytes, *, max_files: int, progress: bool = False
    ) -> None:
        self._store = store
        self._options = options
        self._max_files = max_files
        self._parser = MultipartParser(boundary)
        self._target: _Hasher | _Keeper | None = None
        self._path = ""
        self._tree: _Tree = {}
        self._parts = 0
        self._events: list[Progress | Added] = []
        self._progress = progress
        self._taken = self._told = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            DecodeError: not multipart. InputError: a name that cannot be stored. TooLarge: a cap or quota.
            UnavailableError: the disk.
        """
        for event in self._parser.feed(data):
            self._handle(event)

    def take_events(self) -> list[Progress | Added]:
        """Return what happened since the last call: files in their order, then directories, the outermost last."""
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        """Store the directories.

        Raises: as :meth:`feed`; also InputError when there was no file at all.
        """
        self._parser.finish()
        if not self._parts:
            raise InputError("the upload holds no file", hint='send a part with name="file"')
        for name, value in self._tree.items():
            if isinstance(value, dict):
                self._tree[name] = self._store_tree(value, name)
        if self._options.wrap:
            self._store_tree(self._tree, "")

    def abort(self) -> None:
        """Drop the file that was not complete."""
        if self._target is not None:
            self._target.abort()
            self._target = None

    def _handle(self, event: Event) -> None:
        match event:
            case PartBegins():
                self._begin(event)
            case PartData(data):
                if self._target is not None:
                    self._target.write(data)
                    self._report(len(data))
                elif data.strip():
                    raise InputError(f"directory {quoted(self._path)} has content")
            case PartEnds():
                if self._target is not None:
                    self._report(0, ended=True)
                    target, self._target = self._target, None
                    self._place(target.commit())

    def _report(self, size: int, *, ended: bool = False) -> None:
        """Note every step of a file, and its end."""
        self._taken += size
        if not self._progress:
            return
        while self._taken - self._told >= PROGRESS_STEP:
            self._told += PROGRESS_STEP
            self._events.append(Progress(self._path, self._told))
        if ended:
            self._events.append(Progress(self._path, self._taken))

    def _begin(self, part: PartBegins) -> None:
        self._parts += 1
        self._taken = self._told = 0
        if self._parts > self._max_files:
            raise TooLarge(f"the upload has more than {self._max_files} files")
        names = [name for name in part.filename.split("/") if name not in ("", ".")]
        if len(names) > DEPTH_CAP:
            raise InputError(f"path is deeper than {DEPTH_CAP}: {quoted(part.filename)}")
        for name in names:
            check_name(name)
        if _METADATA.search(part.name):
            raise InputError("mode and mtime of files are not stored", hint="leave them out")
        self._path = "/".join(names)
        if part.content_type == _DIRECTORY_TYPE:
            self._folder(names)
        elif part.content_type in ("application/symlink", "application/x-symlink"):
            raise InputError(f"symbolic links are not stored: {quoted(part.filename)}")
        elif self._options.only_hash:
            self._target = _Hasher(self._options.layout)
        else:
            self._target = _Keeper(self._store.writer(self._options.layout))

    def _place(self, built: Built) -> None:
        *folders, name = self._path.split("/") if self._path else [str(built.cid)]
        folder = self._folder(folders)
        if folder.get(name, built) != built or (self._path and name in folder):
            raise InputError(f"the upload has {quoted(self._path)} twice")
        folder[name] = built
        self._events.append(Added(self._path or name, built))

    def _folder(self, names: list[str]) -> _Tree:
        place = self._tree
        for name in names:
            inner = place.setdefault(name, {})
            if not isinstance(inner, dict):
                raise InputError(f"{quoted(name)} is both a file and a directory")
            place = inner
        return place

    def _store_tree(self, tree: _Tree, path: str) -> Built:
        children = dict(self._children(tree, path))
        version = self._options.layout.cid_version
        built, _ = build_directory(children, cid_version=version)
        if not self._options.only_hash:
            self._store.put_directory({name: child.cid for name, child in children.items()}, cid_version=version)
        self._events.append(Added(path, built))
        return built

    def _children(self, tree: _Tree, path: str) -> Iterator[tuple[str, Built]]:
        for name, value in tree.items():
            inner = f"{path}/{name}" if path else name
            yield name, self._store_tree(value, inner) if isinstance(value, dict) else value
