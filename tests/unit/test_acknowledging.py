"""Workers are told in time, and not for each tiny call, that what they reported is recorded."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.world import World
from transports.direct.acknowledging import LATEST_SECONDS, TOGETHER_SECONDS, Acknowledging


def test_with_tasks_or_else_together() -> None:
    each = Acknowledging()
    assert (each.due(100.0), each.deadline) == ([], math.inf)
    each.report("a", hurry=False)
    assert not each.goes_along("a", 100.0)  # it is not recorded
    assert each.record(100.0) == ["a"]
    for worker in "bab":
        each.report(worker, hurry=False)
        each.record(100.01)
    assert not each.goes_along("a", 100.0 + TOGETHER_SECONDS / 2)  # a tiny call: not yet
    assert each.due(100.0 + TOGETHER_SECONDS) == []
    assert each.goes_along("a", 100.0 + TOGETHER_SECONDS + 0.001)
    assert not each.goes_along("a", 101.0)
    assert each.deadline == 100.01 + LATEST_SECONDS
    each.report("a", hurry=False)
    each.record(100.02)
    assert each.due(each.deadline - 0.001) == []
    assert each.due(each.deadline) == ["b", "a"]
    assert (each.record(101.0), each.deadline) == ([], math.inf)


def test_who_is_in_a_hurry_is_told_at_once() -> None:
    each = Acknowledging()
    for _ in range(3):
        each.report("a", hurry=True)
        assert each.due(100.0) == []
        each.record(100.0)
        assert each.due(100.0) == ["a"]
    each.report("a", hurry=False)
    each.record(100.0)
    assert each.due(100.0) == []
    each.hurry()
    assert each.due(100.0) == ["a"]


def test_who_is_gone_is_told_nothing() -> None:
    each = Acknowledging()
    each.report("a", hurry=False)
    each.record(100.0)
    each.report("a", hurry=False)
    each.forget("a")
    assert (each.record(100.0), each.due(200.0)) == ([], [])


@given(
    st.lists(st.tuples(st.sampled_from("rsht"), st.sampled_from("abc"), st.booleans(), st.floats(0, 0.1))),
)
def test_everybody_is_told_when_all_is_recorded_and_nobody_waits_for_long(
    steps: list[tuple[str, str, bool, float]],
) -> None:
    each, now = Acknowledging(), 0.0
    unrecorded: set[str] = set()
    since: dict[str, float] = {}  # by worker, when the first of what it doesn't know was recorded
    for what, worker, hurry, seconds in steps:
        now += seconds
        if what == "r":
            each.report(worker, hurry=hurry)
            unrecorded.add(worker)
        elif what == "s":
            assert set(each.record(now)) == unrecorded
            for recorded in unrecorded:
                since.setdefault(recorded, now)
            unrecorded.clear()
        elif what == "t":
            if each.goes_along(worker, now):
                assert now - since.pop(worker) >= TOGETHER_SECONDS
        else:
            each.hurry()
        while each.deadline <= now:
            told = each.due(now)
            assert told
            for known in told:
                del since[known]
        assert all(now - then < LATEST_SECONDS for then in since.values())


def test_a_worker_with_many_tiny_calls_hears_of_them_now_and_then(world: World) -> None:
    dispatcher = world.dispatcher(200)
    worker = world.worker(cores=1, at=dispatcher)
    world.until(dispatcher.done)
    world.turns(LATEST_SECONDS + 0.01)
    assert worker.end.settled, "though nothing followed"


def test_a_worker_whose_link_is_full_for_a_moment_hears_of_its_reports_later(world: World) -> None:
    dispatcher = world.dispatcher(2)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) == 2)
    worker.work(2)
    cables, dispatcher.link.cables = dispatcher.link.cables, {}
    dispatcher.turn()
    assert dispatcher.done()
    dispatcher.link.cables = cables
    world.until(lambda: worker.end.settled, seconds=1.0)
