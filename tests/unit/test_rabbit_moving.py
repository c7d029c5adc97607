"""Calls on their way into a worker's hands, whatever becomes of their copy. A stand-in takes what is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from executor.messages import NIL, Item, introduce
from transports.rabbitmq.events import Tag
from transports.rabbitmq.frames import Call, calls
from transports.rabbitmq.held import Held
from transports.rabbitmq.moving import LATE, Moving
from transports.rabbitmq.post import Outcome
from transports.rabbitmq.topology import Topology

NAMES = Topology("q", 1.0, 60.0)
HELLO = introduce("w", 2)
HELD = NAMES.held(HELLO.instance)


class Worker:
    """A worker with what moves its calls: it is connection and post, and sees to what can't be sent."""

    most = None

    def __init__(self) -> None:
        self.held = Held(2, backfill=False)
        itself: Any = self
        self.moving = Moving(itself, itself, self.held, itself, NAMES, HELLO)
        self.sent: list[tuple[str, str, list[int]]] = []  # queue, message id, places
        self.waiting: list[Callable[[Outcome], None]] = []
        self.acked: list[int] = []
        self.refused: list[int] = []
        self.broken = False

    # -- as connection, post and replies

    def send(self, queue: str, body: bytes, done: Callable[[Outcome], None], *, message_id: str = "",
             **_: Any) -> None:  # fmt: skip
        self.sent.append((queue, message_id, [call.item.place for call in calls(body)[1]]))
        self.waiting.append(done)

    def ack(self, *tags: Tag) -> None:
        self.acked += [tag.number for tag in tags]

    def break_off(self, why: str) -> None:
        self.broken = True

    def refuse(self, run: str, some: list[Call], size: int) -> None:
        self.refused += [call.item.place for call in some]
        self.held.leave(run, [call.item.place for call in some])

    def release(self, copies: list[Any]) -> None:
        assert not copies

    # -- what happens

    def move(self, *places: int, number: int = 1, rest: int = 0) -> str:
        """Move a message of such calls, of which the last ones are not for us; return the copy's id."""
        some = [call(place) for place in places]
        split = len(some) - rest
        self.moving.move([Tag(1, number, False)], "r", some[:split], some[split:])
        return next(message_id for _, message_id, _ in reversed(self.sent) if message_id)

    def confirm(self, outcome: Outcome = Outcome.SAFE) -> None:
        """Say what became of the publication that waits longest."""
        self.waiting.pop(0)(outcome)

    def come(self, message_id: str) -> list[int]:
        """Deliver a copy; return the places of the calls that are to be begun."""
        copy = self.held.copy(message_id)
        assert copy is not None
        copy.tag = Tag(1, 100, False)
        self.moving.came(message_id)
        return [each.item.place for each in self.held.begin(copy)]

    def lose(self) -> None:
        """Break the connection, and make another."""
        self.waiting.clear()
        self.moving.lost()
        self.held.doubt()


def call(place: int) -> Call:
    return Call(Item(place, 1, 1, None, None, msgspec.Raw(NIL)), [])


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_the_original_goes_when_the_copy_is_safe_and_the_calls_begin_when_it_came(worker: Worker) -> None:
    copy = worker.move(1, 2)
    assert worker.sent == [(HELD, copy, [1, 2])]
    assert worker.moving.unconfirmed
    worker.confirm()
    assert worker.acked == [1]
    assert worker.moving
    assert worker.come(copy) == [1, 2]
    assert not worker.moving


def test_a_copy_that_comes_before_it_is_confirmed_is_under_way_until_then(worker: Worker) -> None:
    copy = worker.move(1)
    assert worker.come(copy) == [1]
    assert worker.moving
    worker.confirm()
    assert worker.acked == [1]
    assert not worker.moving


def test_a_safe_copy_that_does_not_come_is_published_anew_and_begun_once(worker: Worker) -> None:
    copy = worker.move(1)
    worker.confirm()
    worker.moving.again(10.0)
    worker.moving.again(10.0 + LATE)
    assert len(worker.sent) == 1, "it may still come"
    worker.moving.again(10.1 + LATE)
    assert worker.sent[1:] == [(HELD, copy, [1])]
    worker.moving.again(10.2 + 2 * LATE)
    assert len(worker.sent) == 2, "the broker has not taken it yet"
    worker.confirm()
    worker.moving.again(10.3 + 2 * LATE)
    assert len(worker.sent) == 2
    assert worker.come(copy) == [1]
    assert worker.come(copy) == []
    assert worker.acked == [1], "the original is acknowledged once"
    assert not worker.moving


def test_the_seconds_without_a_connection_do_not_count(worker: Worker) -> None:
    worker.move(1)
    worker.confirm()
    worker.moving.again(10.0)
    worker.lose()
    worker.moving.again(20.0 + LATE)
    assert len(worker.sent) == 1
    worker.moving.again(20.1 + 2 * LATE)
    assert len(worker.sent) == 2


def test_an_original_that_comes_again_though_it_was_acknowledged_is_begun(worker: Worker) -> None:
    """The acknowledgement was lost with the connection, and the copy with a queue that somebody deleted."""
    lost = worker.move(1)
    worker.confirm()
    worker.lose()
    assert not worker.held.done_before("r", call(1))
    other = worker.move(1, number=2)
    worker.confirm()
    assert worker.come(other) == [1]
    assert worker.come(other) == []
    worker.held.finish("r", [1])
    worker.moving.again(10.0)
    assert not worker.moving, f"it waits for {lost}"


def test_what_was_not_acknowledged_is_let_go_when_the_connection_breaks(worker: Worker) -> None:
    worker.move(1)
    worker.lose()
    assert not worker.moving
    assert not worker.held


def test_what_came_before_it_was_confirmed_stays_in_hand_when_the_connection_breaks(worker: Worker) -> None:
    assert worker.come(worker.move(1)) == [1]
    worker.lose()
    assert not worker.moving
    assert worker.held.holding() == {"r": {1: 1}}


def test_after_a_long_outage_a_copy_that_does_not_come_is_no_longer_ours(worker: Worker) -> None:
    """Others have its calls by then; one of whom it comes again is begun."""
    worker.move(1)
    worker.confirm()
    worker.lose()
    worker.moving.give_up()
    worker.moving.again(10.0)
    assert worker.held.load == 1, "it may come yet"
    worker.moving.again(10.1 + LATE)
    assert len(worker.sent) == 1
    assert not worker.moving
    assert not worker.held
    assert not worker.held.done_before("r", call(1)), "it never began here"


def test_a_copy_that_was_given_up_and_comes_all_the_same_is_taken_once_more(worker: Worker) -> None:
    """The broker saw the break late: nobody else has its calls, and who acknowledged it would lose them."""
    late, other = worker.move(1), worker.move(2, number=2)
    worker.confirm()
    worker.confirm()
    assert not worker.moving.comes_late(late)
    worker.lose()
    worker.moving.give_up()
    worker.moving.again(10.0)
    assert not worker.moving.misses
    worker.moving.again(10.1 + LATE)
    assert worker.moving.misses
    assert worker.moving.comes_late(late)
    assert not worker.moving.comes_late(late), "it is known now"
    worker.moving.over("r")
    assert not worker.moving.misses
    assert not worker.moving.comes_late(other)


def test_calls_that_the_broker_takes_no_more_are_refused_and_the_others_begin(worker: Worker) -> None:
    copy = worker.move(1, 2, rest=1)
    worker.confirm()
    worker.confirm(Outcome.TOO_LARGE)
    assert worker.refused == [2]
    assert worker.come(copy) == [1]
    worker.move(3, number=2)
    worker.confirm(Outcome.TOO_LARGE)
    assert worker.refused == [2, 3]
    assert worker.acked == [1, 2]
    assert not worker.moving


def test_a_deleted_queue_breaks_the_connection_off(worker: Worker) -> None:
    worker.move(1)
    worker.confirm(Outcome.NO_QUEUE)
    assert worker.broken
    assert worker.acked == []


def test_of_a_run_that_is_over_nothing_is_waited_for_but_that_its_originals_go(worker: Worker) -> None:
    worker.move(1)
    worker.moving.over("r")
    worker.held.finish("r", [1])
    assert worker.moving.runs() == {"r"}
    worker.confirm()
    assert worker.acked == [1]
    assert not worker.moving
