"""Both ends of a brokerless wire, over a link in memory that can be cut, on a clock that the tests turn."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from executor import codec
from executor.errors import BadFrame
from executor.messages import (
    NIL,
    PROTOCOL,
    Buffer,
    Hello,
    Holding,
    Item,
    Parts,
    Report,
    Welcome,
    encode,
    introduce,
)
from executor.run import Run
from executor.session import Begin, Ended, GiveBack, Order, Stop, Take
from executor.task import Result, Task
from transports.base import Came, Event, Frame, Gone, Link, Settings
from transports.direct import DirectDispatcherEnd, DirectWorkerEnd

HEARTBEAT, PATIENCE = 1.0, 5.0
TURN = 0.01  # seconds of the tests' clock


class FakeLink(Link):
    """One end of any number of cables."""

    address = "memory"

    def __init__(self) -> None:
        self.cables: dict[
            bytes, tuple[Cable, int]
        ] = {}  # by the peer at the other end, and which end is ours
        self.events: deque[Event] = deque()
        self.closed = False
        self._read, self._write = os.pipe()

    def fileno(self) -> int:
        return self._read

    def ready(self) -> bool:
        return bool(self.events)

    def receive(self) -> list[Event]:
        if self.events:
            os.read(self._read, 1)
            return [self.events.popleft()]
        return []

    def put(self, event: Event) -> None:
        if not self.closed:
            self.events.append(event)
            os.write(self._write, b"x")

    def send(self, peer: bytes, parts: Parts) -> bool:
        assert not self.closed
        if peer not in self.cables:
            return False
        cable, end = self.cables[peer]
        return cable.carry(end, [bytes(part) for part in parts])

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._read)
            os.close(self._write)


class Cable:
    """Joins two links: in order and without loss until it is cut; then what is on it is gone."""

    def __init__(self, names: Iterator[int]) -> None:
        self.names = names
        self.links: list[FakeLink] = []
        self.peers: list[bytes] = []  # how each link knows the other
        self.up = self.swallows = self.slow = False
        self.renames = False  # whether a worker knows the dispatcher by a new name each time, as servers do
        self.transit: deque[tuple[int, list[bytes]]] = deque()

    def join(self, dispatcher: FakeLink, worker: FakeLink) -> None:
        """Connect; the dispatcher's end sees a new peer, and the worker's end the same one as before."""
        self.links = [dispatcher, worker]
        number = next(self.names)
        self.peers = [b"peer-%d" % number, b"dispatcher-%d" % number if self.renames else b"dispatcher"]
        self.up, self.swallows, self.slow = True, False, False
        for end in (0, 1):
            self.links[end].cables[self.peers[end]] = (self, end)
            self.links[end].put(Came(self.peers[end]))

    def carry(self, end: int, parts: list[bytes]) -> bool:
        if self.up and self.slow:
            self.transit.append((1 - end, parts))
        elif self.up:
            self.links[1 - end].put(Frame(self.peers[1 - end], parts))
        return self.up or self.swallows

    def arrive(self) -> None:
        """Let what is on the way arrive."""
        self.slow = False
        while self.transit:
            end, parts = self.transit.popleft()
            self.links[end].put(Frame(self.peers[end], parts))

    def cut(self, *, noticed: bool = False, swallows: bool = False) -> None:
        """Break the connection; `noticed` tells both ends, `swallows` lets them send into nothing."""
        if not self.up:
            return
        self.up, self.swallows = False, swallows
        self.transit.clear()
        for end in (0, 1):
            if noticed:
                self.links[end].put(Gone(self.peers[end], "cut"))
                del self.links[end].cables[self.peers[end]]

    def heal(self) -> None:
        if not self.up:
            for end in (0, 1):
                known = self.links[end].cables.pop(self.peers[end], None)
                if known is not None and self.renames:
                    self.links[end].put(Gone(self.peers[end], "cut"))
            self.join(*self.links)


class FakeWorker:
    """A worker's loop with a pool that runs what the test lets it run, first come first served."""

    def __init__(self, world: World, name: str, cores: int = 2, *, protocol: int = PROTOCOL) -> None:
        self.world = world
        self.link = FakeLink()
        self.said: list[str] = []
        hello = msgspec.structs.replace(introduce(name, cores), protocol=protocol, pid=hash(name) % 10**6)
        self.pid = hello.pid
        self.end = DirectWorkerEnd(self.link, hello, say=self.said.append)
        self.end.holding = self.holding
        self.cable = Cable(world.names)
        self.queue: list[tuple[str, Item]] = []
        self.orders: list[Order] = []
        self.ran: Counter[int] = Counter()
        self.asleep = self.lazy = False

    def holding(self) -> Holding:
        found: Holding = {}
        for run, item in sorted(self.queue, key=lambda entry: entry[1].attempt):
            found.setdefault(run, {})[item.place] = item.attempt
        return found

    def turn(self) -> None:
        if self.asleep or self.link.closed:
            return
        for order in self.end.pull(0):
            self.obey(order)
        if not self.lazy:
            self.work(2)

    def obey(self, order: Order) -> None:
        self.orders.append(order)
        if isinstance(order, Take):
            self.queue += [(order.run, item) for item in order.items]
        elif isinstance(order, GiveBack):
            mine = [entry for entry in self.queue if entry[0] == order.run]
            unstarted = mine[1:]  # the first one runs
            back = (
                unstarted
                if order.most is None
                else unstarted[len(unstarted) - min(order.most, len(unstarted)) :]
            )
            self.queue = [entry for entry in self.queue if entry not in back]
            self.end.give_back(order.run, [item.place for _, item in back])
        elif isinstance(order, Stop):
            stopped = [entry for entry in self.queue if entry[0] == order.run]
            self.queue = [entry for entry in self.queue if entry not in stopped]
            if stopped:
                item = stopped[0][1]
                report = Report(item.place, item.attempt, "cancelled", NIL, error=("Cancelled", "", ""))
                self.end.reply(order.run, [report], [])
            self.end.give_back(order.run, [item.place for _, item in stopped[1:]])
        elif isinstance(order, Ended):
            self.queue = self.queue[:1]  # nobody waits for what has not begun

    def work(self, count: int = 1) -> None:
        """Run the next calls and report them in one frame."""
        done, self.queue = self.queue[:count], self.queue[count:]
        if any(item.place in self.world.killers for _, item in done):
            self.die()  # and with it what else was done, before it could be reported
            return
        for run in dict.fromkeys(run for run, _ in done):
            reports: list[Report] = []
            buffers: list[Buffer] = []
            for item in (item for of, item in done if of == run):
                self.ran[item.place] += 1
                reports.append(self.world.outcome(item, buffers))
            self.end.reply(run, reports, buffers)

    def die(self) -> None:
        self.cable.cut()
        self.asleep = True
        self.link.close()

    def drain(self) -> None:
        for order in self.end.drain():
            self.obey(order)

    def count(self, kind: type[Order]) -> int:
        return sum(isinstance(order, kind) for order in self.orders)


class FakeDispatcher:
    """What `executor.gather` does with an end, without signals and screen."""

    def __init__(self, world: World, count: int, *, retries: int | None = 5, width: int = 1) -> None:
        self.link = FakeLink()
        self.said: list[str] = []
        self.end = DirectDispatcherEnd(
            self.link, Settings(heartbeat=HEARTBEAT, patience=PATIENCE), say=self.said.append
        )
        tasks = [Task(function="f", params=[place], id=str(place), resources=width) for place in range(count)]
        self.run = Run(tasks, retries=retries)
        self.results: list[Result] = []
        self.asleep = False

    def push(self) -> None:
        self.end.push(self.run)

    def turn(self) -> None:
        if self.asleep or self.link.closed:
            return
        for worker, host, report, buffers in self.end.results(0):
            try:
                result = self.run.accept(report, buffers, worker=worker, host=host)
            except BadFrame as bad:
                self.said.append(str(bad))
                continue
            if result is not None:
                self.results.append(result)
        self.end.acknowledge()
        for due in self.run.due:
            self.end.again(due.place, suspect=due.suspect, alone=due.alone)
        self.run.due.clear()

    def done(self) -> bool:
        return not self.run.unrecorded

    def check(self) -> None:
        """Each task has one result, and it is right."""
        assert sorted(int(result.id) for result in self.results) == list(range(len(self.run.tasks)))
        for result in self.results:
            if result.status == "ok":
                assert result.value == [int(result.id), b"x" * 5000]


class World:
    """Ends, cables and the clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.names = iter(range(1, 10**6))
        self.dispatchers: list[FakeDispatcher] = []
        self.workers: list[FakeWorker] = []
        self.fails: set[tuple[int, int]] = set()  # (place, attempt)
        self.killers: set[int] = set()  # places that kill whoever runs them

    def dispatcher(self, count: int = 10, *, push: bool = True, retries: int | None = 5) -> FakeDispatcher:
        dispatcher = FakeDispatcher(self, count, retries=retries)
        self.dispatchers.append(dispatcher)
        if push:
            dispatcher.push()
        return dispatcher

    def worker(self, name: str = "w", cores: int = 2, *, at: FakeDispatcher | None = None) -> FakeWorker:
        worker = FakeWorker(self, name, cores)
        self.workers.append(worker)
        if at is not None:
            worker.cable.join(at.link, worker.link)
        return worker

    def outcome(self, item: Item, buffers: list[Buffer]) -> Report:
        if (item.place, item.attempt) in self.fails:
            error = ("ValueError", "as asked", "")
            return Report(item.place, item.attempt, "error", NIL, error=error, started=1.0, finished=1.01)
        head, *own = codec.encode([item.place, b"x" * 5000])
        buffers += own
        raw = msgspec.Raw(head)
        return Report(item.place, item.attempt, "ok", raw, len(own), started=1.0, finished=1.01)

    def turn(self) -> None:
        self.now += TURN
        for each in (*self.dispatchers, *self.workers):
            each.turn()

    def turns(self, seconds: float) -> None:
        for _ in range(round(seconds / TURN)):
            self.turn()

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        end = self.now + seconds
        while not condition():
            assert self.now < end, "it hangs"
            self.turn()

    def monotonic(self) -> float:
        self.now += 1e-6
        return self.now

    def idle(self, descriptor: int, seconds: float | None) -> None:
        """Stands for `wait_readable`: an end that would wait lets the workers go on."""
        self.now += TURN
        for worker in self.workers:
            worker.turn()

    def close(self) -> None:
        for each in (*self.dispatchers, *self.workers):
            each.link.close()


@contextlib.contextmanager
def a_world() -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(World()) as made:
        for module in ("transports.direct.dispatcher", "transports.direct.worker"):
            patch.setattr(f"{module}.time", SimpleNamespace(monotonic=made.monotonic))
            patch.setattr(f"{module}.wait_readable", made.idle)
        yield made


@pytest.fixture
def world() -> Iterator[World]:
    with a_world() as made:
        yield made


# -- meeting


def test_the_dispatcher_may_come_first(world: World) -> None:
    dispatcher = world.dispatcher()
    world.turns(3)
    worker = world.worker(at=dispatcher)
    world.until(dispatcher.done)
    dispatcher.check()
    assert worker.count(Begin) == 1
    assert worker.ran == Counter(range(10))


def test_the_worker_may_come_first(world: World) -> None:
    worker = world.worker()
    world.turns(3)
    dispatcher = world.dispatcher(push=False)
    worker.cable.join(dispatcher.link, worker.link)
    world.turns(2)
    assert not worker.end.connected
    dispatcher.push()
    world.until(dispatcher.done)
    dispatcher.check()
    assert worker.count(Begin) == 1
    assert worker.ran == Counter(range(10))


def test_greetings_that_pile_up_are_one(world: World) -> None:
    """While the dispatcher has no time for it, a worker greets again and again: it gets its tasks once."""
    dispatcher = world.dispatcher(200)
    workers = [world.worker(name, at=dispatcher) for name in "abc"]
    for worker in workers:
        worker.lazy = True
    dispatcher.asleep = True
    world.turns(1)
    dispatcher.asleep = False
    world.turns(1)
    for worker in workers:
        worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    assert sum((worker.ran for worker in workers), Counter()) == Counter(range(200))


def test_both_say_that_their_protocols_differ(world: World) -> None:
    dispatcher = world.dispatcher()
    worker = FakeWorker(world, "old", protocol=PROTOCOL + 1)
    world.workers.append(worker)
    worker.cable.join(dispatcher.link, worker.link)
    world.turns(30)
    assert len(dispatcher.said) == 1
    assert f"it speaks protocol {PROTOCOL + 1}" in dispatcher.said[0]
    assert len(worker.said) == 1
    assert f"it speaks protocol {PROTOCOL}" in worker.said[0]
    assert not worker.end.connected
    other = world.worker(at=dispatcher)
    world.until(dispatcher.done)
    assert sum(other.ran.values()) == 10


def test_a_worker_says_that_a_dispatcher_speaks_another_protocol(world: World) -> None:
    worker = world.worker()
    link = FakeLink()
    worker.cable.join(link, worker.link)
    welcome = Welcome(PROTOCOL + 1, "run", HEARTBEAT, PATIENCE)
    for _ in range(3):
        world.turns(1)
        link.send(worker.cable.peers[0], encode(welcome))
    world.turns(1)
    link.close()
    assert len(worker.said) == 1
    assert f"it speaks protocol {PROTOCOL + 1}" in worker.said[0]
    assert not worker.end.connected


def test_what_makes_no_sense_is_said_and_ignored(world: World) -> None:
    dispatcher = world.dispatcher()
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    stranger = FakeLink()
    cable = Cable(world.names)
    cable.join(dispatcher.link, stranger)
    for parts in ([b"GET / HTTP/1.1"], [], [b"\x93"], [b"", b""], [os.urandom(100)]):
        stranger.send(b"dispatcher", parts)
        dispatcher.link.send(worker.cable.peers[0], parts)
        world.turn()
    worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    stranger.close()
    assert len([line for line in dispatcher.said if "stranger" in line]) == 1
    assert any("stranger" in line for line in worker.said)


def test_reports_about_tasks_that_there_are_not_do_no_harm(world: World) -> None:
    dispatcher = world.dispatcher(3)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    run = dispatcher.run.id
    worker.end.reply(run, [Report(place, 1, "ok", NIL) for place in (3, 10**15)], [])
    worker.end.reply("another run", [Report(0, 1, "ok", NIL)], [])
    worker.end.reply(run, [Report(0, 7, "error", NIL)], [])
    worker.end.give_back(run, [7, -1, 10**15])
    worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    assert [line for line in dispatcher.said if "place 3 of 3" in line]
    assert [line for line in dispatcher.said if "attempt 7 at place 0" in line]
    assert {(result.status, result.attempt) for result in dispatcher.results} == {("ok", 1)}


# -- cuts


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("swallows", [True, False])
def test_results_survive_a_cut(world: World, noticed: bool, swallows: bool) -> None:
    dispatcher = world.dispatcher(20)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) >= 2)
    worker.cable.cut(noticed=noticed, swallows=swallows)
    worker.work()
    world.turns(1)
    assert not dispatcher.results
    worker.cable.heal()
    worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    assert worker.ran == Counter(range(20))
    assert worker.count(Begin) == 1
    assert {result.attempt for result in dispatcher.results} == {1}


def test_what_was_recorded_already_is_not_recorded_again(world: World) -> None:
    """The worker did not hear that it was, and sends it again."""
    dispatcher = world.dispatcher(2)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.work()
    dispatcher.turn()
    worker.cable.slow = True
    dispatcher.turn()
    worker.cable.cut()
    assert len(dispatcher.results) == 1
    worker.cable.heal()
    worker.lazy = False
    world.until(dispatcher.done)
    world.until(lambda: worker.end.settled)
    dispatcher.check()
    assert worker.ran == Counter(range(2))


def test_tasks_that_got_lost_on_the_way_are_handed_out_again(world: World) -> None:
    dispatcher = world.dispatcher(push=False)
    worker = world.worker(at=dispatcher)
    world.turns(1)
    dispatcher.push()
    world.until(lambda: worker.end.connected)
    worker.lazy = True
    world.until(lambda: not dispatcher.link.events)
    worker.cable.slow = True
    worker.work(10)
    world.turns(0.1)
    worker.cable.cut()
    world.turns(0.1)
    worker.cable.heal()
    worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    assert {result.attempt for result in dispatcher.results} == {1}


def test_a_worker_that_stays_away_is_lost_and_its_tasks_go_to_others(world: World) -> None:
    dispatcher = world.dispatcher(6)
    gone = world.worker("gone", at=dispatcher)
    gone.lazy = True
    world.until(lambda: len(gone.queue) == 2)
    gone.cable.cut(swallows=True)
    other = world.worker("other", at=dispatcher)
    world.until(lambda: len(dispatcher.results) == 4, seconds=1)
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert other.ran == Counter(range(6))
    assert [line for line in dispatcher.said if "worker gone on" in line and "held 2" in line]
    assert sorted(result.attempt for result in dispatcher.results) == [1, 1, 1, 1, 2, 2]


def test_a_worker_whose_process_died_is_not_waited_for(world: World) -> None:
    dispatcher = world.dispatcher(6)
    dead = world.worker("dead", at=dispatcher)
    dead.lazy = True
    world.until(lambda: len(dead.queue) == 2)
    dead.asleep = True
    dispatcher.end.worker_died(dead.pid)
    world.worker("other", at=dispatcher)
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()


def test_a_silent_dispatcher_is_left(world: World) -> None:
    dispatcher = world.dispatcher(6)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.cable.cut(swallows=True)
    world.turns(PATIENCE - 0.5)
    assert worker.end.connected
    world.turns(1)
    assert not worker.end.connected
    ended = [order for order in worker.orders if isinstance(order, Ended)]
    assert [(end.run, end.complete) for end in ended] == [(dispatcher.run.id, False)]
    assert "silent" in ended[0].why


def test_no_result_is_swallowed_when_the_dispatcher_slept(world: World) -> None:
    """Its workers left it and come back to the same run: what they send is new, whatever its number."""
    dispatcher = world.dispatcher(40)
    worker = world.worker(at=dispatcher)
    world.until(lambda: len(dispatcher.results) > 10)
    dispatcher.asleep = True
    world.turns(2 * PATIENCE)
    assert not worker.end.connected
    dispatcher.asleep = False
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert worker.count(Begin) == 2


def test_a_dispatcher_that_comes_back_by_another_name_goes_on_with_its_run(world: World) -> None:
    """Over a link that names it anew for each connection."""
    dispatcher = world.dispatcher(6)
    worker = world.worker()
    worker.lazy = worker.cable.renames = True
    worker.cable.join(dispatcher.link, worker.link)
    world.until(lambda: len(worker.queue) == 2)
    worker.cable.cut()
    worker.cable.heal()
    world.turns(2 * PATIENCE)
    assert worker.count(Ended) == 0
    worker.lazy = False
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()
    dispatcher.end.close()
    world.turns(1)
    assert worker.count(Ended) == 1


def test_a_repeat_that_got_lost_on_the_way_to_who_failed_is_handed_out_again(world: World) -> None:
    """When it greets, it still answers for the first attempt, as it did not hear that this was recorded."""
    world.fails = {(0, 1)}
    dispatcher = world.dispatcher(1)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.work()
    worker.cable.cut(swallows=True)
    world.turns(0.1)
    assert dispatcher.run.attempt(0) == 2
    worker.cable.heal()
    worker.lazy = False
    world.until(dispatcher.done, seconds=1)
    assert worker.ran == Counter({0: 2})


def test_a_repeat_that_got_lost_on_the_way_to_who_still_runs_an_earlier_one(world: World) -> None:
    world.fails = {(0, 1)}
    dispatcher = world.dispatcher(1)
    sleeper = world.worker("sleeper", at=dispatcher)
    sleeper.lazy = True
    world.until(lambda: sleeper.queue)
    sleeper.asleep = True
    world.until(lambda: dispatcher.said)
    sleeper.asleep = False
    world.until(lambda: len(sleeper.queue) == 2)
    sleeper.cable.cut(swallows=True)
    _, (_, lost) = sleeper.queue
    assert lost.attempt == 2
    del sleeper.queue[1]
    sleeper.cable.heal()
    sleeper.lazy = False
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()


@pytest.mark.parametrize("failed", [True, False])
def test_a_worker_that_slept_comes_back(world: World, failed: bool) -> None:
    """It was given up: what it reports of that time is recorded if it is ok, and stops nothing if not."""
    if failed:
        world.fails = {(0, 1), (1, 1)}
    dispatcher = world.dispatcher(4)
    sleeper = world.worker("sleeper", at=dispatcher)
    sleeper.lazy = True
    world.until(lambda: len(sleeper.queue) == 2)
    sleeper.asleep = True
    world.until(lambda: dispatcher.said)
    assert "gone" in dispatcher.said[0]
    sleeper.asleep = False
    sleeper.work(2)
    sleeper.lazy = False
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert {result.status for result in dispatcher.results} == {"ok"}


def test_a_late_failure_leaves_the_next_attempt_with_its_worker(world: World) -> None:
    """It has both, and dies: what is lost then is the next attempt, which nobody else has."""
    world.fails = {(0, 1)}
    dispatcher = world.dispatcher(1)
    sleeper = world.worker("sleeper", at=dispatcher)
    sleeper.lazy = True
    world.until(lambda: sleeper.queue)
    sleeper.asleep = True
    world.until(lambda: dispatcher.said)
    sleeper.asleep = False
    world.until(lambda: len(sleeper.queue) == 2)
    sleeper.work(1)
    world.turns(0.1)
    sleeper.die()
    world.worker("other", at=dispatcher)
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert [(result.status, result.attempt) for result in dispatcher.results] == [("ok", 3)]


def test_who_was_given_up_and_tells_of_a_failure_takes_nothing_from_the_next_attempt(world: World) -> None:
    """What it had not begun, as it seemed, was handed out uncharged: its attempt is the present one."""
    dispatcher = world.dispatcher(60)
    sleeper = world.worker("sleeper", cores=1, at=dispatcher)
    world.until(lambda: len(dispatcher.results) > 10)
    sleeper.lazy = True
    world.until(lambda: len(sleeper.queue) > 2)
    *_, (_, last) = sleeper.queue
    sleeper.asleep = True
    world.until(lambda: dispatcher.said)
    other = world.worker("other", cores=sum(dispatcher.end.waiting().values()), at=dispatcher)
    other.lazy = True
    world.until(lambda: any(item.place == last.place for _, item in other.queue))
    third = world.worker("third", at=dispatcher)
    world.fails = {(last.place, 1)}
    sleeper.asleep = False
    world.until(lambda: sleeper.end.connected)
    sleeper.end.reply(dispatcher.run.id, [world.outcome(last, [])], [])
    world.until(lambda: third.ran)
    sleeper.die()
    other.lazy = False
    world.until(dispatcher.done, seconds=2 * PATIENCE)
    dispatcher.check()
    assert sum(view.held for view in dispatcher.end.workers()) == 0


def test_what_was_recorded_while_it_waited_is_not_handed_out(world: World) -> None:
    """A worker that was given up had done it."""
    dispatcher = world.dispatcher(5)
    buffers: list[Buffer] = []
    done = world.outcome(dispatcher.run.item(2)[0], buffers)
    result = dispatcher.run.accept(done, buffers)
    assert result is not None
    dispatcher.results.append(result)
    worker = world.worker(at=dispatcher)
    world.until(dispatcher.done)
    dispatcher.check()
    assert worker.ran == Counter([0, 1, 3, 4])
    assert dispatcher.end.waiting() == {}
    assert sum(view.held for view in dispatcher.end.workers()) == 0


# -- partings


def test_two_dispatchers_one_after_the_other(world: World) -> None:
    first = world.dispatcher(5)
    worker = world.worker(at=first)
    world.until(first.done)
    first.end.close()
    assert worker.count(Ended) == 1
    assert worker.orders[-1] == Ended(first.run.id, True, worker.orders[-1].why)
    worker.cable.cut(noticed=True)
    world.turns(1)
    second = world.dispatcher(7)
    worker.cable.join(second.link, worker.link)
    world.until(second.done)
    second.check()
    assert (worker.count(Begin), worker.count(Ended)) == (2, 1)


def test_a_dispatcher_that_closes_takes_no_time_with_workers_that_answer(world: World) -> None:
    dispatcher = world.dispatcher(3)
    world.worker(at=dispatcher)
    world.until(dispatcher.done)
    before = world.now
    dispatcher.end.close()
    dispatcher.end.close()
    assert world.now - before < 0.5


def test_a_new_dispatcher_in_the_place_of_one_that_died(world: World) -> None:
    first = world.dispatcher(5)
    worker = world.worker(at=first)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.cable.cut()
    first.asleep = True
    second = world.dispatcher(7)
    worker.cable.join(second.link, worker.link)
    worker.lazy = False
    world.until(second.done, seconds=1)
    second.check()
    ended = [order for order in worker.orders if isinstance(order, Ended)]
    assert [(end.run, end.complete) for end in ended] == [(first.run.id, False)]
    assert not first.results


def test_a_drain_gives_back_what_has_not_begun(world: World) -> None:
    dispatcher = world.dispatcher(30)
    worker = world.worker("leaving", cores=4, at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) == 4)
    worker.drain()
    assert len(worker.queue) == 1
    other = world.worker("other", at=dispatcher)
    world.until(lambda: len(dispatcher.results) == 29, seconds=5)
    assert other.ran == Counter(range(1, 30))
    assert {view.name for view in dispatcher.end.workers()} == {"leaving", "other"}
    worker.work()
    world.until(dispatcher.done)
    assert {view.name for view in dispatcher.end.workers()} == {"other"}
    dispatcher.check()
    assert worker.end.settled
    assert not worker.queue


def test_tasks_that_meet_a_drain_on_their_way_go_back(world: World) -> None:
    dispatcher = world.dispatcher(4, push=False)
    worker = world.worker("leaving", at=dispatcher)
    world.turns(0.5)
    dispatcher.push()
    worker.turn()
    worker.drain()
    assert worker.end.connected
    world.worker("other", at=dispatcher)
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()


def test_the_last_result_of_a_drained_worker_survives_a_cut(world: World) -> None:
    dispatcher = world.dispatcher(1)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.cable.cut()
    worker.drain()
    world.turns(1)
    worker.work()
    worker.cable.heal()
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()
    assert worker.ran == Counter([0])
    world.until(lambda: worker.end.settled, seconds=1)


def test_a_drained_worker_that_nobody_needs_does_not_spin(world: World) -> None:
    dispatcher = world.dispatcher(1)
    worker = world.worker(at=dispatcher)
    world.until(dispatcher.done)
    dispatcher.end.close()
    worker.drain()
    world.turn()
    waits = [worker.end.patience() for _ in range(3)]
    assert all(wait is None or wait > 0.01 for wait in waits)
    sent = len(dispatcher.link.events)
    world.turns(2)
    assert len(dispatcher.link.events) == sent


def test_after_a_halt_what_runs_finishes_and_the_rest_stays(world: World) -> None:
    dispatcher = world.dispatcher(50)
    worker = world.worker(cores=4, at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) == 4)
    dispatcher.end.halt()
    world.turns(0.2)
    assert len(worker.queue) == 1
    worker.lazy = False
    world.turns(1)
    assert [result.id for result in dispatcher.results] == ["0"]
    assert sum(view.held for view in dispatcher.end.workers()) == 0


def test_cancelled_is_what_runs(world: World) -> None:
    dispatcher = world.dispatcher(50)
    worker = world.worker(cores=4, at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) == 4)
    dispatcher.end.cancel()
    world.turns(0.2)
    assert [(result.id, result.status) for result in dispatcher.results] == [("0", "cancelled")]
    assert not worker.queue
    assert sum(view.held for view in dispatcher.end.workers()) == 0


def test_an_idle_worker_gets_what_a_busy_one_has_not_begun(world: World) -> None:
    dispatcher = world.dispatcher(60)
    busy = world.worker("busy", cores=1, at=dispatcher)
    world.until(lambda: len(dispatcher.results) > 20)
    busy.lazy = True
    world.until(lambda: len(busy.queue) > 2)
    idle = world.worker("idle", cores=1, at=dispatcher)
    world.until(lambda: len(dispatcher.results) == 59, seconds=10)
    assert len(busy.queue) == 1
    assert idle.ran
    busy.work()
    world.until(dispatcher.done)
    dispatcher.check()


def test_how_long_calls_take_is_seen_for_each_width(world: World) -> None:
    """Of a long and a tiny one that are reported together, the tiny one says that its like are tiny."""
    dispatcher = world.dispatcher(0, push=False)
    widths = [2, *[1] * 60]
    dispatcher.end.push(Run([Task(function="f", id=str(n), resources=w) for n, w in enumerate(widths)]))
    worker = world.worker(cores=3, at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) == 2)
    (run, _), _ = worker.queue
    worker.queue.clear()
    times = [(0, 100.0), (1, 0.001)]
    worker.end.reply(
        run, [Report(n, 1, "ok", NIL, started=1.0, finished=1.0 + took) for n, took in times], []
    )
    world.until(lambda: len(worker.queue) > 3)


def test_withdrawn_tasks_are_not_handed_out(world: World) -> None:
    dispatcher = world.dispatcher(5)
    assert dispatcher.end.waiting() == {1: 5}
    assert dispatcher.end.withdraw(2) == []
    assert dispatcher.end.withdraw(1) == [0, 1, 2, 3, 4]
    worker = world.worker(at=dispatcher)
    world.turns(1)
    assert not worker.ran


# -- whatever happens

WHO = st.integers(0, 2)
EVENTS = st.one_of(
    st.tuples(st.just("turns"), st.sampled_from([1, 2, 5, 20, 120])),
    st.tuples(st.just("silence"), st.just(700)),
    st.tuples(
        st.sampled_from(["cut", "swallow", "notice", "heal", "slow", "arrive", "sleep", "wake", "work"]), WHO
    ),
    st.tuples(st.sampled_from(["dispatcher sleeps", "dispatcher wakes"]), st.just(0)),
    st.tuples(st.just("drain"), st.just(0)),
    st.tuples(st.just("die"), st.integers(0, 1)),
)


def act(world: World, event: str, which: int) -> None:
    dispatcher, worker = world.dispatchers[0], world.workers[which % len(world.workers)]
    if event in ("turns", "silence"):
        world.turns(which * TURN)
    elif event.startswith("dispatcher"):
        dispatcher.asleep = event == "dispatcher sleeps"
    elif worker.link.closed:
        pass
    elif event in ("cut", "swallow", "notice"):
        worker.cable.cut(noticed=event == "notice", swallows=event == "swallow")
    elif event == "heal":
        worker.cable.heal()
    elif event == "slow":
        worker.cable.slow = True
    elif event == "arrive":
        worker.cable.arrive()
    elif event in ("sleep", "wake"):
        worker.asleep = event == "sleep"
    elif event == "work":
        worker.work(1)
    elif event == "drain":
        worker.drain()
    elif event == "die":
        worker.die()


@settings(max_examples=100, phases=set(Phase) - {Phase.explain})
@given(
    st.lists(EVENTS, max_size=25),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.sets(st.tuples(st.integers(0, 29), st.integers(1, 2)), max_size=20),
    st.booleans(),
)
@example([("slow", 1), ("turns", 20), ("arrive", 1), ("turns", 20)], [False] * 3, set(), False)
def test_every_task_ends_in_one_result(
    events: list[tuple[str, int]], lazy: Sequence[bool], fails: set[tuple[int, int]], renames: bool
) -> None:
    with a_world() as world:
        dispatcher = world.dispatcher(30, retries=100)
        world.fails = fails
        for name, idles in zip("abc", lazy, strict=True):
            worker = world.worker(name)
            worker.lazy, worker.cable.renames = idles, renames
            worker.cable.join(dispatcher.link, worker.link)
        for event, which in events:
            act(world, event, which)
        dispatcher.asleep = False
        living = [worker for worker in world.workers[1:] if not worker.link.closed]
        for worker in living:
            worker.asleep = worker.lazy = False
            worker.cable.arrive()
            worker.cable.heal()
        world.workers[0].lazy = False
        world.until(dispatcher.done, seconds=4 * PATIENCE)
        dispatcher.check()
        assert {result.status for result in dispatcher.results} <= {"ok", "error"}
        world.turns(2 * PATIENCE)
        assert sum(view.held for view in dispatcher.end.workers()) == 0
        assert all(worker.end.settled for worker in living)


@settings(max_examples=60, deadline=None, phases=set(Phase) - {Phase.explain})
@given(
    st.sets(st.integers(0, 29), min_size=1, max_size=2),
    st.lists(st.integers(1, 8), min_size=1, max_size=3),
    st.lists(st.sampled_from(["turns", "sleep", "wake", "cut", "heal", "work"]), max_size=15),
    st.booleans(),
)
def test_only_what_kills_its_workers_is_lost(
    killers: set[int], cores: list[int], events: list[str], told: bool
) -> None:
    with a_world() as world:
        dispatcher = world.dispatcher(30, retries=None)
        world.killers = killers
        for number, mine in enumerate(cores):
            world.worker(f"w{number}", mine, at=dispatcher)
        deaths = 0

        def replace_the_dead() -> bool:
            nonlocal deaths
            for index, worker in enumerate(world.workers):
                if worker.link.closed:
                    deaths += 1
                    if told:
                        dispatcher.end.worker_died(worker.pid)
                    del world.workers[index]
                    world.worker(f"next{deaths}", cores[index % len(cores)], at=dispatcher)
            return dispatcher.done()

        for number, event in enumerate(events):
            act(world, event, 20 if event == "turns" else number % len(world.workers))
            replace_the_dead()
        for worker in world.workers:
            worker.asleep = False
            worker.cable.heal()
        world.until(replace_the_dead, seconds=20 * PATIENCE)
        dispatcher.check()
        lost = {int(result.id): result.attempt for result in dispatcher.results if result.status == "lost"}
        assert lost == dict.fromkeys(killers, 3)
        assert {result.status for result in dispatcher.results} <= {"ok", "lost"}
        # Two may kill the same worker; one more dies if what ended before, unreported, seemed to run.
        assert 3 <= deaths <= 4 * len(killers)


# -- in real time


@pytest.mark.timeout(20)
def test_an_end_that_waits_is_woken() -> None:
    dispatcher_link, worker_link = FakeLink(), FakeLink()
    dispatcher = DirectDispatcherEnd(dispatcher_link, Settings(), say=lambda text: None)
    hello: Hello = introduce("w", 1)
    run = Run([Task(function="f", id="0")])
    served = threading.Event()

    def serve() -> None:
        with DirectWorkerEnd(worker_link, hello, say=lambda text: None) as worker:
            while not served.is_set():
                for order in worker.pull(None):
                    if isinstance(order, Take):
                        worker.reply(order.run, [Report(0, 1, "ok", NIL)], [])
                    elif isinstance(order, Ended):
                        served.set()

    thread = threading.Thread(target=serve)
    thread.start()
    Cable(iter(range(1, 10))).join(dispatcher_link, worker_link)
    dispatcher.push(run)
    (delivery,) = dispatcher.results(None)
    assert (delivery.worker, delivery.report.status) == ("w", "ok")
    dispatcher.acknowledge()
    assert dispatcher.results(0.01) == []
    dispatcher.close()
    thread.join()
    worker_link.close()


HARMLESS = st.one_of(
    st.tuples(st.just("turns"), st.sampled_from([1, 2, 5, 12])),
    st.tuples(
        st.sampled_from(["cut", "swallow", "notice", "heal", "slow", "arrive", "sleep", "wake", "work"]), WHO
    ),
    st.tuples(st.sampled_from(["dispatcher sleeps", "dispatcher wakes"]), st.just(0)),
)


@settings(max_examples=300, phases=set(Phase) - {Phase.explain})
@given(st.lists(HARMLESS, max_size=30), st.lists(st.booleans(), min_size=3, max_size=3))
def test_within_the_patience_nothing_runs_twice(events: list[tuple[str, int]], lazy: Sequence[bool]) -> None:
    with a_world() as world:
        dispatcher = world.dispatcher(30)
        for name, idles in zip("abc", lazy, strict=True):
            world.worker(name, at=dispatcher).lazy = idles
        for event, which in events:
            act(world, event, which)
        dispatcher.asleep = False
        for worker in world.workers:
            worker.asleep = worker.lazy = False
            worker.cable.arrive()
            worker.cable.heal()
        world.until(dispatcher.done, seconds=PATIENCE)
        dispatcher.check()
        assert sum((worker.ran for worker in world.workers), Counter()) == Counter(range(30))
