"""What is asked of a connection is done in its thread, in order, and on no other connection."""

from __future__ import annotations

from collections.abc import Callable

import pika.exceptions
import pytest

from transports.rabbitmq.commands import Commands


class Thread:
    """A thread that does what it was woken for when it is told to."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.failed: list[str] = []
        self.done: list[str] = []
        self.commands = Commands(self.calls.append, self.failed.append)

    def put(self, what: str, *, generation: int = 1, answered: bool = False) -> None:
        self.commands.put(generation, lambda: self.done.append(what), answered=answered)

    def look(self) -> list[str]:
        while self.calls:
            self.calls.pop(0)()
        done, self.done = self.done, []
        return done


@pytest.fixture
def thread() -> Thread:
    return Thread()


def test_one_wake_up_is_for_all_that_is_asked(thread: Thread) -> None:
    thread.commands.begin(1)
    thread.put("first")
    thread.put("second")
    assert len(thread.calls) == 1
    assert thread.look() == ["first", "second"]
    thread.put("third")
    assert thread.look() == ["third"]


def test_what_was_asked_of_another_connection_is_dropped(thread: Thread) -> None:
    thread.put("before any")
    thread.commands.begin(2)
    thread.put("of the first")
    thread.put("of the second", generation=2)
    assert thread.look() == ["of the second"]
    thread.commands.drop()
    thread.put("after the second", generation=2)
    assert thread.look() == []


def test_nothing_passes_a_question(thread: Thread) -> None:
    thread.commands.begin(1)
    thread.put("question", answered=True)
    thread.put("after it")
    assert thread.look() == ["question"]
    assert thread.commands.asking
    thread.commands.answer()
    assert thread.look() == ["after it"]
    assert not thread.commands.asking


def test_the_end_comes_when_all_is_done_and_answered(thread: Thread) -> None:
    thread.commands.begin(1)
    thread.put("question", answered=True)
    thread.put("after it")
    assert thread.look() == ["question"]
    thread.commands.end(lambda: thread.done.append("end"))
    assert thread.look() == []
    thread.commands.answer()
    assert thread.look() == ["after it", "end"]


def test_a_connection_that_is_closed_just_then_is_given_up(thread: Thread) -> None:
    def fail() -> None:
        raise pika.exceptions.ChannelWrongStateError("Channel is closed.")

    thread.commands.begin(1)
    thread.commands.put(1, fail, answered=False)
    thread.put("after it")
    assert thread.look() == []
    assert len(thread.failed) == 1
