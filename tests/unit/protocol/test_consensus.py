"""Weights and money as pure rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.errors import InputError
from cloister.protocol.codec import Address
from cloister.protocol.consensus import (
    KITTY_MIN,
    NO_TALLY,
    Share,
    deal_cost,
    kitty_bonus,
    log_weight,
    pool_stake,
    score_after,
    settle,
    settle_at_once,
    weight,
    worker_stake,
)

WORKERS = [Address("0x" + f"{number:02x}" * 20) for number in range(1, 9)]
amounts = st.integers(min_value=0, max_value=10**18)
percents = st.integers(min_value=0, max_value=100)


@pytest.mark.parametrize(
    ("score", "heavy", "log"), [(0, 2, 1), (8, 2, 1), (9, 2, 1), (12, 3, 1), (15, 4, 2), (27, 8, 3), (300, 99, 6)]
)
def test_weights_grow_with_the_score(score: int, heavy: int, log: int) -> None:
    assert (weight(score), log_weight(score)) == (heavy, log)


def test_trust_one_believes_the_first() -> None:
    assert NO_TALLY.add("a", 2).reaches("a", 1)


def test_equal_results_multiply_and_others_weigh_against_them() -> None:
    one = NO_TALLY.add("a", 2)
    assert one.reaches("a", 2)
    assert not one.reaches("a", 3)
    two = one.add("b", 2)
    assert (two.groups, two.total) == ({"a": 2, "b": 2}, 5)
    assert not two.reaches("a", 2)
    three = two.add("a", 2)
    assert (three.groups["a"], three.total) == (4, 7)
    assert three.reaches("a", 2)
    assert not three.reaches("a", 3)
    with pytest.raises(InputError):
        three.reaches("a", 0)


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(min_value=2, max_value=50)), max_size=8), st.integers(2, 20)
)
def test_two_results_are_never_both_believed(votes: list[tuple[str, int]], trust: int) -> None:
    tally = NO_TALLY
    for result, heavy in votes:
        tally = tally.add(result, heavy)
    assert tally.total == 1 + sum(tally.groups.values())
    assert sum(tally.reaches(result, trust) for result in "abc") <= 1


@given(
    app=amounts,
    data=amounts,
    pool=amounts,
    percent=percents,
    stake=amounts,
    weights=st.lists(st.tuples(st.integers(min_value=1, max_value=10), st.booleans()), min_size=1, max_size=8),
    kitty=amounts,
)
def test_money_is_conserved(
    app: int, data: int, pool: int, percent: int, stake: int, weights: list[tuple[int, bool]], kitty: int
) -> None:
    shares = [Share(worker, heavy, wins) for worker, (heavy, wins) in zip(WORKERS, weights, strict=False)]
    arguments = {
        "app_price": app,
        "dataset_price": data,
        "workerpool_price": pool,
        "scheduler_reward_percent": percent,
        "worker_stake": stake,
        "shares": shares,
        "kitty": kitty,
    }
    if not any(share.is_winner for share in shares):
        with pytest.raises(InputError):
            settle(**arguments)  # type: ignore[arg-type]
        return
    split = settle(**arguments)  # type: ignore[arg-type]
    assert split.paid == app + data + pool + sum(split.seized.values()) + kitty_bonus(kitty)
    assert set(split.workers) | set(split.seized) == {share.worker for share in shares}
    assert min(split.pool_owner, *split.workers.values()) >= 0
    # The workers never get more than their part, and what rounding leaves goes to the pool.
    assert sum(split.workers.values()) * 100 <= (pool + sum(split.seized.values())) * (100 - percent)


def test_one_worker_gets_the_workers_part() -> None:
    split = settle_at_once(
        app_price=1, dataset_price=2, workerpool_price=101, scheduler_reward_percent=1, worker=WORKERS[0], kitty=0
    )
    assert (split.workers[WORKERS[0]], split.pool_owner) == (99, 2)
    with pytest.raises(InputError):
        settle_at_once(
            app_price=0, dataset_price=0, workerpool_price=0, scheduler_reward_percent=101, worker=WORKERS[0], kitty=0
        )


@pytest.mark.parametrize(
    ("kitty", "bonus"),
    [(0, 0), (5, 5), (KITTY_MIN, KITTY_MIN), (KITTY_MIN * 5, KITTY_MIN), (KITTY_MIN * 20, KITTY_MIN * 2)],
)
def test_the_kitty_gives_a_tenth_but_at_least_one_rlc(kitty: int, bonus: int) -> None:
    assert kitty_bonus(kitty) == bonus


def test_stakes_and_scores() -> None:
    assert (pool_stake(1001), worker_stake(1001, 30), worker_stake(999, 0)) == (300, 300, 0)
    assert deal_cost(app_price=1, dataset_price=2, workerpool_price=3, volume=4) == 24
    assert score_after(10, accurate=True, contributors=1) == 10
    assert score_after(10, accurate=True, contributors=3) == 11
    assert score_after(10, accurate=False, contributors=3) == 6
