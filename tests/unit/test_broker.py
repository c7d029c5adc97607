"""The embedded broker, whatever happens to it: a state machine."""

from __future__ import annotations

import itertools
from collections import Counter, deque

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from executor.broker import FRAME_MOST, Broker
from executor.pace import AHEAD_SECONDS, LEAST_SECONDS

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

    @precondition(lambda self: not self.halted)
    @rule(tasks=st.lists(st.tuples(st.integers(1, WIDEST), st.booleans()), min_size=1, max_size=12))
    def push_what_is_done_in_part(self, tasks: list[tuple[int, bool]]) -> None:
        start = len(self.widths)
        done = {start + place for place, (_, is_done) in enumerate(tasks) if is_done}
        self.waiting.update(set(range(start, start + len(tasks))) - done)
        self.settled |= done
        self.widths += [width for width, _ in tasks]
        self.broker.push([width for width, _ in tasks], done)

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

    @precondition(lambda self: self.workers and self.widths)
    @rule(data=st.data())
    def adopt(self, data: st.DataObject) -> None:
        """A worker has some of them already: what waits is its own, and nothing else changes."""
        name = self.some_worker(data)
        worker = self.workers[name]
        near = st.integers(0, min(len(self.widths), 30) - 1)
        claimed = data.draw(
            st.sets(st.one_of(near, st.sampled_from(sorted(self.waiting) or [0])), max_size=8)
        )
        self.broker.adopt(name, sorted(claimed))
        for place in sorted(claimed):
            if place in self.waiting and self.widths[place] <= worker.cores:
                self.waiting.remove(place)
                worker.held[place] = self.widths[place]

    @precondition(lambda self: self.widths)
    @rule(data=st.data())
    def take_away(self, data: st.DataObject) -> None:
        """A later attempt was begun elsewhere: who holds it, holds it no more."""
        place = data.draw(st.integers(0, len(self.widths) - 1))
        self.broker.take_away(place)
        if place in self.waiting or place in self.withdrawn:
            self.withdrawn.discard(place)
        for worker in self.workers.values():
            worker.held.pop(place, None)
        self.settled.discard(place)
        self.adrift.discard(place)
        (self.withdrawn if self.halted else self.waiting).add(place)

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
                for width in sorted(set(worker.held.values())):
                    places = sorted(place for place in worker.held if worker.held[place] == width)
                    self.broker.settle(name, places, self.seconds[width])
                    self.known.add(width)
                    self.ended(places)
                worker.held.clear()
        widest = max((w.cores for w in self.workers.values() if not w.draining), default=0)
        assert all(self.widths[place] > widest for place in self.waiting)


BrokerMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, phases=set(Phase) - {Phase.explain}
)
TestBroker = BrokerMachine.TestCase
