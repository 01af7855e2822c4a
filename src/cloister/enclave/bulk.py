"""Bulk slices: many protected data for one run, each of which may fail alone (reference 5.5).

Item i of the slice, counted from 1, lies at ``/iexec_in/<dataset address>``. What became of each item is written into
``bulk.json`` beside the iApp's results and into the receipt.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path

from cloister.attestation.issuance import BulkUse, DatasetUse, InputDigest
from cloister.enclave.causes import Cause, TaskError
from cloister.enclave.host import HostChannel
from cloister.enclave.inputs import fetch_dataset
from cloister.errors import quoted
from cloister.protocol.codec import Address
from cloister.protocol.releases import BulkItem, RefusedDataset, ReleasedDataset

BULK_NAME = "bulk.json"
WIDTH = 8
"""How many locations the host is told of at a time, the one that is asked for included."""
_SHORTEST = 10.0


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """What became of one item. ``digest`` is that of the opened data; None when there is none, and ``cause`` and
    ``message`` say why. ``dataset`` is None where the SMS refused it.
    """

    index: int
    address: Address
    dataset: ReleasedDataset | None
    digest: InputDigest | None
    cause: str | None = None
    message: str | None = None
    may_pass: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the item as ``bulk.json`` has it."""
        return {
            "index": self.index,
            "dataset": self.address,
            "status": "ok" if self.digest is not None else "failed",
            "cause": self.cause,
            "message": self.message,
        }

    def claim(self) -> BulkUse:
        """Return the item as the receipt has it."""
        use = None if self.dataset is None else dataset_use(self.dataset)
        return BulkUse(self.address.raw, use, None if self.digest is None else self.digest.sha256, self.cause)


def build_causes(outcomes: tuple[BulkOutcome, ...] | None) -> dict[str, str]:
    """Variables that tell the iApp why an item has no data; the requester reads the same in ``bulk.json``."""
    failed = {} if outcomes is None else {item.index: item.cause for item in outcomes if item.cause is not None}
    return {f"CLOISTER_DATASET_{number}_CAUSE": quoted(cause) for number, cause in failed.items()}


def dataset_use(dataset: ReleasedDataset) -> DatasetUse:
    """Protected data as a receipt names it."""
    return DatasetUse(
        dataset.address.raw,
        dataset.checksum.raw,
        None if dataset.order_hash is None else dataset.order_hash.raw,
        None if dataset.policy_hash is None else dataset.policy_hash.raw,
    )


def item_file_name(item: BulkItem) -> str:
    """The name of an item's data in ``/iexec_in``, whether there is such a file or not."""
    return item.address.lower()


def fetch_slice(
    host: HostChannel, items: tuple[BulkItem, ...], directory: Path, *, seconds_left: Callable[[], float]
) -> tuple[BulkOutcome, ...]:
    """Fetch, check and open every released item of a slice into ``directory``.

    No item takes more than its share of half the time that is left, so that one whose storage drips its bytes does not
    take the others' time. A dataset that stands in the slice twice is fetched once.

    Raises:
        TaskError: no item could be had because storage is away: that is the platform's fault and not theirs.
    """
    outcomes: list[BulkOutcome] = []
    opened: dict[tuple[str, str], InputDigest] = {}
    for position, item in enumerate(items):
        known = opened.get(_identity(item)) if isinstance(item, ReleasedDataset) else None
        if known is not None and isinstance(item, ReleasedDataset):
            outcomes.append(BulkOutcome(position + 1, item.address, item, known))
            continue
        ahead = _locations(items[position + 1 :], opened)
        turns = -(-len(items[position:]) // WIDTH)
        outcome = _fetch_item(
            host, item, position + 1, directory, seconds=max(_SHORTEST, seconds_left() / 2 / turns), ahead=ahead
        )
        outcomes.append(outcome)
        if outcome.digest is not None and outcome.dataset is not None:
            opened[_identity(outcome.dataset)] = outcome.digest
    _check_platform(outcomes)
    return tuple(outcomes)


def _identity(dataset: ReleasedDataset) -> tuple[str, str]:
    return dataset.address, dataset.checksum


def _locations(items: tuple[BulkItem, ...], opened: Container[tuple[str, str]]) -> tuple[str, ...]:
    """Where the next items lie that will be asked for."""
    released = (item for item in items if isinstance(item, ReleasedDataset))
    wanted = dict.fromkeys(item.multiaddr for item in released if _identity(item) not in opened)
    return tuple(wanted)[: WIDTH - 1]


def _fetch_item(
    host: HostChannel, item: BulkItem, index: int, directory: Path, *, seconds: float, ahead: tuple[str, ...]
) -> BulkOutcome:
    if isinstance(item, RefusedDataset):
        return BulkOutcome(index, item.address, None, None, item.cause, item.message)
    name = item_file_name(item)
    if (directory / name).exists():
        # The same address with another checksum: two blocks of the chain cannot both be right.
        message = "the slice names this protected data before, with another checksum"
        return BulkOutcome(index, item.address, item, None, Cause.PRE_COMPUTE_INVALID_DATASET_CHECKSUM, message)
    try:
        digest = fetch_dataset(host, item, directory, name, seconds=seconds, ahead=ahead)
    except TaskError as error:
        return BulkOutcome(index, item.address, item, None, error.cause, error.message, error.may_pass)
    return BulkOutcome(index, item.address, item, digest)


def _check_platform(outcomes: list[BulkOutcome]) -> None:
    released = [outcome for outcome in outcomes if outcome.dataset is not None]
    if released and all(outcome.may_pass for outcome in released):
        message = f"none of {len(released)} protected data could be had: {released[0].message}"
        raise TaskError(Cause.PRE_COMPUTE_DATASET_DOWNLOAD_FAILED, message, may_pass=True)


def build_report(outcomes: tuple[BulkOutcome, ...]) -> bytes:
    """Write ``bulk.json``: one object for each item, in the slice's order."""
    return json.dumps([outcome.to_json() for outcome in outcomes]).encode()
