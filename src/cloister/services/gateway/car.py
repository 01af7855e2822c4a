"""CAR files: a root and every block under it, in one stream (IPLD CARv1), for clients that verify what they get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

import cbor2

from cloister.errors import TooLarge
from cloister.storage.cid import Cid, Codec
from cloister.storage.dagpb import parse_node
from cloister.storage.reading import BlockSource
from cloister.storage.unixfs import Kind, parse_unixfs
from cloister.storage.varint import build_varint

_CID_TAG = 42
_SEEN_CAP = 1_000_000
"""Most different blocks in one answer: what was sent already is remembered, so that it is sent once."""


class Scope(StrEnum):
    """How much lies in a CAR (``dag-scope`` of the trustless gateway specification)."""

    ALL = "all"
    ENTITY = "entity"  # a whole file, or a directory without what is in it
    BLOCK = "block"


def build_car(source: BlockSource, root: Cid, *, way: Sequence[Cid] = (), scope: Scope = Scope.ALL) -> Iterator[bytes]:
    """Yield the CAR of what lies under ``root``, parents first, each block once and verified.

    ``way`` are the directories that led to ``root``, which prove its path.

    Raises:
        VerificationError, NotFound, UnavailableError: from the source.
        TooLarge: more than a million blocks.
    """
    # A CID inside dag-cbor is tag 42 over its bytes after a zero byte (the identity multibase).
    header = cbor2.dumps({"roots": [cbor2.CBORTag(_CID_TAG, b"\0" + root.raw)], "version": 1}, canonical=True)
    yield build_varint(len(header)) + header
    seen: set[bytes] = set()
    waiting = [root, *reversed(way)]
    ends = {cid.raw for cid in way}
    while waiting:
        cid = waiting.pop()
        if cid.raw in seen:
            continue
        if len(seen) >= _SEEN_CAP:
            raise TooLarge(f"content has more than {_SEEN_CAP} blocks")
        seen.add(cid.raw)
        block = source.get_block(cid)
        cid.verify_block(block)
        yield build_varint(len(cid.raw) + len(block)) + cid.raw
        yield block
        if cid.codec is not Codec.DAG_PB or scope is Scope.BLOCK or (cid.raw in ends and cid != root):
            continue
        node = parse_node(block)
        if scope is Scope.ALL or parse_unixfs(node).kind is not Kind.DIRECTORY:
            waiting += [link.cid for link in reversed(node.links)]
