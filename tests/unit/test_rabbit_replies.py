"""What leaves a worker's hands, where the broker takes less than was thought. A stand-in is the broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from executor.messages import NIL, Item, introduce
from transports.rabbitmq.events import Tag
from transports.rabbitmq.frames import Call, calls, unpack
from transports.rabbitmq.held import Held
from transports.rabbitmq.post import Outcome
from transports.rabbitmq.replies import Replies
from transports.rabbitmq.topology import Topology

NAMES = Topology("q", 1.0, 60.0)


class Worker:
    """A worker with a hundred calls in hand, of one message each."""

    most: int | None = None

    def __init__(self) -> None:
        self.held = Held(100, backfill=False)
        itself: Any = self
        self.replies = Replies(
            itself, itself, self.held, NAMES, introduce("w", 100), back=self.back, gone=lambda run: None
        )
        self.sent: list[tuple[str, bytes, Callable[[Outcome], None]]] = []
        self.acked: list[int] = []
        self.told: list[str] = []
        self.calls = [
            Call(Item(place, 1, 1, None, None, msgspec.Raw(NIL), 1), [b"x" * 1000]) for place in range(100)
        ]
        for each in self.calls:
            self.held.add(f"copy {each.item.place}", "r", [each])
        for copy in self.held.copies():
            copy.tag = Tag(1, int(copy.id.split()[1]), False)

    def send(self, queue: str, body: bytes, done: Callable[[Outcome], None], **_: Any) -> None:
        self.sent.append((queue, body, done))

    def ack(self, *tags: Tag) -> None:
        self.acked += [tag.number for tag in tags]

    def back(self, width: int, queue: str) -> None:
        self.told.append(queue)

    def answer(self, takes: int) -> list[int]:
        """Take what was sent of at most so many bytes; return the places of the calls, in order."""
        found: list[int] = []
        while self.sent:
            queue, body, done = self.sent.pop(0)
            if len(body) > takes:
                done(Outcome.TOO_LARGE)
            else:
                assert queue == NAMES.first(1)
                found += [call.item.place for call in calls(body)[1]]
                done(Outcome.SAFE)
        return found


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_calls_put_back_together_are_safe_before_their_copies_go(worker: Worker) -> None:
    worker.replies.put_back("r", worker.calls)
    assert len(worker.sent) == 1
    assert worker.held.load == 0
    assert worker.acked == []
    assert worker.answer(takes=10**6) == [*range(100)]
    assert sorted(worker.acked) == [*range(100)]
    assert not worker.held


@pytest.mark.parametrize("known", [False, True])
def test_calls_that_are_too_large_only_together_are_put_back_in_parts(worker: Worker, known: bool) -> None:
    """What the broker takes is known before they are, or when it breaks the connection over them."""
    worker.most = 30_000 if known else None
    worker.replies.put_back("r", worker.calls)
    worker.most = 30_000
    assert worker.answer(takes=30_000) == [*range(100)]
    assert sorted(worker.acked) == [*range(100)]
    assert not worker.held


def test_a_call_that_is_too_large_by_itself_is_reported_and_no_other(worker: Worker) -> None:
    big = worker.calls[40] = worker.calls[40]._replace(buffers=[b"x" * 50_000])
    worker.held.finish("r", [40])
    worker.held.add("big", "r", [big])
    worker.replies.put_back("r", worker.calls)
    worker.most = 30_000
    reports = []

    def take(queue: str, body: bytes, done: Callable[[Outcome], None], **_: Any) -> None:
        if queue == NAMES.results("r"):
            reports.append(unpack(body))
            done(Outcome.SAFE)
        else:
            worker.sent.append((queue, body, done))

    worker.send = take  # type: ignore[method-assign]
    assert sorted(worker.answer(takes=30_000)) == [place for place in range(100) if place != 40]
    assert len(reports) == 1
    assert not worker.held
