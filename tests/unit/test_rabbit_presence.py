"""Which workers a dispatcher of RabbitMQ knows of, and what it believes them to have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from executor.messages import Hello, Holding, Running, introduce
from executor.run import Earlier, Run
from executor.task import Task
from transports.rabbitmq.presence import Open, Presence


def hello(
    name: str = "w", cores: int = 2, *, leaving: bool = False, holding: list[int] | None = None,
    stopped: Sequence[str] = (),
) -> Hello:  # fmt: skip
    """Return a worker's announcement, of places of run ``r``."""
    made = introduce(name, cores)
    held = {"r": holding} if holding else {}
    return msgspec.structs.replace(made, instance=name, leaving=leaving, holding=held, stopped=list(stopped))


def of_r(holding: Holding) -> Iterable[int]:
    """Return the places of run ``r``."""
    return holding.get("r", {})


@given(st.lists(st.integers(1, 4), max_size=20), st.lists(st.tuples(st.booleans(), st.integers(-3, 25))))
def test_the_counts_are_those_of_the_open_calls(widths: list[int], moves: list[tuple[bool, int]]) -> None:
    calls = Open(widths)
    closed: set[int] = set()
    for closes, place in moves:
        if closes:
            calls.close(place)
            closed.add(place)
        elif 0 <= place < len(widths):
            calls.reopen(place)
            closed.discard(place)
    still = [place for place in range(-3, 26) if place in calls]
    assert still == list(calls) == [place for place in range(len(widths)) if place not in closed]
    assert +calls.counts == Counter(widths[place] for place in still)


@given(st.lists(st.integers(1, 4), max_size=20), st.lists(st.lists(st.integers(-3, 25))))
def test_calls_closed_together_are_closed_as_one_by_one(widths: list[int], frames: list[list[int]]) -> None:
    together, singly = Open(widths), Open(widths)
    for places in frames:
        open_ = {widths[place] for place in places if place in together}
        assert sorted(together.close_all(places)) == sorted(open_)
        for place in places:
            singly.close(place)
        assert list(together) == list(singly)
        assert together.counts == singly.counts


def test_a_worker_can_have_begun_what_fits_on_its_cores_in_order() -> None:
    calls = Open([1, 1, 2, 1])
    assert calls.running([3, 1, 0], 2) == 2
    assert calls.running([2, 3], 2) == 1
    assert calls.running([], 2) == 0


def test_a_worker_comes_is_seen_with_what_it_has_and_leaves() -> None:
    presence, calls = Presence(), Open([1, 1, 1, 1])
    calls.close(0)
    presence.meet(hello(holding=[0, 1, 2, 3, 99]), 1.0)
    (view,) = presence.views(of_r, calls, None, 3.0)
    assert (view.name, view.cores, view.held, view.running) == ("w", 2, 3, 2)
    assert presence.held(of_r) == {0, 1, 2, 3, 99}
    assert presence.held(lambda holding: holding.get("another", {})) == set()
    presence.meet(hello(leaving=True, holding=[1]), 2.0)
    assert [view.held for view in presence.views(of_r, calls, None, 3.0)] == [1]
    presence.meet(hello(leaving=True), 3.0)
    assert presence.views(of_r, calls, None, 3.0) == []


def test_a_worker_that_is_silent_for_too_long_is_gone_once() -> None:
    presence = Presence()
    presence.meet(hello("one"), 1.0)
    presence.meet(hello("two"), 4.0)
    assert [(gone.name, seconds) for gone, seconds in presence.silent(6.5, 5.0)] == [("one", 5.5)]
    assert presence.silent(6.5, 5.0) == []
    presence.forgive(100.0)
    assert presence.silent(104.0, 5.0) == []
    assert [gone.name for gone, _ in presence.silent(106.0, 5.0)] == ["two"]


def test_a_process_that_died_is_known_by_host_and_number() -> None:
    presence = Presence()
    here = hello("here")
    presence.meet(here, 1.0)
    presence.meet(msgspec.structs.replace(hello("there"), host="elsewhere"), 1.0)
    assert presence.died(here.host, here.pid + 1) == []
    assert [gone.name for gone in presence.died(here.host, here.pid)] == ["here"]
    assert presence.died(here.host, here.pid) == []


def test_when_the_run_is_stopped_a_worker_has_something_until_it_says_otherwise() -> None:
    presence, calls = Presence(), Open([1])
    presence.meet(hello(), 1.0)
    assert [view.held for view in presence.views(of_r, calls, None, 3.0)] == [0]
    assert presence.answered
    presence.stop("r")
    presence.meet(hello("late"), 1.5)
    presence.meet(hello(stopped=["another"]), 1.5)  # it said so before it was told
    assert {view.name: view.held for view in presence.views(of_r, calls, None, 3.0)} == {"w": 1, "late": 1}
    presence.meet(hello(stopped=["another", "r"]), 2.0)
    assert {view.name: view.held for view in presence.views(of_r, calls, None, 3.0)} == {"w": 0, "late": 1}
    assert not presence.answered
    presence.meet(hello(), 2.5)  # it has forgotten, and has nothing all the same
    presence.meet(hello("late", stopped=["r"]), 2.5)
    assert {view.name: view.held for view in presence.views(of_r, calls, None, 3.0)} == {"w": 0, "late": 0}
    assert presence.answered


def test_what_runs_longest_is_told_with_a_workers_presence() -> None:
    tasks = [Task(function="f", id=str(place)) for place in range(4)]
    run = Run(tasks, earlier=[Earlier("before", [3])])
    run.skip([1])
    presence, calls = Presence(), Open([1, 1, 1, 1])
    told = [Running(run.id, 0, 9.0), Running("before", 0, 8.0), Running(run.id, 1, 7.0), Running("x", 2, 6.0)]
    presence.meet(msgspec.structs.replace(hello(), running=told), 1.0)
    presence.forgive(3.0)  # they were not heard, and ran all the same
    (view,) = presence.views(of_r, calls, run, 3.5)
    assert view.longest == [(0, 11.5), (3, 10.5)]
    presence.meet(hello(), 4.0)
    assert not presence.views(of_r, calls, run, 4.5)[0].longest
