"""Both ends of a brokerless wire, fed with what peers gone mad say, in a world in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random

import msgspec
import pytest

from executor.errors import BadFrame
from executor.messages import Hello, Item, Message, Parts, Report, Welcome, decode, encode, introduce
from executor.packed import pack
from executor.session import GiveBack, Order, Session, Stop, Take
from executor.unclaimed import Unclaimed
from tests.fuzz.choices import Choices
from tests.fuzz.messages import message, mutated
from tests.fuzz.target import Target
from tests.unit.world import KEEP, PATIENCE, FakeLink, World, a_world
from transports.base import Came, Frame, Gone, Sign

#: Peers that speak out of turn.
MAD = (b"mad-1", b"mad-2", b"mad-3")

#: Seconds within which a rightful run ends, once the mad have gone.
SOON = 12 * PATIENCE

#: Seconds of the worlds' clock between two turns, where nothing is to be watched closely.
LEAP = 0.2


class Crowd(FakeLink):
    """A link to mad peers besides others; they hear everything, or, while it is `full`, nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.heard: dict[bytes, Message] = {}  # the last greeting that each of the mad peers got

    def send(self, peer: bytes, parts: Parts) -> bool:
        if peer not in MAD:
            return super().send(peer, parts)
        assert not self.closed
        said, _ = decode([bytes(part) for part in parts])
        if isinstance(said, Hello):
            self.heard[peer] = said
        return not self.full


class Pool:
    """What a worker has of mad dispatchers: whatever is in their calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Item]] = []

    def obey(self, order: Order) -> None:
        if isinstance(order, Take):
            self.calls += [(order.run, item) for item in order.items]
        elif isinstance(order, Stop | GiveBack):
            self.calls = [each for each in self.calls if each[0] != order.run]

    def holding(self) -> dict[str, dict[int, int]]:
        found: dict[str, dict[int, int]] = {}
        for run, item in self.calls:
            found.setdefault(run, {})[item.place] = item.attempt
        return found


def make(random: Random) -> bytes:
    return random.randbytes(random.choice((20, 60, 150, 300)))


def _frame(choices: Choices, runs: Sequence[str], *, episode: int = 0) -> list[bytes]:
    """Return a frame about one of these runs, a welcome to an `episode`, or a broken one."""
    frame = message(choices.random(), choices.one(runs))
    if choices.chance(30):
        return mutated(choices.random(), frame) or [b""]
    said, buffers = decode(frame)
    if isinstance(said, Welcome):
        said.episode = episode
    return [bytes(part) for part in encode(said, buffers)]


def _disturb(
    choices: Choices, link: FakeLink, said: deque[list[bytes]], new: Callable[[bytes], list[bytes]]
) -> None:
    """Let a mad peer come, go, or say something, be it what was `said` before, by whomever."""
    peer, what = choices.one(MAD), choices.below(12)
    if what == 0:
        link.put(Came(peer))
    elif what == 1:
        link.put(Gone(peer, "cut"))
    elif what == 2:
        link.put(Sign(peer))
    elif what == 3 and said:
        link.put(Frame(peer, choices.one(said)))
    else:
        said.append(new(peer))
        link.put(Frame(peer, said[-1]))


def _until(world: World, condition: Callable[[], object]) -> None:
    end = world.now + SOON
    while not condition():
        assert world.now < end, "it hangs"
        world.now += LEAP
        world.turn()


def _crowded(world: World, count: int) -> None:
    """Have a dispatcher of so many tasks and a worker, whose links other peers have, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.unit.world.FakeLink", Crowd)
        dispatcher = world.dispatcher(count, push=False)
        world.worker("rightful", 2, at=dispatcher)


def run_dispatcher(data: bytes) -> None:
    """Whatever mad peers say, each task is recorded once, and the rightful worker rid of its reports."""
    choices = Choices(data)
    with a_world() as world:
        _crowded(world, 1 + choices.below(8))
        (dispatcher,), (worker,) = world.dispatchers, world.workers
        if choices.chance(80):
            dispatcher.push()
        said: deque[list[bytes]] = deque(maxlen=8)
        runs = [dispatcher.run.id, dispatcher.run.id, "r"]

        def new(peer: bytes) -> list[bytes]:
            return _frame(choices, runs)

        while choices:
            what = choices.below(16)
            if what < 9:
                _disturb(choices, dispatcher.link, said, new)
            elif what < 13:
                world.now += choices.one((0.0, LEAP, 1.0))
                world.turn()
            elif what == 13:
                dispatcher.link.full = not dispatcher.link.full
            elif what == 14:
                worker.cable.cut(noticed=choices.chance(50))
            else:
                worker.cable.heal()
            dispatcher.end.workers()
            dispatcher.end.waiting()
        worker.cable.heal()
        if not dispatcher.pushed:
            dispatcher.push()
        _until(world, dispatcher.done)
        assert sorted(int(result.id) for result in dispatcher.results) == sorted(dispatcher.order)
        _until(world, lambda: worker.end.settled)
        dispatcher.end.cancel()
        dispatcher.end.close()


def run_worker(data: bytes) -> None:
    """Whatever mad dispatchers say, the run of a rightful one is done."""
    choices = Choices(data)
    with a_world() as world:
        _crowded(world, 1 + choices.below(6))
        (dispatcher,), (worker,) = world.dispatchers, world.workers
        dispatcher.push()
        mad, obey = Pool(), worker.obey
        worker.obey = lambda order: (obey if order.run == dispatcher.run.id else mad.obey)(order)
        worker.end.holding = lambda: {**mad.holding(), **worker.holding()}
        said: deque[list[bytes]] = deque(maxlen=8)
        runs = ["r", "r", "s"]

        def new(peer: bytes) -> list[bytes]:
            heard = worker.link.heard.get(peer)
            return _frame(choices, runs, episode=heard.episode if isinstance(heard, Hello) else 0)

        while choices:
            what = choices.below(16)
            if what < 9:
                _disturb(choices, worker.link, said, new)
            elif what < 13:
                world.now += choices.one((0.0, LEAP, 1.0))
                world.turn()
            elif what == 13 and mad.calls:
                run, item = mad.calls.pop()
                worker.end.reply(run, pack([_ok(item)]))
            elif what == 14:
                worker.cable.cut(noticed=choices.chance(50))
            else:
                worker.cable.heal()
        worker.cable.heal()
        for peer in MAD:
            worker.link.put(Gone(peer, "gone"))
        _until(world, dispatcher.done)
        assert sorted(int(result.id) for result in dispatcher.results) == sorted(dispatcher.order)
        worker.end.close()


def run_session(data: bytes) -> None:
    """A session takes whatever it hears, at whatever time, and what it has to say can be said."""
    choices, pool = Choices(data), Pool()
    session = Session(introduce("w", 2), pool.holding, Unclaimed(KEEP.seconds, 100_000))
    now = 1.0
    session.connected(now)
    greeting = session._hello
    while choices:
        what, orders = choices.below(12), list[Order]()
        if what < 6:
            try:
                heard, buffers = decode(_frame(choices, ["r", "s"], episode=greeting.episode))
            except BadFrame:
                continue
            orders = session.hear(heard, buffers, now)
        elif what == 6:
            now += choices.below(10_000) / 1000
            orders = session.tick(now)
        elif what == 7 and pool.calls:
            run, item = pool.calls.pop()
            session.report(run, pack([_ok(item)]))
        elif what == 8 and pool.calls:
            run, item = pool.calls.pop()
            session.give_back(run, [item.place])
        elif what == 9:
            session.lost(now)
        elif what == 10 and choices.chance(10):
            orders = session.drain()
        elif what == 11:
            while session.outbox:
                said, _ = decode([bytes(part) for part in encode(*session.outbox.popleft())])
                greeting = said if isinstance(said, Hello) else greeting
        for order in orders:
            pool.obey(order)
        session.deadline()
        session.kept()


def _ok(item: Item) -> Report:
    return Report(item.place, item.attempt, "ok", msgspec.Raw(b"\x07"), started=1.0, finished=2.0)


ENDS = [
    Target("dispatcher", make, run_dispatcher),
    Target("worker", make, run_worker),
    Target("session", make, run_session),
]
