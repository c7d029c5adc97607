"""The worker's end over a link: one session for each dispatcher that is there."""

from __future__ import annotations

import time
from collections.abc import Sequence

from executor.errors import BadFrame
from executor.messages import Hello, Holding, Welcome, decode, encode
from executor.packed import Packed
from executor.session import Order, Session, numbered
from executor.unclaimed import Unclaimed, merged
from transports.base import Say, WorkerEnd, wait_readable
from transports.direct.outcasts import Outcasts, broken
from transports.link import Came, Event, Gone, Link, Sign
from transports.settings import Keep

#: Seconds between two looks whether there is somebody at the other end; links also say when somebody came.
ABSENT_SECONDS = 1.0

#: Helpings of what has come that are taken before anything else is done: all there is, usually.
HELPINGS = 100


class DirectWorkerEnd(WorkerEnd):
    """The worker's end over a link: one session for each dispatcher that is there.

    `keep` bounds what is kept of runs whose dispatcher is gone, until one comes that continues them.
    """

    def __init__(self, link: Link, hello: Hello, *, say: Say, keep: Keep = Keep()) -> None:  # noqa: B008
        self.address = link.address
        self._link = link
        self._say = say
        self._hello = hello
        self.largest = link.largest
        self.keep = keep
        self._unclaimed = Unclaimed(keep.seconds, keep.most)
        self._sessions: dict[bytes, Session] = {}
        self._gone: set[bytes] = set()  # of the sessions, those whose link is broken
        self._draining = False
        self._refused: dict[bytes, str] = {}
        self._outcasts = Outcasts(say)
        self._closed = False

    def pull(self, timeout: float | None) -> list[Order]:
        now = time.monotonic()
        deadline = None if timeout is None else now + timeout
        while True:
            orders: list[Order] = []
            for _ in range(HELPINGS):  # or who sends without end would have us hear nobody else
                for event in self._link.receive():
                    orders += self._hear(event, now)
                if not self._link.ready():
                    break
            for peer, session in self._sessions.items():
                if silent := session.tick(now, self.running):
                    orders += silent
                    self._link.renew(peer)  # the connection may lead nowhere, though nobody was told
            self._unclaimed.expire(now, self.holding)
            if self._gone:
                self._forget()
            self._flush()
            if orders or (deadline is not None and now >= deadline):
                return orders
            waits = [
                w for w in (self.patience(), None if deadline is None else deadline - now) if w is not None
            ]
            wait_readable(self._link.fileno(), min(waits) if waits else None)
            now = time.monotonic()

    def _hear(self, event: Event, now: float) -> list[Order]:
        session = self._sessions.get(event.peer)
        if isinstance(event, Sign):
            if session is not None:
                session.sign(now)
            return []
        if isinstance(event, Gone):
            if session is not None:
                session.lost(now)
                self._gone.add(event.peer)
            return []
        if event.peer in self._outcasts:
            if not isinstance(event, Came):
                return []
            self._outcasts.discard(event.peer)
        if session is None:
            session = self._sessions[event.peer] = Session(self._hello, self._held, self._unclaimed)
            session.draining = self._draining
            session.connected(now)
        if isinstance(event, Came):
            self._gone.discard(event.peer)
            session.connected(now)
            return []
        try:
            message, buffers = decode(event.parts)
        except BadFrame as bad:
            return self._cut_off(event.peer, session, bad, now)
        if isinstance(message, Welcome) and session.is_welcomed_by(message):
            self._hand_over(session, (message.run, *message.earlier), now)
        orders = session.hear(message, buffers, now)
        if session.refused is None:
            self._refused.pop(event.peer, None)
        elif session.refused != self._refused.get(event.peer):
            self._refused[event.peer] = session.refused
            self._say(f"refused by the dispatcher at {self.address}: {session.refused}")
        return orders

    def _cut_off(self, peer: bytes, session: Session, bad: BadFrame, now: float) -> list[Order]:
        """A frame was none: of a stranger it is ignored; a dispatcher in a run has gone mad."""
        if session.run is None:
            self._outcasts.complain(peer, f"ignored a stranger's frame on {self.address}: {bad}")
            return []
        why = broken(bad)
        self._say(f"cut off the dispatcher of run {session.run} at {self.address}: {why}")
        self._outcasts.add(peer)  # until it connects anew
        orders = session.end(why, now)
        self._gone.add(peer)  # it is forgotten with those
        self._link.cut(peer)
        return orders

    def _hand_over(self, heir: Session, runs: Sequence[str], now: float) -> None:
        """Give a session what others have of these runs.

        Their dispatcher is gone and continued by another, or known to the link by another name now.
        """
        for peer, session in list(self._sessions.items()):
            if session is not heir and session.run in runs:
                heir.inherit(session.release(runs, now))
                del self._sessions[peer]
                self._gone.discard(peer)
                self._refused.pop(peer, None)

    def _held(self) -> Holding:
        """Return all that this worker has of any dispatcher's run."""
        return merged(self.holding(), *(session.kept() for session in self._sessions.values()))

    def _forget(self) -> None:
        """Drop the sessions with dispatchers that are gone; those in a run first have their patience."""
        for peer in [peer for peer in self._gone if self._sessions[peer].run is None]:
            self._gone.remove(peer)
            del self._sessions[peer]
            self._refused.pop(peer, None)

    def reply(self, run: str, reports: Packed) -> None:
        for session in self._sessions.values():
            if session.report(run, reports):
                break
        else:
            self._unclaimed.add(run, numbered(run, reports))
        self._flush()

    def give_back(self, run: str, places: Sequence[int]) -> None:
        for session in self._sessions.values():
            session.give_back(run, places)
        self._flush()

    def drain(self) -> list[Order]:
        self._draining = True
        self._link.drain()
        orders = [order for session in self._sessions.values() for order in session.drain()]
        self._flush()
        return orders

    @property
    def connected(self) -> bool:
        for session in self._sessions.values():  # noqa: SIM110 - asked in each turn: `any` takes ten times as long
            if session.run is not None:
                return True
        return False

    @property
    def settled(self) -> bool:
        return all(session.settled for session in self._sessions.values())

    @property
    def unclaimed(self) -> dict[str, int]:
        kept = self._unclaimed.results()
        running = self.holding() if kept else {}
        return {run: count for run, count in kept.items() if count or running.get(run)}

    def fileno(self) -> int:
        return self._link.fileno()

    def patience(self) -> float | None:
        if self._link.ready():
            return 0.0
        at = self._unclaimed.deadline()
        for session in self._sessions.values():
            deadline = session.deadline()
            if at is None or deadline < at:
                at = deadline
        wait = self._link.patience()
        if at is None:
            return wait
        own = max(0.0, at - time.monotonic())
        return own if wait is None or own < wait else wait

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._flush()
            self._link.close()

    def _flush(self) -> None:
        if self._unclaimed.dropped:
            for dropped in self._unclaimed.dropped:
                self._say(str(dropped))
            self._unclaimed.dropped.clear()
        for peer, session in self._sessions.items():
            if peer in self._gone:
                continue
            while session.outbox:
                message, buffers = session.outbox[0]
                if not self._link.send(peer, encode(message, buffers)):
                    session.lost(time.monotonic() + ABSENT_SECONDS)  # nobody at the other end yet, or no more
                    break
                session.outbox.popleft()
