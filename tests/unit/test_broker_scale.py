"""The broker with many workers and tasks, on a virtual clock; `benchmarks/simulate.py` has more of both."""

from __future__ import annotations

import random

import pytest

from benchmarks.simulate import RECALL, replay
from executor.broker import Broker


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


# As above: to look for each place in all that waits, or came back, would take minutes.
@pytest.mark.timeout(30)
def test_a_thousand_workers_that_have_a_hundred_tasks_each_from_before() -> None:
    tasks, names, each = 300_000, [f"w{number}" for number in range(1000)], 100
    broker = Broker()
    broker.push([1] * tasks)
    places = random.Random(1).sample(range(tasks), len(names) * each)
    for index, name in enumerate(names):
        mine = sorted(places[index * each : (index + 1) * each])
        broker.join(name, 4)
        broker.adopt(name, mine)
        broker.give_back(name, mine[4:])
    assert broker.leased() == 4 * len(names)
    assert broker.waiting() == {1: tasks - 4 * len(names)}
    broker.join("other", 64)
    (grant, *_) = broker.grants()
    held = {place for name in names for place in broker.held(name)}
    assert grant.places == [place for place in range(tasks) if place not in held][: len(grant.places)]
