"""Dispatchers that vanish, and others that continue their runs: what workers have of those is taken."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from executor.session import Begin, Ended
from tests.unit.test_conversation_mishaps import EVENTS, act
from tests.unit.world import PATIENCE, TURN, FakeDispatcher, FakeWorker, World, a_world
from transports.settings import Keep

COUNT = 30


def interrupted(world: World, *, keep: Keep | None = None, renames: bool = False) -> FakeWorker:
    """Return a worker whose dispatcher died: it has one result unrecorded, and one call that runs."""
    dispatcher = world.dispatcher(COUNT)
    worker = world.worker() if keep is None else world.worker(keep=keep)
    worker.cable.renames = renames
    worker.cable.join(dispatcher.link, worker.link)
    world.until(lambda: len(dispatcher.results) > 5)
    worker.lazy = True
    world.until(lambda: len(worker.queue) > 2)
    dispatcher.die()
    worker.work(1)
    worker.turn()
    worker.cable.cut(noticed=renames)
    return worker


def follow(world: World, worker: FakeWorker, order: Sequence[int] | None = None) -> FakeDispatcher:
    """Return a dispatcher that continues the last one's run, with this worker there."""
    dispatcher = world.resume(world.dispatchers[-1], order, push=False)
    worker.cable.plug(dispatcher.link, worker.link)
    dispatcher.push()
    return dispatcher


@pytest.mark.parametrize("renames", [False, True])
@pytest.mark.parametrize("away", [0.0, 1.0, 2 * PATIENCE])
@pytest.mark.parametrize("order", [None, list(range(COUNT))[::-1]])
def test_nothing_runs_twice(world: World, renames: bool, away: float, order: list[int] | None) -> None:
    worker = interrupted(world, renames=renames)
    world.turns(away)
    dispatcher = follow(world, worker, order)
    world.turns(0.5)
    worker.lazy = False
    world.until(dispatcher.done, seconds=PATIENCE)
    dispatcher.check()
    assert worker.ran == Counter(range(COUNT))
    assert worker.count(Begin) == 2
    assert worker.count(Ended) == (1 if away > PATIENCE else 0)
    dispatcher.end.close()
    world.turns(0.1)
    last = worker.orders[-1]
    assert isinstance(last, Ended)
    assert (last.run, last.complete, list(last.earlier)) == (dispatcher.run.id, True, dispatcher.run.earlier)
    assert worker.end.unclaimed == {}


def test_another_run_is_served_meanwhile_and_gets_nothing_of_it(world: World) -> None:
    worker = interrupted(world)
    (first,) = world.dispatchers
    other = world.dispatcher(7, first=100, push=False)
    worker.cable.plug(other.link, worker.link)
    worker.lazy = False
    other.push()
    world.until(other.done)
    other.check()
    assert other.said == []
    other.end.close()
    world.turns(0.1)
    assert list(worker.end.unclaimed) == [first.run.id]
    last = world.resume(first, push=False)
    worker.cable.plug(last.link, worker.link)
    last.push()
    world.until(last.done)
    last.check()
    assert worker.ran == Counter([*range(COUNT), *range(100, 107)])


def test_one_that_was_cut_off_and_comes_back_brings_its_results(world: World) -> None:
    """To its own dispatcher, which had given it up: that had handed none of it to another."""
    dispatcher = world.dispatcher(2)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) == 2)
    worker.cable.cut(swallows=True)
    world.turns(2 * PATIENCE)
    assert not worker.end.connected
    worker.work(2)
    assert worker.end.unclaimed == {dispatcher.run.id: 1}
    worker.lazy = False
    worker.cable.heal()
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()
    assert dispatcher.results[0].attempt == 1


def test_while_it_is_paused_nothing_is_handed_out(world: World) -> None:
    dispatcher = world.dispatcher(5, push=False)
    dispatcher.end.paused = True
    worker = world.worker(at=dispatcher)
    dispatcher.push()
    world.turns(2 * PATIENCE)
    assert worker.end.connected
    assert not worker.ran
    dispatcher.end.paused = False
    world.until(dispatcher.done, seconds=1)


def test_one_that_dies_as_if_killed_says_nothing(world: World) -> None:
    dispatcher = world.dispatcher(5)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.work(1)
    dispatcher.end.results(0)
    dispatcher.die()
    worker.turn()
    assert worker.count(Ended) == 0
    assert not worker.end.settled


@pytest.mark.parametrize(
    ("keep", "why"),
    [
        (Keep(seconds=20.0), "nobody continued it within 20 s"),
        (Keep(bytes=8_000), "more than 8 kB would be kept"),
        (Keep(seconds=0), "nothing is kept"),
        (Keep(bytes=0), "nothing is kept"),
    ],
)
def test_what_is_kept_is_bounded_and_its_end_is_said(world: World, keep: Keep, why: str) -> None:
    worker = interrupted(world, keep=keep)
    (first,) = world.dispatchers
    world.turns(2 * PATIENCE)
    worker.work(1)
    world.turns(20)
    lines = [line for line in worker.said if line.startswith("dropped")]
    assert lines
    assert all(why in line and first.run.id in line for line in lines)
    again = follow(world, worker)
    worker.lazy = False
    world.until(again.done)
    again.check()
    assert sum((worker.ran - Counter(range(COUNT))).values()) > 0


def test_what_was_dropped_between_greeting_and_welcome_is_given_back(world: World) -> None:
    worker = interrupted(world, keep=Keep(seconds=20.0))
    worker.lazy = False
    world.turns(20)
    assert worker.end.unclaimed
    dispatcher = world.resume(world.dispatchers[-1], push=False)
    worker.cable.plug(dispatcher.link, worker.link)
    world.turns(1)  # it has greeted, and there is no run yet
    world.turns(20)
    assert not worker.end.unclaimed
    dispatcher.push()
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()


def test_the_later_attempt_counts_and_takes_the_lease_of_an_earlier_one(world: World) -> None:
    """Two workers have one task: of the attempt before, who was given up, and of the present one."""
    world.fails = {(0, 1)}
    first = world.dispatcher(1)
    slow = world.worker("slow", at=first)
    slow.lazy = True
    world.until(lambda: slow.queue)
    slow.cable.cut(swallows=True)
    fast = world.worker("fast", at=first)
    fast.lazy = True
    world.until(lambda: fast.queue)
    first.die()
    fast.cable.cut()
    second = world.resume(first)
    slow.cable.plug(second.link, slow.link)
    world.turns(0.5)
    assert second.run.attempt(0) == 1
    fast.cable.plug(second.link, fast.link)
    world.turns(0.5)
    assert second.run.attempt(0) == 2
    slow.work(1)  # it fails, which is of no interest any more
    world.turns(0.5)
    assert {view.name: view.held for view in second.end.workers()} == {"slow": 0, "fast": 1}
    fast.work(1)
    world.until(second.done, seconds=1)
    second.check()
    assert sum(view.held for view in second.end.workers()) == 0


def test_reports_of_tasks_that_are_none_of_the_run_any_more_are_acknowledged(world: World) -> None:
    worker = interrupted(world)
    recorded = {int(result.id) for result in world.dispatchers[0].results}
    unrecorded = [number for number in worker.ran if number not in recorded]
    assert unrecorded
    dispatcher = follow(world, worker, [n for n in range(COUNT) if n not in (*unrecorded, worker.next())])
    dispatcher.end.paused = True  # so that nothing else is acknowledged, and these with it
    world.until(lambda: worker.count(Begin) == 2 and worker.end.settled, seconds=1)
    dispatcher.end.paused = worker.lazy = False
    world.until(dispatcher.done, seconds=PATIENCE)
    dispatcher.check()
    assert sum(view.held for view in dispatcher.end.workers()) == 0


def test_a_drained_worker_whose_dispatcher_is_gone_still_brings_its_results_home(world: World) -> None:
    worker = interrupted(world)
    world.turns(2 * PATIENCE)
    worker.drain()
    dispatcher = follow(world, worker)
    world.turns(1)
    worker.work(1)
    world.turns(1)
    assert worker.end.settled
    assert not worker.end.unclaimed
    other = world.worker("other", at=dispatcher)
    world.until(dispatcher.done, seconds=PATIENCE)
    dispatcher.check()
    assert worker.ran + other.ran == Counter(range(COUNT))


# -- whatever happens

MISHAPS = st.one_of(
    EVENTS,
    st.tuples(st.just("dispatcher dies"), st.integers(0, 2**16)),
    st.tuples(st.just("dispatcher dies"), st.integers(0, 2**16)),
)


def replace_the_dispatcher(world: World, chance: int) -> None:
    """Kill it, let some time pass, and start one that continues its run, perhaps in another order."""
    choice = random.Random(chance)
    dead = world.dispatchers[-1]
    dead.die()
    down = [worker for worker in world.workers if not (worker.cable.up or worker.link.closed)]
    for worker in world.workers:
        worker.cable.cut(noticed=choice.random() < 0.5, swallows=choice.random() < 0.5)
    world.turns(choice.choice([0, 1, 20, 120, 700]) * TURN)
    order = choice.choice([None, choice.sample(range(COUNT), COUNT)])
    successor = world.resume(dead, order, push=choice.random() < 0.5)
    for worker in world.workers:
        if not worker.link.closed:
            worker.cable.plug(successor.link, worker.link)
            if worker in down:
                worker.cable.cut()
    world.turns(choice.choice([0, 1, 20]) * TURN)
    if not successor.pushed:
        successor.push()


@settings(max_examples=150, phases=set(Phase) - {Phase.explain})
@given(
    st.lists(MISHAPS, max_size=25),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.sets(st.tuples(st.integers(0, COUNT - 1), st.integers(1, 2)), max_size=20),
    st.booleans(),
    st.sampled_from([Keep(), Keep(seconds=6.0), Keep(bytes=30_000), Keep(bytes=0)]),
)
@example([("dispatcher dies", 1)], [False] * 3, set(), False, Keep())
def test_every_task_is_recorded_once_over_all_dispatchers(
    events: list[tuple[str, int]],
    lazy: Sequence[bool],
    fails: set[tuple[int, int]],
    renames: bool,
    keep: Keep,
) -> None:
    with a_world() as world:
        first = world.dispatcher(COUNT, retries=100)
        world.fails = fails
        for name, idles in zip("abc", lazy, strict=True):
            worker = world.worker(name, keep=keep)
            worker.lazy, worker.cable.renames = idles, renames
            worker.cable.join(first.link, worker.link)
        for event, which in events:
            if event == "dispatcher dies":
                replace_the_dispatcher(world, which)
            else:
                act(world, event, which)
        dispatcher = world.dispatchers[-1]
        living = world.heal()
        if not living:
            living = [world.worker("new", at=dispatcher)]
        world.ends_well(dispatcher, living)
        dispatcher.end.close()
        world.turns(1)
        assert not any(worker.end.unclaimed for worker in living)


@settings(max_examples=150, phases=set(Phase) - {Phase.explain})
@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2**16)), min_size=1, max_size=4),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.booleans(),
)
def test_what_workers_have_is_not_run_again_when_they_greet_in_time(
    deaths: list[tuple[int, int]], lazy: Sequence[bool], renames: bool
) -> None:
    """The dispatcher waits for them: it hands out nothing until they are back."""
    with a_world() as world:
        dispatcher = world.dispatcher(COUNT)
        for name, idles in zip("abc", lazy, strict=True):
            worker = world.worker(name)
            worker.lazy, worker.cable.renames = idles, renames
            worker.cable.join(dispatcher.link, worker.link)
        for turns, chance in deaths:
            world.turns(turns * TURN)
            choice = random.Random(chance)
            dispatcher.die()
            for worker in world.workers:
                worker.cable.cut(noticed=choice.random() < 0.5)
            world.turns(choice.choice([0, 1, 20, 700]) * TURN)
            order = choice.choice([None, choice.sample(range(COUNT), COUNT)])
            dispatcher = world.resume(dispatcher, order, push=False)
            dispatcher.end.paused = True
            dispatcher.push()
            for worker in world.workers:
                worker.cable.plug(dispatcher.link, worker.link)
            world.until(lambda: len(dispatcher.end.workers()) == 3)  # noqa: B023 — now
            dispatcher.end.paused = False
        for worker in world.workers:
            worker.lazy = False
        world.until(dispatcher.done, seconds=PATIENCE)
        dispatcher.check()
        assert sum((worker.ran for worker in world.workers), Counter()) == Counter(range(COUNT))
