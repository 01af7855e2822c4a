"""Where content lies, as contracts hold it (reference: iExec DataProtector; multiformats/multiaddr).

IPFS content is the multiaddr ``/p2p/<multihash>`` (code 421; ``/ipfs/`` is its older name with the same bytes),
which names no codec: only dag-pb content fits. Every other location is its own UTF-8 text: a URL, an image name.
"""

from __future__ import annotations

from cloister.errors import DecodeError, InputError, quoted
from cloister.storage.cid import DIGEST_LENGTH, MULTIHASH_PREFIX, Cid, Codec
from cloister.storage.varint import build_varint

TEXT_CAP = 2048
"""Longest location in bytes of UTF-8."""

_P2P = build_varint(421) + bytes([len(MULTIHASH_PREFIX) + DIGEST_LENGTH])


def build_multiaddr(location: str) -> bytes:
    """Encode ``/ipfs/<cid>``, ``/p2p/<cid>``, or any other location as its UTF-8 text.

    A version 1 dag-pb CID becomes the multihash it holds, and is read back as version 0: the same block.

    Raises:
        InputError: empty, too long, not printable, or IPFS content that a multiaddr cannot name.
        DecodeError: no CID after ``/ipfs/``.
    """
    if location.startswith(("/ipfs/", "/p2p/")):
        name = location.split("/", 2)[2]
        if "/" in name:
            raise InputError(f"a multiaddr cannot name a path inside content: {quoted(location)}")
        cid = Cid.parse(name)
        if cid.codec is not Codec.DAG_PB:
            raise InputError(
                f"a multiaddr cannot name raw content: {quoted(location)}", hint="store it with dag-pb leaves (Qm…)"
            )
        return _P2P + cid.multihash
    data = location.encode("utf-8", "surrogatepass")
    if not location or len(data) > TEXT_CAP:
        raise InputError(f"a location has 1 to {TEXT_CAP} bytes, not {len(data)}")
    if location.startswith("/") or not location.isprintable():
        raise InputError(f"not a location: {quoted(location)}", hint="/ipfs/<cid>, a url or an image name")
    return data


def parse_multiaddr(data: bytes) -> str:
    """Decode to ``/ipfs/Qm…`` or to the text that was stored.

    Raises:
        DecodeError: neither.
    """
    prefix = _P2P + MULTIHASH_PREFIX
    if data.startswith(prefix) and len(data) == len(prefix) + DIGEST_LENGTH:
        return f"/ipfs/{Cid(0, Codec.DAG_PB, data[len(prefix) :])}"
    if not data or len(data) > TEXT_CAP:
        raise DecodeError(f"a multiaddr has 1 to {TEXT_CAP} bytes, not {len(data)}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable():
        raise DecodeError(f"multiaddr is of no kind that is understood: 0x{data[:40].hex()}")
    return text
