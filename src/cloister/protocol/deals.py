"""Deals: four matched orders on chain (reference 1.2, 1.6, 1.8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cloister.errors import InputError
from cloister.protocol.codec import ZERO_ADDRESS, Address, Bytes32, check_uint, keccak256
from cloister.protocol.tags import NO_TAG, TEE, Tag
from cloister.protocol.tasks import CONTRIBUTION_RATIO as CONTRIBUTION_RATIO
from cloister.protocol.tasks import FINAL_RATIO as FINAL_RATIO
from cloister.protocol.tasks import REVEAL_RATIO as REVEAL_RATIO
from cloister.protocol.tasks import Deadlines as Deadlines
from cloister.protocol.tasks import deadlines as deadlines
from cloister.protocol.tasks import task_id as task_id


def deal_id(request_hash: Bytes32, consumed: int) -> Bytes32:
    """Return the id of the deal that a request makes when ``consumed`` of its volume was used before."""
    return Bytes32.from_raw(keccak256(request_hash.raw + check_uint("consumed", consumed).to_bytes(32, "big")))


@dataclass(frozen=True, slots=True)
class Category:
    """How long a task may take. ``clock`` is ``workClockTimeRef`` in seconds."""

    name: str
    description: str
    clock: int


@dataclass(frozen=True, slots=True)
class Resource:
    """What was hired: the entry, its owner when matched, the price per task in nRLC."""

    pointer: Address = ZERO_ADDRESS
    owner: Address = ZERO_ADDRESS
    price: int = 0

    @classmethod
    def from_tuple(cls, values: Sequence[Any]) -> Resource:
        """Build from the ABI's ``Resource``."""
        pointer, owner, price = values
        return cls(Address(pointer), Address(owner), price)


@dataclass(frozen=True, slots=True)
class Deal:
    """A deal as ``viewDeal`` tells it. An unknown deal has only zeros: ask ``exists``."""

    app: Resource
    dataset: Resource
    workerpool: Resource
    trust: int
    category: int
    tag: Tag
    requester: Address
    beneficiary: Address
    callback: Address
    params: str
    start_time: int
    bot_first: int
    bot_size: int
    worker_stake: int
    scheduler_reward_ratio: int
    sponsor: Address

    @classmethod
    def from_tuple(cls, values: Sequence[Any]) -> Deal:
        """Build from the ABI's ``Deal``."""
        app, dataset, pool, trust, category, tag, requester, beneficiary, callback, params, *rest = values
        start_time, bot_first, bot_size, worker_stake, ratio, sponsor = rest
        return cls(
            app=Resource.from_tuple(app),
            dataset=Resource.from_tuple(dataset),
            workerpool=Resource.from_tuple(pool),
            trust=trust,
            category=category,
            tag=Tag.from_raw(tag) if any(tag) else NO_TAG,
            requester=Address(requester),
            beneficiary=Address(beneficiary),
            callback=Address(callback),
            params=params,
            start_time=start_time,
            bot_first=bot_first,
            bot_size=bot_size,
            worker_stake=worker_stake,
            scheduler_reward_ratio=ratio,
            sponsor=Address(sponsor),
        )

    @property
    def exists(self) -> bool:
        """Whether the hub knows the deal."""
        return not self.app.pointer.is_zero

    @property
    def has_dataset(self) -> bool:
        """Whether a dataset was matched."""
        return not self.dataset.pointer.is_zero

    @property
    def has_callback(self) -> bool:
        """Whether the result goes to a contract."""
        return not self.callback.is_zero

    @property
    def is_tee(self) -> bool:
        """Whether tasks must run in an enclave."""
        return self.tag.has(TEE)

    @property
    def task_price(self) -> int:
        """What one task costs the sponsor, in nRLC."""
        return self.app.price + self.dataset.price + self.workerpool.price

    def indexes(self) -> range:
        """The indexes of the deal's tasks."""
        return range(self.bot_first, self.bot_first + self.bot_size)

    def task_ids(self, this: Bytes32) -> Iterator[Bytes32]:
        """Yield the ids of the deal's tasks in order; ``this`` is the deal's own id."""
        return (task_id(this, index) for index in self.indexes())

    def check_index(self, index: int) -> int:
        """Return ``index`` when the deal has that task.

        Raises:
            InputError: out of the deal's range.
        """
        if index not in self.indexes():
            raise InputError(f"task index {index} is outside {self.bot_first}..{self.bot_first + self.bot_size - 1}")
        return index
