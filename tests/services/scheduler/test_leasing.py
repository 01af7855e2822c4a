"""Leases in SQL, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select
from tests.services.scheduler.deals import POOL, deal, key_of, observed, only_task

from cloister.clients.scheduler import Lease, Outcome, parse_lease
from cloister.clients.scheduler import ReplicateStatus as R
from cloister.errors import Denied, InputError, NotFound
from cloister.protocol.authorization import scheduler_authorization
from cloister.protocol.codec import Address, Bytes32
from cloister.protocol.tasks import ContributionStatus, TaskStatus
from cloister.services.database import Database
from cloister.services.scheduler.leasing import Leasing
from cloister.services.scheduler.reconciliation import reconcile
from cloister.services.scheduler.settings import SchedulerSettings
from cloister.services.scheduler.store import Store
from cloister.services.scheduler.tables import leases, metadata, tasks

W = [key_of(f"worker {n}").address for n in range(10)]
OWNER = key_of("pool owner")
NOW, CHAIN_NOW = 50_000.0, 1_010


def take(leasing: Leasing, worker: Address, *, capacity: int = 1, now: float = NOW, **rest: Any) -> list[Lease]:
    rest = {"holding": None, "chain_now": CHAIN_NOW, **rest}
    return leasing.take(worker, POOL, capacity=capacity, now=now, **rest)


def beat(leasing: Leasing, lease: Lease, worker: Address, status: R = R.STARTED, *, now: float = NOW) -> bool:
    return leasing.beat(
        lease.lease_id, worker, status, detail=None, results=None, results_callback=b"", now=now, chain_now=CHAIN_NOW
    ).abort


def row_of(database: Database, task_id: Bytes32) -> Any:
    with database.read_scope() as session:
        return session.execute(select(tasks).where(tasks.c.task_id == task_id)).one()


def state_of(database: Database, lease: Lease) -> str:
    with database.read_scope() as session:
        return str(session.execute(select(leases.c.state).where(leases.c.lease_id == lease.lease_id)).scalar_one())


def test_the_migration_makes_the_tables_the_code_uses(database: Database) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": lambda name, kind, _: kind != "table" or name in metadata.tables}
        )
        assert compare_metadata(context, metadata) == []


def test_a_deal_is_leased_once_and_the_lease_tells_all(store: Store, leasing: Leasing) -> None:
    record = deal(params='{"iexec_args":"é"}')
    assert store.record_deal(record, now=NOW)
    (lease,) = take(leasing, W[0], capacity=5)
    assert parse_lease(lease.to_json()) == lease
    assert (lease.task_id, lease.deal_id, lease.index) == (only_task(record), record.deal_id, 0)
    assert (lease.match_transaction, lease.params, lease.trust) == (record.match_transaction, record.params, 1)
    assert lease.expires_at == int(NOW + 30)
    assert take(leasing, W[1]) == []


def test_recording_a_deal_again_changes_nothing(store: Store, leasing: Leasing, database: Database) -> None:
    record = deal(bot_size=3)
    assert store.record_deal(record, now=NOW)
    take(leasing, W[0])
    assert not store.record_deal(record, now=NOW + 5)
    with database.read_scope() as session:
        assert len(session.execute(select(tasks)).all()) == 3
    assert len(take(leasing, W[1], capacity=10)) == 2


def test_racing_workers_never_share_a_task(store: Store, leasing: Leasing) -> None:
    record = deal(bot_size=8)
    store.record_deal(record, now=NOW)
    got: list[str] = []
    start = threading.Barrier(5)

    def work(worker: Address) -> None:
        start.wait()
        for _ in range(6):
            got.extend(str(lease.task_id) for lease in take(leasing, worker, capacity=2))

    threads = [threading.Thread(target=work, args=(W[n],)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert max(Counter(got).values()) == 1


def test_a_long_deal_lets_others_in(store: Store, leasing: Leasing) -> None:
    long, short = deal(bot_size=8), deal()
    store.record_deal(long, now=NOW)
    store.record_deal(short, now=NOW + 2.5)
    order = [take(leasing, W[0], now=NOW + 3)[0].deal_id for _ in range(5)]
    assert order.index(short.deal_id) == 3


def test_a_lease_lives_by_heartbeats_and_dies_by_silence(store: Store, leasing: Leasing, database: Database) -> None:
    store.record_deal(deal(), now=NOW)
    (lease,) = take(leasing, W[0])
    assert not beat(leasing, lease, W[0], now=NOW + 25)
    assert leasing.expire(NOW + 50) == 0
    assert take(leasing, W[1], now=NOW + 50) == []
    assert leasing.expire(NOW + 56) == 1
    assert state_of(database, lease) == "lost"
    assert beat(leasing, lease, W[0], now=NOW + 57), "a worker that comes back too late must stop"
    (second,) = take(leasing, W[1], now=NOW + 57)
    assert second.task_id == lease.task_id
    assert second.lease_id != lease.lease_id


def test_a_failed_try_goes_to_another_at_once_and_to_the_same_after_a_pause(store: Store, leasing: Leasing) -> None:
    store.record_deal(deal(), now=NOW)
    (lease,) = take(leasing, W[0])
    leasing.report(lease.lease_id, W[0], Outcome(R.COMPUTE_FAILED, cause="X"), exit_code=None, now=NOW)
    assert take(leasing, W[0], now=NOW + 0.5) == []
    (again,) = take(leasing, W[0], now=NOW + 1.1)
    leasing.report(again.lease_id, W[0], Outcome(R.COMPUTE_FAILED), exit_code=None, now=NOW + 2)
    assert take(leasing, W[0], now=NOW + 3.5) == []
    assert len(take(leasing, W[1], now=NOW + 2)) == 1


def test_tries_are_capped(store: Store, leasing: Leasing, database: Database, settings: SchedulerSettings) -> None:
    record = deal()
    store.record_deal(record, now=NOW)
    for n in range(settings.max_attempts):
        (lease,) = take(leasing, W[n])
        leasing.report(lease.lease_id, W[n], Outcome(R.FAILED, cause="PLATFORM"), exit_code=None, now=NOW)
    assert take(leasing, W[9], now=NOW + 1000) == []
    row = row_of(database, only_task(record))
    assert (row.phase, row.status) == ("exhausted", "RUNNING_FAILED")
    assert [d.task_id for d in store.to_claim(now=NOW, chain_now=4_000, limit=5)] == [only_task(record)]


def test_the_same_outcome_twice_counts_once(store: Store, leasing: Leasing, database: Database) -> None:
    record = deal()
    store.record_deal(record, now=NOW)
    (lease,) = take(leasing, W[0])
    for _ in range(3):
        leasing.report(lease.lease_id, W[0], Outcome(R.FAILED), exit_code=None, now=NOW)
    assert row_of(database, only_task(record)).attempts == 1


def test_an_outcome_must_end_something(store: Store, leasing: Leasing) -> None:
    store.record_deal(deal(), now=NOW)
    (lease,) = take(leasing, W[0])
    with pytest.raises(InputError, match="COMPUTING does not end a lease"):
        leasing.report(lease.lease_id, W[0], Outcome(R.COMPUTING), exit_code=None, now=NOW)


def test_success_without_proof_on_chain_is_taken_back(store: Store, leasing: Leasing, database: Database) -> None:
    """Abuse case 40: a worker says it contributed and never did."""
    store.record_deal(deal(), now=NOW)
    (lease,) = take(leasing, W[0])
    leasing.report(lease.lease_id, W[0], Outcome(R.CONTRIBUTE_AND_FINALIZE_DONE), exit_code=0, now=NOW)
    assert take(leasing, W[1], now=NOW + 100) == []
    assert leasing.expire(NOW + 121) == 1
    assert state_of(database, lease) == "lost"
    assert len(take(leasing, W[1], now=NOW + 121)) == 1


def test_nobody_moves_another_workers_lease(store: Store, leasing: Leasing) -> None:
    store.record_deal(deal(), now=NOW)
    (lease,) = take(leasing, W[0])
    with pytest.raises(NotFound):
        beat(leasing, lease, W[1])
    with pytest.raises(NotFound):
        leasing.report(lease.lease_id, W[1], Outcome(R.FAILED), exit_code=None, now=NOW)
    with pytest.raises(NotFound):
        leasing.keep_logs(lease.lease_id, W[1], "a", "b")
    with pytest.raises(NotFound):
        authorize(leasing, lease, W[1], W[2])


def authorize(leasing: Leasing, lease: Lease, worker: Address, challenge: Address, chain_now: int = CHAIN_NOW) -> bytes:
    return leasing.authorize(
        lease.lease_id,
        worker,
        challenge,
        lambda task_id: OWNER.sign_message(scheduler_authorization(worker, task_id, challenge)),
        now=NOW,
        chain_now=chain_now,
    )


def test_an_enclave_key_is_signed_once_and_few_are(store: Store, leasing: Leasing, settings: SchedulerSettings) -> None:
    store.record_deal(deal(), now=NOW)
    (lease,) = take(leasing, W[0])
    challenges = [key_of(f"enclave {n}").address for n in range(settings.challenges_per_lease + 1)]
    first = authorize(leasing, lease, W[0], challenges[0])
    assert first == OWNER.sign_message(scheduler_authorization(W[0], lease.task_id, challenges[0]))
    assert authorize(leasing, lease, W[0], challenges[0]) == first
    for challenge in challenges[1:-1]:
        authorize(leasing, lease, W[0], challenge)
    with pytest.raises(Denied, match="had 4 enclave keys signed"):
        authorize(leasing, lease, W[0], challenges[-1])
    assert authorize(leasing, lease, W[0], challenges[0]) == first


def test_nothing_is_signed_for_what_is_over(store: Store, leasing: Leasing) -> None:
    store.record_deal(deal(), now=NOW)
    (lease,) = take(leasing, W[0])
    with pytest.raises(Denied, match="is over"):
        authorize(leasing, lease, W[0], W[3], chain_now=3_100)
    leasing.expire(NOW + 31)
    with pytest.raises(Denied, match="is over"):
        authorize(leasing, lease, W[0], W[3])


def test_an_answer_lost_on_the_way_is_given_again(store: Store, leasing: Leasing) -> None:
    store.record_deal(deal(bot_size=2), now=NOW)
    (lost,) = take(leasing, W[0])
    (again,) = take(leasing, W[0], holding=[], now=NOW + 10)
    assert again.lease_id == lost.lease_id
    assert again.expires_at == int(NOW + 40)
    (other,) = take(leasing, W[0], holding=[lost.lease_id])
    assert other.task_id != lost.task_id


def test_nothing_is_leased_after_the_contribution_deadline(store: Store, leasing: Leasing, database: Database) -> None:
    record = deal()
    store.record_deal(record, now=NOW)
    (lease,) = take(leasing, W[0])
    assert leasing.close_late(3_099, NOW) == 0
    assert leasing.close_late(3_100, NOW) == 1
    assert state_of(database, lease) == "aborted"
    assert beat(leasing, lease, W[0])
    assert row_of(database, only_task(record)).status == "CONTRIBUTION_TIMEOUT"
    late = deal()
    store.record_deal(late, now=NOW)
    assert take(leasing, W[1], chain_now=3_100) == []


def test_a_large_deal_is_written_a_window_at_a_time(store: Store, leasing: Leasing, database: Database) -> None:
    record = deal(bot_first=4, bot_size=20)
    store.record_deal(record, now=NOW)
    with database.read_scope() as session:
        assert sorted(session.execute(select(tasks.c.deal_index)).scalars()) == list(range(4, 12))
    assert store.fill_windows(now=NOW) == 0
    for index in range(3):
        reconcile(database, observed(record, TaskStatus.FAILED, index=index), now=NOW, lease_seconds=30)
    assert store.fill_windows(now=NOW) == 3
    assert len(take(leasing, W[0], capacity=100)) == 8


def test_a_vast_free_deal_costs_a_window(store: Store, database: Database) -> None:
    store.record_deal(deal(bot_size=2**53 - 1), now=NOW)
    with database.read_scope() as session:
        assert len(session.execute(select(tasks.c.task_id)).all()) == 8


def test_replicas_go_to_different_workers_until_consensus(store: Store, leasing: Leasing, database: Database) -> None:
    record = deal(trust=3)
    store.record_deal(record, now=NOW)
    (first,) = take(leasing, W[0], capacity=5)
    assert take(leasing, W[0], capacity=5, now=NOW + 99) == []
    (second,) = take(leasing, W[1])
    assert take(leasing, W[2]) == [], "two agreeing workers are enough for trust 3"
    told = {W[0]: (ContributionStatus.CONTRIBUTED, "x"), W[1]: (ContributionStatus.CONTRIBUTED, "y")}
    reconcile(database, observed(record, TaskStatus.ACTIVE, contributions=told), now=NOW, lease_seconds=30)
    # They disagree: the leading group needs two more.
    third, fourth, fifth = take(leasing, W[2]), take(leasing, W[3]), take(leasing, W[4])
    assert (len(third), len(fourth), len(fifth)) == (1, 1, 0)
    leasing.report(third[0].lease_id, W[2], Outcome(R.FAILED), exit_code=None, now=NOW)
    assert take(leasing, W[2], now=NOW) == [], "not at once"
    (again,) = take(leasing, W[2], now=NOW + 999)
    assert take(leasing, W[0], now=NOW + 999) == [], "who contributed has had its say"
    leasing.report(again.lease_id, W[2], Outcome(R.FAILED), exit_code=None, now=NOW + 999)
    assert {state_of(database, first), state_of(database, second)} == {"contributed"}
    assert leasing.expire(NOW + 10_000) == 1, "only the one still computing can be lost"


def test_reveals_are_counted_and_results_kept(store: Store, leasing: Leasing, database: Database) -> None:
    record = deal(trust=3)
    store.record_deal(record, now=NOW)
    mine, other = take(leasing, W[0])[0], take(leasing, W[1])[0]
    contributed, proved = ContributionStatus.CONTRIBUTED, ContributionStatus.PROVED
    told = {W[0]: (contributed, "x"), W[1]: (contributed, "x")}
    seen = observed(record, TaskStatus.REVEALING, contributions=told, consensus="x", reveal_deadline=1_700)
    reconcile(database, seen, now=NOW, lease_seconds=30)
    assert store.revealed_results(only_task(record)) is None
    leasing.report(
        other.lease_id, W[1], Outcome(R.REVEALED, results="there", results_callback=b"\x01"), exit_code=0, now=NOW
    )
    told[W[1]] = (proved, "x")
    seen = observed(record, TaskStatus.REVEALING, contributions=told, consensus="x", reveal_deadline=1_700)
    reconcile(database, seen, now=NOW, lease_seconds=30)
    assert store.revealed_results(only_task(record)) == ("there", b"\x01")
    (duty,) = store.to_conclude(now=NOW, chain_now=1_100, limit=5)
    assert (duty.reveal_count, duty.winner_count, duty.reveal_deadline) == (1, 2, 1_700)
    assert not beat(leasing, mine, W[0], R.REVEALING)
    done = observed(record, TaskStatus.COMPLETED, contributions=told, consensus="x")
    reconcile(database, done, now=NOW, lease_seconds=30)
    assert (state_of(database, other), state_of(database, mine)) == ("done", "aborted")
    row = row_of(database, only_task(record))
    assert (row.phase, row.status, row.live) == ("completed", "COMPLETED", 0)


def test_reopened_tasks_are_leased_to_others(store: Store, leasing: Leasing, database: Database) -> None:
    record = deal(trust=3)
    store.record_deal(record, now=NOW)
    for worker in W[:2]:
        take(leasing, worker)
    told = dict.fromkeys(W[:2], (ContributionStatus.CONTRIBUTED, "x"))
    reconcile(
        database,
        observed(record, TaskStatus.REVEALING, contributions=told, consensus="x"),
        now=NOW,
        lease_seconds=30,
    )
    assert take(leasing, W[2]) == []
    told = dict.fromkeys(W[:2], (ContributionStatus.REJECTED, "x"))
    reconcile(database, observed(record, TaskStatus.ACTIVE, contributions=told), now=NOW, lease_seconds=30)
    assert row_of(database, only_task(record)).status == "REOPENED"
    assert take(leasing, W[0]) == []
    assert len(take(leasing, W[2])) == len(take(leasing, W[3])) == 1


def test_a_chain_that_goes_back_takes_everything_back(store: Store, leasing: Leasing, database: Database) -> None:
    record = deal()
    store.record_deal(record, now=NOW)
    (lease,) = take(leasing, W[0])
    told = {W[0]: (ContributionStatus.PROVED, "x")}
    reconcile(database, observed(record, TaskStatus.COMPLETED, contributions=told), now=NOW, lease_seconds=30)
    assert state_of(database, lease) == "done"
    reconcile(database, observed(record, TaskStatus.UNSET), now=NOW, lease_seconds=30)
    row = row_of(database, only_task(record))
    assert (row.phase, row.status, row.initialized) == ("open", "RECEIVED", False)
    assert state_of(database, lease) == "running"
    assert [d.task_id for d in store.to_initialize(now=NOW, chain_now=CHAIN_NOW, limit=9)] == [only_task(record)]

    assert store.tasks_seen_after(10) == [only_task(record)]
    assert store.tasks_seen_after(11) == []
    assert store.doubt_deals(after_block=9) == 1
    assert store.doubtful_deals() == [record.deal_id]
    leasing.expire(NOW + 31)
    assert take(leasing, W[1], now=NOW + 31) == [], "a deal in doubt is not leased"
    store.forget_deal(record.deal_id, now=NOW)
    assert row_of(database, only_task(record)).phase == "gone"
    assert not store.record_deal(deal(deal_id=record.deal_id, block_number=12), now=NOW)
    (back,) = take(leasing, W[1], now=NOW + 32)
    assert back.task_id == lease.task_id


def test_one_replica_leads_at_a_time(store: Store) -> None:
    assert store.lead("x", "a" * 32, now=100.0, seconds=10)
    assert not store.lead("x", "b" * 32, now=105.0, seconds=10)
    assert store.lead("x", "a" * 32, now=109.0, seconds=10)
    assert store.lead("x", "b" * 32, now=120.0, seconds=10)
    store.resign("x", "b" * 32)
    assert store.lead("x", "a" * 32, now=120.0, seconds=10)
