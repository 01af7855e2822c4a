"""The life of a lease and of a task, as tables without I/O.

A lease is one worker's try at one task. What a worker says moves it only between the states a worker may be trusted
about;
what the chain shows always wins, in both directions, because a chain may go back.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class LeaseState(StrEnum):
    """Where a lease stands."""

    RUNNING = "running"  # the worker has it and must send heartbeats
    REPORTED = "reported"  # the worker says its contribution is mined; the chain has not shown it yet
    CONTRIBUTED = "contributed"  # the chain shows its contribution
    REVEALED = "revealed"  # the chain shows its reveal
    DONE = "done"  # the task is completed on chain with this worker among the proved
    FAILED = "failed"  # the worker gave it back
    LOST = "lost"  # heartbeats stopped
    ABORTED = "aborted"  # the task ended without this lease


class LeaseEvent(StrEnum):
    """What happens to a lease. The first four come from the worker or the clock, the others from the chain."""

    HEARTBEAT = "heartbeat"
    EXPIRE = "expire"
    REPORT_SUCCESS = "report-success"
    REPORT_FAILURE = "report-failure"
    CONTRIBUTE = "contribute"
    REVEAL = "reveal"
    RETRACT = "retract"
    WIN = "win"
    LOSE = "lose"
    CANCEL = "cancel"


LIVE_STATES = frozenset({LeaseState.RUNNING, LeaseState.REPORTED, LeaseState.CONTRIBUTED, LeaseState.REVEALED})
"""States in which the lease counts as one of the replicas its task wants."""

EXPIRING_STATES = frozenset({LeaseState.RUNNING, LeaseState.REPORTED})
"""States that a silence ends: nothing on chain stands for the worker yet."""

_S = LeaseState
_E = LeaseEvent
_CHAIN_ALWAYS: Mapping[LeaseEvent, LeaseState] = {
    _E.CONTRIBUTE: _S.CONTRIBUTED,
    _E.REVEAL: _S.REVEALED,
    _E.WIN: _S.DONE,
}


def _row(state: LeaseState, **changes: LeaseState) -> Mapping[LeaseEvent, LeaseState]:
    """One row of the table: every event that ``changes`` does not name leaves ``state`` as it is."""
    row = dict.fromkeys(LeaseEvent, state)
    row.update(_CHAIN_ALWAYS)
    row.update({LeaseEvent[name]: target for name, target in changes.items()})
    return row


TRANSITIONS: Mapping[LeaseState, Mapping[LeaseEvent, LeaseState]] = {
    _S.RUNNING: _row(
        _S.RUNNING,
        EXPIRE=_S.LOST,
        REPORT_SUCCESS=_S.REPORTED,
        REPORT_FAILURE=_S.FAILED,
        LOSE=_S.ABORTED,
        CANCEL=_S.ABORTED,
    ),
    _S.REPORTED: _row(_S.REPORTED, EXPIRE=_S.LOST, REPORT_FAILURE=_S.FAILED, LOSE=_S.ABORTED, CANCEL=_S.ABORTED),
    # A contribution stands on chain whatever its worker says later, so silence and failure change nothing here.
    _S.CONTRIBUTED: _row(_S.CONTRIBUTED, RETRACT=_S.RUNNING, LOSE=_S.ABORTED, CANCEL=_S.ABORTED),
    _S.REVEALED: _row(_S.REVEALED, CONTRIBUTE=_S.CONTRIBUTED, RETRACT=_S.RUNNING, LOSE=_S.ABORTED, CANCEL=_S.ABORTED),
    _S.DONE: _row(_S.DONE, RETRACT=_S.RUNNING, LOSE=_S.ABORTED, CANCEL=_S.ABORTED),
    # What ended stays ended for its worker; only the chain can show that it counted after all.
    _S.FAILED: _row(_S.FAILED),
    _S.LOST: _row(_S.LOST),
    _S.ABORTED: _row(_S.ABORTED),
}
"""Every state x event. Nothing is left out and nothing raises: a repeated message must be harmless."""


def next_state(state: LeaseState, event: LeaseEvent) -> LeaseState:
    """The state after ``event``."""
    return TRANSITIONS[state][event]


class Phase(StrEnum):
    """Where a task stands for the scheduler."""

    OPEN = "open"  # may be leased
    REVEALING = "revealing"  # consensus reached, waiting for reveals and finalisation
    EXHAUSTED = "exhausted"  # too many tries, or the contribution deadline passed: waits for the final deadline
    COMPLETED = "completed"
    FAILED = "failed"  # claimed on chain
    GONE = "gone"  # its deal is no longer on the chain


ENDED_PHASES = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.GONE})

MINIMUM_WEIGHT = 2
"""Weight of a worker without a score: max(score / 3, 3) - 1 (PoCo, reference 1.8)."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One contribution that counts: the hash it stands for and its weight."""

    result_hash: str
    weight: int


def missing_votes(votes: tuple[Vote, ...], trust: int) -> int:
    """How many more agreeing workers of the least weight the leading hash needs for consensus.

    PoCo: a group of agreeing workers weighs the product of their weights; consensus is ``group * trust > total * (trust
    - 1)``
    where ``total`` is 1 plus the sum of the groups (reference 1.8). Trust 0 and 1 need one worker.
    """
    if trust <= 1:
        return 0 if votes else 1
    groups: dict[str, int] = {}
    for vote in votes:
        groups[vote.result_hash] = groups.get(vote.result_hash, 1) * max(vote.weight, MINIMUM_WEIGHT)
    leading = max(groups, key=lambda name: groups[name], default=None)
    group = groups.get(leading, 0) if leading is not None else 0
    others = 1 + sum(groups.values()) - group
    missing = 0
    # group doubles each turn, so this ends after log2(others * trust) turns.
    while group * trust <= (others + group) * (trust - 1):
        group = max(group, 1) * MINIMUM_WEIGHT
        missing += 1
    return missing
