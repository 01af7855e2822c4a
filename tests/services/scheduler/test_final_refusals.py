"""A refusal that no other try would escape ends a task at its first lease; any other is tried again."""

from __future__ import annotations

import pytest
from tests.services.scheduler.deals import deal, only_task
from tests.services.scheduler.test_leasing import NOW, W, row_of, take

from cloister.clients.scheduler import APP_UNREACHABLE, FINAL_CODES, Outcome, ReplicateStatus
from cloister.protocol.sessions import FINAL_REFUSALS
from cloister.services.database import Database
from cloister.services.scheduler.leasing import Leasing
from cloister.services.scheduler.store import Store


def refused(code: str | None) -> Outcome:
    return Outcome(
        ReplicateStatus.COMPUTE_FAILED, cause="TEE_SESSION_REFUSED", message="the grant was revoked", refusal=code
    )


@pytest.mark.parametrize("code", ["order-closed", APP_UNREACHABLE])
def test_a_final_refusal_ends_the_task_at_once(store: Store, leasing: Leasing, database: Database, code: str) -> None:
    assert code in FINAL_CODES
    record = deal()
    store.record_deal(record, now=NOW)
    (lease,) = take(leasing, W[0])
    leasing.report(lease.lease_id, W[0], refused(code), exit_code=None, now=NOW)
    row = row_of(database, only_task(record))
    assert (row.phase, row.status) == ("exhausted", "RUNNING_FAILED")
    assert take(leasing, W[1], now=NOW + 1000) == []
    assert [duty.task_id for duty in store.to_claim(now=NOW, chain_now=4_000, limit=5)] == [only_task(record)]


@pytest.mark.parametrize("code", ["not-yet-valid", "enclave-refused", "an invention", None])
def test_another_refusal_is_tried_again(store: Store, leasing: Leasing, database: Database, code: str | None) -> None:
    assert code not in FINAL_REFUSALS
    record = deal()
    store.record_deal(record, now=NOW)
    (lease,) = take(leasing, W[0])
    leasing.report(lease.lease_id, W[0], refused(code), exit_code=None, now=NOW)
    assert row_of(database, only_task(record)).phase == "open"
    assert len(take(leasing, W[1], now=NOW + 1)) == 1
