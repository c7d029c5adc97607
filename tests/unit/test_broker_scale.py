"""The broker with many workers and tasks, on a virtual clock; `benchmarks/simulate.py` has more of both."""

from __future__ import annotations

import pytest

from benchmarks.simulate import RECALL, replay


# The time limit is part of the test: whatever looked at all workers for each task would not be done by then.
@pytest.mark.timeout(90)
def test_two_thousand_workers_and_a_hundred_thousand_tasks() -> None:
    one, figures = replay(2000, 100_000, seed=3)
    assert set(one.starts) == {1}, "a task ran twice, or not at all"
    assert figures.makespan >= figures.bound
    # The last tasks are the widest, and may be the longest, so that much comes on top.
    assert figures.makespan < 1.05 * figures.in_order + 100
    assert figures.idle_tail <= 4 * RECALL


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("seconds", [[0.0001], [0.001, 0.02], [0.0001, 0.5]])
def test_no_worker_idles_at_the_tail(seconds: list[float], seed: int) -> None:
    """Of small tasks workers hold many: they must give back what others could start."""
    one, figures = replay(20, 20_000, seed, seconds)
    assert set(one.starts) == {1}
    assert figures.idle_tail <= 4 * RECALL


def test_a_task_that_waits_costs_some_tens_of_bytes() -> None:
    _, figures = replay(10, 300_000, 1, [0.01])
    assert figures.bytes_per_task < 200
