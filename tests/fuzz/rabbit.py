"""Both ends of RabbitMQ, fed with whatever a broker may deliver, over a connection that is none.

An input is a sequence; counted are the events that the end under test was told, most of them messages.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import msgspec
import pytest

from executor.errors import TransportError
from executor.messages import Item, Report, Tasks, encode, introduce
from executor.packed import pack as pack_reports
from executor.run import Run
from executor.session import GiveBack, Order, Stop, Take
from executor.task import Task
from tests.fuzz.choices import Choices
from tests.fuzz.messages import message, mutated
from tests.fuzz.target import Target
from transports.rabbitmq.dispatcher import RabbitDispatcherEnd
from transports.rabbitmq.events import (
    Blocked,
    Confirmed,
    Delivered,
    Empty,
    Ended,
    Fetched,
    Found,
    Lost,
    Opened,
    Tag,
)
from transports.rabbitmq.frames import calls, headers, pack
from transports.rabbitmq.topology import Topology
from transports.rabbitmq.words import LEAST, Broker
from transports.rabbitmq.worker import RabbitWorkerEnd

NAMES = Topology("q", 5.0, 1800.0)

#: Where calls wait; what came back of any run is sent to others, by whichever dispatcher.
LINES = {NAMES.line(width) for width in (1, 2)}

#: What comes from `Silent` was opened already: this is never used.
UNSEALED: Any = None


class Silent:
    """Stands for a connection: it tells what it is given to tell; `due` is what a broker would answer.

    Calls that it is asked for are in `stock`.
    """

    address = "nowhere"

    def __init__(self, *_: object, **__: object) -> None:
        self.events: deque[Any] = deque()
        self.due: deque[Any] = deque()
        self.stock: deque[bytes] = deque()
        self.published: deque[bytes] = deque(maxlen=8)
        self.pushed: set[bytes] = set()
        self.tokens = 0
        self.tags = 0
        self.told = 0
        self.cancelled: str | None = None  # the run that was

    def take(self, most: int = 64) -> list[Any]:
        taken = list(self.events)
        self.told += len(taken)
        self.events.clear()
        return taken

    def ready(self) -> bool:
        return bool(self.events)

    def publish(
        self, exchange: str, queue: str, body: bytes, *,
        token: int | None = None, message_id: str = "", headers: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        assert isinstance(body, bytes)
        if queue in LINES:  # unconfirmed ones are published again over the next connection
            new = body not in self.pushed
            assert not (self.cancelled and new and calls(body)[0] == self.cancelled), "pushed after a cancel"
            self.pushed.add(body)
        if token is not None:
            self.published.append(body)
            self.tokens = max(self.tokens, token)
            self.due.append(Confirmed(token, True, False))
            if queue == NAMES.held("w"):
                self.due.append(self.delivered(queue, body, message_id, headers or {}))

    def delivered(self, queue: str, body: bytes, message_id: str, told: Mapping[str, Any]) -> Delivered:
        self.tags += 1
        return Delivered(queue, Tag(1, self.tags), told, message_id, body)

    def get(self, queue: str) -> None:
        if self.stock and queue == NAMES.line(1):
            self.due.append(self.delivered(queue, self.stock.popleft(), "", headers()))
        else:
            self.due.append(Empty(queue))

    def look_for(self, queue: str) -> None:
        self.due.append(Found(queue, 1))

    def fetch(self, queue: str, most: int, linger: float) -> None:
        some = [self.stock.popleft() for _ in range(min(most, len(self.stock)))]
        told = [self.delivered(queue, body, "", headers()) for body in some]
        self.due.append(Fetched(queue, told) if told else Empty(queue))

    def ack(self, *tags: Tag) -> None:
        assert all(isinstance(tag, Tag) for tag in tags)

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Clock:
    """The time, which only the inputs let pass."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@contextlib.contextmanager
def _alone(clock: Clock) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for end in ("dispatcher", "worker"):
            patch.setattr(f"transports.rabbitmq.{end}.Connection", Silent)
            patch.setattr(f"transports.rabbitmq.{end}.time", clock)
            patch.setattr(f"transports.rabbitmq.{end}.wait_readable", lambda *_: None)
        patch.setattr("transports.rabbitmq.dispatcher.part", lambda *_: True)
        yield


def _body(choices: Choices, runs: list[str]) -> bytes:
    frame = message(choices.random(), choices.one(runs))
    if choices.chance(30):
        frame = mutated(choices.random(), frame)
    if choices.chance(5):
        return choices.one((b"", choices.bytes(9)))  # what could not be opened, or is no frame
    return pack(frame)


def _tell(choices: Choices, link: Silent, queues: list[str], runs: list[str]) -> None:
    """Have the connection tell something: an answer, or what nobody asked for."""
    what = choices.below(40)
    if what >= 20 and link.due:
        link.events.append(link.due.popleft())
    elif what == 0:
        link.tags += 1
        link.events.append(Opened((3, choices.below(14)), link.tags))
    elif what == 1:
        link.events.append(Lost("cut", most=choices.one((None, None, LEAST))))
        link.due.clear()
    elif what == 2:
        link.events.append(Blocked(choices.one(("", "memory"))))
    elif what == 3:
        link.events.append(Ended(choices.one(queues)))
    elif what == 4:
        token = choices.below(link.tokens + 2)
        link.events.append(Confirmed(token, choices.chance(80), choices.chance(20)))
    elif what == 5:
        link.events.append(Empty(choices.one(queues)))
    elif what == 6:
        link.events.append(Found(choices.one(queues), choices.one((None, 0, 1, 7))))
    else:
        told: Mapping[str, Any] = choices.one(
            (headers(worker="w", host="h"), headers(), {}, {"protocol": 99}, {"protocol": b"x", "worker": 7})
        )
        again = link.published and choices.chance(20)  # what was published here may come back
        body = choices.one(link.published) if again else _body(choices, runs)
        told_id = choices.one(("", "m1", "m2"))
        link.events.append(link.delivered(choices.one(queues), body, told_id, told))


def make(random: Random) -> bytes:
    return random.randbytes(random.choice((20, 60, 150, 400, 1500, 4000)))


def run_dispatcher(data: bytes) -> int:
    """Whatever comes from a broker, a dispatcher raises only that its run is gone, and records tasks once."""
    choices, clock = Choices(data), Clock()
    said: list[str] = []
    with _alone(clock):
        end = RabbitDispatcherEnd(
            Broker("amqp://x"), NAMES, UNSEALED, say=said.append, heartbeat=1.0, largest=1 << 20
        )
        link: Any = end._connection
        count = 1 + choices.below(6)
        tasks = [Task(function="f", params=[n], id=str(n), resources=1 + n % 2) for n in range(count)]
        run = Run(tasks)
        link.events.append(Opened((3, 12), 0))
        end.push(run)
        queues = [NAMES.results(run.id), NAMES.returned, NAMES.line(1), NAMES.first(2), NAMES.results("r")]
        recorded: list[str] = []
        while choices:
            if choices.chance(75):
                _tell(choices, link, [*queues, end._listening], [run.id, "r"])
                continue
            clock.now += choices.one((0.0, 0.3, 2.0, 20.0))
            try:
                arrived = end.results(0)
            except TransportError:
                return int(link.told)
            for delivery in arrived:
                accepted = run.accept_all(delivery.reports, delivery.buffers, worker=delivery.worker)
                recorded += [result.id for result in accepted.results]
            end.acknowledge()
            for due in [] if link.cancelled else run.due:
                end.again(due.place, suspect=due.suspect, alone=due.alone)
            run.due.clear()
            end.workers()
            end.waiting()
            assert len(recorded) == len(set(recorded)), "a task is recorded twice"
            if choices.chance(1):
                link.cancelled = run.id
                end.cancel()
        link.cancelled = run.id
        end.cancel()
        end.close()
        return int(link.told)


def _item(place: int) -> Item:
    return Item(place, 1, 1, None, None, msgspec.Raw(b"\x93\xa1f\x90\x80"), retries=place % 3)


def run_worker(data: bytes) -> int:
    """Whatever comes from a broker, a worker goes on, and begins no call twice that it has."""
    choices, clock = Choices(data), Clock()
    said: list[str] = []
    with _alone(clock):
        hello = msgspec.structs.replace(introduce("w", 1 + choices.below(4)), instance="w")
        end = RabbitWorkerEnd(
            Broker("amqp://x"), NAMES, UNSEALED, hello, say=said.append, heartbeat=1.0, largest=1 << 20
        )
        link: Any = end._connection
        link.events.append(Opened((3, 12), 0))
        link.stock += [pack(encode(Tasks("r", [_item(2 * n), _item(2 * n + 1)]))) for n in range(8)]
        begun: dict[tuple[str, int], int] = {}
        queues = [NAMES.line(1), NAMES.first(1), NAMES.alone(2), NAMES.returned]
        queues += [NAMES.held("w"), NAMES.orphaned("w"), NAMES.results("r")]
        while choices:
            if choices.chance(75):
                _tell(choices, link, [*queues, end._listening], ["r", "s"])
                continue
            clock.now += choices.one((0.0, 0.3, 2.0, 20.0))
            for order in end.pull(0):
                _obey(order, begun, choices, end)
            for (run, place), attempt in list(begun.items()):
                if choices.chance(30):
                    del begun[run, place]
                    status: Any = choices.one(("ok", "error", "crashed"))
                    report = Report(place, attempt, status, msgspec.Raw(b"\xc0"), started=1.0, finished=1.1)
                    end.reply(run, pack_reports([report]))
            end.patience()
        end.drain()
        end.pull(0)
        end.close()
        return int(link.told)


def _obey(order: Order, begun: dict[tuple[str, int], int], choices: Choices, end: RabbitWorkerEnd) -> None:
    if isinstance(order, Take):
        for item in order.items:
            assert (order.run, item.place) not in begun
            begun[order.run, item.place] = item.attempt
    elif isinstance(order, Stop | GiveBack):
        back = [key for key in begun if key[0] == order.run and choices.chance(70)]
        for key in back:
            del begun[key]
        end.give_back(order.run, [place for _, place in back])
    else:
        for key in [key for key in begun if key[0] == order.run]:  # begun here, of a run that is over
            del begun[key]


RABBIT = [
    Target("rabbit-dispatcher", make, run_dispatcher, True),
    Target("rabbit-worker", make, run_worker, True),
]
