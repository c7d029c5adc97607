"""Large runs on a virtual clock, with workers that die."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor import codec
from executor.broker import Broker
from executor.messages import NIL, Report
from executor.run import Run
from executor.task import Result, Task

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
        self.starts: list[tuple[float, int]] = []  # when which place was started, in order
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
            self.starts.append((self.now, place))
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


@given(
    st.integers(1, 4),
    st.lists(st.sampled_from([1e-4, 0.001, 0.003, 0.05, 1.0]), min_size=2, max_size=60),
    st.data(),
)
def test_once_a_repeat_has_come_a_worker_starts_nothing_else_before_it(
    cores: int, seconds: list[float], data: st.DataObject
) -> None:
    fails = data.draw(st.integers(0, len(seconds) - 1))
    run = Run([Task(function="f", id=str(place)) for place in range(len(seconds))], retries=1)
    simulation = Simulation(run, seconds, {fails})
    simulation.join("w", cores)
    simulation.go()
    first, again = (at for at, place in simulation.starts if place == fails)
    came = first + seconds[fails] + 2 * DELAY  # the report there, the call back
    between = [place for at, place in simulation.starts if came + 1e-9 < at < again - 1e-9]
    assert not between
