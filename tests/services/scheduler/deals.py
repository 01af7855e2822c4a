"""Deals and tasks for tests: what the chain would have shown."""

from __future__ import annotations

import itertools
from typing import Any

from cloister.protocol.codec import ZERO_ADDRESS, ZERO_BYTES32, Address, Bytes32, keccak256
from cloister.protocol.signatures import PrivateKey
from cloister.protocol.tasks import Contribution, ContributionStatus, Task, TaskStatus, task_id
from cloister.services.scheduler.reconciliation import Observed
from cloister.services.scheduler.store import DealRecord

_numbers = itertools.count(1)


def key_of(role: str) -> PrivateKey:
    """The key of a test actor, the same in every run."""
    return PrivateKey(keccak256(role.encode()))


POOL = key_of("workerpool entry").address
HUB = key_of("hub").address
REQUESTER = key_of("requester")
APP = {"address": str(key_of("app").address), "multiaddr": "/ipfs/Qm", "checksum": "0x" + "11" * 32}


def deal(**changes: Any) -> DealRecord:
    """A deal of one task, trust 1, that started at second 1,000 on the chain with a category of 300 seconds."""
    number = next(_numbers)
    values: dict[str, Any] = {
        "deal_id": Bytes32.from_raw(keccak256(b"deal" + str(number).encode())),
        "workerpool": POOL,
        "block_number": 10,
        "match_transaction": Bytes32.from_raw(keccak256(b"transaction" + str(number).encode())),
        "requester": REQUESTER.address,
        "trust": 1,
        "start_time": 1_000,
        "category_seconds": 300,
        "contribution_deadline": 3_100,
        "final_deadline": 4_000,
        "bot_first": 0,
        "bot_size": 1,
        "app": APP,
        "dataset": None,
        "dataset_order": None,
        "params": "{}",
        "callback": ZERO_ADDRESS,
    }
    return DealRecord(**{**values, **changes})


def only_task(record: DealRecord) -> Bytes32:
    """The id of a deal's first task."""
    return task_id(record.deal_id, record.bot_first)


def observed(
    record: DealRecord,
    status: TaskStatus,
    *,
    index: int = 0,
    contributions: dict[Address, tuple[ContributionStatus, str]] | None = None,
    consensus: str | None = None,
    reveal_deadline: int = 0,
    block_number: int = 11,
) -> Observed:
    """A task as a block would show it. ``contributions``: worker -> status and a word its result hash is made of."""
    told = contributions or {}
    winners = [word for _, word in told.values() if word == consensus]
    proved = [worker for worker, (state, _) in told.items() if state is ContributionStatus.PROVED]
    return Observed(
        task_id=task_id(record.deal_id, record.bot_first + index),
        block_number=block_number,
        task=Task(
            status=status,
            deal_id=record.deal_id,
            index=record.bot_first + index,
            clock=record.category_seconds,
            contribution_deadline=record.contribution_deadline,
            reveal_deadline=reveal_deadline,
            final_deadline=record.final_deadline,
            consensus_value=ZERO_BYTES32 if consensus is None else word_hash(consensus),
            reveal_counter=len(proved),
            winner_counter=len(winners),
            contributors=tuple(told),
            result_digest=ZERO_BYTES32,
            results=b"",
            results_timestamp=0,
            results_callback=b"",
        ),
        contributions={
            worker: Contribution(state, word_hash(word), ZERO_BYTES32, ZERO_ADDRESS, 1)
            for worker, (state, word) in told.items()
        },
    )


def word_hash(word: str) -> Bytes32:
    """A result hash made of a word."""
    return Bytes32.from_raw(keccak256(word.encode()))
