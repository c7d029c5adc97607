from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from executor import codec
from executor.broker import FRAME_MOST, Broker
from executor.messages import NIL, Report
from executor.pace import AHEAD_SECONDS, LEAST_SECONDS
from executor.run import Run
from executor.task import Result, Task

WIDEST = 6


class Worker:
    """What the machine below knows of a worker."""

    def __init__(self, cores: int, *, backfill: bool) -> None:
        self.cores = cores
        self.backfill = backfill
        self.room = 2 * cores if backfill else cores
        self.draining = False
        self.held: dict[int, int] = {}  # width by place
        self.hurried: set[int] = set()  # places given although it had enough

    @property
    def load(self) -> int:
        return sum(self.held.values())

    def starts_next(self, place: int) -> bool:
        """Whether it started this before what else it holds unstarted, if it had cores for it."""
        others = self.held.keys() - {place}
        return sum(self.held[other] for other in others) > self.cores and place < max(others)

    def unstarted(self) -> list[int]:
        """The places that a worker which starts in order cannot have begun, last first."""
        return self.behind(sorted(self.held))[::-1]

    def behind(self, places: list[int]) -> list[int]:
        """Those of its places that wait for others to end, if it takes them in this order."""
        widths = [self.held[place] for place in places]
        fits = [sum(widths[: count + 1]) <= self.cores for count in range(len(places))]
        return [place for place, fit in zip(places, fits, strict=True) if not fit]

    def untouched(self) -> set[int]:
        """The places that it has certainly not begun, if what it reported has arrived."""
        if self.backfill:
            return set()
        return set(self.behind(sorted(self.held))) & set(self.behind(list(self.held)))


class BrokerMachine(RuleBasedStateMachine):
    """Whatever happens, each place is in one state, and what is handed out is what may be handed out."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.widths: list[int] = []
        self.waiting: set[int] = set()
        self.repeats: set[int] = set()
        self.suspects: set[int] = set()
        self.loners: set[int] = set()
        self.workers: dict[str, Worker] = {}
        self.settled: set[int] = set()
        self.withdrawn: set[int] = set()
        self.adrift: set[int] = set()  # their worker vanished, and the owner has not decided yet
        self.known: set[int] = set()  # widths of which a duration was told
        self.halted = False
        self.numbers = itertools.count()

    @initialize(data=st.data(), cores=st.lists(st.integers(1, WIDEST), max_size=3))
    def begin(self, data: st.DataObject, cores: list[int]) -> None:
        choice = st.sampled_from([1e-6, 0.001, 0.01, 0.3, 100.0])
        self.seconds = {width: data.draw(choice) for width in range(1, WIDEST + 3)}
        for mine in cores:
            self.join(mine, backfill=False)

    def some_worker(self, data: st.DataObject, *, holding: bool = False) -> str:
        names = [name for name, worker in self.workers.items() if worker.held or not holding]
        return data.draw(st.sampled_from(names))

    def holding(self) -> bool:
        return any(worker.held for worker in self.workers.values())

    # -- what may happen

    @precondition(lambda self: not self.halted)
    @rule(widths=st.lists(st.integers(1, WIDEST + 2), max_size=12))
    def push(self, widths: list[int]) -> None:
        self.waiting.update(range(len(self.widths), len(self.widths) + len(widths)))
        self.widths += widths
        self.broker.push(widths)

    @precondition(lambda self: not self.halted and len(self.widths) < 500)
    @rule(width=st.integers(1, 2), count=st.integers(FRAME_MOST, 3 * FRAME_MOST))
    def push_many(self, width: int, count: int) -> None:
        self.push([width] * count)

    @rule(cores=st.integers(1, WIDEST), backfill=st.booleans())
    def join(self, cores: int, backfill: bool) -> None:
        name = f"w{next(self.numbers)}"
        self.workers[name] = Worker(cores, backfill=backfill)
        self.broker.join(name, cores, backfill=backfill)

    @precondition(lambda self: len(self.workers) > 1)
    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        name = self.some_worker(data)
        self.workers[name].draining = True
        self.broker.drain(name)

    @precondition(lambda self: any(worker.draining for worker in self.workers.values()))
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for name, each in self.workers.items() if each.draining]))
        self.workers[name].draining = False
        self.broker.resume(name)

    @precondition(holding)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = self.some_worker(data)
        gone = self.workers.pop(name)
        back = gone.untouched()
        assert self.broker.leave(name) == sorted(set(gone.held) - back)
        self.adrift.update(set(gone.held) - back)
        self.returned(gone, back)
        if not self.halted:
            self.suspects |= back
        assert self.broker.leave(name) == []

    @precondition(holding)
    @rule(data=st.data(), told=st.booleans())
    def settle(self, data: st.DataObject, told: bool) -> None:
        name = self.some_worker(data, holding=True)
        worker = self.workers[name]
        width = data.draw(st.sampled_from(sorted(set(worker.held.values()))))
        places = [place for place in sorted(worker.held) if worker.held[place] == width]
        places = places[: data.draw(st.integers(1, len(places)))]
        self.broker.settle(name, places, self.seconds[width] if told else None)
        if told:
            self.known.add(width)
        for place in places:
            del worker.held[place]
        self.ended(places)

    def ended(self, places: list[int]) -> None:
        self.settled.update(places)
        self.repeats.difference_update(places)
        self.suspects.difference_update(places)
        self.loners.difference_update(places)

    @precondition(lambda self: len(self.workers) > 1 and self.widths)
    @rule(data=st.data(), name=st.sampled_from(["w0", "w1", "w2", "stranger"]))
    def settle_what_others_have(self, data: st.DataObject, name: str) -> None:
        """A report that comes too late to be the worker's own changes nothing."""
        mine = self.workers[name].held if name in self.workers else {}
        others = [place for place in range(len(self.widths)) if place not in mine]
        if others:
            self.broker.settle(name, data.draw(st.lists(st.sampled_from(others), max_size=3)))

    @precondition(lambda self: self.settled or self.adrift)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        waiting = sorted(self.waiting)[:3]  # that changes nothing
        held = sorted(place for worker in self.workers.values() for place in worker.held)[:3]
        place = data.draw(st.sampled_from([*sorted(self.settled | self.adrift), *waiting, *held]))
        suspect = place in self.adrift and data.draw(st.booleans())
        alone = suspect and data.draw(st.booleans())
        self.broker.again(place, suspect=suspect, alone=alone)
        if not self.halted:
            self.settled.discard(place)
            self.adrift.discard(place)
            for worker in self.workers.values():
                worker.held.pop(place, None)
            if place not in waiting:
                self.repeats.add(place)
            self.waiting.add(place)
            if suspect:
                self.suspects.add(place)
            if alone:
                self.loners.add(place)

    @precondition(holding)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        name = self.some_worker(data, holding=True)
        worker = self.workers[name]
        back = data.draw(st.sets(st.sampled_from(sorted(worker.held))))
        stray = {place for place in range(min(3, len(self.widths))) if place not in worker.held}
        self.broker.give_back(name, sorted(back | stray))
        self.returned(worker, back)

    def returned(self, worker: Worker, places: set[int]) -> None:
        for place in places:
            del worker.held[place]
        (self.withdrawn if self.halted else self.waiting).update(places)

    @precondition(lambda self: self.waiting and len(self.settled) > 2)
    @rule(data=st.data(), chosen=st.booleans())
    def withdraw(self, data: st.DataObject, chosen: bool) -> None:
        width = data.draw(st.integers(1, WIDEST + 2)) if chosen else None
        meant = {place for place in self.waiting if width in (None, self.widths[place])}
        assert self.broker.withdraw(width) == sorted(meant)
        self.waiting -= meant
        self.loners -= meant
        self.withdrawn |= meant

    @precondition(lambda self: len(self.settled) + len(self.adrift) > 5)
    @rule()
    def halt(self) -> None:
        self.broker.halt()
        self.halted = True
        self.withdrawn |= self.waiting
        self.waiting.clear()

    # -- what is done about it

    @rule()
    def hand_out(self) -> None:
        self.grants()

    def grants(self) -> None:
        lines = {width: deque(sorted(self.of_width(width))) for width in range(1, WIDEST + 1)}
        for name, places in self.broker.grants():
            worker = self.workers[name]
            assert not worker.draining
            assert 0 < len(places) <= FRAME_MOST
            assert not self.loners.intersection(worker.held), "it has company, and was to be alone"
            if self.loners.intersection(places):
                (place,) = places
                assert not worker.held
                self.waiting.remove(place)
                worker.held[place] = self.widths[place]
                continue
            assert len(places) == 1 or not self.suspects.intersection(places)
            for place in places:
                runnable = [line for width, line in lines.items() if line and width <= worker.cores]
                first = min(runnable, key=lambda line: line[0])
                assert place == first.popleft(), "a place before it waits, or it does not wait at all"
                self.waiting.remove(place)
                worker.held[place] = self.widths[place]
            self.check_amount(worker, places)
        kept = self.let_run_empty()
        assert len(kept) <= 1, "more than one is kept for tasks that are to run alone"
        assert not kept or self.waiting & self.loners
        for worker in self.workers.values():
            if not worker.held and not worker.draining:
                assert not any(self.widths[place] <= worker.cores for place in self.waiting), "starved"

    def of_width(self, width: int) -> list[int]:
        """What waits in line; those that are to run alone stand beside it."""
        return [place for place in self.waiting - self.loners if self.widths[place] == width]

    def let_run_empty(self) -> list[str]:
        """Workers that could start the first in line for them, and do not get it."""
        found = []
        for name, worker in self.workers.items():
            mine = [place for place in self.waiting - self.loners if self.widths[place] <= worker.cores]
            if not mine or worker.draining or self.loners.intersection(worker.held):
                continue
            if self.widths[min(mine)] <= worker.cores - worker.load:
                found.append(name)
        return found

    def check_amount(self, worker: Worker, places: list[int]) -> None:
        if worker.load <= worker.room:
            return
        assert not self.suspects.intersection(places)
        work = sum(
            width * (max(LEAST_SECONDS, self.seconds[width]) if width in self.known else LEAST_SECONDS)
            for width in worker.held.values()
        )
        if self.widths[places[0]] in self.known and work <= worker.cores * AHEAD_SECONDS * 1.0001:
            return
        (place,) = places
        assert place in self.repeats, (
            "more than it can start, of durations unknown, or more than keeps it busy"
        )
        assert worker.starts_next(place), "it hurries to no purpose"
        worker.hurried = {*worker.hurried.intersection(worker.held), place}
        assert sum(worker.held[each] for each in worker.hurried) <= 2 * worker.cores

    @rule()
    def recalls(self) -> None:
        self.grants()
        for name, most in self.broker.recalls():
            worker = self.workers[name]
            last = worker.unstarted()[:most]
            assert 0 < most <= len(worker.held)
            assert last, "it has begun all that it holds"
            free = [w.cores - w.load for w in self.workers.values() if not w.draining]
            assert any(self.widths[place] <= max(free) for place in last), "nobody could start one of them"
            assert not worker.held.keys() & self.loners
            self.broker.give_back(name, last)
            self.returned(worker, set(last))

    # -- what always holds

    @invariant()
    def each_place_is_in_one_state(self) -> None:
        held = [place for worker in self.workers.values() for place in worker.held]
        everywhere = [*self.waiting, *held, *self.settled, *self.withdrawn, *self.adrift]
        assert sorted(everywhere) == list(range(len(self.widths)))
        assert self.broker.waiting() == Counter(self.widths[place] for place in self.waiting)
        assert list(self.broker.waiting()) == sorted(self.broker.waiting())
        assert self.broker.leased() == len(held)
        for name, worker in self.workers.items():
            assert sorted(self.broker.held(name)) == sorted(worker.held)
            assert 0 <= self.broker.running(name) <= len(worker.held)
            assert all(width <= worker.cores for width in worker.held.values())

    def teardown(self) -> None:
        """Workers that do what they are given leave nothing undone that one of them can do."""
        for _ in range(len(self.widths) + 1):
            self.grants()
            busy = [name for name, worker in self.workers.items() if worker.held]
            if not busy:
                break
            for name in busy:
                worker = self.workers[name]
                places = sorted(worker.held)
                self.broker.settle(name, places, self.seconds[worker.held[places[-1]]])
                self.known.add(worker.held[places[-1]])
                worker.held.clear()
                self.ended(places)
        widest = max((w.cores for w in self.workers.values() if not w.draining), default=0)
        assert all(self.widths[place] > widest for place in self.waiting)


BrokerMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, phases=set(Phase) - {Phase.explain}
)
TestBroker = BrokerMachine.TestCase


def told(broker: Broker, seconds: dict[int, float]) -> None:
    """Let a broker learn how long tasks of each width take; places 0 and on are used up for it."""
    broker.push(list(seconds))
    broker.join("teacher", max(seconds, default=1))
    for place, each in enumerate(seconds.values()):
        while place not in broker.held("teacher"):
            broker.grants()
        broker.settle("teacher", [place], each)
    assert broker.leave("teacher") == []


def held(broker: Broker, *names: str) -> list[list[int]]:
    return [sorted(broker.held(name)) for name in names]


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


def test_suspects_travel_alone() -> None:
    broker = Broker()
    broker.push([1] * 4)
    broker.join("a", 4)
    broker.grants()
    for place in broker.leave("a"):
        broker.again(place, suspect=place in (1, 2))
    broker.join("b", 4)
    assert broker.grants() == [("b", [0]), ("b", [1]), ("b", [2]), ("b", [3])]


def test_one_that_has_ended_is_suspect_no_more() -> None:
    broker = Broker()
    broker.push([1] * 2)
    broker.join("a", 1)
    broker.grants()
    broker.leave("a")
    broker.again(0, suspect=True)
    broker.join("b", 1)
    broker.grants()
    broker.settle("b", [0])
    broker.again(0)
    broker.join("c", 2)
    broker.drain("b")
    assert broker.grants() == [("c", [0, 1])]


def test_a_suspect_is_not_held_ahead() -> None:
    broker = Broker()
    told(broker, {1: 0.001})
    broker.push([1] * 2)
    broker.join("a", 1)
    broker.grants()
    assert held(broker, "a") == [[1, 2]]
    broker.leave("a")
    broker.again(1)
    broker.again(2, suspect=True)
    broker.join("b", 1)
    broker.grants()
    assert held(broker, "b") == [[1]]
    broker.settle("b", [1])
    broker.grants()
    assert held(broker, "b") == [[2]]


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


def test_tiny_tasks_travel_in_numbers_and_long_ones_one_by_one() -> None:
    for seconds, least, most in ((1e-5, 1000, 10_000), (0.01, 4, 12), (1.0, 2, 2)):
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


def test_what_was_certainly_not_begun_is_not_charged() -> None:
    broker = Broker()
    told(broker, {1: 0.001, 3: 0.001})
    broker.push([1] * 6 + [3])
    broker.join("a", 4)
    broker.grants()
    assert held(broker, "a") == [[2, 3, 4, 5, 6]]
    assert broker.leave("a") == [2, 3, 4, 5]
    assert broker.waiting() == {1: 2, 3: 1}
    broker.join("b", 1)
    assert broker.grants() == [("b", [6]), ("b", [7])]  # a suspect all the same: singly
    told_ = Broker()
    told_.push([1] * 4)
    told_.join("a", 2, backfill=True)
    told_.grants()
    assert told_.leave("a") == [0, 1, 2, 3]  # it may begin them in any order


def test_a_task_that_is_to_run_alone_has_a_worker_for_itself() -> None:
    broker = Broker()
    broker.push([1] * 12)
    broker.join("a", 2)
    broker.join("b", 2)
    broker.join("c", 1)
    broker.grants()
    assert held(broker, "a", "b", "c") == [[0, 1], [2, 3], [4]]
    assert broker.leave("c") == [4]
    broker.settle("b", [3])
    broker.again(4, suspect=True, alone=True)
    assert broker.grants() == []  # b, which has least to do, is let run empty
    assert broker.waiting() == {1: 8}
    broker.settle("a", [0])
    assert broker.grants() == [("a", [5])]  # others go on
    broker.settle("b", [2])
    assert broker.grants() == [("b", [4])]
    assert (broker.running("b"), broker.grants()) == (1, [])
    broker.settle("b", [4])
    assert broker.grants() == [("b", [6, 7])]


def test_an_empty_worker_is_chosen_first() -> None:
    broker = Broker()
    broker.push([1, 1])
    broker.join("a", 1)
    broker.join("b", 4)
    broker.grants()
    assert held(broker, "a", "b") == [[0], [1]]
    broker.leave("b")
    broker.again(1, suspect=True, alone=True)
    broker.join("empty", 4)
    assert broker.grants() == [("empty", [1])]


@pytest.mark.parametrize("how", ["leaves", "drains"])
def test_if_the_chosen_worker_goes_another_is_chosen(how: str) -> None:
    broker = Broker()
    broker.push([1] * 6)
    for name in "abc":
        broker.join(name, 1)
    broker.grants()
    assert broker.leave("a") == [0]
    broker.again(0, suspect=True, alone=True)
    assert broker.grants() == []  # b is kept for it
    if how == "leaves":
        broker.again(*broker.leave("b"))
    else:
        broker.drain("b")
    broker.settle("c", [2])
    assert broker.grants() == [("c", [0])]
    assert broker.leave("c") == [0]
    broker.again(0, suspect=True, alone=True)
    broker.join("d", 1)
    assert broker.grants() == [("d", [0])]
    broker.give_back("d", [0])  # it drains, say; alone it stays
    broker.drain("d")
    broker.join("e", 2)
    assert broker.grants() == [("e", [0])]


def none_is_wide_enough() -> Broker:
    """Return a broker in which a task of 4 cores is to run alone, and two workers of 2 cores are busy."""
    broker = Broker()
    broker.push([4, *[1] * 8, 2])
    broker.join("wide", 4)
    assert broker.grants() == [("wide", [0])]
    for name in "abc":
        broker.join(name, 2)
    broker.grants()
    assert held(broker, *"abc") == [[1, 2], [3, 4], [5, 6]]
    assert broker.leave("wide") == [0]
    broker.again(0, suspect=True, alone=True)
    assert broker.grants() == []
    return broker


def runs_empty(broker: Broker, name: str) -> bool:
    """Whether a worker is given nothing though one of its tasks ended."""
    broker.settle(name, [min(broker.held(name))])
    return broker.grants() == []


def test_while_none_is_wide_enough_for_one_the_next_finds_its_worker() -> None:
    broker = none_is_wide_enough()
    assert broker.leave("c") == [5, 6]
    assert broker.grants() == []
    broker.again(5, suspect=True, alone=True)
    assert broker.grants() == []
    assert runs_empty(broker, "a")


def test_one_that_takes_tasks_again_is_chosen_though_it_is_busy() -> None:
    broker = none_is_wide_enough()
    assert broker.leave("c") == [5, 6]
    broker.drain("a")
    broker.drain("b")
    broker.again(5, suspect=True, alone=True)
    assert broker.grants() == []
    broker.resume("b")
    assert broker.grants() == []
    assert runs_empty(broker, "b")


def test_when_a_task_that_one_was_kept_for_is_withdrawn_the_next_finds_its_worker() -> None:
    broker = Broker()
    broker.push([1, 2, *[1] * 8])
    for cores, name in ((1, "gone"), (2, "next"), (2, "a")):
        broker.join(name, cores)
    broker.grants()
    assert held(broker, "gone", "next", "a") == [[0], [1], [2, 3]]
    for name in ("gone", "next"):
        for place in broker.leave(name):
            broker.again(place, suspect=True, alone=True)
    assert broker.grants() == []  # a is kept for the one, and the other waits
    assert broker.withdraw(1) == [0, *range(4, 10)]
    broker.push([1])
    assert broker.grants() == []
    assert runs_empty(broker, "a")


def test_a_task_that_is_to_run_alone_can_be_withdrawn() -> None:
    for forget in (lambda broker: broker.withdraw(1), lambda broker: broker.halt()):
        broker = Broker()
        broker.push([1, 1, 2])
        broker.join("a", 1)
        broker.join("b", 1)
        broker.grants()
        assert broker.leave("a") == [0]
        broker.again(0, suspect=True, alone=True)
        broker.grants()
        assert broker.waiting() == {1: 1, 2: 1}
        forget(broker)
        assert broker.waiting().get(1) is None
        broker.settle("b", [1])
        broker.push([1])
        assert broker.grants() == [("b", [3])]  # nobody is kept for it any more


# -- tasks that kill their worker


class Victim:
    """A worker that starts what it holds by place, until one of its tasks kills it."""

    def __init__(self, cores: int) -> None:
        self.cores = self.free = cores
        self.queue: list[int] = []
        self.running: list[int] = []
        self.unsent: list[int] = []  # ended, and not heard of

    def start(self, widths: list[int]) -> None:
        self.queue.sort()
        while self.queue and widths[self.queue[0]] <= self.free:
            self.running.append(self.queue.pop(0))
            self.free -= widths[self.running[-1]]


@settings(max_examples=300, deadline=None, phases=set(Phase) - {Phase.explain})
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=60),
    st.lists(st.integers(1, 6), max_size=4),
    st.sets(st.integers(0, 59), min_size=1, max_size=2),
    st.integers(1, 3),
    st.sampled_from([1e-5, 0.004, 1.0]),
    st.integers(0, 2**32),
)
def test_only_what_kills_its_workers_is_lost(
    widths: list[int], cores: list[int], killers: set[int], retries: int, seconds: float, seed: int
) -> None:
    """Whatever happens in whatever order, and whatever reports die with a worker."""
    random_ = random.Random(seed)
    run = Run(
        [Task(function="f", id=str(n), resources=width) for n, width in enumerate(widths)], retries=retries
    )
    broker = Broker()
    broker.push(widths)
    results: list[Result] = []
    victims: dict[str, Victim] = {}
    deaths = 0

    def accept(report: Report) -> None:
        result = run.accept(report)
        if result is not None:
            results.append(result)
        for due in run.due:
            broker.again(due.place, suspect=due.suspect, alone=due.alone)
        run.due.clear()

    def join(mine: int) -> None:
        name = f"w{len(victims) + deaths}"
        victims[name] = Victim(mine)
        broker.join(name, mine)

    def strike(name: str) -> None:
        for place in broker.leave(name):
            accept(Report(place, 0, "lost", NIL, error=("Lost", name, "")))

    def send(name: str, victim: Victim) -> None:
        for place in victim.unsent:
            broker.settle(name, [place], seconds)
            accept(Report(place, run.attempt(place), "ok", NONE))
        victim.unsent.clear()

    for mine in [*cores, 4]:
        join(mine)
    for _ in range(20_000):
        if not run.unrecorded:
            break
        for name, places in broker.grants():
            victims[name].queue += places
        name = random_.choice(list(victims))
        victim = victims[name]
        victim.start(widths)
        what = random_.random()
        if what < 0.2:
            send(name, victim)
        elif what < 0.25 and victim.queue:
            broker.give_back(name, [victim.queue.pop()])
        elif what < 0.3:
            for busy, most in broker.recalls():
                held = victims[busy].queue
                broker.give_back(busy, [held.pop() for _ in range(min(most, len(held)))])
        elif victim.running:
            place = victim.running.pop(random_.randrange(len(victim.running)))
            if place in killers:
                deaths += 1
                del victims[name]
                strike(name)
                join(victim.cores)
            else:
                victim.free += widths[place]
                victim.unsent.append(place)
    assert sorted(int(result.id) for result in results) == list(range(len(widths)))
    lost = {int(result.id) for result in results if result.status == "lost"}
    assert lost == {place for place in killers if place < len(widths)}
    assert all(result.attempt == 1 + retries for result in results if result.status == "lost")


# -- a large run on a virtual clock

DELAY = 0.0005  # seconds that a message takes
PATIENCE = 2.0
NONE = codec.encode(None)[0]


class Message(NamedTuple):
    """Something that happens at a moment; `number` keeps what happens at one moment in order."""

    at: float
    number: int
    act: Callable[[], None]


class Machine:
    """A worker of the simulation: it starts what it holds in order, as soon as the cores are free."""

    def __init__(self, cores: int) -> None:
        self.free = cores
        self.queue: list[int] = []
        self.running: dict[int, int] = {}  # width by place
        self.alive = True


class Simulation:
    """A dispatcher with the real broker and the real run, and machines that work and die."""

    def __init__(self, run: Run, seconds: list[float], fails: set[int]) -> None:
        self.run = run
        self.seconds = seconds
        self.fails = fails  # at the first attempt
        self.now = 0.0
        self.results: list[Result] = []
        self.broker = Broker()
        self.machines: dict[str, Machine] = {}
        self.started: Counter[int] = Counter()
        self._agenda: list[Message] = []
        self._numbers = itertools.count()
        self._recall_at = 0.0

    def after(self, delay: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, Message(self.now + delay, next(self._numbers), act))

    def join(self, name: str, cores: int) -> None:
        self.machines[name] = Machine(cores)
        self.broker.join(name, cores)

    def die(self, name: str) -> None:
        self.machines[name].alive = False
        self.after(PATIENCE, lambda: self._lose(name))

    def go(self) -> None:
        self.broker.push(self.run.widths)
        while self.run.unrecorded:
            for name, places in self.broker.grants():
                self.after(DELAY, lambda name=name, places=places: self._take(name, places))
            if not self.broker.waiting() and self.now >= self._recall_at:
                self._recall_at = self.now + 0.05
                self.after(0.05, lambda: None)
                for name, most in self.broker.recalls():
                    self.after(DELAY, lambda name=name, most=most: self._recall(name, most))
            assert self._agenda, f"it hangs with {self.run.unrecorded} tasks left"
            self.now, _, act = heapq.heappop(self._agenda)
            act()

    # -- machines

    def _take(self, name: str, places: list[int]) -> None:
        machine = self.machines[name]
        machine.queue = sorted([*machine.queue, *places])
        self._start(name, machine)

    def _start(self, name: str, machine: Machine) -> None:
        while machine.alive and machine.queue:
            place = machine.queue[0]
            width = self.run.widths[place]
            if width > machine.free:
                break
            del machine.queue[0]
            machine.free -= width
            machine.running[place] = width
            self.started[place] += 1
            attempt, since = self.run.attempt(place), self.now
            self.after(self.seconds[place], lambda p=place, a=attempt, s=since: self._end(name, p, a, s))

    def _end(self, name: str, place: int, attempt: int, since: float) -> None:
        machine = self.machines[name]
        if machine.alive:
            machine.free += machine.running.pop(place)
            failed = attempt == 1 and place in self.fails
            report = Report(
                place, attempt, "error" if failed else "ok", NIL if failed else NONE,
                error=("E", "at first", "") if failed else None, started=since, finished=self.now,
            )  # fmt: skip
            self.after(DELAY, lambda: self._hear(name, report))
            self._start(name, machine)

    def _recall(self, name: str, most: int) -> None:
        machine = self.machines[name]
        if machine.alive:
            places = machine.queue[len(machine.queue) - min(most, len(machine.queue)) :]
            del machine.queue[len(machine.queue) - len(places) :]
            self.after(DELAY, lambda: self.broker.give_back(name, places))

    # -- the dispatcher

    def _hear(self, name: str, report: Report) -> None:
        assert report.started is not None
        assert report.finished is not None
        self.broker.settle(name, [report.place], report.finished - report.started)
        self._accept(report)

    def _lose(self, name: str) -> None:
        for place in self.broker.leave(name):
            self._accept(Report(place, 0, "lost", NIL, error=("Lost", name, "")))

    def _accept(self, report: Report) -> None:
        result = self.run.accept(report)
        if result is not None:
            self.results.append(result)
        for due in self.run.due:
            self.broker.again(due.place, suspect=due.suspect, alone=due.alone)
        self.run.due.clear()


def mixed_run(random_: random.Random, count: int) -> tuple[Run, list[float], set[int]]:
    widths = sorted(random_.choices([1, 2, 3, 4, 8, 16], [60, 15, 5, 10, 6, 4], k=count))
    seconds = [random_.choice([1e-4, 0.003, 0.05, random_.uniform(0.2, 1.5)]) for _ in widths]
    fails = set(random_.sample(range(count), count // 100))
    tasks = [Task(function="f", id=str(place), resources=width) for place, width in enumerate(widths)]
    return Run(tasks, retries=5), seconds, fails


def in_order(run: Run, seconds: list[float], cores: list[int]) -> float:
    """Return how long a run takes when each width in turn has all the workers that are wide enough."""
    work: Counter[int] = Counter()
    for width, each in zip(run.widths, seconds, strict=True):
        work[width] += each
    return sum(total / sum(mine // width for mine in cores) for width, total in work.items())


@pytest.mark.timeout(60)
def test_two_hundred_workers_of_which_many_die_run_twenty_thousand_tasks_well() -> None:
    random_ = random.Random(20)
    run, seconds, fails = mixed_run(random_, 20_000)
    simulation = Simulation(run, seconds, fails)
    cores = [random_.randint(1, 16) for _ in range(199)] + [16]
    for index, mine in enumerate(cores):
        simulation.join(f"w{index}", mine)
    ideal = in_order(run, seconds, cores)
    for index in random_.sample(range(199), 30):
        simulation.after(random_.uniform(0, ideal), lambda index=index: simulation.die(f"w{index}"))
    for index in range(10):
        later = lambda index=index: simulation.join(f"late{index}", 8)  # noqa: E731
        simulation.after(random_.uniform(0, ideal), later)
    simulation.go()
    assert sorted(int(result.id) for result in simulation.results) == list(range(20_000))
    assert {result.status for result in simulation.results} == {"ok"}
    assert all(simulation.started[place] >= 2 for place in fails)
    repeated = sum(simulation.started.values()) - 20_000 - len(fails)
    assert 0 < repeated < 30 * 16, "what a dead worker had begun, and little else, runs again"
    # What the last of the dead held is missed only after the patience, and may be as long as the longest.
    assert simulation.now < 1.25 * ideal + PATIENCE + 2 * max(seconds)


@pytest.mark.parametrize("seed", range(5))
def test_without_deaths_the_makespan_is_near_the_ideal(seed: int) -> None:
    random_ = random.Random(seed)
    run, seconds, _ = mixed_run(random_, 2000)
    simulation = Simulation(run, seconds, set())
    for index in range(8):
        simulation.join(f"w{index}", 16)
    simulation.go()
    assert len(simulation.results) == 2000
    assert max(simulation.started.values()) == 1
    assert simulation.now < 1.15 * in_order(run, seconds, [16] * 8) + max(seconds)


def test_tiny_tasks_keep_workers_busy_in_spite_of_the_wire() -> None:
    run = Run([Task(function="f", id=str(place)) for place in range(5000)])
    simulation = Simulation(run, [1e-4] * 5000, set())
    for index in range(4):
        simulation.join(f"w{index}", 2)
    simulation.go()
    assert len(simulation.results) == 5000
    assert simulation.now < 1.2 * 5000 * 1e-4 / 8
