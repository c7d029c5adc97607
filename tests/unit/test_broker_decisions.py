"""Who is given what, how much, and what is taken back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.broker import FRAME_MOST, Broker
from tests.unit.brokers import held, told


def test_what_comes_back_stands_where_it_stood() -> None:
    broker = Broker()
    broker.push([1, 2, 1, 2, 1])
    broker.join("a", 7)
    assert broker.grants() == [("a", [0]), ("a", [1]), ("a", [2]), ("a", [3]), ("a", [4])]
    broker.give_back("a", [4, 1, 3])
    broker.drain("a")
    broker.join("b", 1)
    assert broker.grants() == [("b", [4])]
    broker.settle("b", [4])
    broker.join("c", 7)
    assert broker.grants() == [("c", [1, 3])]


def laden(cores: int = 1, seconds: float = 0.003) -> Broker:
    """Return a broker whose worker has ended place 0, with a failure, and holds others ahead."""
    broker = Broker()
    broker.push([1] * 100)
    broker.join("a", cores)
    broker.grants()
    broker.settle("a", [0], seconds)
    broker.grants()
    assert len(broker.held("a")) > 10
    return broker


def test_a_repeat_goes_before_what_a_worker_has_not_begun() -> None:
    """Though the failure came so quickly that calls were taken for tiny, and it was given many."""
    broker = laden()
    broker.again(0)
    assert broker.grants() == [("a", [0])]
    broker.give_back("a", [0])  # it drains, say; what failed once hurries still
    assert broker.grants() == [("a", [0])]


def test_as_many_repeats_hurry_as_have_another_ready_whenever_one_ends() -> None:
    broker = laden(cores=2)
    broker.push([1] * 10)
    running = sorted(broker.held("a"))[:6]
    broker.settle("a", running, 0.003)
    for place in running:
        broker.again(place)
    first, *others = (place for _, places in broker.grants() for place in places)
    assert [first, *others] == running[:4]
    broker.settle("a", [first], 0.003)
    assert broker.grants() == [("a", [running[4]])]


def test_who_does_not_hurry() -> None:
    broker = laden()
    broker.withdraw()
    broker.again(99)
    assert broker.grants() == []  # behind all that is held
    for how in ({"suspect": True}, {"suspect": True, "alone": True}):
        broker = laden()
        broker.again(0, **how)
        assert broker.grants() == []
        broker.settle("a", [1])
        assert broker.grants() == []
    broker = laden()
    broker.drain("a")
    broker.again(0)
    assert broker.grants() == []


def test_a_repeat_finds_the_one_that_is_wide_enough() -> None:
    broker = Broker()
    told(broker, {1: 0.001, 2: 0.001})
    broker.push([2, *[1] * 40])
    broker.join("wide", 2)
    broker.grants()
    broker.settle("wide", [2], 0.001)
    broker.grants()
    for name in ("narrow", "other"):
        broker.join(name, 1)
        broker.grants()
        assert broker.running(name) < broker.count(name)
    broker.again(2)
    assert broker.grants() == [("wide", [2])]


def test_equals_in_a_row_travel_in_one_frame() -> None:
    broker = Broker()
    broker.push([1, 1, 1, 2, 2, 1])
    broker.join("a", 100)
    assert broker.grants() == [("a", [0, 1, 2]), ("a", [3, 4]), ("a", [5])]


def test_a_frame_passes_over_what_others_have_and_takes_in_what_came_back() -> None:
    broker = Broker()
    broker.push([1] * 10, done=[2])
    broker.join("a", 2)
    assert broker.grants() == [("a", [0, 1])]
    broker.join("b", 8)
    broker.adopt("b", [4, 6])
    broker.give_back("a", [1])
    broker.drain("a")
    assert broker.grants() == [("b", [1, 3, 5, 7, 8, 9])]


def test_a_frame_holds_a_bounded_number() -> None:
    broker = Broker()
    broker.push([1] * (2 * FRAME_MOST + 1))
    broker.join("a", 10 * FRAME_MOST)
    assert [len(places) for _, places in broker.grants()] == [FRAME_MOST, FRAME_MOST, 1]


def test_one_that_backfills_gets_twice_what_it_can_start() -> None:
    broker = Broker()
    broker.push([2, 1, 2, 1, 1, 1])
    broker.join("a", 3, backfill=True)
    broker.grants()
    assert held(broker, "a") == [[0, 1, 2, 3]]


def test_nobody_waits_for_a_task_that_only_another_can_run() -> None:
    broker = Broker()
    broker.push([4, 1])
    broker.join("narrow", 1)
    assert broker.grants() == [("narrow", [1])]
    broker.join("wide", 4)
    assert broker.grants() == [("wide", [0])]


@given(
    st.integers(1, 400),
    st.lists(st.integers(1, 8), min_size=1, max_size=8),
    st.sampled_from([1e-6, 1e-3, 0.02]),
)
def test_nobody_holds_ahead_what_another_could_start(count: int, cores: list[int], seconds: float) -> None:
    broker = Broker()
    told(broker, {1: seconds})
    broker.push([1] * count)
    names = [f"w{index}" for index in range(len(cores))]
    for name, mine in zip(names, cores, strict=True):
        broker.join(name, mine)
    broker.grants()
    holds = [len(broker.held(name)) for name in names]
    if any(many > mine for many, mine in zip(holds, cores, strict=True)):
        assert all(many >= mine for many, mine in zip(holds, cores, strict=True))


def test_what_is_left_is_shared() -> None:
    broker = Broker()
    told(broker, {1: 1e-5})
    broker.push([1] * 400)
    broker.join("a", 1)
    broker.join("b", 1)
    broker.grants()
    mine, others = (len(places) for places in held(broker, "a", "b"))
    assert 50 <= others <= mine <= 150
    assert sum(broker.waiting().values()) == 400 - mine - others


@pytest.mark.parametrize(("seconds", "least", "most"), [(1e-5, 50, 200), (1e-3, 1, 3)])
def test_tiny_tasks_travel_in_numbers_also_to_many_workers(seconds: float, least: int, most: int) -> None:
    broker = Broker()
    told(broker, {1: seconds})
    broker.push([1] * 20_000)
    names = [f"w{number}" for number in range(10_000)]
    for name in names:
        broker.join(name, 1)
    grants = broker.grants()
    assert least <= max(len(grant.places) for grant in grants) <= most


def test_tiny_tasks_travel_in_numbers_and_long_ones_one_by_one() -> None:
    for seconds, least, most in ((1e-5, 1000, 10_000), (0.01, 20, 102), (1.0, 2, 2)):
        broker = Broker()
        told(broker, {1: seconds})
        broker.push([1] * 100_000)
        broker.join("a", 2)
        broker.grants()
        assert least <= len(broker.held("a")) <= most


def test_a_duration_beyond_reason_is_not_believed() -> None:
    broker = Broker()
    told(broker, {1: float("inf")})
    broker.push([1] * 3)
    broker.join("a", 1)
    broker.grants()
    assert held(broker, "a") == [[1]]


@pytest.mark.parametrize("backfill", [False, True])
def test_what_was_recalled_goes_to_the_idle_one(backfill: bool) -> None:
    """Not back to its giver, again and again, because that one seems to be done soon."""
    broker = Broker()
    told(broker, {1: 0.001})
    broker.push([1, 1])
    broker.join("busy", 1, backfill=backfill)
    broker.grants()
    assert held(broker, "busy") == [[1, 2]]
    broker.join("idle", 1)
    assert broker.grants() == []
    assert broker.recalls() == [("busy", 1)]
    assert broker.recalls() == []  # it was asked
    broker.give_back("busy", [2])
    assert broker.grants() == [("idle", [2])]
    assert broker.recalls() == []


def test_only_what_an_idle_one_could_start_is_recalled() -> None:
    broker = Broker()
    told(broker, {1: 0.001, 4: 0.001})
    broker.push([1] * 3 + [4])
    broker.join("busy", 4)
    broker.grants()
    assert held(broker, "busy") == [[2, 3, 4, 5]]
    broker.join("idle", 2)
    assert broker.recalls() == []  # of its unstarted ones, none
    broker.join("wide", 4)
    assert broker.recalls() == [("busy", 1)]


def test_a_narrow_one_behind_which_a_wide_one_stands_is_recalled_with_it() -> None:
    broker = Broker()
    told(broker, {1: 0.001, 4: 0.001})
    broker.push([1] * 5 + [4])
    broker.join("busy", 4)
    broker.grants()
    assert held(broker, "busy") == [[2, 3, 4, 5, 6, 7]]
    broker.join("idle", 1)
    assert broker.recalls() == [("busy", 2)]
    broker.give_back("busy", [7, 6])
    assert broker.grants()[0] == ("idle", [6])


def test_one_that_drains_or_has_not_the_cores_free_is_not_idle() -> None:
    broker = Broker()
    told(broker, {2: 0.001})
    broker.push([2, 2, 1, 1])
    broker.join("busy", 2)
    broker.grants()
    assert held(broker, "busy") == [[1, 2]]
    for name in ("half", "other half"):
        broker.join(name, 2)
        broker.drain(name)
    broker.join("half", 2)
    broker.join("narrow", 1)
    broker.grants()
    assert held(broker, "half", "narrow") == [[3, 4], []]
    broker.settle("half", [4])
    broker.join("drains", 2)
    broker.drain("drains")
    assert broker.recalls() == []
    broker.settle("half", [3])
    assert broker.recalls() == [("busy", 1)]


def test_after_a_refusal_it_is_asked_again() -> None:
    broker = Broker()
    told(broker, {1: 0.001})
    broker.push([1, 1])
    broker.join("busy", 1)
    broker.grants()
    broker.join("idle", 1)
    assert broker.recalls() == [("busy", 1)]
    broker.give_back("busy", [])
    assert broker.recalls() == [("busy", 1)]


def test_a_late_failure_does_not_take_the_next_attempt_out_of_line() -> None:
    broker = Broker()
    broker.push([1])
    broker.join("asleep", 1)
    broker.grants()
    assert broker.leave("asleep") == [0]
    broker.again(0, suspect=True)
    broker.join("asleep", 1)  # it was not dead after all, and tells how its attempt ended
    broker.drain("asleep")
    broker.settle("asleep", [0])
    broker.join("other", 1)
    assert broker.grants() == [("other", [0])]


def test_an_attempt_given_up_that_still_runs_is_held_once() -> None:
    broker = Broker()
    broker.push([2])
    broker.join("a", 4)
    broker.grants()
    broker.again(0)
    assert broker.grants() == [("a", [0])]
    broker.settle("a", [0])
    assert broker.leased() == 0
    broker.push([4])
    assert broker.grants() == [("a", [1])]


def test_after_a_halt_nothing_is_handed_out_and_nothing_comes_back() -> None:
    broker = Broker()
    broker.push([1] * 4)
    broker.join("a", 2)
    broker.grants()
    broker.halt()
    broker.give_back("a", [1])
    broker.again(1)
    assert (broker.waiting(), broker.grants(), held(broker, "a")) == ({}, [], [[0]])


def test_running_are_those_that_fit_at_once() -> None:
    broker = Broker()
    broker.push([1, 2, 3, 1])
    broker.join("a", 7)
    broker.grants()
    assert broker.running("a") == 4
    told_after = Broker()
    told(told_after, {1: 0.001, 2: 0.001, 3: 0.001})
    told_after.push([1, 2, 3])
    told_after.join("a", 4)
    told_after.grants()
    assert held(told_after, "a") == [[3, 4, 5]]
    assert told_after.running("a") == 2


def test_an_idle_worker_is_given_half_of_what_another_can_not_begin() -> None:
    """What seemed tiny may be long: to take back one at a time would take as many turns."""
    broker = Broker()
    told(broker, {1: 1e-5})
    broker.push([1] * 72)
    broker.join("a", 1)
    broker.grants()
    assert broker.count("a") == 72, "or the rest of the line is the other's at once"
    broker.join("b", 1)
    assert broker.grants() == []
    assert broker.recalls() == [("a", 35)]
