"""What the ends of RabbitMQ say and do together rather than singly, and again until it is answered."""

from __future__ import annotations

import math
from typing import Any

from executor.messages import Cancel, Halt, introduce
from transports.rabbitmq.acknowledging import DONE_MOST, DONE_SECONDS, Acknowledging
from transports.rabbitmq.events import Tag
from transports.rabbitmq.overdue import Kind, Overdue
from transports.rabbitmq.presence import Presence
from transports.rabbitmq.stopping import FIRST_WORDS, STOP_AGAIN, Stopping
from transports.rabbitmq.telling import TELL, Telling


class Connection:
    """Keeps what is acknowledged."""

    def __init__(self) -> None:
        self.acked: list[tuple[Tag, ...]] = []

    def ack(self, *tags: Tag) -> None:
        self.acked.append(tags)


def test_widths_in_line_are_told_together_and_not_more_often_than_that() -> None:
    told: list[Any] = []
    telling = Telling(lambda message: told.append(message.widths))
    assert telling.due == math.inf
    telling.add(1)
    telling.tell(100.0)
    telling.add(4)
    telling.add(2)
    telling.add(4)
    assert telling.due == 100.0 + TELL
    telling.tell(101.0)
    assert told == [[1], [2, 4]]
    assert telling.due == math.inf


def test_reports_are_acknowledged_together_once_they_are_recorded() -> None:
    connection: Any = Connection()
    acknowledging = Acknowledging(connection)
    tags = [Tag(1, number) for number in range(DONE_MOST + 2)]
    acknowledging.came(tags[0])
    acknowledging.record(100.0)
    assert connection.acked == [(tags[0],)], "after a pause at once"
    acknowledging.came(tags[1])
    acknowledging.record(100.0)
    assert len(connection.acked) == 1
    assert acknowledging.due == 100.0 + DONE_SECONDS
    for tag in tags[2:]:
        acknowledging.came(tag)
    assert len(connection.acked) == 1, "these are not recorded yet"
    acknowledging.record(100.0)
    assert connection.acked[1:] == [tuple(tags[1:])]
    assert acknowledging.due == math.inf


def test_what_came_over_a_connection_that_broke_is_not_acknowledged() -> None:
    connection: Any = Connection()
    acknowledging = Acknowledging(connection)
    acknowledging.came(Tag(1, 1))
    acknowledging.lost()
    acknowledging.record(100.0)
    acknowledging.let_go(100.0)
    assert not connection.acked


def test_a_stop_is_told_for_all_runs_and_again_until_all_have_answered() -> None:
    told: list[Any] = []
    presence = Presence()
    stopping = Stopping(presence, lambda: ["earlier", "own"], told.append)
    hello = introduce("worker", 1)
    presence.meet(hello, 100.0)
    assert not stopping.stopped
    stopping.stop(Cancel, "own", 100.0)
    assert stopping.stopped
    assert told == [Cancel("earlier"), Cancel("own")]
    assert stopping.again_at == 100.0 + STOP_AGAIN
    stopping.again(101.0)
    assert told[2:] == told[:2]
    hello.stopped = ["own"]
    presence.meet(hello, 101.0)
    stopping.again(102.0)
    assert len(told) == 4
    assert not stopping.heard_first_words(100.0 + FIRST_WORDS / 2)
    assert stopping.heard_first_words(100.1 + FIRST_WORDS)


def test_the_last_word_is_the_one_that_is_told_again() -> None:
    told: list[Any] = []
    presence = Presence()
    presence.meet(introduce("worker", 1), 100.0)
    stopping = Stopping(presence, lambda: ["own"], told.append)
    stopping.stop(Halt, "own", 100.0)
    stopping.stop(Cancel, "own", 100.0)
    stopping.again(101.0)
    assert told == [Halt("own"), Cancel("own"), Cancel("own")]


def test_an_answer_is_overdue_after_some_looks_in_a_row() -> None:
    overdue = Overdue()
    waits = {Kind.GET: True, Kind.QUESTION: False, Kind.CONFIRMATION: True}
    assert not any(overdue.look(waits) for _ in range(5))
    overdue.heard(Kind.GET)
    assert not any(overdue.look(waits) for _ in range(5))
    assert overdue.look(waits)
    waits[Kind.GET] = False
    assert not any(overdue.look(waits) for _ in range(15)), "a confirmation may take longer"
    assert overdue.look(waits)
    assert not overdue.look(waits), "it begins anew"
