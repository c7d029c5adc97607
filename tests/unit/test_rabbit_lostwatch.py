"""When a dispatcher of RabbitMQ takes calls for lost."""

from __future__ import annotations

from collections.abc import Collection

from transports.rabbitmq.lostwatch import RARELY, LostWatch
from transports.rabbitmq.topology import Topology

NAMES = Topology("q", 1.0, 60.0)
RESULTS = "q.results.r"


class Looking:
    """A watch, and the broker that it looks at: what is in each queue, and which calls no worker has."""

    def __init__(self) -> None:
        self.watch = LostWatch(NAMES)
        self.queues: dict[str, int | None] = {}
        self.unheld: dict[int, Collection[int]] = {}
        self.now = 100.0
        self.watch.reset(self.now)

    def which(self, widths: Collection[int]) -> dict[int, Collection[int]]:
        return {width: self.unheld[width] for width in widths}

    def look(self) -> list[int]:
        """Look once; return what is lost."""
        self.now = max(self.now, self.watch.look_at)
        lost: list[int] = []
        asked = self.watch.ask(self.unheld, [RESULTS], self.now)
        assert self.watch.asking
        for queue in asked:
            assert not lost, "it judges before it has all answers"
            assert queue in self.watch
            lost = self.watch.found(queue, self.queues.get(queue, 0), self.which, self.now)
        assert not self.watch.asking
        return lost

    def until_lost(self) -> tuple[float, list[int]]:
        """Look until something is lost; return after how many seconds, and what."""
        began = self.now
        while not (lost := self.look()):
            assert self.now - began < 1000, "it is never found"
        return self.now - began, lost


def test_what_is_nowhere_for_long_enough_is_lost() -> None:
    looking = Looking()
    looking.unheld = {1: [3, 4]}
    seconds, lost = looking.until_lost()
    assert lost == [3, 4]
    assert NAMES.returning <= seconds <= NAMES.returning + 3
    seconds, lost = looking.until_lost()  # those that were pushed again have their time, too
    assert lost == [3, 4]
    assert seconds >= NAMES.returning


def test_what_is_missed_later_has_its_own_time() -> None:
    looking = Looking()
    looking.unheld = {1: [3]}
    for _ in range(4):
        assert looking.look() == []
    looking.unheld = {1: [3, 4]}  # its worker vanished, and it may be on its way back
    assert looking.until_lost()[1] == [3]


def test_nothing_is_lost_while_any_queue_that_it_may_be_in_has_something() -> None:
    for queue in ("q.1", "q.1.first", "q.1.alone", "q.returned", RESULTS):
        looking = Looking()
        looking.unheld = {1: [3]}
        for _ in range(4):
            looking.look()
        looking.queues = {queue: 1}
        for _ in range(20):
            assert looking.look() == []
        looking.queues = {}
        assert looking.until_lost()[0] >= NAMES.returning, "as if nothing had been there"


def test_a_queue_that_is_gone_is_empty_and_other_widths_are_their_own_affair() -> None:
    looking = Looking()
    looking.unheld = {1: [3], 2: [7, 8]}
    looking.queues = {"q.1": 5, "q.2": None, "q.2.first": None}
    assert looking.until_lost()[1] == [7, 8]


def test_it_tells_of_what_waits_when_all_answers_are_there() -> None:
    looking = Looking()
    looking.unheld = {1: [3], 2: [7], 3: [8]}
    looking.queues = {"q.1.first": 1, "q.3": 2, RESULTS: 1}
    looking.look()
    assert looking.watch.waiting == [1, 3]
    looking.watch.ask([1, 2, 3], [RESULTS], looking.now)
    assert looking.watch.waiting == []


def test_reports_of_its_width_put_a_loss_in_doubt_and_looks_are_rare_while_they_come() -> None:
    looking = Looking()
    looking.unheld = {1: [3], 2: [7]}
    for _ in range(5):
        assert looking.look() == []
    looking.watch.reported(1)
    assert looking.until_lost()[1] == [7]
    looking.watch.reported(1)
    looking.look()
    assert looking.watch.look_at - looking.now >= RARELY * NAMES.patience


def test_a_new_connection_begins_anew() -> None:
    looking = Looking()
    looking.unheld = {1: [3]}
    looking.look()
    looking.watch.ask([1], [RESULTS], looking.now)  # whose answers never come
    looking.watch.reset(looking.now)
    assert not looking.watch.asking
    assert looking.watch.found("q.1", 0, looking.which, looking.now) == []
    assert looking.until_lost()[0] >= NAMES.returning
