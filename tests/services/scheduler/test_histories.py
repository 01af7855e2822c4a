"""What iExec's clients are told of a task's life: statuses in the protocol's order, with times that fit."""

from __future__ import annotations

from typing import Any

import pytest
from tests.services.scheduler.deals import POOL, deal, key_of, observed, only_task

from cloister.clients.scheduler import Lease, Outcome, Stage
from cloister.clients.scheduler import ReplicateStatus as R
from cloister.protocol.tasks import ContributionStatus, TaskStatus
from cloister.services.database import Database
from cloister.services.scheduler.leasing import Leasing
from cloister.services.scheduler.reconciliation import reconcile
from cloister.services.scheduler.statuses import PublicTaskStatus
from cloister.services.scheduler.store import DealRecord, Store
from cloister.services.scheduler.views import Views

WORKER = key_of("worker 0").address
NOW = 50_000.0
STAGES = (R.STARTED, R.APP_DOWNLOADED, R.COMPUTED, R.RESULT_UPLOADED, R.CONTRIBUTE_AND_FINALIZE_ONGOING)
ORDER = [str(stage) for stage in STAGES]


class Life:
    """One task, its scheduler's tables, and what the public sees."""

    def __init__(self, database: Database, store: Store, leasing: Leasing) -> None:
        self.database, self.store, self.leasing = database, store, leasing
        self.views = Views(database)
        self.record: DealRecord = deal()
        store.record_deal(self.record, now=NOW)
        self.task = only_task(self.record)

    def take(self) -> Lease:
        (lease,) = self.leasing.take(WORKER, POOL, capacity=1, holding=None, now=NOW + 1, chain_now=1_010)
        return lease

    def show(self, status: TaskStatus, *, at: float) -> None:
        proved = {WORKER: (ContributionStatus.PROVED, "a")}
        contributions = proved if status is TaskStatus.COMPLETED else {}
        seen = observed(self.record, status, contributions=contributions)
        reconcile(self.database, seen, now=at, lease_seconds=30)

    def report(self, lease: Lease, *, at: float, start: float = NOW + 2) -> None:
        stages = tuple(Stage(status, start + n) for n, status in enumerate(STAGES))
        outcome = Outcome(R.CONTRIBUTE_AND_FINALIZE_DONE, stages=stages)
        self.leasing.report(lease.lease_id, WORKER, outcome, exit_code=0, now=at)

    @property
    def told(self) -> dict[str, Any]:
        return self.views.task(self.task)

    @property
    def words(self) -> list[str]:
        return [line["status"] for line in self.told["dateStatusList"]]

    @property
    def replicate(self) -> list[tuple[str, str]]:
        (one,) = self.told["replicates"]
        return [(line["status"], line["date"]) for line in one["statusUpdateList"]]


@pytest.fixture
def life(database: Database, store: Store, leasing: Leasing) -> Life:
    return Life(database, store, leasing)


def test_a_task_that_is_leased_early_runs_once_the_chain_has_it(life: Life) -> None:
    life.take()
    assert life.words == ["RECEIVED"]
    life.store.mark([life.task], PublicTaskStatus.INITIALIZING, now=NOW + 2)
    assert life.told["currentStatus"] == "INITIALIZING"
    life.show(TaskStatus.ACTIVE, at=NOW + 3)
    assert life.words == ["RECEIVED", "INITIALIZING", "INITIALIZED", "RUNNING"]
    life.show(TaskStatus.COMPLETED, at=NOW + 4)
    assert life.words[4:] == ["FINALIZED", "COMPLETED"]


def test_one_look_that_shows_everything_keeps_the_order(life: Life) -> None:
    life.take()
    life.show(TaskStatus.COMPLETED, at=NOW + 3)
    assert life.words == ["RECEIVED", "INITIALIZED", "RUNNING", "FINALIZED", "COMPLETED"]


def test_stages_are_told_before_the_chain_shows_the_end(life: Life) -> None:
    lease = life.take()
    life.show(TaskStatus.ACTIVE, at=NOW + 2)
    life.report(lease, at=NOW + 9)
    life.report(lease, at=NOW + 9)
    life.show(TaskStatus.COMPLETED, at=NOW + 10)
    assert [status for status, _ in life.replicate] == [
        "CREATED",
        *ORDER,
        "CONTRIBUTE_AND_FINALIZE_DONE",
        "COMPLETED",
    ]
    dates = [date for _, date in life.replicate]
    assert dates == sorted(dates)
    assert dates[1].startswith("1970-01-01T13:53:22")


def test_stages_that_are_told_after_the_end_stand_before_it(life: Life) -> None:
    lease = life.take()
    life.show(TaskStatus.COMPLETED, at=NOW + 4)
    life.report(lease, at=NOW + 9)
    life.report(lease, at=NOW + 12)
    assert [status for status, _ in life.replicate] == [
        "CREATED",
        *ORDER,
        "CONTRIBUTE_AND_FINALIZE_DONE",
        "COMPLETED",
    ]
    dates = [date for _, date in life.replicate]
    assert dates == sorted(dates)
    assert life.told["replicates"][0]["currentStatus"] == "COMPLETED"


@pytest.mark.parametrize("start", [0.0, 2.0**40])
def test_a_workers_clock_may_be_wrong(life: Life, start: float) -> None:
    lease = life.take()
    life.show(TaskStatus.ACTIVE, at=NOW + 2)
    life.report(lease, at=NOW + 9, start=start)
    dates = [date for _, date in life.replicate]
    assert dates == sorted(dates)
    assert dates[0] >= "1970-01-01T13:53:21"
    assert dates[-1] <= "1970-01-01T13:53:30"
    assert [status for status, _ in life.replicate][1:-1] == ORDER
