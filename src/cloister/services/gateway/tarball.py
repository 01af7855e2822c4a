"""TAR archives of a file or of everything under a directory, as they stream (POSIX pax)."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from cloister.errors import TooLarge
from cloister.storage.reading import PATH_CAP, BlockSource, Entry, load_entry, read_file
from cloister.storage.unixfs import check_name

ENTRIES_CAP: Final = 100_000
"""Most files and directories of one archive: a small directory may name one block very often."""

_DEEPEST: Final = PATH_CAP
_BLOCK: Final = 512
_END: Final = bytes(2 * _BLOCK)


def build_tar(source: BlockSource, entry: Entry, name: str) -> Iterator[bytes]:
    """Yield the archive of ``entry`` under ``name``.

    Raises:
        VerificationError, DecodeError, NotFound, UnavailableError: from the source.
        InputError: a name that cannot stand in a directory. TooLarge: too many or too deep entries.
    """
    check_name(name)
    waiting = [(name, entry.cid)]
    written = 0
    while waiting:
        path, cid = waiting.pop()
        item = load_entry(source, cid)
        written += 1
        if written > ENTRIES_CAP or path.count("/") > _DEEPEST:
            raise TooLarge(f"content has more than {ENTRIES_CAP} entries, or is too deep for an archive")
        yield _head(path, item)
        if item.is_directory:
            for link in reversed(item.links):
                check_name(link.name)
                waiting.append((f"{path}/{link.name}", link.cid))
        else:
            yield from read_file(source, item)
            yield bytes(-item.size % _BLOCK)
    yield _END


def gzipped(chunks: Iterable[bytes], *, level: int) -> Iterator[bytes]:
    """Compress a stream (gzip)."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for chunk in chunks:
        yield compressor.compress(chunk)
    yield compressor.flush()


def _head(path: str, entry: Entry) -> bytes:
    info = tarfile.TarInfo(path)
    if entry.is_directory:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    else:
        info.size, info.mode = entry.size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
