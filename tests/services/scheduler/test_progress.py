"""Progress that workers hand in, on SQLite and on PostgreSQL."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import func, select
from tests.services.scheduler.deals import deal, key_of, only_task
from tests.services.scheduler.test_leasing import NOW, take

from cloister.errors import NotFound
from cloister.protocol.codec import Bytes32
from cloister.protocol.progress import UPDATE_CAP, UPDATES_CAP
from cloister.services.database import Database
from cloister.services.scheduler.leasing import Leasing
from cloister.services.scheduler.progress import KEPT, SHOWN, ProgressBoard
from cloister.services.scheduler.schemas import ProgressRequest
from cloister.services.scheduler.store import Store
from cloister.services.scheduler.tables import progress

W = [key_of(f"worker {n}").address for n in range(10)]


def told(entries: list[dict[str, Any]]) -> list[tuple[int, bytes]]:
    return [(entry["number"], base64.b64decode(entry["update"])) for entry in entries]


def test_the_newest_updates_of_a_lease_are_kept_and_shown_behind_a_mark(
    store: Store, leasing: Leasing, database: Database
) -> None:
    board, record = ProgressBoard(database), deal()
    store.record_deal(record, now=NOW)
    (lease,) = take(leasing, W[0])
    assert board.show(lease.task_id, after=0) == []
    for number in range(1, KEPT + 4):
        board.keep(lease.lease_id, W[0], number, bytes([number]) * 3, now=NOW + number)
        board.keep(lease.lease_id, W[0], number, bytes([number]) * 3, now=NOW + 99)  # said twice
    shown = board.show(lease.task_id, after=0)
    assert told(shown) == [(number, bytes([number]) * 3) for number in range(4, KEPT + 4)]
    assert [entry["at"] for entry in shown] == [NOW + number for number in range(4, KEPT + 4)]
    assert told(board.show(lease.task_id, after=shown[-2]["entry"])) == [(KEPT + 3, bytes([KEPT + 3]) * 3)]
    assert board.show(lease.task_id, after=shown[-1]["entry"]) == []
    # A worker that was killed starts a new enclave under its old lease: that one counts from 1 again.
    board.keep(lease.lease_id, W[0], 1, b"new enclave", now=NOW + 50)
    assert told(board.show(lease.task_id, after=shown[-1]["entry"])) == [(1, b"new enclave")]
    with database.read_scope() as session:
        assert session.execute(select(func.count()).select_from(progress)).scalar_one() == KEPT


def test_replicas_of_a_task_are_shown_together_and_not_without_end(
    store: Store, leasing: Leasing, database: Database
) -> None:
    board, record = ProgressBoard(database), deal(trust=64)
    store.record_deal(record, now=NOW)
    held = [(worker, lease) for worker in W for lease in take(leasing, worker)]
    assert len(held) * KEPT > SHOWN
    for number in range(1, KEPT + 1):
        for position, (worker, lease) in enumerate(held):
            board.keep(lease.lease_id, worker, number, bytes([position, number]), now=NOW)
    shown = told(board.show(only_task(record), after=0))
    assert len(shown) == SHOWN
    assert shown[-1] == (KEPT, bytes([len(held) - 1, KEPT]))


def test_only_the_lease_s_own_worker_is_heard(store: Store, leasing: Leasing, database: Database) -> None:
    board, record = ProgressBoard(database), deal()
    store.record_deal(record, now=NOW)
    (lease,) = take(leasing, W[0])
    for worker, identifier in ((W[1], lease.lease_id), (W[0], "0" * 32)):
        with pytest.raises(NotFound, match="has no lease"):
            board.keep(identifier, worker, 1, b"x", now=NOW)
    assert board.show(lease.task_id, after=0) == []
    with pytest.raises(NotFound, match="no task"):
        board.show(Bytes32("0x" + "77" * 32), after=0)


@pytest.mark.parametrize(
    "body",
    [
        {"number": 0, "update": "AAAA"},
        {"number": UPDATES_CAP + 1, "update": "AAAA"},
        {"number": 1, "update": ""},
        {"number": 1, "update": "no base64!"},
        {"number": 1, "update": base64.b64encode(bytes(UPDATE_CAP + 4)).decode()},
        {"number": 1, "update": "AAAA", "at": 5},
        {"number": 1},
    ],
)
def test_what_is_no_update_is_refused_at_the_edge(body: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ProgressRequest.model_validate(body)


def test_the_largest_update_is_taken() -> None:
    largest = base64.b64encode(bytes(UPDATE_CAP)).decode()
    assert ProgressRequest(number=UPDATES_CAP, update=largest).update == largest
