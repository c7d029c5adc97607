"""What the users of RabbitMQ are told when it can't be reached."""

from __future__ import annotations

import pytest

from executor.errors import ConfigError
from transports.rabbitmq.events import NO_ANSWER, Blocked, Lost
from transports.rabbitmq.outage import SAY_AFTER, SAY_AGAIN, Outage


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def outage(said: list[str]) -> Outage:
    return Outage("amqp://there:5672", said.append)


def test_a_broker_that_is_back_at_once_is_not_worth_a_line(outage: Outage, said: list[str]) -> None:
    outage.opens()
    assert outage.loses(Lost("it hung up"), 100.0)
    outage.tick(100.0 + SAY_AFTER / 2)
    outage.opens()
    assert said == []


def test_a_longer_outage_is_said_again_and_again_and_so_is_its_end(outage: Outage, said: list[str]) -> None:
    outage.opens()
    outage.loses(Lost("it hung up"), 100.0)
    assert not outage.loses(Lost("connection refused"), 100.5)
    outage.tick(100.1 + SAY_AFTER)
    outage.tick(100.2 + SAY_AFTER)
    assert said == ["can't reach RabbitMQ at amqp://there:5672 (connection refused); trying again"]
    outage.tick(100.2 + SAY_AFTER + SAY_AGAIN)
    assert len(said) == 2
    outage.opens()
    assert said[2:] == ["reached RabbitMQ again at amqp://there:5672"]
    outage.opens()
    assert len(said) == 3


def test_a_broker_that_does_not_answer_is_said_now_and_then(outage: Outage, said: list[str]) -> None:
    for now in (100.0, 106.0, 112.0, 100.0 + SAY_AGAIN):
        outage.opens()
        outage.loses(Lost(NO_ANSWER), now)
    assert said == ["RabbitMQ at amqp://there:5672 is there but does not answer; connecting anew"] * 2


def test_what_makes_no_sense_to_try_again_ends_the_script(outage: Outage) -> None:
    with pytest.raises(ConfigError, match=r"^RabbitMQ at amqp://there:5672: check the url$"):
        outage.loses(Lost("access refused", "check the url"), 100.0)


def test_blocked_and_free_again(outage: Outage, said: list[str]) -> None:
    outage.blocks(Blocked("low on disk"))
    outage.blocks(Blocked(""))
    assert said == [
        "RabbitMQ at amqp://there:5672 takes no more for now: low on disk; waiting until it does",
        "RabbitMQ at amqp://there:5672 takes messages again",
    ]
