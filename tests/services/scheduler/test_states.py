"""The tables of a lease's life, walked completely, and the count of workers a consensus needs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.services.scheduler.states import (
    EXPIRING_STATES,
    LIVE_STATES,
    TRANSITIONS,
    Vote,
    missing_votes,
    next_state,
)
from cloister.services.scheduler.states import (
    LeaseEvent as E,
)
from cloister.services.scheduler.states import (
    LeaseState as S,
)

FROM_WORKER = (E.HEARTBEAT, E.EXPIRE, E.REPORT_SUCCESS, E.REPORT_FAILURE)

# Each row: what every event makes of the state, in the order of LeaseEvent. Written out by hand, not derived:
# heartbeat, expire, success, failure | contribute, reveal, retract, win, lose, cancel
EXPECTED = {
    S.RUNNING: (
        *(S.RUNNING, S.LOST, S.REPORTED, S.FAILED),
        *(S.CONTRIBUTED, S.REVEALED, S.RUNNING, S.DONE, S.ABORTED, S.ABORTED),
    ),
    S.REPORTED: (
        *(S.REPORTED, S.LOST, S.REPORTED, S.FAILED),
        *(S.CONTRIBUTED, S.REVEALED, S.REPORTED, S.DONE, S.ABORTED, S.ABORTED),
    ),
    S.CONTRIBUTED: (*[S.CONTRIBUTED] * 5, S.REVEALED, S.RUNNING, S.DONE, S.ABORTED, S.ABORTED),
    S.REVEALED: (*[S.REVEALED] * 4, S.CONTRIBUTED, S.REVEALED, S.RUNNING, S.DONE, S.ABORTED, S.ABORTED),
    S.DONE: (*[S.DONE] * 4, S.CONTRIBUTED, S.REVEALED, S.RUNNING, S.DONE, S.ABORTED, S.ABORTED),
    S.FAILED: (*[S.FAILED] * 4, S.CONTRIBUTED, S.REVEALED, S.FAILED, S.DONE, S.FAILED, S.FAILED),
    S.LOST: (*[S.LOST] * 4, S.CONTRIBUTED, S.REVEALED, S.LOST, S.DONE, S.LOST, S.LOST),
    S.ABORTED: (*[S.ABORTED] * 4, S.CONTRIBUTED, S.REVEALED, S.ABORTED, S.DONE, S.ABORTED, S.ABORTED),
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_every_state_and_event(state: S, event: E) -> None:
    assert next_state(state, event) is EXPECTED[state][list(E).index(event)]


def test_the_table_is_complete() -> None:
    assert set(TRANSITIONS) == set(S)
    assert all(set(row) == set(E) for row in TRANSITIONS.values())


@given(st.sampled_from(S), st.lists(st.sampled_from(FROM_WORKER)))
def test_no_worker_talks_itself_into_what_only_the_chain_shows(state: S, events: list[E]) -> None:
    shown = {S.CONTRIBUTED, S.REVEALED, S.DONE}
    here = state
    for event in events:
        here = next_state(here, event)
        assert here is state or here not in shown


@given(st.sampled_from(S), st.sampled_from(E))
def test_events_may_be_repeated(state: S, event: E) -> None:
    once = next_state(state, event)
    if event is E.RETRACT:  # what was taken back can be lost afterwards
        once = next_state(once, event)
    assert next_state(once, event) is once


def test_what_ended_revives_only_by_the_chain() -> None:
    for state, event in itertools.product((S.FAILED, S.LOST, S.ABORTED), E):
        assert (next_state(state, event) in LIVE_STATES) == (event in (E.CONTRIBUTE, E.REVEAL))


def test_only_silent_leases_without_a_contribution_expire() -> None:
    assert {state for state in S if next_state(state, E.EXPIRE) is S.LOST and state is not S.LOST} == EXPIRING_STATES


@pytest.mark.parametrize(
    ("trust", "needed"),
    [
        (0, 1),
        (1, 1),
        (2, 1),  # 2 * 2 > 3 * 1
        (3, 2),  # 4 * 3 > 5 * 2
        (4, 2),  # 4 * 4 > 5 * 3
        (5, 3),  # 4 * 5 = 5 * 4 is not enough
        (9, 4),
        (100, 7),
    ],
)
def test_workers_of_least_weight_for_a_trust(trust: int, needed: int) -> None:
    assert missing_votes((), trust) == needed


def test_agreement_counts_and_dissent_costs() -> None:
    assert missing_votes((Vote("a", 2),), 3) == 1
    assert missing_votes((Vote("a", 2), Vote("a", 2)), 3) == 0
    # others weigh 1 + 2: 4 * 3 <= 7 * 2, 8 * 3 > 11 * 2
    assert missing_votes((Vote("a", 2), Vote("b", 2)), 3) == 2
    assert missing_votes((Vote("a", 30),), 3) == 0


@given(
    st.lists(st.builds(Vote, st.sampled_from("abc"), st.integers(2, 40)), max_size=6).map(tuple), st.integers(2, 1000)
)
def test_the_missing_votes_are_enough_and_one_less_is_not(votes: tuple[Vote, ...], trust: int) -> None:
    missing = missing_votes(votes, trust)
    groups: dict[str, int] = {}
    for vote in votes:
        groups[vote.result_hash] = groups.get(vote.result_hash, 1) * vote.weight
    leading = max(groups, key=lambda name: groups[name], default="a")

    def consensus(more: int) -> bool:
        group = groups.get(leading, 0)
        for _ in range(more):
            group = max(group, 1) * 2
        total = 1 + sum(weight for name, weight in groups.items() if name != leading) + group
        return group * trust > total * (trust - 1)

    assert consensus(missing)
    assert missing == 0 or not consensus(missing - 1)
