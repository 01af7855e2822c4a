"""The transparency log: an append-only Merkle tree (RFC 9162) and the proofs that hold a service to its record.

Hashes are SHA-256, ``0x00`` before a leaf and ``0x01`` before two nodes. A *node* is the root of a complete subtree and
is named by ``(level, index)``: it covers the leaves from ``index << level`` up to ``(index + 1) << level``. A log keeps
every node; each root and proof is folded from at most some hundred of them, so nothing here costs more than O(log n).

A ``SignedHead`` is what the service signs: two of one size with different roots, or two that no consistency proof joins,
are proof that it told two stories.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from Crypto.Hash import keccak

from cloister.attestation.signers import recover_personal_signer
from cloister.errors import DecodeError, LocalError, VerificationError

HEAD_DOMAIN = b"cloister/tree-head/v1\x00"
MAX_SIZE = 2**53 - 1
"""Largest log, in leaves: sizes travel as JSON numbers."""
MAX_PATH = 128
"""Longest proof, in hashes. An inclusion proof has at most 53, a consistency proof one more than twice that."""
MAX_ENTRY = 4096
"""Longest entry of a log, in bytes."""

Node = tuple[int, int]
Range = tuple[int, int]
"""Leaves from the first number up to, and without, the second. The first is a multiple of the largest power of two
below the length, so that the range's hash is a fold of complete subtrees.
"""


def hash_leaf(entry: bytes) -> bytes:
    """RFC 9162 section 2.1.1: the hash of one entry."""
    return hashlib.sha256(b"\x00" + entry).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """RFC 9162 section 2.1.1: the hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a log without entries."""


# --- what a log does ---


def frontier(size: int) -> tuple[Node, ...]:
    """The nodes that a log of ``size`` leaves is folded from, largest first."""
    return _cover((0, size))


def grow(size: int, known: Mapping[Node, bytes], leaves: Iterable[bytes]) -> dict[Node, bytes]:
    """The nodes that ``leaves`` (hashes) add behind ``size`` leaves. ``known`` holds the frontier."""
    nodes: dict[Node, bytes] = {}
    for offset, leaf in enumerate(leaves):
        level, index, value = 0, size + offset, leaf
        nodes[level, index] = value
        while index & 1:
            left = level, index - 1
            value = hash_children(nodes[left] if left in nodes else known[left], value)
            level, index = level + 1, index >> 1
            nodes[level, index] = value
    return nodes


def fold_root(size: int, known: Mapping[Node, bytes]) -> bytes:
    """The root of the first ``size`` leaves. ``known`` holds their frontier."""
    return EMPTY_ROOT if size == 0 else _fold((0, size), known)


def inclusion_ranges(index: int, size: int) -> tuple[Range, ...]:
    """What an inclusion proof consists of, from the leaf upwards (RFC 9162 section 2.1.3.1)."""
    if not 0 <= index < size:
        raise LocalError(f"leaf {index} is not in a log of {size}")
    ranges: list[Range] = []
    first, last = 0, size
    while last - first > 1:
        middle = first + _split(last - first)
        if index < middle:
            ranges.append((middle, last))
            last = middle
        else:
            ranges.append((first, middle))
            first = middle
    return tuple(reversed(ranges))


def consistency_ranges(first: int, second: int) -> tuple[Range, ...]:
    """What a consistency proof consists of, from below upwards (RFC 9162 section 2.1.4.1)."""
    if not 0 < first <= second:
        raise LocalError(f"a log of {second} leaves has no proof of consistency with one of {first}")
    ranges: list[Range] = []
    start, end, whole = 0, second, True
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, whole = middle, False
    if not whole:
        ranges.append((start, end))
    return tuple(reversed(ranges))


def nodes_of(ranges: Iterable[Range]) -> frozenset[Node]:
    """The nodes that are needed to fold these ranges."""
    return frozenset(node for item in ranges for node in _cover(item))


def fold_ranges(ranges: Iterable[Range], known: Mapping[Node, bytes]) -> tuple[bytes, ...]:
    """The hash of each range: a proof."""
    return tuple(_fold(item, known) for item in ranges)


def _split(length: int) -> int:
    """The largest power of two below ``length``."""
    return 1 << (length - 1).bit_length() - 1


def _cover(leaves: Range) -> tuple[Node, ...]:
    """The complete subtrees that make up a range, largest first."""
    start, end = leaves
    nodes: list[Node] = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return tuple(nodes)


def _fold(leaves: Range, known: Mapping[Node, bytes]) -> bytes:
    *others, value = (known[node] for node in _cover(leaves))
    for left in reversed(others):
        value = hash_children(left, value)
    return value


# --- what a reader checks ---


def fold_path(entry: bytes, index: int, size: int, path: Iterable[bytes]) -> bytes:
    """The root of the log of ``size`` leaves in which ``entry`` is leaf ``index`` by this path (RFC 9162 section 2.1.3.2).

    Raises:
        VerificationError (``log-inclusion``): no such log can be.
    """
    pieces, value = list(path), hash_leaf(entry)
    sides = _sides(index, size - 1, pieces) if 0 <= index < size <= MAX_SIZE else None
    if sides is None:
        raise VerificationError("the proof does not fit the entry's place in the log", code="log-inclusion")
    for piece, stands_left in zip(pieces, sides, strict=True):
        value = hash_children(piece, value) if stands_left else hash_children(value, piece)
    return value


def verify_inclusion(entry: bytes, index: int, size: int, path: Iterable[bytes], root: bytes) -> None:
    """Prove that ``entry`` is leaf ``index`` of the log of ``size`` leaves with this root.

    Raises:
        VerificationError (``log-inclusion``): it is not, or the proof is of another form.
    """
    if not hmac.compare_digest(fold_path(entry, index, size, path), root):
        raise VerificationError("the entry is not proven to be in the log", code="log-inclusion")


def verify_consistency(first: int, second: int, path: Iterable[bytes], first_root: bytes, second_root: bytes) -> None:
    """Prove that the log of ``second`` leaves begins with the one of ``first`` (RFC 9162 section 2.1.4.2).

    Raises:
        VerificationError (``log-shrunk``): ``second`` is the smaller one; (``log-split``): the logs are not one.
    """
    if second < first:
        raise VerificationError(
            f"the log has {second} entries and had {first}: entries were taken away", code="log-shrunk"
        )
    refusal = VerificationError(
        f"the log of {second} entries is no continuation of the log of {first}: two stories are told", code="log-split"
    )
    proof = list(path)
    if first < 0 or second > MAX_SIZE:
        raise refusal
    if first in (0, second):
        expected = EMPTY_ROOT if first == 0 else second_root
        if proof or not hmac.compare_digest(first_root, expected):
            raise refusal
        return
    if first & (first - 1) == 0:
        proof.insert(0, first_root)
    position, last = first - 1, second - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    sides = _sides(position, last, proof[1:]) if proof else None
    if sides is None:
        raise refusal
    old = new = proof[0]
    for piece, stands_left in zip(proof[1:], sides, strict=True):
        if stands_left:
            old, new = hash_children(piece, old), hash_children(piece, new)
        else:
            new = hash_children(new, piece)
    if not (hmac.compare_digest(old, first_root) and hmac.compare_digest(new, second_root)):
        raise refusal


def _sides(position: int, last: int, path: list[bytes]) -> list[bool] | None:
    """On which side of the hash so far each piece of a path stands: left is True. None when the path is not as long as
    the way from ``position`` to the root above ``last``, or holds something else than hashes.
    """
    sides: list[bool] = []
    for piece in path:
        if last == 0 or len(piece) != 32:
            return None
        stands_left = bool(position & 1) or position == last
        if stands_left:
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        sides.append(stands_left)
        position, last = position >> 1, last >> 1
    return sides if last == 0 else None


# --- heads ---


@dataclass(frozen=True, slots=True)
class LogOrigin:
    """Whose log it is: chain id, hub and SMS (raw addresses of 20 bytes). One SMS has one log for each hub."""

    chain_id: int
    hub: bytes
    sms: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.chain_id < 2**256 or len(self.hub) != 20 or len(self.sms) != 20:
            raise LocalError("a log's origin is a chain id and two addresses of 20 bytes")


@dataclass(frozen=True, slots=True)
class SignedHead:
    """The state of a log: ``size`` leaves with this ``root`` at ``timestamp`` (unix seconds), signed by the SMS's identity.

    ``signature`` (65 bytes) is personal_sign over ``head_digest``. It proves nothing until ``verify_head`` has answered.
    """

    origin: LogOrigin
    size: int
    root: bytes
    timestamp: int
    signature: bytes


def head_digest(origin: LogOrigin, size: int, root: bytes, timestamp: int) -> bytes:
    """The 32 bytes that the SMS personal_signs: keccak256 of the domain and every field at a fixed width."""
    if not 0 <= size <= MAX_SIZE or len(root) != 32 or not 0 <= timestamp < 2**53:
        raise LocalError("a tree head is a size, a root of 32 bytes and unix seconds")
    fields = origin.chain_id.to_bytes(32, "big") + origin.hub + origin.sms
    return _keccak256(HEAD_DOMAIN + fields + size.to_bytes(8, "big") + root + timestamp.to_bytes(8, "big"))


def build_head(
    origin: LogOrigin, size: int, root: bytes, timestamp: int, sign_message: Callable[[bytes], bytes]
) -> SignedHead:
    """Sign a head; ``sign_message`` is personal_sign (EIP-191) by the SMS's key."""
    return SignedHead(origin, size, root, timestamp, sign_message(head_digest(origin, size, root, timestamp)))


def verify_head(head: SignedHead, origin: LogOrigin) -> SignedHead:
    """Return the head when it is of the log that the caller names and signed by its SMS.

    Raises:
        VerificationError: ``log-origin``, another log; ``log-head-signature``, signed by somebody else.
    """
    if head.origin != origin:
        raise VerificationError("the tree head is that of another log", code="log-origin")
    digest = head_digest(head.origin, head.size, head.root, head.timestamp)
    if recover_personal_signer(digest, head.signature, code="log-head-signature") != origin.sms:
        raise VerificationError("the tree head is not signed by the sms of this log", code="log-head-signature")
    return head


def check_path(path: object) -> tuple[bytes, ...]:
    """A proof as it was decoded: at most 128 hashes of 32 bytes.

    Raises:
        DecodeError (``log-proof``).
    """
    if not isinstance(path, list | tuple) or len(path) > MAX_PATH:
        raise DecodeError(f"a proof is not a list of at most {MAX_PATH} hashes", code="log-proof")
    pieces: list[bytes] = []
    for piece in path:
        if not isinstance(piece, bytes) or len(piece) != 32:
            raise DecodeError("a proof holds something else than hashes of 32 bytes", code="log-proof")
        pieces.append(piece)
    return tuple(pieces)


def _keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()
