"""A block store behind HTTP: a Kubo node, or the gateway service, or any IPFS gateway for reading.

The peer is not trusted. What is stored is hashed on the way out and the peer's CID must agree; what is read is
proven leaf by leaf before it is yielded. Inner blocks come one by one (``?format=raw``, trustless gateway
specification), the content itself as one ranged stream, so a large read costs one request per 45 MiB beside the stream.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from cloister.errors import RemoteError, VerificationError, quoted
from cloister.protocol.codec import parse_json
from cloister.storage.cid import Block, Cid, Codec
from cloister.storage.content import Stat, Stored, parse_reference
from cloister.storage.dagpb import BLOCK_CAP
from cloister.storage.reading import Entry, Piece, check_range, find_entry, load_child, load_entry, pieces, read_file
from cloister.storage.unixfs import CHUNK_SIZE, Built, FileBuilder, Layout, build_directory
from cloister.transport import Http

_ANSWER_CAP: Final = 64 * 1024
_IDLE_SECONDS: Final = 30.0
_COMMIT_SECONDS: Final = 300.0
"""How long a node may take, after the last byte of an upload, to make it durable."""

_LEAF_OVERHEAD: Final = 32
"""A leaf's block is at most this much longer than its content; an inner node's subtree is longer than that."""

_SEND_SIZE: Final = 1024 * 1024


class KuboStore:
    """A ``ContentStore`` on a node's RPC (``api_url``, for writing) and a gateway (``gateway_url``, for reading).

    Both must see the same blocks. Reads raise ``VerificationError`` for any byte that is not the CID's, ``TooLarge`` at
    ``cap``, and ``UnavailableError`` for a peer that is gone, stalls for 30 seconds or drips.
    """

    def __init__(self, api_url: str, gateway_url: str | None = None, *, layout: Layout | None = None) -> None:
        self._api = Http(api_url, timeout=_IDLE_SECONDS)
        self._gateway = Http(gateway_url or api_url, timeout=_IDLE_SECONDS)
        self._layout = layout or Layout()

    def close(self) -> None:
        """Close idle connections."""
        self._api.close()
        self._gateway.close()

    def put(self, chunks: Iterable[Block]) -> Stored:
        """Upload a file as it streams; see ``ContentStore``.

        Raises:
            VerificationError: the node names the content otherwise than we do: it stored other bytes.
            RemoteError: its answer is of no use.
        """
        builder = FileBuilder(self._layout)

        def tee() -> Iterator[bytes]:
            for chunk in chunks:
                builder.write(chunk)
                view = memoryview(chunk).cast("B")
                for start in range(0, len(view), _SEND_SIZE):
                    yield bytes(view[start : start + _SEND_SIZE])

        rows = self._add(_File("", tee()))
        built = builder.finish()
        _expect(rows, "", built.cid)
        return Stored(built.cid, built.size)

    def put_directory(self, entries: Mapping[str, Cid]) -> Stored:
        """Store a directory of content that the node holds.

        The RPC has no call that only links, so entries are read back, proven and sent once more inside the
        directory. Use it for small directories; an archive is better for large ones.

        Raises:
            NotFound: an entry is not there. InputError: a name cannot stand in a directory.
            DecodeError: an entry is itself a directory with content of another layout than this store's.
        """
        children: dict[str, Built] = {}
        files: list[_File] = []
        for name, cid in entries.items():
            child = load_entry(self, cid)
            children[name] = Built(cid, child.size, child.total_size)
            files += self._files_under(name, child)
        built, _ = build_directory(children, cid_version=self._layout.cid_version)
        if files:
            _expect(self._add(*files, wrap=True), "", built.cid)
        else:  # there is nothing to wrap, so it is sent by name
            _expect(self._add(_File("empty", None)), "empty", built.cid)
        return Stored(built.cid, built.size)

    def open(
        self, cid: Cid | str, *, offset: int = 0, length: int | None = None, cap: int | None = None
    ) -> Iterator[bytes]:
        """Yield a file's bytes, each proven first; see ``ContentStore``."""
        entry = self.find(cid)
        start, end = check_range(entry, offset, length, cap)
        return self._read(entry, start, end)

    def unverified_open(self, cid: Cid | str, *, cap: int) -> Iterator[bytes]:
        """Yield what the gateway sends, proving nothing: for layouts that :meth:`open` refuses, when the caller has a
        hash of the content and checks it.

        Raises:
            TooLarge, NotFound, UnavailableError.
        """
        root, path = parse_reference(cid)
        with self._gateway.stream("GET", _content_path(root, path), max_response=cap) as answer:
            yield from answer.chunks

    def stat(self, cid: Cid | str) -> Stat:
        """Tell size and kind."""
        entry = self.find(cid)
        return Stat(entry.size, "directory" if entry.is_directory else "file")

    def find(self, reference: Cid | str) -> Entry:
        """The verified entry under a CID and path."""
        root, path = parse_reference(reference)
        return find_entry(self, root, path)

    def get_block(self, cid: Cid) -> bytes:
        """One block, as the gateway gives it; whoever uses it verifies it."""
        headers = {"accept": "application/vnd.ipld.raw"}
        answer = self._gateway.raw(
            "GET", f"/ipfs/{cid}", query={"format": "raw"}, headers=headers, max_response=BLOCK_CAP
        )
        return answer.body

    def check_ready(self) -> None:
        """Return when the node answers.

        Raises:
            UnavailableError: it does not.
        """
        self._api.json("POST", "/api/v0/version", repeatable=True)

    def _read(self, entry: Entry, start: int, end: int) -> Iterator[bytes]:
        if not entry.links or start == end:  # the whole content is at hand already
            yield from read_file(self, entry, offset=start, length=end - start)
            return
        leaves = self._leaves(entry, 0, start, end, 0)
        first = next(leaves)
        with closing(_Streamed(self._gateway, entry.cid, first.offset, entry.size)) as stream:
            piece: Piece | None = first
            while piece is not None:
                data = stream.take(piece.size)
                self._verify_piece(piece, data)
                yield data[max(start - piece.offset, 0) : end - piece.offset]
                piece = next(leaves, None)

    def _leaves(self, entry: Entry, position: int, start: int, end: int, depth: int) -> Iterator[Piece]:
        """The leaves that a range touches, in order; only inner blocks are fetched."""
        for piece in pieces(entry, position):
            if piece.offset >= end:
                return
            if piece.offset + piece.size <= start:
                continue
            if piece.link is None or _looks_like_leaf(piece):
                yield piece
            else:
                child = load_child(self, piece, depth)
                if child.links:
                    yield from self._leaves(child, piece.offset, start, end, depth + 1)
                else:
                    yield piece

    def _verify_piece(self, piece: Piece, data: bytes) -> None:
        """Prove that ``data`` is the content under the piece's link.

        A leaf is first tried in the two forms that nodes write; another form is fetched as a block and compared.
        """
        link = piece.link
        if data == piece.inline if link is None else _is_leaf_of(link.cid, data):
            return
        if link is None:
            raise _other_bytes(piece)
        whole = load_entry(self, link.cid)
        if whole.is_directory or b"".join(read_file(self, whole, cap=BLOCK_CAP)) != data:
            raise _other_bytes(piece)

    def _files_under(self, name: str, entry: Entry) -> list[_File]:
        if not entry.is_directory:
            return [_File(name, read_file(self, entry))]
        files = [_File(name, None)]
        for link in entry.links:
            files += self._files_under(f"{name}/{link.name}", load_entry(self, link.cid))
        return files

    def _add(self, *files: _File, wrap: bool = False) -> list[dict[str, object]]:
        boundary = f"cloister-{os.urandom(16).hex()}"
        answer = self._api.raw(
            "POST",
            "/api/v0/add",
            query={
                "stream-channels": True,
                "progress": False,
                "pin": True,
                "cid-version": self._layout.cid_version,
                "raw-leaves": self._layout.raw_leaves,
                "chunker": f"size-{CHUNK_SIZE}",
                "wrap-with-directory": True if wrap else None,
            },
            body=_multipart(files, boundary),
            headers={"content-type": f"multipart/form-data; boundary={boundary}"},
            timeout=_COMMIT_SECONDS,
            max_response=_ANSWER_CAP + 1024 * len(files),
        )
        rows = [parse_json(line, cap=_ANSWER_CAP) for line in answer.body.splitlines() if line.strip()]
        return [row for row in rows if isinstance(row, dict)]


@dataclass(frozen=True, slots=True)
class _File:
    """A part of an upload; no chunks mean a directory."""

    path: str
    chunks: Iterable[bytes] | None


class _Streamed:
    """The content's bytes from a position on, as one ranged request, opened when the first are taken."""

    def __init__(self, gateway: Http, cid: Cid, position: int, size: int) -> None:
        self._position = position
        self._chunks = _ranged(gateway, cid, position, size)
        self._rest = memoryview(b"")

    def close(self) -> None:
        self._chunks.close()

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes, as the peer sent them."""
        parts: list[memoryview] = []
        missing = size
        while missing:
            if not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    raise VerificationError(f"content ended {missing} bytes early", hint="storage sent too little")
                self._rest = memoryview(chunk)
            part = self._rest[:missing]
            self._rest = self._rest[len(part) :]
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)


def _ranged(gateway: Http, cid: Cid, position: int, size: int) -> Generator[bytes, None, None]:
    headers = {"range": f"bytes={position}-"} if position else {}
    with gateway.stream("GET", f"/ipfs/{cid}", headers=headers, max_response=size) as answer:
        skip = position if answer.status == 200 else 0  # a gateway may ignore ranges
        for chunk in answer.chunks:
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            yield chunk[skip:]
            skip = 0


def _other_bytes(piece: Piece) -> VerificationError:
    return VerificationError(
        f"the bytes at {piece.offset} are not those of the content", hint="storage gave other or damaged bytes"
    )


def _looks_like_leaf(piece: Piece) -> bool:
    """Guess from the parent's words whether a link is a leaf; the guess costs speed and never trust."""
    link = piece.link
    if link is None or link.cid.codec is Codec.RAW:
        return True
    return piece.size <= BLOCK_CAP and link.total_size - piece.size <= _LEAF_OVERHEAD


def _is_leaf_of(cid: Cid, data: bytes) -> bool:
    layout = Layout(raw_leaves=cid.codec is Codec.RAW)
    head, tail = layout.leaf_frame(len(data))
    return any(Cid.of_block(form).digest == cid.digest for form in (head + data + tail, _typed_raw(head) + data + tail))


def _typed_raw(head: bytes) -> bytes:
    """The same frame with UnixFS type Raw in place of File: what older nodes wrote for leaves."""
    return head.replace(b"\x08\x02", b"\x08\x00", 1)


def _content_path(root: Cid, path: str) -> str:
    return f"/ipfs/{root}" + (f"/{quote(path)}" if path else "")


def _multipart(files: Iterable[_File], boundary: str) -> Iterator[bytes]:
    for file in files:
        kind = "application/octet-stream" if file.chunks is not None else "application/x-directory"
        name = quote(file.path, safe="")
        yield (
            f"--{boundary}\r\n"
            f'content-disposition: form-data; name="file"; filename="{name}"\r\n'
            f"content-type: {kind}\r\n\r\n"
        ).encode("ascii")
        if file.chunks is not None:
            yield from file.chunks
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode("ascii")


def _expect(rows: list[dict[str, object]], name: str, cid: Cid) -> None:
    """Find our line in the node's answer and check that it names the same content.

    The last line is the outermost; a lone file without a name goes by its CID.
    """
    row = next((row for row in reversed(rows) if row.get("Name") in (name, row.get("Hash"))), None)
    if row is None or not isinstance(row.get("Hash"), str):
        raise RemoteError("the node's answer to an upload names no content")
    stored = Cid.parse(str(row["Hash"]))
    if stored.digest != cid.digest or stored.codec is not cid.codec:
        raise VerificationError(
            f"the node stored {quoted(stored)}, what was sent is {cid}", hint="the upload was changed on its way"
        )
