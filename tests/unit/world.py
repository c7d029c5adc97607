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

from executor import codec
from executor.errors import BadFrame
from executor.messages import (
    NIL,
    PROTOCOL,
    Buffer,
    Holding,
    Item,
    Parts,
    Report,
    introduce,
)
from executor.packed import pack
from executor.run import Earlier, Run
from executor.session import Ended, GiveBack, Order, Stop, Take
from executor.task import Result, Task
from transports.direct import DirectDispatcherEnd, DirectWorkerEnd
from transports.link import Came, Event, Frame, Gone, Link
from transports.settings import Keep, Settings

HEARTBEAT, PATIENCE = 1.0, 5.0
TURN = 0.01  # seconds of the tests' clock
KEEP = Keep(seconds=600.0)


class FakeLink(Link):
    """One end of any number of cables."""

    address = "memory"

    def __init__(self) -> None:
        self.cables: dict[
            bytes, tuple[Cable, int]
        ] = {}  # by the peer at the other end, and which end is ours
        self.events: deque[Event] = deque()
        self.closed = False
        self._closing = threading.Lock()  # ends may be in threads: what is put is not put into a closed pipe
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
        with self._closing:
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
        with self._closing:
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
            self.plug(*self.links)

    def plug(self, dispatcher: FakeLink, worker: FakeLink) -> None:
        """Connect anew, perhaps to another dispatcher; what was known of the earlier connection is over."""
        self.cut()
        for link, peer in zip(self.links, self.peers, strict=True):
            if link.cables.pop(peer, None) is not None and self.renames:
                link.put(Gone(peer, "cut"))
        self.join(dispatcher, worker)


class FakeWorker:
    """A worker's loop with a pool that runs what the test lets it run, first come first served."""

    def __init__(
        self, world: World, name: str, cores: int = 2, *, protocol: int = PROTOCOL, keep: Keep = KEEP
    ) -> None:
        self.world = world
        self.link = FakeLink()
        self.said: list[str] = []
        hello = msgspec.structs.replace(introduce(name, cores), protocol=protocol, pid=hash(name) % 10**6)
        self.pid = hello.pid
        self.end = DirectWorkerEnd(self.link, hello, say=self.said.append, keep=keep)
        self.end.holding = self.holding
        self.cable = Cable(world.names)
        self.queue: list[tuple[str, Item]] = []
        self.orders: list[Order] = []
        self.ran: Counter[int] = Counter()  # by the number of the task, as its parameter says
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
            unstarted = [entry for entry in self.queue[1:] if entry[0] == order.run]  # the first one runs
            back = (
                unstarted
                if order.most is None
                else unstarted[len(unstarted) - min(order.most, len(unstarted)) :]
            )
            self.queue = [entry for entry in self.queue if entry not in back]
            self.end.give_back(order.run, [item.place for _, item in back])
        elif isinstance(order, Stop):
            running = [item for run, item in self.queue[:1] if run == order.run]
            stopped = [item for run, item in self.queue[1:] if run == order.run]
            self.queue = [entry for entry in self.queue if entry[0] != order.run]
            for item in running:
                report = Report(item.place, item.attempt, "cancelled", NIL, error=("Cancelled", "", ""))
                self.end.reply(order.run, pack([report]))
            self.end.give_back(order.run, [item.place for item in stopped])
        elif isinstance(order, Ended):  # nobody waits for what has not begun
            over = {order.run, *order.earlier}
            self.queue = [*self.queue[:1], *(entry for entry in self.queue[1:] if entry[0] not in over)]

    def next(self) -> int:
        """Return the number of the task that runs, or will next."""
        return number(self.queue[0][1])

    def work(self, count: int = 1) -> None:
        """Run the next calls and report them in one frame."""
        done, self.queue = self.queue[:count], self.queue[count:]
        if any(number(item) in self.world.killers for _, item in done):
            self.die()  # and with it what else was done, before it could be reported
            return
        for run in dict.fromkeys(run for run, _ in done):
            reports: list[Report] = []
            buffers: list[Buffer] = []
            for item in (item for of, item in done if of == run):
                self.ran[number(item)] += 1
                reports.append(self.world.outcome(item, buffers))
            self.end.reply(run, pack(reports, buffers))

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
    """What `executor.gather` does with an end, without signals and screen.

    `order` are the numbers of its tasks. It continues the run of another, if `after` is one: what that one
    recorded is recorded.
    """

    def __init__(
        self,
        world: World,
        order: Sequence[int],
        *,
        retries: int | None = 5,
        after: FakeDispatcher | None = None,
    ) -> None:
        self.link = FakeLink()
        self.said: list[str] = []
        self.end = DirectDispatcherEnd(
            self.link, Settings(heartbeat=HEARTBEAT, patience=PATIENCE), say=self.said.append
        )
        tasks = [Task(function="f", params=[number], id=str(number)) for number in order]
        self.order = order
        self.before = [] if after is None else [*after.before, after]
        where = {number: place for place, number in enumerate(order)}
        self.run = Run(
            tasks,
            retries=retries,
            earlier=[Earlier(each.run.id, [where.get(n, -1) for n in each.order]) for each in self.before],
        )
        recorded = self.before[-1].results if self.before else []
        self.results: list[Result] = [result for result in recorded if int(result.id) in where]
        self.run.skip(where[int(result.id)] for result in self.results)
        self.asleep = self.pushed = False

    def push(self) -> None:
        self.pushed = True
        self.end.push(self.run)

    def turn(self) -> None:
        if self.asleep or self.link.closed:
            return
        for delivery in self.end.results(0):
            for report, buffers in delivery.each():
                try:
                    result = self.run.accept(report, buffers, worker=delivery.worker, host=delivery.host)
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

    def die(self) -> None:
        """End without a word."""
        self.asleep = True
        self.end.resumable = True
        self.end.close()

    def check(self) -> None:
        """Each task has one result, and it is right; no worker was taken for one that makes results up."""
        assert not [line for line in self.said if "never had" in line]
        assert sorted(int(result.id) for result in self.results) == sorted(self.order)
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
        self.fails: set[tuple[int, int]] = set()  # (number, attempt)
        self.killers: set[int] = set()  # numbers of tasks that kill whoever runs them

    def dispatcher(
        self, count: int = 10, *, first: int = 0, push: bool = True, retries: int | None = 5
    ) -> FakeDispatcher:
        dispatcher = FakeDispatcher(self, range(first, first + count), retries=retries)
        self.dispatchers.append(dispatcher)
        if push:
            dispatcher.push()
        return dispatcher

    def resume(
        self, dead: FakeDispatcher, order: Sequence[int] | None = None, *, push: bool = True
    ) -> FakeDispatcher:
        """Start a dispatcher that continues another's run, perhaps with its tasks in another order."""
        dispatcher = FakeDispatcher(self, order or dead.order, retries=dead.run.retries, after=dead)
        self.dispatchers.append(dispatcher)
        if push:
            dispatcher.push()
        return dispatcher

    def worker(
        self, name: str = "w", cores: int = 2, *, at: FakeDispatcher | None = None, keep: Keep = KEEP
    ) -> FakeWorker:
        worker = FakeWorker(self, name, cores, keep=keep)
        self.workers.append(worker)
        if at is not None:
            worker.cable.join(at.link, worker.link)
        return worker

    def outcome(self, item: Item, buffers: list[Buffer]) -> Report:
        if (number(item), item.attempt) in self.fails:
            error = ("ValueError", "as asked", "")
            return Report(item.place, item.attempt, "error", NIL, error=error, started=1.0, finished=1.01)
        head, *own = codec.encode([number(item), b"x" * 5000])
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

    def heal(self) -> list[FakeWorker]:
        """Wake, free and connect all that lives but the first worker, which is only woken; return these."""
        self.dispatchers[-1].asleep = False
        living = [worker for worker in self.workers[1:] if not worker.link.closed]
        for worker in living:
            worker.asleep = worker.lazy = False
            worker.cable.arrive()
            worker.cable.heal()
        self.workers[0].lazy = False
        return living

    def ends_well(self, dispatcher: FakeDispatcher, living: list[FakeWorker]) -> None:
        """See that a run ends, that all of it is right, and that nobody holds anything of it."""
        self.until(dispatcher.done, seconds=4 * PATIENCE)
        dispatcher.check()
        assert {result.status for result in dispatcher.results} <= {"ok", "error"}
        self.turns(2 * PATIENCE)
        assert sum(view.held for view in dispatcher.end.workers()) == 0
        assert all(worker.end.settled for worker in living)

    def close(self) -> None:
        for each in (*self.dispatchers, *self.workers):
            each.link.close()


def number(item: Item) -> int:
    """Return the number of a task, which is its one parameter."""
    _, (found,), _ = codec.decode([item.call])
    return int(found)


@contextlib.contextmanager
def a_world() -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, contextlib.closing(World()) as made:
        for module in ("dispatcher", "roster", "worker"):
            patch.setattr(f"transports.direct.{module}.time", SimpleNamespace(monotonic=made.monotonic))
        for module in ("transports.link", "transports.direct.worker"):
            patch.setattr(f"{module}.wait_readable", made.idle)
        yield made
