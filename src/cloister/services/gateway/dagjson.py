"""Blocks as DAG-JSON (IPLD specification): bytes as unpadded base64 and links as CIDs, each under the key ``/``."""

from __future__ import annotations

import base64

from cloister.storage.cid import Cid, Codec
from cloister.storage.dagpb import parse_node


def describe_block(cid: Cid, block: bytes) -> dict[str, object]:
    """Return a verified block as DAG-JSON values.

    Raises:
        DecodeError: it says that it is dag-pb and is not.
    """
    if cid.codec is Codec.RAW:
        return _bytes(block)
    node = parse_node(block)
    links = [{"Hash": describe_link(link.cid), "Name": link.name, "Tsize": link.total_size} for link in node.links]
    return ({} if node.data is None else {"Data": _bytes(node.data)}) | {"Links": links}


def describe_link(cid: Cid) -> dict[str, object]:
    """A CID as a link."""
    return {"/": str(cid)}


def _bytes(raw: bytes) -> dict[str, object]:
    return {"/": {"bytes": base64.b64encode(raw).decode("ascii").rstrip("=")}}
