"""The files of a bulk request: a root that lists slices, and slices that list dataset orders (reference 5.5).

Whoever requests writes them, so nothing in them is believed beyond what its CID proves.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloister.errors import CloisterError, DecodeError
from cloister.protocol.codec import Bytes32, parse_json
from cloister.protocol.deals import Deal
from cloister.protocol.eip712 import Domain
from cloister.protocol.orders import DatasetOrder, OrderKind, parse_order
from cloister.protocol.params import parse_params
from cloister.storage.cid import Cid

FILE_CAP = 1 << 20
"""Largest root or slice, bytes."""


@dataclass(frozen=True, slots=True)
class SliceOrder:
    """A dataset order of a slice and its hash."""

    order: DatasetOrder
    order_hash: Bytes32


def bulk_root(deal: Deal) -> str | None:
    """The CID of a deal's root file; None for a deal that is no bulk, or whose params name no CID."""
    if deal.has_dataset:
        return None
    try:
        root = parse_params(deal.params, allow_unknown=True).bulk_cid
        return None if root is None else _cid(root)
    except CloisterError:
        return None


def parse_root(raw: bytes) -> list[str | None]:
    """Read a root file: the CIDs of the slices by the index of their task; None in the place of what is no CID.

    Raises:
        DecodeError: no JSON list.
    """
    value = parse_json(raw, cap=FILE_CAP)
    if not isinstance(value, list):
        raise DecodeError("a bulk root is a list of cids")
    return [_cid_or_none(each) for each in value]


def parse_slice(raw: bytes, domain: Domain) -> list[SliceOrder]:
    """Read a slice: its orders, each once, in order; what is no dataset order is left out.

    Raises:
        DecodeError: no JSON list.
    """
    value = parse_json(raw, cap=FILE_CAP)
    if not isinstance(value, list):
        raise DecodeError("a bulk slice is a list of dataset orders")
    found: dict[Bytes32, SliceOrder] = {}
    for each in value:
        try:
            order = parse_order(OrderKind.DATASET, each)
        except CloisterError:
            continue
        if isinstance(order, DatasetOrder):
            order_hash = order.hash(domain)
            found.setdefault(order_hash, SliceOrder(order, order_hash))
    return list(found.values())


def _cid(text: str) -> str:
    Cid.parse(text)
    return text


def _cid_or_none(value: object) -> str | None:
    try:
        return _cid(value) if isinstance(value, str) else None
    except CloisterError:
        return None
