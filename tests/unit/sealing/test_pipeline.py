"""sealing.pipeline: making and using chunks side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from cloister.errors import InputError
from cloister.sealing.pipeline import run_ahead


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def test_gives_everything_in_order() -> None:
    assert list(run_ahead(range(1, 1000), depth=3)) == list(range(1, 1000))
    assert list(run_ahead([])) == []
    assert "content-ahead" not in names()


def test_an_error_of_the_producer_comes_after_its_chunks() -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise ZeroDivisionError("broken")

    ahead = run_ahead(failing())
    seen = [next(ahead), next(ahead)]
    with pytest.raises(ZeroDivisionError, match="broken"):
        next(ahead)
    assert seen == [1, 2]


def test_a_consumer_that_stops_stops_the_producer() -> None:
    closed = threading.Event()
    made = []

    def endless() -> Iterator[int]:
        try:
            number = 0
            while True:
                number += 1
                made.append(number)
                yield number
        finally:
            closed.set()

    ahead = run_ahead(endless(), depth=2)
    assert next(ahead) == 1
    ahead.close()  # type: ignore[attr-defined]
    assert closed.is_set()
    assert len(made) <= 5
    assert "content-ahead" not in names()


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_under_one_is_refused(depth: int) -> None:
    with pytest.raises(InputError, match="1 or more"):
        next(run_ahead([1], depth=depth))


def test_waits_for_a_slow_producer() -> None:
    def slow() -> Iterator[int]:
        for number in (1, 2):
            time.sleep(0.25)
            yield number

    assert list(run_ahead(slow())) == [1, 2]


def test_runs_at_most_depth_ahead() -> None:
    made = []

    def counted() -> Iterator[int]:
        for number in range(1, 50):
            made.append(number)
            yield number

    most = 0
    for item in run_ahead(counted(), depth=4):
        most = max(most, len(made) - item)
    assert most <= 6
