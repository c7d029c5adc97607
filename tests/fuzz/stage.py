"""The two ends of a brokerless wire in memory, quick enough for hundreds of thousands of inputs.

Beside what is fuzzed there are always one rightful dispatcher and one rightful worker. All clocks stand still
until they are moved, and what is random in a run is made the same each time, so that an input says it all.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import msgspec

import executor.session
import transports.direct.dispatcher
import transports.direct.roster
import transports.direct.worker
import transports.link
from executor.leases import SETTLED, WAITING, Leases
from executor.messages import NIL, Holding, Item, Parts, Report, Returned, Tasks, decode, encode, introduce
from executor.packed import pack
from executor.run import Earlier, Run
from executor.session import Begin, Ended, GiveBack, Order, Session, Stop, Take, numbered
from executor.task import Result, Task
from executor.unclaimed import Unclaimed
from transports.direct import DirectDispatcherEnd
from transports.link import Came, Event, Frame, Gone, Link
from transports.settings import Settings

HEARTBEAT, PATIENCE = 1.0, 5.0

#: Seconds within which a rightful run ends, once those gone mad have gone.
SOON = 12 * PATIENCE

#: Seconds of the clock between two turns, where nothing is to be watched closely.
LEAP = 0.5

#: The worker that keeps to the protocol.
RIGHTFUL = "rightful"

#: The run of the dispatcher that keeps to it.
THE_RUN = "the run"

#: A run that this one may continue, and the places that its tasks have there.
EARLIER = Earlier("earlier", [2, 0, -1, 1])


class Clock:
    """The time of all ends, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.idle: Callable[[], object] = lambda: None  # what others do while an end waits

    def monotonic(self) -> float:
        return self.now

    def wait(self, descriptor: int, seconds: float | None) -> None:
        """Stands for `wait_readable`."""
        self.now += LEAP
        self.idle()


@contextlib.contextmanager
def clocked() -> Iterator[Clock]:
    """Have both ends go by a clock of the test's, and number what they number from 1 on."""
    clock = Clock()
    timed = (transports.direct.dispatcher, transports.direct.roster, transports.direct.worker)
    waiting = (transports.link, transports.direct.worker)
    before = [(module, "time", module.time) for module in timed]
    before += [(module, "wait_readable", module.wait_readable) for module in waiting]
    numbers = executor.session._numbers
    try:
        for module in timed:
            module.time = clock
        for module in waiting:
            module.wait_readable = clock.wait
        executor.session._numbers = itertools.count(1)
        yield clock
    finally:
        executor.session._numbers = numbers
        for module, name, value in before:
            setattr(module, name, value)


class Wire(Link):
    """One end of a link, and what it was given to send: `sent` takes that, and says whether it was."""

    address = "memory"

    def __init__(self, sent: Callable[[bytes, list[bytes]], bool]) -> None:
        self.sent = sent
        self.events: deque[Event] = deque()
        self.was_cut: set[bytes] = set()
        self.closed = False

    def fileno(self) -> int:
        return -1

    def ready(self) -> bool:
        return bool(self.events)

    def receive(self) -> list[Event]:
        events = list(self.events)
        self.events.clear()
        return events

    def send(self, peer: bytes, parts: Parts) -> bool:
        assert not self.closed
        return self.sent(peer, [bytes(part) for part in parts])

    def cut(self, peer: bytes) -> None:
        self.was_cut.add(peer)

    def close(self) -> None:
        self.closed = True


class Pool:
    """What a worker has of the calls that it took, of all runs.

    It sees to it that it is given no attempt of the rightful run twice, unless it is `forgetful`: who drops
    what a greeting named before that is answered gives back what was handed out anew since.
    """

    def __init__(self, *, forgetful: bool = False) -> None:
        self._forgetful = forgetful
        self.calls: list[tuple[str, Item]] = []
        self.begun: set[str] = set()  # the runs that go on
        self.ran: set[tuple[int, int]] = set()  # of the rightful one, by place and attempt

    def holding(self) -> Holding:
        found: Holding = {}
        for run, item in self.calls:
            places = found.setdefault(run, {})
            places[item.place] = max(item.attempt, places.get(item.place, 0))
        return found

    def obey(self, order: Order, reply: Reply, give_back: Return) -> None:
        """Do as a session says, and answer it."""
        if isinstance(order, Begin):
            self.begun.add(order.run)
        elif isinstance(order, Take):
            assert order.run in self.begun, "calls of a run that did not begin"
            if order.run == THE_RUN and not self._forgetful:
                had = {(item.place, item.attempt) for run, item in self.calls if run == THE_RUN}
                assert had.isdisjoint((item.place, item.attempt) for item in order.items), "given twice"
            self.calls += [(order.run, item) for item in order.items]
        elif isinstance(order, GiveBack):
            unstarted = [n for n, each in enumerate(self.calls) if n and each[0] == order.run]
            some = unstarted if order.most is None else unstarted[max(0, len(unstarted) - order.most) :]
            give_back(order.run, self._drop(some))
        elif isinstance(order, Stop):
            named = range(len(self.calls)) if order.places is None else self._at(order.places)
            mine = [n for n in named if self.calls[n][0] == order.run]
            if mine and mine[0] == 0:
                _, item = self.calls[0]
                reply(order.run, [_report(item, "cancelled")])
                del self.calls[0]
                mine = [n - 1 for n in mine[1:]]
            give_back(order.run, self._drop(mine))
        elif isinstance(order, Ended):
            assert order.run in self.begun, "the end of a run that did not begin"
            over = {order.run, *order.earlier}
            self.begun.discard(order.run)
            if not order.complete:  # within the patience nothing runs twice; what is later may
                self.ran.clear()
            self.calls = [each for n, each in enumerate(self.calls) if not n or each[0] not in over]

    def _at(self, places: Sequence[int]) -> list[int]:
        wanted = set(places)
        return [n for n, (_, item) in enumerate(self.calls) if item.place in wanted]

    def _drop(self, some: Sequence[int]) -> list[int]:
        places = [self.calls[n][1].place for n in some]
        gone = set(some)
        self.calls = [each for n, each in enumerate(self.calls) if n not in gone]
        return places

    def work(self, most: int, reply: Reply) -> None:
        """Run the first calls, and report those of a run together."""
        done, self.calls = self.calls[:most], self.calls[most:]
        for run, item in done:
            if run == THE_RUN and not self._forgetful:
                assert (item.place, item.attempt) not in self.ran, "an attempt ran twice"
                self.ran.add((item.place, item.attempt))
        for run in dict.fromkeys(run for run, _ in done):
            reply(run, [_report(item, "ok") for of, item in done if of == run])


Reply = Callable[[str, list[Report]], None]
Return = Callable[[str, list[int]], None]


def _report(item: Item, status: str) -> Report:
    if status != "ok":
        return Report(item.place, item.attempt, "cancelled", NIL, error=("Cancelled", "", ""))
    value = msgspec.Raw(msgspec.msgpack.encode(item.place))
    return Report(item.place, item.attempt, "ok", value, started=1.0, finished=1.01)


class Worker:
    """A rightful worker: a session and a pool, without an end of its own; `send` takes what it says."""

    def __init__(self, cores: int, send: Callable[[list[bytes]], bool]) -> None:
        hello = msgspec.structs.replace(introduce(RIGHTFUL, cores), instance=RIGHTFUL, host="here", pid=1)
        self.pool = Pool()
        self._unclaimed = Unclaimed(600.0, 1 << 20)
        self.session = Session(hello, self.pool.holding, self._unclaimed)
        self._send = send

    def hear(self, frame: list[bytes], now: float) -> None:
        self._obey(self.session.hear(*decode(frame), now))

    def turn(self, now: float, work: int) -> None:
        """Let time pass, and run so many calls."""
        self._obey(self.session.tick(now))
        self.pool.work(work, self._reply)
        self.flush(now)

    def flush(self, now: float) -> None:
        outbox = self.session.outbox
        while outbox:
            if not self._send([bytes(part) for part in encode(*outbox[0])]):
                self.session.lost(now + 1.0)
                return
            outbox.popleft()

    def _obey(self, orders: Sequence[Order]) -> None:
        for order in orders:
            self.pool.obey(order, self._reply, self.session.give_back)

    def _reply(self, run: str, reports: list[Report]) -> None:
        if not self.session.report(run, pack(reports)):
            self._unclaimed.add(run, numbered(run, pack(reports)))


class Dispatcher:
    """A dispatcher's end with a run, and what `executor.gather` does with both.

    Those who listen are in `ears`, by the link's name for them; who is not gets nothing, and is not there.
    """

    def __init__(self, clock: Clock, count: int, *, retries: int = 3, continues: bool = False) -> None:
        self.clock = clock
        tasks = [
            Task(function="f", params=[n], id=str(n), resources=1 + n * 2 // count) for n in range(count)
        ]
        self.run = Run(tasks, retries=retries, earlier=[EARLIER] if continues else [])
        self.run.id = self.run.name = THE_RUN
        self.ears: dict[bytes, Callable[[list[bytes]], object]] = {}
        self.full: set[bytes] = set()
        self.said: list[str] = []
        self.wire = Wire(self._sent)
        self.end = DirectDispatcherEnd(
            self.wire, Settings(heartbeat=HEARTBEAT, patience=PATIENCE), say=self.said.append
        )
        self.results: list[Result] = []
        self.recorded: set[str] = set()
        self.handed: set[int] = set()  # the places that a worker was sent
        self.loose: set[int] = set()  # those of which somebody else than the rightful worker may report
        self.pushed = self.halted = False

    def _sent(self, peer: bytes, frame: list[bytes]) -> bool:
        ear = self.ears.get(peer)
        if ear is None or peer in self.full:
            return False
        if frame[0][1:7] == b"\xa5tasks":
            assert not self.halted, "a task is handed out after the run was halted"
            said, _ = decode(frame)
            assert isinstance(said, Tasks)
            places = {item.place for item in said.items}
            self.loose |= places & self.handed if peer.startswith(b"rightful") else places
            self.handed |= places
        ear(frame)
        return True

    def may_lose(self) -> None:
        """The rightful worker may lose what it has: whoever comes by it then may report it."""
        self.loose |= set(range(len(self.run.tasks)))

    def push(self) -> None:
        self.pushed = True
        self.end.push(self.run)

    def turn(self) -> None:
        """Hear what has come, record it, and hand out what is due."""
        while True:
            for delivery in self.end.results(0):
                accepted = self.run.accept_all(
                    delivery.reports, delivery.buffers, worker=delivery.worker, host=delivery.host
                )
                self.record(accepted.results)
            self.end.acknowledge()
            if not self.halted:
                for due in self.run.due:
                    self.end.again(due.place, suspect=due.suspect, alone=due.alone)
            self.run.due.clear()
            if not self.wire.events and not self.end._arrived:
                return

    def record(self, results: Sequence[Result]) -> None:
        for result in results:
            assert result.id not in self.recorded, "a task is recorded twice"
            self.recorded.add(result.id)
            by_others = result.worker not in (RIGHTFUL, None) and not self.halted  # then all may be over
            if by_others and not any(RIGHTFUL in line for line in self.said):
                assert int(result.id) in self.loose, "who never was given a task reports it"
            if result.worker == RIGHTFUL and result.status == "ok":
                assert result.value == int(result.id), "a rightful worker's result is another's"
        self.results += results

    def withdraw(self, width: int) -> None:
        """Reject what waits of a width, as is done when no worker is wide enough."""
        for place in self.end.withdraw(width):
            result = self.run.reject(place, "too wide")
            if result is not None:
                self.record([result])

    def halt(self, *, cancel: bool) -> None:
        self.halted = True  # what `halt` itself sends is no task, either
        (self.end.cancel if cancel else self.end.halt)()

    def check(self) -> None:
        """Each task is in one place: recorded, in line, or held by one worker; nothing else is kept."""
        end, broker = self.end, self.end._broker
        assert end._roster.peers.keys() == broker._workers.keys(), "workers and leases differ"
        assert {peer.peer for peer in end._roster._by_link.values()} == set(end._roster._by_link)
        assert all(end._roster.peers.get(peer.key) is peer for peer in end._roster._by_link.values())
        acknowledging = end._acknowledging
        assert acknowledging.reported.keys() <= end._roster.peers.keys()
        assert acknowledging._untold.keys() <= end._roster.peers.keys()
        held: set[int] = set()
        for mine in broker._workers.values():
            places = list(mine)
            assert len(places) == mine.count == len(set(places))
            assert held.isdisjoint(places), "a task is leased twice"
            held |= set(places)
            widths = [self.run.widths[place] for place in places]
            assert mine.load == sum(widths)
            assert max(widths, default=0) <= mine.cores, "a task is too wide for its worker"
        assert broker._cores == sum(mine.cores for mine in broker._workers.values())
        holders = broker._holders
        assert held == {place for place, holder in enumerate(holders) if isinstance(holder, Leases)}, (
            "held by nobody"
        )
        assert sum(broker.waiting().values()) == holders.count(WAITING), "lines and holders differ"
        if self.pushed and not self.halted:
            settled = [place for place, holder in enumerate(holders) if holder is SETTLED]
            lost = [place for place in settled if not self.run.is_recorded(place)]
            assert not lost or end._arrived, f"tasks {lost} are nowhere"

    def ended(self) -> None:
        """See that a run that is over was recorded whole."""
        assert sorted(map(int, self.recorded)) == list(range(len(self.run.tasks)))


class Joined:
    """Joins a rightful worker to a dispatcher, over a link that can be lost."""

    def __init__(self, dispatcher: Dispatcher, cores: int) -> None:
        self.dispatcher = dispatcher
        self.worker = Worker(cores, self._to_dispatcher)
        self.inbox: deque[list[bytes]] = deque()
        self.record: deque[list[bytes]] = deque(maxlen=30)
        self.frames = 0
        self.up = False
        self._links = 0
        self.plug()

    @property
    def peer(self) -> bytes:
        """The dispatcher's link's name for it, a new one for each connection."""
        return b"rightful-%d" % self._links

    def plug(self) -> None:
        """Connect, if it is not."""
        if not self.up:
            self._links += 1
            self.up = True
            self.dispatcher.ears[self.peer] = self.inbox.append
            self.dispatcher.wire.events.append(Came(self.peer))
            self.worker.session.connected(self.dispatcher.clock.now)

    def cut(self, *, noticed: bool) -> None:
        """Break the connection; `noticed` tells the dispatcher."""
        if self.up:
            self.up = False
            self.dispatcher.may_lose()
            del self.dispatcher.ears[self.peer]
            self.inbox.clear()
            if noticed:
                self.dispatcher.wire.events.append(Gone(self.peer, "cut"))

    def _to_dispatcher(self, frame: list[bytes]) -> bool:
        if self.up:
            self.frames += 1
            self.record.append(frame)
            if frame[0][1:10] == b"\xa8returned":
                said, _ = decode(frame)
                assert isinstance(said, Returned)
                self.dispatcher.loose |= set(said.places)
            self.dispatcher.wire.events.append(Frame(self.peer, frame))
        return self.up

    def turn(self, work: int) -> None:
        """Let the worker hear what was said to it, and run so many calls."""
        now = self.dispatcher.clock.now
        while self.inbox:
            self.record.append(self.inbox[0])
            self.worker.hear(self.inbox.popleft(), now)
        self.worker.turn(now, work)

    def end(self) -> None:
        """See that the run is done within the time that it may take, and the worker rid of its reports."""
        dispatcher, clock = self.dispatcher, self.dispatcher.clock
        deadline = clock.now + SOON
        while dispatcher.run.unrecorded or not self.worker.session.settled:
            assert clock.now < deadline, "it hangs"
            clock.now += LEAP
            self.turn(8)
            dispatcher.turn()
        dispatcher.check()
        dispatcher.ended()
