"""The slice of a bulk request: from the CID in the request's params to the orders that one task may use (reference 5.5).

The root is a JSON array of CIDs, one per task of the deal; the task of index ``i`` reads ``root[i]``, a JSON array of at
most 100 signed dataset orders. Both are proven by their CIDs, and the root's CID stands in what the requester signed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from cloister.errors import (
    CloisterError,
    DecodeError,
    InputError,
    LocalError,
    PolicyRejected,
    TooLarge,
    UnavailableError,
    quoted,
)
from cloister.protocol.codec import ZERO_ADDRESS, Address, parse_json
from cloister.protocol.orders import DatasetOrder, OrderKind, parse_order
from cloister.protocol.releases import BULK_CAP
from cloister.storage.cid import Cid
from cloister.storage.content import ContentStore

ROOT_CAP: Final = 256 * 1024
"""Largest root file in bytes: the CIDs of some 4,000 slices, 400,000 datasets."""
SLICE_CAP: Final = 512 * 1024
"""Largest slice file in bytes: a signed order is some 750 bytes of JSON, 2.8 KiB with the longest signature that a
contract may need, and 100 of either fit."""
READ_SECONDS: Final = 20.0
"""Longest time for one of the two files."""


class BulkSource(Protocol):
    """Where root and slice files are read. Safe to use from several threads.

    ``read`` returns the whole content of a file, proven to be what the CID names, within bounded time. It raises
    ``UnavailableError`` when the content does not come (storage is away, slow, damaged or does not have it: another
    moment may be better), and ``DecodeError``, ``InputError`` or ``TooLarge`` when what the CID names can never be
    read: a directory, a layout that is not understood, more than ``cap`` bytes.
    """

    def read(self, cid: str, *, cap: int) -> bytes: ...


class StoredBulk:
    """A ``BulkSource`` over a ``ContentStore``. ``clock`` gives seconds that never go back."""

    def __init__(
        self, store: ContentStore, *, seconds: float = READ_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._clock = clock

    def read(self, cid: str, *, cap: int) -> bytes:
        """See ``BulkSource``."""
        try:
            return b"".join(self._in_time(cid, self._store.open(Cid.parse(cid), cap=cap)))
        except (DecodeError, InputError, LocalError, UnavailableError):
            raise
        except CloisterError as error:
            # Absent, or other bytes than the CID names: a store that has the content may answer next time.
            raise UnavailableError(f"storage does not give {quoted(cid)}", code="bulk-not-found") from error

    def _in_time(self, cid: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        deadline = self._clock() + self._seconds
        for chunk in chunks:
            yield chunk
            if self._clock() > deadline:
                raise UnavailableError(f"storage gives {quoted(cid)} too slowly", code="bulk-slow")


@dataclass(frozen=True, slots=True)
class MalformedOffer:
    """An element of a slice that is no dataset order. ``dataset`` is the address that it names, zero if none."""

    dataset: Address
    message: str


SliceElement = DatasetOrder | MalformedOffer


def load_slice(source: BulkSource, root_cid: str, index: int) -> tuple[SliceElement, ...]:
    """Read the slice of the task with this index in its deal.

    Raises: UnavailableError when storage does not answer; PolicyRejected (``bulk-root-malformed``,
    ``bulk-index-missing``, ``bulk-slice-malformed``) when there is no slice and never will be.
    """
    cid = _slice_cid(source, root_cid, index)
    return parse_slice(_read(source, cid, SLICE_CAP, "slice", "bulk-slice-malformed"))


def parse_slice(document: bytes) -> tuple[SliceElement, ...]:
    """Read a slice file; an element that is no dataset order spoils only itself.

    Raises: PolicyRejected (``bulk-slice-malformed``) for what is no JSON array of 1 to 100 elements.
    """
    elements = _parse_array(document, SLICE_CAP, "slice", "bulk-slice-malformed")
    if len(elements) > BULK_CAP:
        text = f"the bulk slice has {len(elements)} orders, the cap is {BULK_CAP}"
        raise PolicyRejected(text, code="bulk-slice-malformed")
    return tuple(_parse_element(element) for element in elements)


def _slice_cid(source: BulkSource, root_cid: str, index: int) -> str:
    code = "bulk-root-malformed"
    cids = _parse_array(_read(source, root_cid, ROOT_CAP, "root", code), ROOT_CAP, "root", code)
    if index >= len(cids):
        text = f"the bulk root has {len(cids)} slices, none for the task of index {index}"
        raise PolicyRejected(text, code="bulk-index-missing")
    cid = cids[index]
    if not isinstance(cid, str):
        raise PolicyRejected(f"the bulk root names {quoted(cid)} where a cid belongs", code=code)
    try:
        return str(Cid.parse(cid))
    except DecodeError as error:
        raise PolicyRejected(f"the bulk root: {error.message}", code=code) from error


def _read(source: BulkSource, cid: str, cap: int, what: str, code: str) -> bytes:
    try:
        return source.read(cid, cap=cap)
    except TooLarge as error:
        raise PolicyRejected(f"the bulk {what} is over the cap of {cap} bytes", code=code) from error
    except (DecodeError, InputError) as error:
        raise PolicyRejected(f"the bulk {what} cannot be read: {error.message}", code=code) from error


def _parse_array(document: bytes, cap: int, what: str, code: str) -> list[object]:
    try:
        value = parse_json(document, cap=cap)
    except DecodeError as error:
        raise PolicyRejected(f"the bulk {what} is no json: {error.message}", code=code) from error
    if not isinstance(value, list) or not value:
        raise PolicyRejected(f"the bulk {what} is no json array, or an empty one", code=code)
    return value


def _parse_element(element: object) -> SliceElement:
    try:
        order = parse_order(OrderKind.DATASET, element)
    except (DecodeError, InputError) as error:
        return MalformedOffer(_named_dataset(element), error.message)
    if not isinstance(order, DatasetOrder) or order.dataset.is_zero:
        return MalformedOffer(ZERO_ADDRESS, "the order names no dataset")
    return order


def _named_dataset(element: object) -> Address:
    """The dataset that a malformed order names, so that its refusal can be told apart from others."""
    named = element.get("dataset") if isinstance(element, dict) else None
    try:
        return Address(named) if isinstance(named, str) else ZERO_ADDRESS
    except DecodeError:
        return ZERO_ADDRESS
