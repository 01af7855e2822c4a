"""Tasks and contributions: one execution of a deal, and what a worker says of it (reference 1.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from cloister.protocol.codec import Address, Bytes32, check_uint, keccak256

CONTRIBUTION_RATIO: Final = 7
"""Category times until contributions close."""
REVEAL_RATIO: Final = 2
"""Category times that contributors have to reveal."""
FINAL_RATIO: Final = 10
"""Category times until a task is dead and may be claimed."""


class TaskStatus(IntEnum):
    """Where a task stands on chain."""

    UNSET = 0
    ACTIVE = 1
    REVEALING = 2
    COMPLETED = 3
    FAILED = 4


class ContributionStatus(IntEnum):
    """Where a worker's contribution stands on chain."""

    UNSET = 0
    CONTRIBUTED = 1
    PROVED = 2
    REJECTED = 3


def task_id(deal_id: Bytes32, index: int) -> Bytes32:
    """Return ``keccak256(deal id || index)``."""
    return Bytes32.from_raw(keccak256(deal_id.raw + check_uint("index", index).to_bytes(32, "big")))


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When a task of a deal closes, in unix seconds of the block's clock."""

    contribution: int
    final: int


def deadlines(start_time: int, clock: int) -> Deadlines:
    """Return the deadlines of tasks: ``start_time`` of the deal, ``clock`` the category's ``workClockTimeRef``."""
    return Deadlines(start_time + CONTRIBUTION_RATIO * clock, start_time + FINAL_RATIO * clock)


@dataclass(frozen=True, slots=True)
class Task:
    """A task as ``viewTask`` tells it. An unknown task has only zeros: ask ``exists``."""

    status: TaskStatus
    deal_id: Bytes32
    index: int
    clock: int
    contribution_deadline: int
    reveal_deadline: int
    final_deadline: int
    consensus_value: Bytes32
    reveal_counter: int
    winner_counter: int
    contributors: tuple[Address, ...]
    result_digest: Bytes32
    results: bytes
    results_timestamp: int
    results_callback: bytes

    @classmethod
    def from_tuple(cls, values: Sequence[Any]) -> Task:
        """Build from the ABI's ``Task``."""
        status, deal, index, clock, contribution, reveal, final, consensus, revealed, winners, *rest = values
        contributors, digest, results, timestamp, callback = rest
        return cls(
            status=TaskStatus(status),
            deal_id=Bytes32.from_raw(deal),
            index=index,
            clock=clock,
            contribution_deadline=contribution,
            reveal_deadline=reveal,
            final_deadline=final,
            consensus_value=Bytes32.from_raw(consensus),
            reveal_counter=revealed,
            winner_counter=winners,
            contributors=tuple(Address(contributor) for contributor in contributors),
            result_digest=Bytes32.from_raw(digest),
            results=bytes(results),
            results_timestamp=timestamp,
            results_callback=bytes(callback),
        )

    @property
    def exists(self) -> bool:
        """Whether the task was initialised."""
        return self.status is not TaskStatus.UNSET

    @property
    def is_final(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.status in (TaskStatus.COMPLETED, TaskStatus.FAILED)

    def accepts_contributions(self, now: int) -> bool:
        """Whether a contribution in a block of time ``now`` can be accepted."""
        return self.status is TaskStatus.ACTIVE and now < self.contribution_deadline

    def is_claimable(self, now: int) -> bool:
        """Whether ``claim`` in a block of time ``now`` refunds the task."""
        return self.status in (TaskStatus.ACTIVE, TaskStatus.REVEALING) and now >= self.final_deadline

    def status_name(self, now: int) -> str:
        """The name that iExec's clients show: the status, or TIMEOUT when it is overdue."""
        if self.status < TaskStatus.COMPLETED and self.exists and now >= self.final_deadline:
            return "TIMEOUT"
        return self.status.name


@dataclass(frozen=True, slots=True)
class Contribution:
    """A contribution as ``viewContribution`` tells it. ``weight`` is the log2 of the worker's weight."""

    status: ContributionStatus
    result_hash: Bytes32
    result_seal: Bytes32
    enclave_challenge: Address
    weight: int

    @classmethod
    def from_tuple(cls, values: Sequence[Any]) -> Contribution:
        """Build from the ABI's ``Contribution``."""
        status, result_hash, seal, challenge, weight = values
        return cls(
            ContributionStatus(status),
            Bytes32.from_raw(result_hash),
            Bytes32.from_raw(seal),
            Address(challenge),
            weight,
        )
