"""What a dispatcher of RabbitMQ pushes, and how much of it is safe. A stand-in confirms at will."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.messages import Report
from executor.run import Earlier, Run
from executor.task import Task
from transports.rabbitmq.continued import Continued
from transports.rabbitmq.frames import calls
from transports.rabbitmq.post import Outcome
from transports.rabbitmq.presence import Open
from transports.rabbitmq.pushing import WINDOW, Pushing
from transports.rabbitmq.topology import Topology

NAMES = Topology("q", 1.0, 60.0)


class Broker:
    """Stands in for a `Connection` and a `Post`: takes what is published, and confirms it when told to."""

    def __init__(self) -> None:
        self.size = 0
        self.most: int | None = None
        self.declared: list[str] = []
        self.runs: set[str] = set()
        self.unconfirmed: list[tuple[str, list[int], dict[str, Any], Callable[[Outcome], None]]] = []
        self.got: list[int] = []  # places, in the order in which they were pushed
        self.queues: list[str] = []

    def __len__(self) -> int:
        return len(self.unconfirmed)

    def declare(self, queue: str, arguments: dict[str, Any]) -> None:
        self.declared.append(queue)

    def send(
        self, queue: str, body: bytes, done: Callable[[Outcome], None], *, headers: dict[str, Any]
    ) -> None:
        run, some = calls(body)
        places = [call.item.place for call in some]
        self.runs.add(run)
        self.got += places
        self.queues.append(queue)
        self.unconfirmed.append((queue, places, headers, done))

    def confirm(self, index: int = 0, outcome: Outcome = Outcome.SAFE) -> None:
        *_, done = self.unconfirmed.pop(index)
        done(outcome)

    def confirm_all(self) -> None:
        while self.unconfirmed:
            self.confirm()


class Pushed:
    """A run that is pushed to a broker."""

    def __init__(
        self, widths: list[int], *, largest: int = 10**6, run: str = "", **options: Any
    ) -> None:  # fmt: skip
        tasks = [
            Task(function="f", id=str(at), resources=width, params=["x" * at])
            for at, width in enumerate(widths)
        ]
        self.run = Run(tasks, **options)
        self.broker = Broker()
        self.open = Open(self.run.widths)
        self.reports: list[Report] = []
        self.widths: list[int] = []
        broker: Any = self.broker
        self.pushing = Pushing(
            broker, broker, NAMES, run or self.run.id, self.run, self.open,
            largest=largest, report=self.report, safe=self.widths.append,
        )  # fmt: skip

    def report(self, report: Report) -> None:
        self.reports.append(report)
        self.open.close(report.place)

    def go_on(self) -> None:
        """Push to the end."""
        self.pushing.go_on()
        while self.broker:
            self.broker.confirm_all()
            self.pushing.go_on()


@pytest.mark.parametrize("run", ["", "one that another dispatcher left"])
def test_calls_are_pushed_as_those_of_their_run(run: str) -> None:
    pushed = Pushed([1] * 600 + [2], run=run)
    pushed.go_on()
    assert pushed.broker.runs == {run or pushed.run.id}
    assert pushed.broker.got == list(range(601))


@given(
    st.lists(st.integers(1, 3), max_size=40).map(sorted),
    st.sets(st.integers(0, 39)),
    st.sets(st.integers(0, 39)),
    st.lists(st.integers(0, 9), max_size=60),
)
def test_all_that_is_open_and_nowhere_else_is_pushed_once_in_order(
    widths: list[int], recorded: Collection[int], left: Collection[int], order: list[int]
) -> None:
    pushed = Pushed(widths)
    for place in recorded:
        pushed.open.close(place)
    pushed.pushing.skip(left)
    pushed.pushing.go_on()
    expected = [at for at in range(len(widths)) if at not in recorded and at not in left]
    for index in order:  # confirmations in whatever order
        if pushed.broker:
            pushed.broker.confirm(index % len(pushed.broker))
        pushed.pushing.go_on()
        not_safe = {place for _, places, _, _ in pushed.broker.unconfirmed for place in places}
        not_safe |= set(expected) - set(pushed.broker.got)
        assert pushed.pushing.safe <= min(not_safe, default=len(widths))
    pushed.go_on()
    assert pushed.broker.got == expected
    assert pushed.pushing.complete
    assert pushed.pushing.safe == len(widths)


def test_no_more_is_on_its_way_than_the_broker_keeps_up_with() -> None:
    pushed = Pushed([1] * 1000)
    pushed.pushing.go_on()
    assert len(pushed.broker) == WINDOW
    assert not pushed.pushing.complete
    assert pushed.pushing.safe == 0
    pushed.broker.confirm()
    assert pushed.pushing.safe == 4, "four calls were in the first message"


def test_what_is_lost_goes_first_as_what_its_worker_is_to_take_again() -> None:
    pushed = Pushed([1] * 5)
    pushed.go_on()
    pushed.open.close(4)
    assert pushed.pushing.anew([4, 3, 1]) == [1, 3]
    assert pushed.pushing.anew([3, 2]) == [2], "what is about to be pushed is not pushed twice"
    assert pushed.pushing.safe == 1
    pushed.pushing.go_on()
    assert pushed.pushing.anew([1]) == []
    assert {(queue, "anew" in headers) for queue, _, headers, _ in pushed.broker.unconfirmed} == {
        ("q.1.first", True)
    }
    pushed.go_on()
    assert pushed.broker.got == [0, 1, 2, 3, 4, 1, 3, 2]
    assert pushed.pushing.safe == 5


def test_what_is_tried_again_before_its_turn_is_not_pushed_twice() -> None:
    pushed = Pushed([1] * 1000)
    pushed.pushing.go_on()
    pushed.open.close(990)  # an earlier run's, which failed
    pushed.pushing.again(990, alone=True)
    pushed.broker.confirm_all()
    pushed.go_on()
    assert Counter(pushed.broker.got) == Counter(range(1000))
    assert pushed.broker.queues.count("q.1.alone") == 1


def test_the_calls_of_an_earlier_run_that_is_gone_are_ours_unless_they_are_left_in_another() -> None:
    earlier = [Earlier("a", pushed=4), Earlier("b", [5, 4, 3, 2, 1, 0], pushed=3)]
    pushed = Pushed([1] * 6, earlier=earlier)
    continued = Continued(NAMES, pushed.run.id, pushed.run)
    assert not continued.known
    assert continued.sought() == ["a", "b"]
    for name in ("a", "b"):
        continued.found(name, True)
    assert continued.known
    assert continued.present() == ["a", "b", pushed.run.id]
    assert continued.places({"a": {1: 1, 9: 1}, "b": {1: 2}, "c": {1: 1}, pushed.run.id: {0: 1}}) == [1, 4, 0]
    pushed.pushing.skip(continued.left())  # 0 to 3, and 5 to 3
    pushed.go_on()
    assert pushed.broker.got == []
    assert pushed.pushing.safe == 6
    continued.found("a", False)
    assert continued.places({"a": {1: 1}, "b": {1: 2}}) == [4], "nobody will hear what comes of the other"
    assert pushed.pushing.strayed(continued.left()) == [0, 1, 2]
    assert pushed.pushing.safe == 0
    pushed.go_on()
    continued.found("b", False)
    assert pushed.pushing.strayed(continued.left()) == [3, 4, 5]
    pushed.go_on()
    assert pushed.broker.got == [0, 1, 2, 3, 4, 5]
    assert pushed.pushing.lost() == [0, 1, 2, 3, 4, 5], "now all are ours"
    assert continued.present() == [pushed.run.id]
    assert continued.all() == ["a", "b", pushed.run.id]


def test_queues_that_are_gone_are_made_anew_and_what_is_too_large_goes_alone_or_not_at_all() -> None:
    pushed = Pushed([1] * 600, largest=500)
    pushed.pushing.go_on()
    pushed.broker.confirm(0, Outcome.NO_QUEUE)
    assert pushed.broker.declared == list(NAMES.of_width(1))
    pushed.broker.most = 10
    size = len(pushed.broker.unconfirmed[0][1])
    pushed.broker.confirm(0, Outcome.TOO_LARGE)
    assert size == 3
    singles = [places for _, places, _, _ in pushed.broker.unconfirmed[-3:]]
    assert [len(places) for places in singles] == [1, 1, 1]
    pushed.broker.confirm(len(pushed.broker) - 1, Outcome.TOO_LARGE)
    assert pushed.reports[-1].place == singles[-1][0]
    pushed.go_on()
    refused = {report.place for report in pushed.reports} - set(singles[-1])
    assert set(pushed.broker.got) == set(range(600)) - refused
    assert min(refused) > 400
    assert pushed.pushing.safe == 600


@pytest.mark.parametrize("place", [-1, 3])
def test_places_that_are_none_are_nobodys(place: int) -> None:
    pushed = Pushed([1] * 3)
    pushed.pushing.skip([place])
    pushed.go_on()
    assert pushed.broker.got == [0, 1, 2]
