"""How many calls a child is given at once."""

from __future__ import annotations

from executor.batching import (
    BATCH_MOST,
    BATCH_SECONDS,
    BLOCKED_SECONDS,
    ENOUGH_MOST,
    ENOUGH_SECONDS,
    LOOK_AHEAD_MOST,
    SHARED_SECONDS,
    SLOW_SECONDS,
    Batching,
)


def seen(seconds: float, width: int = 1) -> Batching:
    pace = Batching()
    pace.learn(width, seconds)
    return pace


def test_nothing_is_known_at_first() -> None:
    pace = Batching()
    assert pace.batch(1, 1000, 2) == 1
    assert not pace.looks_ahead(1)
    assert not pace.is_much(1, 1000)
    assert pace.slow_after(1) == SLOW_SECONDS
    assert pace.blocked_after(1) == BLOCKED_SECONDS + SLOW_SECONDS


def test_a_batch_is_some_moments_work_and_no_more_than_a_fair_share() -> None:
    assert seen(BATCH_SECONDS / 8).batch(1, 1000, 2) == 8
    assert seen(BATCH_SECONDS / 8).batch(1, 5, 2) == 3
    assert seen(BATCH_SECONDS / 8).batch(1, 5, 0) == 5
    assert seen(0.0).batch(1, 10**6, 2) == BATCH_MOST
    assert seen(BATCH_SECONDS).batch(1, 1000, 2) == 1


def test_widths_have_each_their_own() -> None:
    pace = seen(0.0, width=2)
    assert (pace.batch(2, 1000, 1), pace.batch(1, 1000, 1)) == (BATCH_MOST, 1)


def test_what_was_seen_lately_counts_most() -> None:
    pace = seen(1.0)
    for _ in range(20):
        pace.learn(1, BATCH_SECONDS / 8)
    assert pace.batch(1, 1000, 2) == 7


def test_long_calls_keep_nobody_waiting() -> None:
    assert seen(LOOK_AHEAD_MOST / 2).looks_ahead(1)
    assert not seen(LOOK_AHEAD_MOST).looks_ahead(1)
    assert 2.0 < seen(1.0).slow_after(1) < 2.5


def test_a_child_has_some_moments_work_beside_what_it_runs() -> None:
    assert seen(ENOUGH_SECONDS / 8).enough(1) == 8
    assert seen(2 * ENOUGH_SECONDS).enough(1) == 1
    assert seen(0.0).enough(1) == ENOUGH_MOST
    assert Batching().enough(1) == 1


def test_reports_come_while_there_is_as_much_to_run_again() -> None:
    for seconds in (ENOUGH_SECONDS / 8, ENOUGH_SECONDS / ENOUGH_MOST / 10):
        pace = seen(seconds)
        assert pace.linger(1) == pace.enough(1) * seconds / 2


def test_what_is_little_is_not_moved() -> None:
    assert not seen(SHARED_SECONDS / 10).is_much(1, 5)
    assert seen(SHARED_SECONDS / 10).is_much(1, 20)
