"""A block store in a local directory.

A file's content lies flat in one file, named by its root; only inner blocks are kept beside it, in the index, and
leaves are rebuilt from the flat file when they are asked for. So a put writes its content once, in constant memory.
Order of a put: content to a file under ``incoming/``, fsync, rename to ``content/``, fsync of that directory, commit
of the index, CID given. A crash before the commit leaves only files that the index does not name; they are removed
at the next start.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cloister.errors import NotFound, TooLarge, UnavailableError
from cloister.storage.cid import Block, Cid
from cloister.storage.content import Stat, Stored, parse_reference
from cloister.storage.index import Index, LeafPlace
from cloister.storage.reading import Entry, find_entry, load_entry, read_file
from cloister.storage.unixfs import Built, FileBuilder, Layout, build_directory

INLINE_CAP: Final = 64 * 1024
"""Files up to this size live in the index itself: one durable write and not three."""

_CONTENT_NAME: Final = re.compile(r"[0-9a-f]{64}")

_FLUSH_EVERY: Final = 64 * 1024 * 1024


class LocalStore:
    """A ``ContentStore`` in the directory ``root``, which is made when it is missing (mode 0700).

    ``max_file`` caps one put and ``quota`` everything stored, in bytes; ``None`` leaves it to the disk. Several
    threads and several processes may use one directory at once.
    """

    def __init__(
        self, root: Path, *, layout: Layout | None = None, max_file: int | None = None, quota: int | None = None
    ) -> None:
        self._root = root
        self._layout = layout or Layout()
        self._max_file = max_file
        self._quota = quota
        self._reserved = 0
        self._reserving = threading.Lock()
        with _disk_errors():
            for folder in (root, self._incoming, self._content):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._index = Index(root / "index.db")
        with _disk_errors():
            self._sweep()

    @property
    def _incoming(self) -> Path:
        return self._root / "incoming"

    @property
    def _content(self) -> Path:
        return self._root / "content"

    def close(self) -> None:
        """Close the index. Reads under way fail."""
        self._index.close()

    def put(self, chunks: Iterable[Block]) -> Stored:
        """Store a file from a stream; see ``ContentStore``.

        Raises:
            TooLarge: over ``max_file`` (``code`` ``too-large``) or ``quota`` (``code`` ``quota``).
            UnavailableError: the disk is full, gone or read-only.
        """
        with self.writer() as writer:
            for chunk in chunks:
                writer.write(chunk)
            return writer.commit()

    def writer(self, layout: Layout | None = None) -> LocalWriter:
        """Begin a put whose bytes come piece by piece; use it as a context manager."""
        return LocalWriter(self, layout or self._layout)

    def put_directory(self, entries: Mapping[str, Cid], *, cid_version: int | None = None) -> Stored:
        """Store a directory of content that this store holds.

        Raises:
            NotFound: an entry is not here.
            InputError: a name cannot stand in a directory.
            TooLarge: too many entries for one block, or the quota is reached.
        """
        children: dict[str, Built] = {}
        for name, cid in entries.items():
            child = load_entry(self, cid)
            children[name] = Built(cid, child.size, child.total_size)
        version = self._layout.cid_version if cid_version is None else cid_version
        built, block = build_directory(children, cid_version=version)
        with self.reserved(len(block)), self._index.transaction() as transaction:
            transaction.add_blocks([(built.cid.digest, block)])
            transaction.add_root(built.cid.digest, str(built.cid), built.size, used=len(block))
        return Stored(built.cid, built.size)

    def open(
        self, cid: Cid | str, *, offset: int = 0, length: int | None = None, cap: int | None = None
    ) -> Iterator[bytes]:
        """Yield a file's bytes, each block proven first; see ``ContentStore``."""
        return read_file(self, self.find(cid), offset=offset, length=length, cap=cap)

    def stat(self, cid: Cid | str) -> Stat:
        """Tell size and kind."""
        entry = self.find(cid)
        return Stat(entry.size, "directory" if entry.is_directory else "file")

    def find(self, reference: Cid | str) -> Entry:
        """The verified entry under a CID and path."""
        root, path = parse_reference(reference)
        return find_entry(self, root, path)

    def roots(self, *, after: str = "", limit: int = 1000) -> list[tuple[str, int]]:
        """CIDs and sizes of what was put, in the order of their digests; ``after`` is a digest in hex."""
        return self._index.roots(after=after, limit=limit)

    def count(self) -> int:
        """How many things were put."""
        return self._index.count()

    def used(self) -> int:
        """Bytes of all content."""
        return self._index.used()

    def get_block(self, cid: Cid) -> bytes:
        """One block, leaves included. The reader verifies it.

        Raises:
            NotFound: this store does not hold it.
            UnavailableError: the disk does not answer.
        """
        block = self._index.block(cid.digest)
        if block is not None:
            return block
        place = self._index.leaf(cid.digest)
        if place is None:
            raise NotFound(f"no content under {cid}", hint="it may never have been stored here")
        head, tail = Layout(raw_leaves=place.raw).leaf_frame(place.size)
        try:
            with _disk_errors():
                descriptor = os.open(self.content_path(place.file), os.O_RDONLY | os.O_CLOEXEC)
                try:
                    return head + os.pread(descriptor, place.size, place.position) + tail
                finally:
                    os.close(descriptor)
        except FileNotFoundError:
            raise UnavailableError(f"the content file of {cid} is gone", hint="store the content again") from None

    def content_path(self, digest: bytes) -> Path:
        """Where the flat content of a root lies."""
        return self._content / digest.hex()

    def check_ready(self) -> None:
        """Return when the store can take a put.

        Raises:
            UnavailableError: the index or the disk does not answer, or the quota is reached.
        """
        used = self._index.used()
        if self._quota is not None and used >= self._quota:
            raise UnavailableError("storage has reached its quota")
        if not os.access(self._incoming, os.W_OK):
            raise UnavailableError("storage is read-only")

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Hold ``size`` bytes of the quota while a put is under way.

        Raises:
            TooLarge: that much is not left (``code`` is ``quota``).
        """
        self.reserve(size)
        try:
            yield
        finally:
            self.release(size)

    def reserve(self, size: int) -> None:
        """Take ``size`` bytes of the quota; raises as :meth:`reserved`."""
        with self._reserving:
            if self._quota is not None and self._index.used() + self._reserved + size > self._quota:
                raise TooLarge(f"storage has reached its quota of {self._quota} bytes", code="quota")
            self._reserved += size

    def release(self, size: int) -> None:
        """Give back what :meth:`reserve` took."""
        with self._reserving:
            self._reserved -= size

    def check_file_size(self, size: int) -> None:
        """Refuse a file over ``max_file``."""
        if self._max_file is not None and size > self._max_file:
            raise TooLarge(f"content exceeds {self._max_file} bytes", hint="store it in parts")

    def create_incoming(self) -> tuple[Path, int]:
        """Make and lock a file for a put under way; the lock tells a sweep of another process that it is alive."""
        path = self._incoming / uuid.uuid4().hex
        with _disk_errors(), self._sweeping():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return path, descriptor

    def commit(
        self, built: Built, incoming: Path | None, blocks: list[tuple[bytes, bytes]], leaves: list[LeafPlace]
    ) -> None:
        """Make a put exist: its flat content (already on disk) moves to its place, then the index names it."""
        digest = built.cid.digest
        with self._index.transaction() as transaction, _disk_errors():
            if incoming is not None:
                # Also when the content is here already: the new bytes are proven, the old ones may have been damaged.
                incoming.replace(self.content_path(digest))
                _sync_directory(self._content)
                transaction.add_file(digest, built.size)
                transaction.add_leaves(leaves)
            transaction.add_blocks(blocks)
            transaction.add_root(digest, str(built.cid), built.size, used=built.size)

    @contextmanager
    def _sweeping(self) -> Iterator[None]:
        descriptor = os.open(self._root / "sweep.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _sweep(self) -> None:
        """Remove what crashed puts left: incoming files that nobody locks, content that the index does not name."""
        with self._sweeping():
            for path in self._incoming.iterdir():
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                except BlockingIOError:
                    pass  # a put of a living process
                finally:
                    os.close(descriptor)
        # Moves into content/ happen inside index transactions, so none can be half done while we hold one.
        with self._index.transaction() as transaction:
            for path in self._content.iterdir():
                if not (_CONTENT_NAME.fullmatch(path.name) and transaction.has_file(bytes.fromhex(path.name))):
                    path.unlink()


class LocalWriter:
    """A put under way. Write, then commit once; leaving the context without a commit removes every trace.

    For one thread at a time.
    """

    def __init__(self, store: LocalStore, layout: Layout) -> None:
        self._store = store
        self._layout = layout
        self._builder = FileBuilder(layout, on_leaf=self._take_leaf, on_node=self._take_node)
        self._blocks: list[tuple[bytes, bytes]] = []
        self._places: list[tuple[bytes, int, int]] = []
        self._incoming: Path | None = None
        self._descriptor = -1
        self._reserved = 0
        self._unflushed = 0
        self._flusher: threading.Thread | None = None
        self._flush_error: OSError | None = None

    def __enter__(self) -> LocalWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._builder.size

    def write(self, chunk: Block) -> None:
        """Take the next bytes.

        Raises: as :meth:`LocalStore.put`.
        """
        size = memoryview(chunk).nbytes
        self._store.check_file_size(self._builder.size + size)
        self._store.reserve(size)
        self._reserved += size
        self._builder.write(chunk)

    def commit(self) -> Stored:
        """Make the content durable and readable; return its name.

        Raises: as :meth:`LocalStore.put`.
        """
        built = self.commit_built()
        return Stored(built.cid, built.size)

    def commit_built(self) -> Built:
        """As :meth:`commit`, returning what a directory must know of its entry."""
        built = self._builder.finish()
        self._wait_flush()
        if self._incoming is not None:
            with _disk_errors():
                if self._flush_error is not None:  # the kernel reports a failed write once, and it was not to us
                    raise self._flush_error
                os.fsync(self._descriptor)
        leaves = [
            LeafPlace(digest, built.cid.digest, position, size, self._layout.raw_leaves)
            for digest, position, size in self._places
        ]
        self._store.commit(built, self._incoming, self._blocks, leaves)
        self._incoming = None
        return built

    def abort(self) -> None:
        """Remove every trace of a put that was not committed. Safe to call again, and after a commit."""
        self._wait_flush()
        if self._incoming is not None:
            with suppress(OSError):
                self._incoming.unlink()
            self._incoming = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._store.release(self._reserved)
        self._reserved = 0

    def _take_leaf(self, leaf: Built, content: memoryview) -> None:
        # A leaf that is not full is the last: without a file yet, it is the whole content.
        if self._incoming is None and leaf.size <= INLINE_CAP:
            head, tail = self._layout.leaf_frame(leaf.size)
            self._blocks.append((leaf.cid.digest, head + bytes(content) + tail))
            return
        if self._incoming is None:
            self._incoming, self._descriptor = self._store.create_incoming()
        position = self._places[-1][1] + self._places[-1][2] if self._places else 0
        self._places.append((leaf.cid.digest, position, leaf.size))
        with _disk_errors():
            rest = content
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._unflushed += leaf.size
        if self._unflushed >= _FLUSH_EVERY:
            self._flush()

    def _take_node(self, cid: Cid, block: bytes) -> None:
        self._blocks.append((cid.digest, block))

    def _flush(self) -> None:
        """Let the disk write while the next bytes are hashed; the fsync at the end then has little left to do."""
        self._unflushed = 0
        self._wait_flush()
        self._flusher = threading.Thread(target=self._sync, name="flush", daemon=True)
        self._flusher.start()

    def _sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._flush_error = error

    def _wait_flush(self) -> None:
        if self._flusher is not None:
            self._flusher.join()
            self._flusher = None


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UnavailableError("the disk is full", hint="free some space", code="disk-full") from error
        raise UnavailableError(f"the disk does not answer: {error.strerror}") from error
