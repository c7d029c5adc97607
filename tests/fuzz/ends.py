"""Both ends of a brokerless wire, and a session alone, fed with what peers gone mad say.

Beside them are rightful ones, whose work goes on. An input is a sequence of up to some hundred messages, told
to ends that are made for it; counted are the messages that the one under test was given, by whomever.
"""

from __future__ import annotations

from random import Random

import msgspec

from executor.errors import BadFrame
from executor.messages import Hello, Message, Over, Recorded, Reports, Welcome, decode, encode, introduce
from executor.packed import Packed, pack
from executor.session import Ended, GiveBack, Order, Session, Take
from executor.unclaimed import Unclaimed
from tests.fuzz.choices import Choices
from tests.fuzz.mad import Heard, MadDispatcher, MadWorker
from tests.fuzz.stage import (
    EARLIER,
    HEARTBEAT,
    PATIENCE,
    RIGHTFUL,
    SOON,
    THE_RUN,
    Dispatcher,
    Joined,
    Pool,
    Wire,
    clocked,
)
from tests.fuzz.target import Target
from transports.direct import DirectWorkerEnd
from transports.link import Came, Frame, Gone, Sign
from transports.settings import Keep

#: Peers gone mad that are there at a time, and all that ever come in one input.
CROWD, MOST_MAD = 3, 60

#: What a worker keeps of runs whose dispatcher is gone: little, so that bounds are met, or enough.
LITTLE, ENOUGH = Keep(seconds=20.0, bytes=4000), Keep(seconds=600.0)


def make(random: Random) -> bytes:
    return random.randbytes(random.choice((20, 100, 300, 1000, 3000)))


# -- the dispatcher's end


class _Workers:
    """Workers gone mad at a dispatcher's end, three at a time; those who have gone may come again."""

    def __init__(self, choices: Choices, dispatcher: Dispatcher, heard: Heard) -> None:
        self._choices = choices
        self._dispatcher = dispatcher
        self._heard = heard
        self._there: list[MadWorker] = []
        self._made = 0
        self.frames = 0

    def come(self) -> None:
        """Let another one come, perhaps in the name of one that was there."""
        choices = self._choices
        if len(self._there) >= CROWD:
            self.go()
        if self._made < MOST_MAD:
            self._made += 1
            name = self._made if choices.chance(60) else 1 + choices.below(self._made)
            one = MadWorker(self._made, choices.one((1, 2, 2, 3, 64)), f"mad{name}")
            self._there.append(one)
            self._dispatcher.ears[one.peer] = one.told
            self._dispatcher.wire.events.append(Came(one.peer))

    def go(self) -> None:
        """Let one go, mostly with a sign of it."""
        if self._there:
            one = self._there.pop(self._choices.below(len(self._there)))
            del self._dispatcher.ears[one.peer]
            if self._choices.chance(80):
                self._dispatcher.wire.events.append(Gone(one.peer, "cut"))

    def speak(self) -> None:
        """Let one say something; if it breaks the protocol, see that it is cut off, and named."""
        if not self._there:
            self.come()
            if not self._there:
                return
        one = self._choices.one(self._there)
        runs = [THE_RUN] * 8 + [EARLIER.id, "nobody's"]
        frame = one.says(self._choices, runs, self._heard)
        self._heard.frames.append(frame)
        self.frames += 1
        dispatcher = self._dispatcher
        try:
            said, _ = decode(frame)
        except BadFrame:
            dispatcher.turn()
            known, lines = dispatcher.end._roster._by_link.get(one.peer), len(dispatcher.said)
            dispatcher.wire.events.append(Frame(one.peer, frame))
            dispatcher.turn()
            if known is not None:
                assert one.peer in dispatcher.wire.was_cut, "who breaks the protocol is not cut off"
                assert any(known.hello.name in line for line in dispatcher.said[lines:]), "... nor named"
                assert known.key not in dispatcher.end._roster.peers
            return
        dispatcher.loose |= _claimed(said)
        dispatcher.wire.events.append(Frame(one.peer, frame))

    def leave(self) -> None:
        while self._there:
            self.go()


def _claimed(said: Message) -> set[int]:
    """Return the places that a worker says that it has, or had in the earlier run: these it may report."""
    if isinstance(said, Hello):
        there = {place for places in said.holding.values() for place in places}
    elif isinstance(said, Reports) and said.run == EARLIER.id:
        there = {report.place for report in said.items}
    else:
        return set()
    assert EARLIER.places is not None
    return there | {EARLIER.places[place] for place in there if 0 <= place < len(EARLIER.places)}


def run_dispatcher(data: bytes) -> int:
    """Whatever mad workers say, each task is recorded once, and the rightful worker rid of its reports."""
    choices = Choices(data)
    with clocked() as clock:
        dispatcher = Dispatcher(
            clock, 1 + choices.below(12), retries=choices.below(4), continues=choices.chance(30)
        )
        joined, heard = Joined(dispatcher, 2), Heard()
        clock.idle = lambda: joined.turn(8)
        joined.record = heard.frames
        workers = _Workers(choices, dispatcher, heard)
        if choices.chance(80):
            dispatcher.push()
        while choices:
            what = choices.below(40)
            if what < 24:
                workers.speak()
            elif what < 29:
                clock.now += choices.one((0.0, 0.05, 0.5, 2.0))
                dispatcher.turn()
                dispatcher.check()
            elif what < 33:
                joined.turn(choices.below(3))
            elif what < 35:
                workers.come()
            elif what < 37:
                _befall(choices, dispatcher, joined)
            elif what == 37:
                workers.go()
            elif what == 38:
                dispatcher.end.paused = not dispatcher.end.paused
            elif not dispatcher.pushed:
                dispatcher.push()
        workers.leave()
        joined.plug()
        dispatcher.full.clear()
        dispatcher.end.paused = False
        if not dispatcher.pushed:
            dispatcher.push()
        dispatcher.turn()
        if not dispatcher.halted:
            joined.end()
            for _ in range(round(1.8 * PATIENCE / HEARTBEAT)):  # and nobody else is left
                clock.now += HEARTBEAT  # a longer leap would be one in which the dispatcher was held up
                joined.turn(0)
                dispatcher.turn()
            assert dispatcher.end._roster.peers.keys() <= {RIGHTFUL}
        outcasts = dispatcher.end._roster._outcasts  # and not only cut off for its silence
        assert not any(peer.startswith(b"rightful") and peer in outcasts for peer in dispatcher.wire.was_cut)
        session = joined.worker.session
        known = session.welcomed and not session.outbox and RIGHTFUL in dispatcher.end._roster.peers
        dispatcher.end.close()
        assert session.run is None or not known, "a worker was not told of the end"
        return workers.frames + joined.frames


def _befall(choices: Choices, dispatcher: Dispatcher, joined: Joined) -> None:
    """Let something happen to the rightful ones."""
    what = choices.below(10)
    if what < 3:
        joined.cut(noticed=choices.chance(50))
    elif what < 6:
        joined.plug()
    elif what == 6:
        dispatcher.full ^= {joined.peer}
        dispatcher.may_lose()
    elif what == 7 and dispatcher.pushed:
        dispatcher.withdraw(1 + choices.below(2))
    elif what == 8:
        dispatcher.end.workers()
        dispatcher.end.waiting()
        dispatcher.end.worker_died(choices.below(3) + 2)
    elif dispatcher.pushed and choices.chance(20):
        dispatcher.halt(cancel=choices.chance(50))


# -- the worker's end


class _Worker:
    """A worker's end with its pool, joined to a rightful dispatcher, over a link that mad ones have, too."""

    home = b"home"

    def __init__(self, dispatcher: Dispatcher, heard: Heard, keep: Keep) -> None:
        self.dispatcher = dispatcher
        self.heard = heard
        self.mad: dict[bytes, MadDispatcher] = {}
        self.full: set[bytes] = set()
        self.said: list[str] = []
        self.pool = Pool(forgetful=keep is LITTLE)
        self.wire = Wire(self._sent)
        hello = msgspec.structs.replace(introduce(RIGHTFUL, 2), instance=RIGHTFUL, host="here", pid=1)
        self.end = DirectWorkerEnd(self.wire, hello, say=self.said.append, keep=keep)
        self.end.holding = self.pool.holding
        self.frames = 0
        self.up = False
        self._links = 0
        self.plug()

    @property
    def _name(self) -> bytes:
        return b"rightful-%d" % self._links

    def plug(self) -> None:
        """Connect to the rightful dispatcher, if it is not."""
        if not self.up:
            self._links += 1
            self.up = True
            self.dispatcher.ears[self._name] = self._from_home
            self.dispatcher.wire.events.append(Came(self._name))
            self.wire.events.append(Came(self.home))

    def cut(self, *, noticed: bool) -> None:
        """Lose that connection; `noticed` tells both."""
        if self.up:
            self.up = False
            del self.dispatcher.ears[self._name]
            self.wire.events = type(self.wire.events)(
                each for each in self.wire.events if each.peer != self.home
            )
            if noticed:
                self.dispatcher.wire.events.append(Gone(self._name, "cut"))
                self.wire.events.append(Gone(self.home, "cut"))

    def _from_home(self, frame: list[bytes]) -> None:
        self.frames += 1
        self.heard.frames.append(frame)
        self.wire.events.append(Frame(self.home, frame))

    def _sent(self, peer: bytes, frame: list[bytes]) -> bool:
        if peer in self.full:
            return False
        if peer == self.home:
            if self.up:
                self.dispatcher.wire.events.append(Frame(self._name, frame))
            return self.up
        if peer in self.mad:
            self.mad[peer].told(frame)
        return peer in self.mad

    def turn(self, work: int) -> None:
        """Do as the end says, and run so many calls."""
        for order in self.end.pull(0):
            assert not (isinstance(order, Take) and self.end._draining), "calls for who is draining"
            self.pool.obey(order, self._reply, self.end.give_back)
        self.pool.work(work, self._reply)

    def _reply(self, run: str, reports: list[object]) -> None:
        self.end.reply(run, pack(reports))  # type: ignore[arg-type]

    def check(self) -> None:
        """What the end keeps belongs to somebody, and is bounded."""
        end = self.end
        assert end._gone <= end._sessions.keys()
        assert end._refused.keys() <= end._sessions.keys()
        assert len(end._sessions) <= 1 + MOST_MAD
        see_unclaimed(end._unclaimed, end.keep.most)


def see_unclaimed(unclaimed: Unclaimed, most: int) -> None:
    """See that what is kept of runs that were left is counted right, and not too much."""
    assert unclaimed._bytes == sum(left.bytes for left in unclaimed._runs.values()) <= most
    for left in unclaimed._runs.values():
        assert left.bytes == sum(500 * each.reports.count + each.reports.size for each in left.frames)


def run_worker(data: bytes) -> int:
    """Whatever mad dispatchers say, the run of a rightful one is done, and what is kept is bounded."""
    choices = Choices(data)
    with clocked() as clock:
        dispatcher, heard = Dispatcher(clock, 1 + choices.below(8)), Heard()
        worker = _Worker(dispatcher, heard, choices.one((LITTLE, ENOUGH)))
        clock.idle = lambda: worker.turn(8)
        if choices.chance(80):
            dispatcher.push()
        made = 0
        while choices:
            what = choices.below(40)
            if what < 22 and worker.mad:
                _speak(choices, worker)
            elif what < 24 and made < MOST_MAD:
                made += 1
                if len(worker.mad) >= CROWD:
                    _go(choices, worker)
                one = MadDispatcher(made if choices.chance(60) else 1, f"r{choices.below(4)}")
                worker.mad[one.peer] = one
                worker.wire.events.append(Came(one.peer))
            elif what < 31:
                clock.now += choices.one((0.0, 0.05, 0.5, 2.0))
                worker.turn(choices.below(3))
                worker.check()
            elif what < 35:
                dispatcher.turn()
                if not dispatcher.pushed:
                    dispatcher.push()
            elif what == 35 and worker.mad:
                _go(choices, worker)
            elif what == 36:
                worker.full ^= {choices.one([*worker.mad, worker.home])}
            elif what == 37:
                worker.cut(noticed=choices.chance(50))
            elif what == 38:
                worker.plug()
        while worker.mad:
            _go(choices, worker)
        worker.full.clear()
        worker.plug()
        if not dispatcher.pushed:
            dispatcher.push()
        deadline = clock.now + SOON
        while dispatcher.run.unrecorded or not _rid(worker.end):
            assert clock.now < deadline, "it hangs"
            clock.now += 0.5
            worker.turn(8)
            dispatcher.turn()
        dispatcher.check()
        dispatcher.ended()
        assert worker.home not in worker.wire.was_cut
        worker.end.drain()
        worker.turn(0)
        dispatcher.turn()
        worker.check()
        worker.end.close()
        return worker.frames


def _rid(end: DirectWorkerEnd) -> bool:
    """Whether all that was reported of the rightful run is recorded."""
    return not any(frame.run == THE_RUN for each in end._sessions.values() for frame in each._kept)


def _go(choices: Choices, worker: _Worker) -> None:
    peer = choices.one(sorted(worker.mad))
    del worker.mad[peer]
    worker.full.discard(peer)
    worker.wire.events.append(Gone(peer, "cut"))


def _speak(choices: Choices, worker: _Worker) -> None:
    """Let a dispatcher say something; if it breaks the protocol in a run, see that it is cut off."""
    one = choices.one(list(worker.mad.values()))
    if choices.chance(3):
        worker.wire.events.append(Sign(one.peer))
    frame = one.says(choices, worker.heard)
    worker.heard.frames.append(frame)
    worker.frames += 1
    try:
        decode(frame)
    except BadFrame:
        worker.turn(0)
        session, lines = worker.end._sessions.get(one.peer), len(worker.said)
        run = None if session is None or one.peer in worker.end._outcasts else session.run
        worker.wire.events.append(Frame(one.peer, frame))
        worker.turn(0)
        if run is not None:
            assert one.peer in worker.wire.was_cut, "who breaks the protocol is not cut off"
            assert any(run in line for line in worker.said[lines:]), "... nor named"
        return
    worker.wire.events.append(Frame(one.peer, frame))


# -- a session


class _Session:
    """A session with its pool, and a dispatcher gone mad at its other end."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.unclaimed = Unclaimed(LITTLE.seconds, LITTLE.most)
        self.session = Session(introduce("w", 2), self.pool.holding, self.unclaimed)
        self.mad = MadDispatcher(0, "r0")
        self.now = 1.0
        self.session.connected(self.now)

    def hear(self, message: Message, buffers: list[bytes]) -> None:
        """Let it hear a message; what it keeps it may forget only for some of them."""
        session = self.session
        before = list(session._kept)
        runs = session.runs
        orders = session.hear(message, buffers, self.now)
        if isinstance(message, Recorded) and message.run in runs[:1]:
            before = [each for each in before if each.number > message.number]
        if not isinstance(message, Over | Welcome):
            assert list(session._kept) == before, "what was reported is lost, or kept in vain"
        self.obey(orders)

    def obey(self, orders: list[Order]) -> None:
        for order in orders:
            if isinstance(order, Take):
                assert self.session.welcomed, "calls of who did not welcome us"
                assert not self.session.draining, "calls for who is draining"
            if isinstance(order, GiveBack | Ended):
                assert order.run in self.pool.begun or isinstance(order, GiveBack)
            self.pool.obey(order, self.reply, self.session.give_back)

    def reply(self, run: str, reports: list[object]) -> None:
        packed: Packed = pack(reports)  # type: ignore[arg-type]
        kept = len(self.session._kept)
        ours = self.session.report(run, packed)
        assert ours == (run in self.session.runs)
        assert len(self.session._kept) == kept + ours

    def flush(self) -> None:
        while self.session.outbox:
            self.mad.told([bytes(part) for part in encode(*self.session.outbox.popleft())])

    def tick(self) -> None:
        self.obey(self.session.tick(self.now))
        self.obey(self.session.tick(self.now))  # the first may have waited for calls to be taken
        self.now += 1e-6  # or it is silent for just as long as it may
        self.obey(self.session.tick(self.now))
        self.obey(self.session.tick(self.now))  # it may have ended just now, and greets anew
        assert self.session.deadline() > self.now, "it would wake again and again"

    def check(self) -> None:
        session = self.session
        numbers = [frame.number for frame in session._kept]
        assert numbers == sorted(set(numbers))
        assert {frame.run for frame in session._kept} <= set(session.runs)
        assert session.welcomed <= (session.run is not None)
        see_unclaimed(self.unclaimed, LITTLE.most)


def run_session(data: bytes) -> int:
    """A session takes whatever it hears, whenever, and keeps what it reported until it is recorded."""
    choices, heard, count = Choices(data), Heard(), 0
    with clocked():
        one = _Session()
        while choices:
            what = choices.below(32)
            if what < 18:
                frame = one.mad.says(choices, heard)
                heard.frames.append(frame)
                try:
                    said, buffers = decode(frame)
                except BadFrame:
                    continue
                count += 1
                one.hear(said, [bytes(each) for each in buffers])
            elif what < 23:
                one.flush()
            elif what < 26:
                one.now += choices.one((0.0, 0.0005, 0.2, 1.0, 6.0, 30.0))
                one.tick()
                one.unclaimed.expire(one.now, one.pool.holding)
            elif what < 29:
                one.pool.work(1 + choices.below(2), one.reply)
            elif what == 29 and one.pool.calls:
                run, item = one.pool.calls.pop()
                one.session.give_back(run, [item.place])
            elif what == 30:
                one.session.lost(one.now)
            elif choices.chance(5):
                one.obey(one.session.drain())
            else:
                one.mad.run = f"r{choices.below(4)}"
            one.check()
    return count


ENDS = [
    Target("dispatcher", make, run_dispatcher, slow=True),
    Target("worker", make, run_worker, slow=True),
    Target("session", make, run_session, slow=True),
]
