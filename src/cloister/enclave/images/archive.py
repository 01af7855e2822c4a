"""Taking an OCI archive (a tar of an image layout) from a host that is not trusted: every blob is proved by its own name.

The archive's order, index file and reference names decide nothing. A blob is kept under the digest of its bytes, and an
image is then read from the one digest that the chain names.

Source: OCI image-spec 1.1 (image-layout.md).
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from cloister.enclave.bundle import BLOCK
from cloister.enclave.exact import ExactStream
from cloister.enclave.images.tarball import Entry, Kind, read_entries
from cloister.errors import DecodeError, TooLarge, VerificationError, quoted
from cloister.protocol.images import DOCUMENT_CAP, Descriptor, Packing

MAX_ARCHIVE = 4 << 30
"""Bytes of an archive, as it is stored."""
MAX_BLOBS = 1024
_OTHER_CAP = 4 << 20
"""Bytes of a file of the layout that is no blob."""
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_OTHERS = frozenset({"oci-layout", "index.json", "manifest.json", "repositories"})
_DIRECTORIES = frozenset({"", "blobs", "blobs/sha256"})
_PIECE = 1 << 20
_GZIP = 31
"""Window and header of zlib: gzip only."""


def looks_like_archive(start: bytes) -> bool:
    """Whether a tar that begins with these bytes is an OCI archive; a bundle begins with its manifest."""
    name = start[:100].split(b"\0", 1)[0].removeprefix(b"./").rstrip(b"/")
    if len(start) < BLOCK or start[257:262] != b"ustar":
        return False
    return name in (b"", b"blobs", b"oci-layout", b"index.json") or name.startswith(b"blobs/")


class Blobs:
    """Blobs in a folder of the enclave's memory, each under the hex of the SHA-256 that its bytes have."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, digest: str, size: int | None = None) -> bytes:
        """A document at once.

        Raises:
            VerificationError: it is not there, or has another size. TooLarge: it is no document.
        """
        path = self._find(digest, size)
        if path.stat().st_size > DOCUMENT_CAP:
            raise TooLarge(f"the image's document {digest} is larger than {DOCUMENT_CAP} bytes")
        return path.read_bytes()

    def open_layer(self, layer: Descriptor, packing: Packing) -> Iterator[bytes]:
        """The tar of a layer.

        Raises:
            VerificationError: it is not there, or has another size. DecodeError: it does not unpack.
        """
        path = self._find(layer.digest, layer.size)
        return _pieces(path) if packing is Packing.PLAIN else _gunzip(_pieces(path))

    def drop(self, digest: str) -> None:
        """Give back the memory of a blob that is not needed any more."""
        (self._folder / digest).unlink(missing_ok=True)

    def _find(self, digest: str, size: int | None) -> Path:
        path = self._folder / digest
        if not path.is_file():
            raise VerificationError(f"the archive has nothing of the digest {digest}", code="image-digest")
        if size is not None and path.stat().st_size != size:
            raise VerificationError(
                f"{digest} has {path.stat().st_size} bytes instead of the {size} that the image names",
                code="image-size",
            )
        return path


def receive_blobs(chunks: Iterable[bytes], folder: Path, *, max_bytes: int = MAX_ARCHIVE) -> Blobs:
    """Write the blobs of an archive to ``folder``, a new directory.

    Raises:
        DecodeError: not such an archive. TooLarge: more bytes or blobs than allowed. VerificationError: a blob is not what
        its name says. OSError: there is no room.
    """
    folder.mkdir(mode=0o700)
    for entry in read_entries(ExactStream(chunks, max_bytes, "the image"), most=MAX_BLOBS):
        path = entry.path.removeprefix("./").rstrip("/")
        if entry.kind is Kind.DIRECTORY and path in _DIRECTORIES | {"."}:
            continue
        if entry.kind is not Kind.FILE:
            raise DecodeError(f"the image's archive holds the {entry.kind} {quoted(entry.path)}")
        blob = _BLOB.fullmatch(path)
        if blob is not None:
            _receive(entry, folder / blob.group(1))
        elif path not in _OTHERS:
            raise DecodeError(f"the image's archive holds {quoted(entry.path)}, which is no part of an image layout")
        elif entry.size > _OTHER_CAP:
            raise TooLarge(f"{quoted(entry.path)} of the image's archive has {entry.size} bytes")
    return Blobs(folder)


def _receive(entry: Entry, path: Path) -> None:
    digest = hashlib.sha256()
    try:
        with path.open("xb") as file:
            for piece in entry.content():
                digest.update(piece)
                file.write(piece)
    except FileExistsError as error:
        raise DecodeError(f"the image's archive holds the blob {path.name} twice") from error
    if digest.hexdigest() != path.name:
        raise VerificationError(
            f"a blob of the image has the digest {digest.hexdigest()} instead of {path.name}", code="image-digest"
        )


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _gunzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack one or more gzip members, never holding more than a piece of what comes out."""
    unpacker = zlib.decompressobj(_GZIP)
    begun = False
    try:
        for chunk in chunks:
            held = chunk
            while held:
                if unpacker.eof:
                    unpacker, begun = zlib.decompressobj(_GZIP), False
                piece = unpacker.decompress(held, _PIECE)
                held = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
                begun = True
                if piece:
                    yield piece
        # What zlib still keeps back comes without more input.
        while not unpacker.eof and (piece := unpacker.decompress(unpacker.unconsumed_tail, _PIECE)):
            yield piece
    except zlib.error as error:
        raise DecodeError(f"a layer of the image does not unpack: {quoted(str(error))}") from error
    if not begun or not unpacker.eof:
        raise DecodeError("a layer of the image is cut short")
