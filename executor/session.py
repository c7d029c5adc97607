"""A worker's side of its talk with one dispatcher: a pure state machine, no socket, no clock of its own.

The owner tells it what came and what time it is; it answers with the messages to send (`outbox`) and with
orders for the pool. It greets until it is welcomed, keeps what it reported until that is recorded, and
knows when the dispatcher has been silent for too long.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from executor.messages import (
    PROTOCOL,
    Beat,
    Buffer,
    Cancel,
    Hello,
    Holding,
    Item,
    Leaving,
    Message,
    Over,
    Recall,
    Recorded,
    Refused,
    Report,
    Reports,
    Returned,
    Running,
    Tasks,
    Unknown,
    Welcome,
    longest,
)

#: Seconds between two greetings to a dispatcher that does not answer (it may wait its turn).
GREETING_SECONDS = 0.1

#: Numbers of episodes and of reports. They grow within a process, which is what a dispatcher knows a worker
#: by: a session that begins anew, perhaps with the same run, is never taken for an earlier one.
_numbers = itertools.count(1)


class Begin(NamedTuple):
    """A dispatcher began a run."""

    run: str


class Take(NamedTuple):
    """Run these calls, in this order."""

    run: str
    items: Sequence[Item]
    buffers: Sequence[Buffer]


class GiveBack(NamedTuple):
    """Give up to `most` unstarted calls back, the last in line first; None: all."""

    run: str
    most: int | None


class Stop(NamedTuple):
    """Cancel calls, running or not; None: all of the run."""

    run: str
    places: Sequence[int] | None


class Ended(NamedTuple):
    """The run is over (`complete`), or its dispatcher is gone, and `why`."""

    run: str
    complete: bool
    why: str


Order: TypeAlias = Begin | Take | GiveBack | Stop | Ended


class Session:
    """The talk with one dispatcher, from its first sign to its end.

    `hello` introduces the worker; its `holding` is filled in at each greeting.
    """

    def __init__(self, hello: Hello) -> None:
        self._hello = hello
        self.run: str | None = None
        self.welcomed = False
        self.draining = False
        #: Messages to send, in order, each with its buffers.
        self.outbox: deque[tuple[Message, Sequence[Buffer]]] = deque()
        #: Why the dispatcher refused us, until it welcomes us after all.
        self.refused: str | None = None
        self._kept: deque[tuple[Reports, Sequence[Buffer]]] = deque()  # reported, not yet recorded
        self._unsaid: list[int] = []  # given back since the greeting, which still named them
        self._handed = False  # whether calls were handed to the owner since the last tick
        self._episode = 0
        self._greeted = 0  # the last episode that a greeting went out in
        self._heartbeat = 1.0
        self._patience = 5.0
        self._heard_at = 0.0
        self._beat_at = 0.0
        self._greet_at = 0.0

    def connected(self, now: float) -> None:
        """There is somebody at the other end (again): greet at the next tick.

        What was on its way over an earlier connection may be lost; the greeting says what we hold.
        """
        self.lost(now)

    def hear(self, message: Message, buffers: Sequence[Buffer], now: float) -> list[Order]:
        """Take a message of the dispatcher; return what the worker is to do."""
        self._heard_at = now
        if isinstance(message, Welcome):
            return self._welcome(message, now)
        if isinstance(message, Refused):
            self.refused = message.reason
            self._greet_at = now + 5.0  # somebody must act first
        elif isinstance(message, Unknown):
            self.lost(now)
        elif isinstance(message, Beat) or self.run is None or getattr(message, "run", None) != self.run:
            pass  # of a run that this session has left behind
        elif not self.welcomed and isinstance(message, Tasks | Recall):
            pass  # sent before our greeting was read, which doesn't name these: they are handed out anew
        elif isinstance(message, Tasks):
            if self.draining:
                self._send(Returned(self.run, [item.place for item in message.items]))
            else:
                self._handed = True
                return [Take(self.run, message.items, buffers)]
        elif isinstance(message, Recall):
            return [GiveBack(self.run, message.count)]
        elif isinstance(message, Cancel):
            return [Stop(self.run, message.places)]
        elif isinstance(message, Recorded):
            while self._kept and self._kept[0][0].number <= message.number:
                self._kept.popleft()
        elif isinstance(message, Over):
            orders = self._end(complete=True, why="its run is over", now=now)
            self._send(message)
            return orders
        return []

    def _welcome(self, message: Welcome, now: float) -> list[Order]:
        if message.protocol != PROTOCOL:
            self.refused = (
                f"it speaks protocol {message.protocol}, this worker {PROTOCOL}: use the same version"
            )
            self._greet_at = now + 5.0
            return []
        orders: list[Order] = []
        if self.run is not None and self.run != message.run:
            orders += self._end(complete=False, why="another run began in its place", now=now)
        if self.run is None:
            self._kept.clear()  # numbers count on: it may be the same run, left and found again
            orders.append(Begin(message.run))
        again, self.welcomed = self.welcomed, True  # an answer to the same greeting, which went out twice
        self.run, self.refused = message.run, None
        self._heartbeat, self._patience = message.heartbeat, message.patience
        self._heard_at, self._beat_at = now, now + message.heartbeat
        if self.draining:
            self._send(Leaving())
        if self._unsaid:
            self._send(Returned(self.run, self._unsaid))
            self._unsaid = []
        if not again:
            self.outbox.extend(self._kept)
        return orders

    def report(self, run: str, reports: Sequence[Report], buffers: Sequence[Buffer]) -> None:
        """Report results; they are kept until the dispatcher has recorded them, or left."""
        if run != self.run:
            return
        frame = (Reports(run, next(_numbers), list(reports)), buffers)
        self._kept.append(frame)
        if self.welcomed:
            self.outbox.append(frame)

    def give_back(self, run: str, places: Sequence[int]) -> None:
        """Return calls that were not started."""
        if run != self.run:
            return
        if self.welcomed:
            self._send(Returned(run, list(places)))
        else:
            self._unsaid += places

    def drain(self) -> list[Order]:
        """Take nothing more; return what the worker is to do."""
        self.draining = True
        if self.welcomed:
            self._send(Leaving())
        return [] if self.run is None else [GiveBack(self.run, None)]

    @property
    def settled(self) -> bool:
        """Whether everything reported has been recorded."""
        return not self._kept and not self.outbox

    def tick(
        self, now: float, holding: Callable[[], Holding], running: Callable[[], Iterable[Running]] = tuple
    ) -> list[Order]:
        """Let time pass: greet, beat, or find that the dispatcher is gone.

        `holding` gives what the worker has, for a greeting, and `running` what it runs, for a beat.
        """
        if self.run is not None and now - self._heard_at > self._patience:
            return self._end(complete=False, why=f"it has been silent for {self._patience:g} s", now=now)
        handed, self._handed = self._handed, False
        if not self.welcomed:
            if now >= self._greet_at and not handed:  # `holding` does not yet name what the owner is to take
                self._greet_at = now + GREETING_SECONDS
                if not self.draining or self.run is not None:  # what still runs is to come home
                    self._greet(holding)
        elif now >= self._beat_at:
            self._send(Beat(longest(running())))
            self._beat_at = now + self._heartbeat
        return []

    def _greet(self, holding: Callable[[], Holding]) -> None:
        mine = {} if self.run is None else {self.run: self._unfinished(holding())}
        self.outbox = deque(each for each in self.outbox if isinstance(each[0], Over))
        if self._greeted != self._episode:  # else this is the same greeting again, whose `holding` isn't read
            self._greeted = self._episode
            self._unsaid = []
        self._send(msgspec.structs.replace(self._hello, holding=mine, episode=self._episode))

    def _unfinished(self, holding: Holding) -> dict[int, int]:
        """All places of the run that this worker answers for: those not yet recorded, and those it has."""
        kept = {report.place: report.attempt for frame, _ in self._kept for report in frame.items}
        return {**kept, **holding.get(self.run or "", {})}

    def deadline(self) -> float:
        """Return when `tick` must be called next, on the owner's clock."""
        next_at = self._beat_at if self.welcomed else self._greet_at
        return next_at if self.run is None else min(next_at, self._heard_at + self._patience)

    def sign(self, now: float) -> None:
        """The dispatcher is alive: a part of a long frame has come."""
        self._heard_at = now

    def lost(self, greet_at: float) -> None:
        """The link broke: greet when it is back, or try at `greet_at`; the dispatcher has its patience."""
        self.welcomed = False
        self._episode = next(_numbers)
        self.outbox.clear()
        self._greet_at = greet_at

    def _end(self, *, complete: bool, why: str, now: float) -> list[Order]:
        run, self.run = self.run, None
        self.welcomed = False
        self._episode = next(_numbers)
        self.outbox.clear()
        self._unsaid = []
        self._kept.clear()
        self._greet_at = now
        return [] if run is None else [Ended(run, complete, why)]

    def _send(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        self.outbox.append((message, buffers))
