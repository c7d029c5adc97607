"""Calls that came back, on their way out again. A stand-in takes what is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from executor.messages import NIL, Item
from transports.rabbitmq.events import Delivered, Tag
from transports.rabbitmq.frames import Call, calls
from transports.rabbitmq.mending import Mending
from transports.rabbitmq.post import Outcome
from transports.rabbitmq.topology import Topology

NAMES = Topology("q", 1.0, 60.0)


class Broker:
    """What mends, and its connection and post."""

    most = 1000

    def __init__(self, names: Topology = NAMES) -> None:
        itself: Any = self
        self.mending = Mending(itself, itself, names)
        self.sent: list[str] = []  # queues
        self.declared: list[str] = []
        self.acked: list[int] = []
        self.told = 0
        self._waiting: list[tuple[Callable[[Outcome], None], bytes]] = []

    # -- as connection and post

    def send(self, queue: str, body: bytes, done: Callable[[Outcome], None], **_: Any) -> None:
        self.sent.append(queue)
        self._waiting.append((done, body))

    def declare(self, queue: str, arguments: object) -> None:
        self.declared.append(queue)

    def ack(self, *tags: Tag) -> None:
        self.acked += [tag.number for tag in tags]

    def publish(self, exchange: str, key: str, body: bytes) -> None:
        assert exchange == NAMES.control
        self.told += 1

    # -- what happens

    def mend(self, *some: Call, worker: str = "w") -> None:
        self.mending.mend(Delivered(NAMES.returned, Tag(1, 7), {"worker": worker}, "", b""), "r", some)

    def confirm(self, outcome: Outcome = Outcome.SAFE) -> bytes:
        """Say what became of the publication that waits longest; return what it was."""
        done, body = self._waiting.pop(0)
        done(outcome)
        return body


def call(place: int, **more: Any) -> Call:
    return Call(Item(place, 1, 2, None, None, msgspec.Raw(NIL), **more), [])


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_each_call_goes_out_alone_and_the_message_goes_when_all_are_safe(broker: Broker) -> None:
    broker.mend(call(1), call(2))
    assert broker.sent == ["q.2.first"] * 2
    _, some = calls(broker.confirm())
    assert [(each.item.place, each.item.attempt) for each in some] == [(1, 2)]
    assert broker.mending
    assert not broker.acked
    broker.confirm()
    assert not broker.mending
    assert broker.acked == [7]
    assert broker.told == 1


def test_what_had_its_last_attempt_is_reported(broker: Broker) -> None:
    broker.mend(call(1, retries=0), call(2, retries=1))
    assert broker.sent == ["q.2.alone", "q.results.r"]
    broker.confirm()
    broker.confirm()
    assert broker.acked == [7]


def test_a_queue_that_somebody_deleted_is_made_anew(broker: Broker) -> None:
    """Else its call is nowhere, and nobody but a dispatcher ever finds that out."""
    broker.mend(call(1))
    broker.confirm(Outcome.NO_QUEUE)
    assert set(broker.declared) == set(NAMES.of_width(2))
    assert broker.sent == ["q.2.first"] * 2
    assert not broker.acked
    broker.confirm()
    assert broker.acked == [7]
    assert broker.told == 1


def test_a_temporary_queue_that_is_gone_went_with_its_run() -> None:
    broker = Broker(NAMES._replace(temporary=True))
    broker.mend(call(1))
    broker.confirm(Outcome.NO_QUEUE)
    assert not broker.declared
    assert broker.acked == [7]


def test_a_call_that_the_broker_takes_no_more_is_reported(broker: Broker) -> None:
    broker.mend(call(1))
    broker.confirm(Outcome.TOO_LARGE)
    assert broker.sent == ["q.2.first", "q.results.r"]
    assert not broker.acked
    broker.confirm()
    assert broker.acked == [7]


def test_what_was_under_way_when_the_connection_broke_comes_again(broker: Broker) -> None:
    broker.mend(call(1))
    broker.mending.lost()
    assert not broker.mending
    broker.mend(call(1))
    broker.confirm(Outcome.NO_QUEUE)
    assert not broker.declared, "of the connection that broke"
    broker.confirm()
    assert broker.acked == [7]
