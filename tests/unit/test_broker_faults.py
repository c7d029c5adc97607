"""Who is at fault when a worker vanishes: suspects, and tasks that are to run alone."""

from __future__ import annotations

import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from executor import codec
from executor.broker import Broker
from executor.messages import NIL, Report
from executor.run import Run
from executor.task import Result, Task
from tests.unit.brokers import held, told

NONE = codec.encode(None)[0]


def test_suspects_travel_alone() -> None:
    broker = Broker()
    broker.push([1] * 4)
    broker.join("a", 4)
    broker.grants()
    for place in broker.leave("a"):
        broker.again(place, suspect=place in (1, 2))
    broker.join("b", 4)
    assert broker.grants() == [("b", [0]), ("b", [1]), ("b", [2]), ("b", [3])]


def test_a_suspect_cuts_the_frame_though_it_stands_among_those_never_handed_out() -> None:
    broker = Broker()
    broker.push([1] * 8)
    broker.join("a", 1)
    broker.adopt("a", [3, 5])
    assert broker.leave("a") == [3]
    broker.join("b", 8)
    assert broker.grants() == [("b", [0, 1, 2, 4]), ("b", [5]), ("b", [6, 7])]


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


def test_what_was_certainly_not_begun_is_not_charged() -> None:
    broker = Broker()
    told(broker, {1: 0.001, 3: 0.001})
    broker.push([1] * 6 + [3])
    broker.join("a", 4)
    broker.grants()
    assert held(broker, "a") == [[2, 3, 4, 5, 6, 7, 8]]
    assert broker.leave("a") == [2, 3, 4, 5]
    assert broker.waiting() == {1: 2, 3: 1}
    broker.join("b", 1)
    assert broker.grants() == [("b", [6])]  # a suspect all the same: singly
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
