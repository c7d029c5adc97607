"""The embedded broker on a virtual clock: runs of a size that no test machine has.

    python -m benchmarks.simulate [--workers 10 100 1000 10000] [--tasks 1000000] [--cores 16] [--seed 1]

Workers start what they hold by place, as their cores allow; every message between them and the dispatcher
takes half a millisecond. Tasks ask for 1 core and more, in increasing order, most of them for few. How long
they take has a heavy tail: half of them at most 2 s, one in a hundred more than a minute, 300 s at most. For
each number of workers it prints what the broker costs in CPU time, of its own calls alone, how long the run
takes on the virtual clock beside what it takes at least (at all, and in this order of widths), how many
messages go to and fro for each task, and for how long a worker idles at the tail while another holds what it
could start.
`--cores mixed` takes workers of 1 to 128 cores, and widths and durations to suit them.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
import time
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import psutil
from rich.table import Table

from benchmarks.report import wide
from executor.broker import Broker
from executor.options import core_count, positive_int

#: Seconds that a message takes, and seconds between two looks for what can be recalled.
DELAY = 0.0005
RECALL = 0.05

#: What mixed workers have, and what is asked of them: widths, and how common each is.
WIDTHS = [1, 2, 3, 4, 8, 16, 32, 64, 128]
SHARES = [600, 150, 50, 100, 60, 25, 10, 4, 1]
CORES = [1, 2, 4, 8, 16, 32, 64, 128]
SECONDS = [0.01, 0.1, 1.0, 10.0, 100.0]

#: A heavy tail: the median of a log-normal distribution in seconds, its sigma, and where it is cut off.
MEDIAN, SIGMA, LONGEST = 2.0, 1.5, 300.0

_TAKE, _END, _HEAR, _RECALL, _BACK, _LOOK = range(6)  # the last is at the clock, by the dispatcher

#: Seconds of the virtual clock that are put in order at once.
SLICE = 0.02

#: When, its number, what it is, of which worker, and about what.
Event: TypeAlias = "tuple[float, int, int, Machine, Any]"

T = TypeVar("T")


class Figures(NamedTuple):
    """What a replay shows; from the makespan on, on the virtual clock, in seconds."""

    broker_seconds: float  # of CPU time, spent inside the broker
    decisions: int  # tasks handed out, ended, taken back
    bytes_per_task: float  # that the broker's memory grew by when the tasks were pushed
    messages: int  # to and fro; reports of calls that end at once count singly
    makespan: float
    bound: float  # no schedule is shorter: the area over the cores that can run it, or the longest task
    in_order: float  # as long as the widths in turn need, each on all the workers wide enough
    idle_tail: float  # the longest that a worker idled while another held what it could start

    @property
    def per_second(self) -> float:
        """Decisions that the broker makes in a second of CPU time."""
        return self.decisions / self.broker_seconds


class Stopwatch:
    """The CPU time that calls take, without what it takes to measure them.

    It is of this thread, so others that run on the machine don't count, and of the order of what is measured:
    a look at this clock takes up to a microsecond.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._calls = 0
        self._own = min(self._empty_calls(10_000) for _ in range(5))
        self._spent, self._calls = 0.0, 0

    def time(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call, and return what comes back."""
        self._calls += 1
        began = time.thread_time()
        answer = call(*arguments)
        self._spent += time.thread_time() - began
        return answer

    @property
    def seconds(self) -> float:
        """What all calls took."""
        return self._spent - self._calls * self._own

    def _empty_calls(self, count: int) -> float:
        """Return the seconds that are measured for a call that does nothing."""
        self._spent = 0.0
        for _ in range(count):
            self.time(list)
        return self._spent / count


class Agenda:
    """What is still to happen, in order of time, and of noting where times are the same.

    Only what is due soon is kept as a heap; what is later lies unordered, by the slice of time that it falls
    into. There may be 160,000 tasks that run: a heap of them all touches at each turn what lies all over the
    memory, and so drives what the broker needs out of the caches.
    """

    def __init__(self) -> None:
        self._soon: list[Event] = []  # a heap: all of the present slice and before
        self._present = 0
        self._later: dict[int, list[Event]] = {}  # by slice
        self._slices: list[int] = []  # a heap of those
        self._numbers = itertools.count()

    def add(self, when: float, what: int, machine: Machine, about: Any) -> None:
        """Note what is to happen then."""
        event = (when, next(self._numbers), what, machine, about)
        slice_ = int(when / SLICE)
        if slice_ <= self._present:
            heapq.heappush(self._soon, event)
        elif (known := self._later.get(slice_)) is not None:
            known.append(event)
        else:
            self._later[slice_] = [event]
            heapq.heappush(self._slices, slice_)

    def pop(self) -> Event:
        """Return what comes first, which is on the agenda no more."""
        if not self._soon:
            self._present = heapq.heappop(self._slices)
            self._soon = self._later.pop(self._present)
            heapq.heapify(self._soon)
        return heapq.heappop(self._soon)


class Machine:
    """A worker: it starts what it holds in order."""

    __slots__ = ("free", "name", "queue")

    def __init__(self, name: str, cores: int) -> None:
        self.name = name
        self.free = cores
        self.queue: list[int] = []  # a heap of places


class Replay:
    """One run of `widths` and `seconds` on workers of `cores`."""

    def __init__(self, widths: list[int], seconds: list[float], cores: list[int]) -> None:
        self._widths, self._cores = widths, cores
        self._seconds = array("d", seconds)
        self.broker = Broker()
        self.starts = bytearray(len(widths))
        self._machines = {f"w{n}": Machine(f"w{n}", mine) for n, mine in enumerate(cores)}
        self._agenda = Agenda()
        self._now = 0.0
        self._watch = Stopwatch()
        self._news = True  # the dispatcher heard something
        self._decisions = 0
        self._messages = 0
        self._waiting: Counter[int] = Counter()  # what machines hold unstarted, by width
        self._idle_since: dict[str, float] = {}  # of each machine that now has room for what others hold
        self._idle_most = 0.0

    def run(self) -> Figures:
        """Replay it to its end."""
        for name, machine in self._machines.items():
            self.broker.join(name, machine.free)
        process = psutil.Process()
        before = process.memory_info().rss
        self._watch.time(self.broker.push, self._widths)
        grown = process.memory_info().rss - before
        left, recall_at = len(self._widths), 0.0
        while left:
            if self._news:
                self._news = False
                self._hand_out()
            if self._now >= recall_at and self.broker.exhausted:
                recall_at = self._now + RECALL
                self._watch_the_tail()
                self._after(RECALL, _LOOK, next(iter(self._machines.values())), None)
                for name, most in self._watch.time(self.broker.recalls):
                    self._messages += 2  # it answers
                    self._after(DELAY, _RECALL, self._machines[name], most)
            self._now, _, what, machine, about = self._agenda.pop()
            left -= self._happen(what, machine, about)
        return Figures(
            self._watch.seconds,
            self._decisions,
            grown / len(self._widths),
            self._messages,
            self._now,
            *self._ideals(),
            self._idle_most,
        )

    def _hand_out(self) -> None:
        for name, places in self._watch.time(self.broker.grants):
            self._decisions += len(places)
            self._messages += 1
            self._after(DELAY, _TAKE, self._machines[name], places)

    def _after(self, delay: float, what: int, machine: Machine, about: Any) -> None:
        self._agenda.add(self._now + delay, what, machine, about)

    def _happen(self, what: int, machine: Machine, about: Any) -> int:
        """Let something happen; return how many tasks the dispatcher heard the end of."""
        if what == _END:
            machine.free += self._widths[about]
            self._after(DELAY, _HEAR, machine, about)
            self._start(machine)
        elif what == _HEAR:
            self._watch.time(self.broker.settle, machine.name, [about], self._seconds[about])
            self._news = True
            self._decisions += 1
            self._messages += 1
            return 1
        elif what == _TAKE:
            for place in about:
                heapq.heappush(machine.queue, place)
                self._waiting[self._widths[place]] += 1
            self._start(machine)
        elif what == _RECALL:
            machine.queue.sort()
            back = [machine.queue.pop() for _ in range(min(about, len(machine.queue)))]
            for place in back:
                self._waiting[self._widths[place]] -= 1
            self._after(DELAY, _BACK, machine, back)
        elif what == _BACK:
            self._watch.time(self.broker.give_back, machine.name, about)
            self._news = True
            self._decisions += len(about)
        return 0

    def _start(self, machine: Machine) -> None:
        while machine.queue and self._widths[machine.queue[0]] <= machine.free:
            place = heapq.heappop(machine.queue)
            width = self._widths[place]
            machine.free -= width
            self._waiting[width] -= 1
            self.starts[place] += 1
            self._after(self._seconds[place], _END, machine, place)

    def _watch_the_tail(self) -> None:
        """Note for how long each machine has had room for what others hold unstarted."""
        narrowest = min((width for width, count in self._waiting.items() if count), default=math.inf)
        now, since = self._now, self._idle_since
        self._idle_since = {
            name: since.get(name, now)
            for name, each in self._machines.items()
            if not each.queue and each.free >= narrowest
        }
        self._idle_most = max(self._idle_most, now - min(self._idle_since.values(), default=now))

    def _ideals(self) -> tuple[float, float]:
        work: Counter[int] = Counter()
        for width, seconds in zip(self._widths, self._seconds, strict=True):
            work[width] += width * seconds  # type: ignore[assignment] # a sum of seconds
        wide_enough = {width: [mine for mine in self._cores if mine >= width] for width in work}
        bound, area = max(self._seconds), 0.0
        for width in sorted(work, reverse=True):
            area += work[width]
            bound = max(bound, area / sum(wide_enough[width]))
        in_order = sum(
            work[width] / width / sum(mine // width for mine in wide_enough[width]) for width in work
        )
        return bound, in_order


def replay(workers: int, tasks: int, seed: int, seconds: list[float] | None = None) -> tuple[Replay, Figures]:
    """Replay a mixed run; return it and its figures. `seconds` are the durations to choose from."""
    random_ = random.Random(seed)
    widths = sorted(random_.choices(WIDTHS, SHARES, k=tasks))
    durations = random_.choices(seconds or SECONDS, k=tasks)
    cores = [random_.choice(CORES) for _ in range(workers - 1)] + [max(CORES)]
    one = Replay(widths, durations, cores)
    return one, one.run()


def replay_heavy(workers: int, tasks: int, seed: int, cores: int = 16) -> tuple[Replay, Figures]:
    """Replay tasks of a heavy-tailed duration on workers of so many cores; return it and its figures."""
    random_ = random.Random(seed)
    fitting = [width for width in WIDTHS if width <= cores]
    widths = sorted(random_.choices(fitting, SHARES[: len(fitting)], k=tasks))
    drawn = (random_.lognormvariate(math.log(MEDIAN), SIGMA) for _ in range(tasks))
    one = Replay(widths, [min(LONGEST, each) for each in drawn], [cores] * workers)
    return one, one.run()


def check(one: Replay) -> None:
    """See that every task ran, and ran once."""
    assert set(one.starts) == {1}, "a task ran twice, or not at all"


def core_count_or_mixed(text: str) -> int | str:
    """Read the cores of each worker."""
    return text if text == "mixed" else core_count(text)


def main() -> None:
    """Replay and print."""
    parse = argparse.ArgumentParser(
        prog="python -m benchmarks.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parse.add_argument("--workers", type=positive_int, nargs="+", default=[10, 100, 1000, 10_000])
    parse.add_argument("--tasks", type=positive_int, default=1_000_000)
    parse.add_argument("--cores", type=core_count_or_mixed, default=16, help="cores of each worker, or mixed")
    parse.add_argument("--seed", type=int, default=1)
    arguments = parse.parse_args()
    mixed = arguments.cores == "mixed"
    table = Table(
        box=None, title_justify="left", title=f"{arguments.tasks:,} tasks, workers of {arguments.cores} cores"
    )
    for column in (
        "workers", "decisions/s", "makespan", "possible", "in order", "messages/task", "idle tail",
        "bytes/task",
    ):  # fmt: skip
        table.add_column(column, justify="right", no_wrap=True)
    for workers in arguments.workers:
        if mixed:
            one, figures = replay(workers, arguments.tasks, arguments.seed)
        else:
            one, figures = replay_heavy(workers, arguments.tasks, arguments.seed, arguments.cores)
        check(one)
        table.add_row(
            f"{workers:,}",
            f"{figures.per_second:,.0f}",
            f"{figures.makespan:,.1f} s",
            f"{figures.bound:,.1f} s",
            f"{figures.in_order:,.1f} s",
            f"{figures.messages / arguments.tasks:.2f}",
            f"{figures.idle_tail:.2f} s",
            f"{figures.bytes_per_task:.0f}",
        )
    wide().print(table)


if __name__ == "__main__":
    main()
