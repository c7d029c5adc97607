"""What a worker asks for, and what it keeps of what came. A stand-in takes what is asked."""

from __future__ import annotations

from typing import Any

from executor.messages import NIL, PROTOCOL, Item, Report
from executor.pace import LEAST_SECONDS
from transports.rabbitmq.events import Delivered, Found, Tag
from transports.rabbitmq.fetching import COPY_MOST, FETCH_MOST, Fetching
from transports.rabbitmq.frames import BODY_BYTES, Call, body_of, headers
from transports.rabbitmq.held import AHEAD_SECONDS, Held
from transports.rabbitmq.lookout import Lookout
from transports.rabbitmq.runs import Runs
from transports.rabbitmq.topology import Topology

NAMES = Topology("q", 1.0, 60.0)
LINE = NAMES.line(1)


class Worker:
    """Stands in for a worker's connection, and for what moves and mends; of no run is anything known."""

    def __init__(self, cores: int = 1) -> None:
        self.asked: list[tuple[str, int]] = []
        self.acked: list[int] = []
        self.rejected: list[int] = []
        self.looked: list[str] = []
        self.moves: list[
            tuple[list[int], str, list[int], list[int]]
        ] = []  # tags, run, places: ours, the rest
        self.back: list[tuple[int, str]] = []
        self.refused: list[str] = []
        self.strange: list[str] = []
        self.unconfirmed = False
        self.most = BODY_BYTES
        self.held = Held(cores, backfill=False)
        self.runs = Runs(5.0)
        self.lookout = Lookout(NAMES, cores)
        self.lookout.exists(LINE)
        self.lookout.empty(NAMES.first(1), 0.0)
        me: Any = self
        self.fetching = Fetching(
            me, NAMES, PROTOCOL, self.held, me, me, self.runs, self.lookout,
            back=lambda *what: self.back.append(what), refuse=self.refused.append,
            stranger=lambda queue, bad: self.strange.append(queue),
        )  # fmt: skip
        self.numbers = 0

    # -- as a connection

    def get(self, queue: str) -> None:
        self.asked.append((queue, 1))

    def fetch(self, queue: str, most: int, linger: float) -> None:
        self.asked.append((queue, most))

    def ack(self, *tags: Tag) -> None:
        self.acked += [tag.number for tag in tags]

    def reject(self, tag: Tag) -> None:
        self.rejected.append(tag.number)

    def look_for(self, queue: str) -> None:
        self.looked.append(queue)

    # -- as what moves and mends

    def move(self, tags: list[Tag], run: str, ours: list[Call], rest: list[Call], *, anew: bool) -> None:
        places = [[call.item.place for call in some] for some in (ours, rest)]
        self.moves.append(([tag.number for tag in tags], run, *places))
        self.held.add(f"copy {len(self.moves)}", run, ours)

    # -- what happens

    def ask(self) -> int:
        """Have it ask; return for how many messages."""
        self.lookout.filled()
        for queue in (NAMES.returned, NAMES.first(1), NAMES.alone(1)):
            self.lookout.empty(queue, 0.1)
        self.fetching.go_on(0.1)
        queue, most = self.asked[-1]
        assert queue == LINE
        return most

    def come(self, *messages: list[int], run: str = "r", size: int = 0, **more: str) -> None:
        """Messages come, each with calls of these places."""
        events = []
        for places in messages:
            self.numbers += 1
            some = [Call(Item(place, 1, 1, None, None, NIL, 1), [b"x" * size]) for place in places]
            body = body_of(run, some)
            events.append(Delivered(LINE, Tag(1, self.numbers, True), headers(**more), "", body))
        self.fetching.came(LINE, events, 0.1)

    def know(self, run: str = "r") -> None:
        self.fetching.found(Found(NAMES.results(run), 0), 0.1, lambda run: None)

    def learn(self, seconds: float) -> None:
        self.held.learn([Report(0, 1, "ok", NIL, started=0.0, finished=seconds)], 1, 0.1)


def busy(worker: Worker) -> Worker:
    """It has a call, and one message came from the line before."""
    worker.ask()
    worker.come([0])
    worker.know()
    worker.learn(1e-6)
    return worker


def test_it_gets_one_message_first_and_when_it_has_nothing() -> None:
    worker = Worker(8)
    assert worker.ask() == 1
    busy(worker)
    worker.held.finish("r", [0])
    assert worker.ask() == 1, "what is there is wanted at once"


def test_of_tiny_calls_it_fetches_many_messages_at_once_and_moves_them_together() -> None:
    worker = busy(Worker())
    assert worker.ask() == FETCH_MOST
    worker.come(*[[place] for place in range(1, 201)])
    assert worker.moves[1:] == [(list(range(2, 202)), "r", list(range(1, 201)), [])]
    assert not worker.rejected
    assert not worker.acked, "it is acknowledged when the copy is safe"


def test_after_a_queue_was_empty_it_gets_one_first() -> None:
    worker = busy(Worker())
    assert worker.ask() > 1
    worker.fetching.nothing(LINE, 0.1)
    assert worker.ask() == 1, "the next ones may be as large as they can be"


def test_of_messages_with_many_calls_it_asks_for_whole_ones() -> None:
    worker = busy(Worker())
    worker.ask()
    worker.come(list(range(1, 1001)))
    worker.held.finish("r", range(1, 1001))
    assert worker.ask() == int(AHEAD_SECONDS / LEAST_SECONDS / 1000), "one more would be more than it wants"


def test_of_long_calls_it_gets_what_can_start() -> None:
    worker = busy(Worker(4))
    worker.learn(1000.0)
    assert worker.ask() == 3
    worker.come([1, 2], [3, 4], [5])
    assert worker.moves[1:] == [([2, 3], "r", [1, 2, 3], [4])]
    assert worker.rejected == [4], "what nothing of is wanted of goes back as it came"
    assert worker.back == [(1, NAMES.first(1)), (1, LINE)]


def test_no_copy_is_larger_than_it_may_be() -> None:
    worker = busy(Worker())
    worker.ask()
    worker.most = 1000
    worker.come(*[[place] for place in range(1, 13)], size=200)
    assert [len(ours) for _, _, ours, _ in worker.moves[1:]] == [4, 4, 4]
    worker.most = BODY_BYTES
    worker.held.finish("r", range(1, 13))
    worker.ask()
    worker.come(*[[2 * place, 2 * place + 1] for place in range(50, 250)])
    assert [len(ours) for _, _, ours, _ in worker.moves[4:]] == [COPY_MOST, 400 - COPY_MOST]


def test_what_comes_of_two_runs_is_moved_apart_and_waits_for_what_is_known_of_each() -> None:
    worker = busy(Worker())
    worker.ask()
    worker.come([1], [2])
    worker.fetching.lost()
    worker.moves.clear()
    worker.ask()
    worker.come([3], run="other")
    assert worker.looked[-1] == NAMES.results("other")
    assert bool(worker.fetching)
    count = len(worker.asked)
    worker.fetching.go_on(0.1)
    assert len(worker.asked) == count, "nothing is asked for meanwhile"
    worker.fetching.found(Found(NAMES.results("other"), None), 0.1, lambda run: worker.runs.stop(run, 0.1))
    assert worker.acked == [4], "its run is over"
    assert not worker.moves
    assert not worker.fetching


def test_what_is_foreign_is_put_back_and_what_is_strange_is_said() -> None:
    worker = busy(Worker())
    worker.ask()
    event = Delivered(LINE, Tag(1, 7, True), headers(), "", b"strange")
    foreign = Delivered(LINE, Tag(1, 8, True), {"protocol": 99}, "", body_of("r", []))
    worker.fetching.came(LINE, [event, foreign], 0.1)
    assert (worker.strange, worker.acked, worker.rejected) == ([LINE], [7], [8])
    assert "protocol 99" in worker.refused[0]
    count = len(worker.asked)
    worker.fetching.go_on(0.1)
    assert len(worker.asked) == count, "it waits for a while"


def test_a_draining_worker_puts_back_what_comes() -> None:
    worker = busy(Worker())
    worker.ask()
    worker.fetching.draining = True
    worker.come([1], [2])
    assert worker.rejected == [2, 3]
    assert len(worker.moves) == 1


def test_frames_of_nothing_are_let_go() -> None:
    worker = busy(Worker())
    worker.ask()
    worker.come([], [1])
    assert worker.acked == [2]
    assert [ours for _, _, ours, _ in worker.moves[1:]] == [[1]]


def test_what_is_not_asked_for_is_none_of_it() -> None:
    worker = Worker()
    worker.come([1])
    assert not worker.moves
