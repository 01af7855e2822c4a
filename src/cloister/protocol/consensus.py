"""Who is believed and who is paid: the money and weight rules of PoCo as pure functions (reference 1.8, 1.9).

All amounts are whole nRLC; every division rounds down, and what is left over goes where the contract sends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cloister.errors import InputError
from cloister.protocol.codec import Address

MIN_SCORE: Final = 3
KITTY_PERCENT: Final = 10
KITTY_MIN: Final = 1_000_000_000
"""Smallest bonus from the kitty, in nRLC, while it has that much."""
POOL_STAKE_PERCENT: Final = 30


def weight(score: int) -> int:
    """Return a worker's weight: ``max(score / 3, 3) - 1``, so 2 for a newcomer."""
    return max(score // 3, MIN_SCORE) - 1


def log_weight(score: int) -> int:
    """Return the weight as contributions store it and rewards share by it: its log2, rounded down."""
    return weight(score).bit_length() - 1


@dataclass(frozen=True, slots=True)
class Tally:
    """How heavy each group of equal results is: ``groups`` maps a result hash to the product of the weights."""

    groups: Mapping[str, int]
    total: int

    def add(self, result_hash: str, worker_weight: int) -> Tally:
        """Return the tally after one more contribution."""
        before = self.groups.get(result_hash, 0)
        after = max(before, 1) * worker_weight
        return Tally({**self.groups, result_hash: after}, self.total + after - before)

    def reaches(self, result_hash: str, trust: int) -> bool:
        """Whether the group is heavy enough: ``group * trust > total * (trust - 1)``."""
        if trust < 1:
            raise InputError(f"trust {trust} is less than 1")
        return self.groups.get(result_hash, 0) * trust > self.total * (trust - 1)


NO_TALLY: Final = Tally({}, 1)
"""Where every task starts. The hub's total starts at one: an opinion that is still unheard."""


def pool_stake(workerpool_price: int) -> int:
    """What the workerpool's owner locks for one task."""
    return workerpool_price * POOL_STAKE_PERCENT // 100


def worker_stake(workerpool_price: int, stake_ratio_percent: int) -> int:
    """What a worker locks when it contributes, by the workerpool's policy."""
    return workerpool_price * stake_ratio_percent // 100


def kitty_bonus(kitty: int) -> int:
    """What the kitty gives to a workerpool that finishes a task: a tenth, at least 1 RLC, at most all."""
    return min(max(kitty * KITTY_PERCENT // 100, KITTY_MIN), kitty)


@dataclass(frozen=True, slots=True)
class Share:
    """A contributor when a task is finalized: its log2 weight and whether it was right."""

    worker: Address
    log_weight: int
    is_winner: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """Who gets what for one finished task: ``workers`` beside the stake they get back, ``seized`` stakes lost."""

    app_owner: int
    dataset_owner: int
    workers: Mapping[Address, int]
    seized: Mapping[Address, int]
    pool_owner: int
    kitty: int

    @property
    def paid(self) -> int:
        """The sum of all rewards."""
        return self.app_owner + self.dataset_owner + sum(self.workers.values()) + self.pool_owner + self.kitty


def settle(
    *,
    app_price: int,
    dataset_price: int,
    workerpool_price: int,
    scheduler_reward_percent: int,
    worker_stake: int,
    shares: Sequence[Share],
    kitty: int,
) -> Settlement:
    """Split the money of a task that was contributed, revealed and finalized.

    Raises:
        InputError: nobody was right, or a ratio over 100.
    """
    if not 0 <= scheduler_reward_percent <= 100:
        raise InputError(f"scheduler reward of {scheduler_reward_percent} % is not 0 to 100")
    total_weight = sum(share.log_weight for share in shares if share.is_winner)
    if total_weight == 0:
        raise InputError("a finished task has a winner")
    losers = [share.worker for share in shares if not share.is_winner]
    total_reward = workerpool_price + worker_stake * len(losers)
    workers_part = total_reward * (100 - scheduler_reward_percent) // 100
    rewards = {share.worker: workers_part * share.log_weight // total_weight for share in shares if share.is_winner}
    return Settlement(
        app_owner=app_price,
        dataset_owner=dataset_price,
        workers=rewards,
        seized=dict.fromkeys(losers, worker_stake),
        pool_owner=total_reward - sum(rewards.values()),
        kitty=kitty_bonus(kitty),
    )


def settle_at_once(
    *,
    app_price: int,
    dataset_price: int,
    workerpool_price: int,
    scheduler_reward_percent: int,
    worker: Address,
    kitty: int,
) -> Settlement:
    """Split the money of a task that one worker contributed and finalized at once; it stakes nothing.

    Raises:
        InputError: a ratio over 100.
    """
    return settle(
        app_price=app_price,
        dataset_price=dataset_price,
        workerpool_price=workerpool_price,
        scheduler_reward_percent=scheduler_reward_percent,
        worker_stake=0,
        shares=[Share(worker, 1, is_winner=True)],
        kitty=kitty,
    )


def score_after(score: int, *, accurate: bool, contributors: int) -> int:
    """Return a worker's score after a task: one more when right among several, two thirds when wrong."""
    if not accurate:
        return score * 2 // 3
    return score + 1 if contributors > 1 else score


def deal_cost(*, app_price: int, dataset_price: int, workerpool_price: int, volume: int) -> int:
    """What the sponsor locks for a deal."""
    return (app_price + dataset_price + workerpool_price) * volume
