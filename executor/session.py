"""A worker's side of its talk with one dispatcher: a pure state machine, no socket, no clock of its own.

The owner tells it what came and what time it is; it answers with the messages to send (`outbox`) and with
orders for the pool. It greets until it is welcomed, keeps what it reported until that is recorded, and
knows when the dispatcher has been silent for too long.

What it kept then is unclaimed (`executor.unclaimed`). The dispatcher of a run that continues others is told
all that the worker has of those as well, and what comes of it, each under its own run.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeAlias

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
    Returned,
    Running,
    Sealed,
    Tasks,
    Unknown,
    Welcome,
    longest,
)
from executor.packed import Packed
from executor.unclaimed import Frame, Unclaimed, merged, named

#: Seconds between two greetings to a dispatcher that does not answer (it may wait its turn).
GREETING_SECONDS = 0.1

#: Numbers of episodes and of reports. They grow within a process, which is what a dispatcher knows a worker
#: by: a session that begins anew, perhaps with the same run, is never taken for an earlier one.
_numbers = itertools.count(1)


class Begin(msgspec.Struct, frozen=True):
    """A dispatcher began a run, which continues `earlier` ones: those are its own now."""

    run: str
    earlier: Sequence[str] = ()


class Take(msgspec.Struct, frozen=True):
    """Run these calls, in this order."""

    run: str
    items: Sequence[Item]
    buffers: Sequence[Buffer]


class GiveBack(msgspec.Struct, frozen=True):
    """Give up to `most` unstarted calls back, the last in line first; None: all."""

    run: str
    most: int | None


class Stop(msgspec.Struct, frozen=True):
    """Cancel calls, running or not; None: all of the run."""

    run: str
    places: Sequence[int] | None


class Ended(msgspec.Struct, frozen=True):
    """The run, and those that it continued, are over (`complete`), or its dispatcher is gone, and `why`."""

    run: str
    complete: bool
    why: str
    earlier: Sequence[str] = ()


Order: TypeAlias = Begin | Take | GiveBack | Stop | Ended


class Session:
    """The talk with one dispatcher, from its first sign to its end.

    `hello` introduces the worker. `holding` gives all that it has, of all runs, and is asked at each
    greeting; `unclaimed`, which all sessions share, is what it keeps of runs that were left.
    """

    def __init__(self, hello: Hello, holding: Callable[[], Holding], unclaimed: Unclaimed) -> None:
        self._hello = hello
        self._holding = holding
        self._unclaimed = unclaimed
        self.run: str | None = None
        self._earlier: Sequence[str] = ()  # the runs that it continues
        self.welcomed = False
        self.draining = False
        #: Messages to send, in order, each with its buffers.
        self.outbox: deque[tuple[Message | Sealed, Sequence[Buffer]]] = deque()
        #: Why the dispatcher refused us, until it welcomes us after all.
        self.refused: str | None = None
        self._kept: deque[Frame] = deque()  # reported, not yet recorded, by number
        self._named: Holding = {}  # what greetings of this episode named
        self._handed = False  # whether calls were handed to the owner since the last tick
        self._episode = 0
        self._heartbeat = 1.0
        self._patience = 5.0
        self._heard_at = 0.0
        self._beat_at = 0.0
        self._greet_at = 0.0

    @property
    def runs(self) -> tuple[str, ...]:
        """The dispatcher's run and those that it continues; none while there is no dispatcher."""
        return () if self.run is None else (self.run, *self._earlier)

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
            return [*self._hand_back(), GiveBack(self.run, message.count)]
        elif isinstance(message, Cancel):
            all_ = () if message.places is not None else self._earlier
            return [*(Stop(run, None) for run in all_), Stop(self.run, message.places)]
        elif isinstance(message, Recorded):
            while self._kept and self._kept[0].number <= message.number:
                frame = self._kept.popleft()
                if self._named and frame.run == self.run:
                    self._unname(frame)
        elif isinstance(message, Over):
            orders = self._end(complete=True, why="its run is over", now=now)
            self._send(message)
            return orders
        return []

    def is_welcomed_by(self, message: Welcome) -> bool:
        """Whether this answers our present greeting, in our protocol."""
        return message.protocol == PROTOCOL and message.episode == self._episode

    def _welcome(self, message: Welcome, now: float) -> list[Order]:
        if message.protocol != PROTOCOL:
            self.refused = (
                f"it speaks protocol {message.protocol}, this worker {PROTOCOL}: use the same version"
            )
            self._greet_at = now + 5.0
            return []
        if not self.is_welcomed_by(message):
            return []  # of an earlier greeting; what was sent after it will be handed out anew
        orders: list[Order] = []
        earlier = tuple(message.earlier)
        runs = (message.run, *earlier)
        # First, for what is left now may take the place of it, or make us forget what the greeting named.
        claimed = [frame for run in runs for frame in self._unclaimed.claim(run)]
        named_then = self._named
        if self.run is not None and self.run not in runs:
            orders += self._end(complete=False, why="another run began in its place", now=now)
        # Else it is an answer to the same greeting, which went out twice.
        first = not self.welcomed or self.run != message.run
        if self.run != message.run:
            orders.append(Begin(message.run, earlier))
        self._leave([run for run in self.runs if run not in runs], now)
        self.run, self._earlier, self.refused = message.run, earlier, None
        self._named = {}
        self.inherit(claimed)
        self.welcomed = True
        self._heartbeat, self._patience = message.heartbeat, message.patience
        self._heard_at, self._beat_at = now, now + message.heartbeat
        if self.draining:
            self._send(Leaving())
        if first:
            self._return_what_is_gone(named_then)
            self.outbox.extend(map(_sealed, self._kept))
            orders += self._hand_back()
        return orders

    def _return_what_is_gone(self, named_then: Holding) -> None:
        """Say which of the calls that the greeting named we don't have any more: they are ours in vain."""
        has = merged(self._holding(), named(self._kept))
        for run in self.runs:
            mine = has.get(run, {})
            gone = [place for place, at in named_then.get(run, {}).items() if mine.get(place, -1) < at]
            if gone:
                self._send(Returned(run, gone))

    def _unname(self, frame: Frame) -> None:
        """These were recorded when our greeting was read: of what it named, a later attempt is ours since."""
        attempts = self._named.get(frame.run)
        if not attempts:
            return
        for place, attempt in frame.reports.attempts():
            if attempts.get(place) == attempt:
                del attempts[place]

    def _hand_back(self) -> list[Order]:
        """Return what is to be done so that nothing is begun any more as part of an earlier run."""
        held = self._holding() if self._earlier else {}
        return [GiveBack(run, None) for run in self._earlier if held.get(run)]

    def inherit(self, frames: Iterable[Frame]) -> None:
        """Keep these reports until they are recorded: who welcomes us now continues their runs.

        Their numbers are new, for it may have recorded higher ones already.
        """
        for frame in frames:
            self._keep(numbered(frame.run, frame.reports))

    def _keep(self, frame: Frame) -> None:
        self._kept.append(frame)
        if self.welcomed:
            self.outbox.append(_sealed(frame))

    def report(self, run: str, reports: Packed) -> bool:
        """Report results; they are kept until the dispatcher has recorded them, or left.

        Return whether they are this dispatcher's.
        """
        if run != self.run and run not in self._earlier:
            return False
        self._keep(numbered(run, reports))
        return True

    def give_back(self, run: str, places: Sequence[int]) -> None:
        """Return calls that were not started."""
        if run not in self.runs or not self.welcomed:
            return  # the next greeting does not name them, or the answer to the last one shows it
        if places or run == self.run:  # else it is no answer to a recall
            self._send(Returned(run, list(places)))

    def drain(self) -> list[Order]:
        """Take nothing more; return what the worker is to do."""
        self.draining = True
        if self.welcomed:
            self._send(Leaving())
        return [GiveBack(run, None) for run in self.runs]

    @property
    def settled(self) -> bool:
        """Whether everything reported has been recorded."""
        return not self._kept and not self.outbox

    def kept(self) -> Holding:
        """Return the places of what was reported and is not yet recorded."""
        return named(self._kept)

    def tick(self, now: float, running: Callable[[], Iterable[Running]] = tuple) -> list[Order]:
        """Let time pass: greet, beat, or find that the dispatcher is gone.

        `running` gives what the worker runs, for a beat.
        """
        if self.run is not None and now - self._heard_at > self._patience:
            return self._end(complete=False, why=f"it has been silent for {self._patience:g} s", now=now)
        handed, self._handed = self._handed, False
        if not self.welcomed:
            if now >= self._greet_at and not handed:  # `holding` does not yet name what the owner is to take
                self._greet_at = now + GREETING_SECONDS
                self._greet()
        elif now >= self._beat_at:
            self._send(Beat(longest(running())))
            self._beat_at = now + self._heartbeat
        return []

    def _greet(self) -> None:
        if self.draining and self.run is None and not self._unclaimed.results():
            return  # there is nothing that could come home
        has = merged(self._holding(), self._unclaimed.holding(), named(self._kept))
        self.outbox = deque(each for each in self.outbox if isinstance(each[0], Over))
        self._named = merged(self._named, has)  # the dispatcher reads one greeting of an episode
        hello, leaving = self._hello, self.draining
        self._send(msgspec.structs.replace(hello, holding=has, episode=self._episode, leaving=leaving))

    def deadline(self) -> float:
        """Return when `tick` must be called next, on the owner's clock."""
        next_at = self._beat_at if self.welcomed else self._greet_at
        return next_at if self.run is None else min(next_at, self._heard_at + self._patience)

    def sign(self, now: float) -> None:
        """The dispatcher is alive: a part of a long frame has come."""
        self._heard_at = now

    def lost(self, greet_at: float) -> None:
        """The link broke: greet when it is back, or try at `greet_at`; the dispatcher has its patience."""
        self._new_episode()
        self._greet_at = greet_at

    def release(self, runs: Collection[str], now: float) -> list[Frame]:
        """Another dispatcher continues these runs: give what is kept of them, and be without one."""
        given = [frame for frame in self._kept if frame.run in runs]
        self._leave([run for run in self.runs if run not in runs], now)
        self._forget(now)
        return given

    def _leave(self, runs: Sequence[str], now: float) -> None:
        """The dispatcher of these runs is gone: what is kept of them may be claimed."""
        for run in runs:
            self._unclaimed.leave(run, [frame for frame in self._kept if frame.run == run], now)
        self._drop(runs)

    def _drop(self, runs: Sequence[str]) -> None:
        self._kept = deque(frame for frame in self._kept if frame.run not in runs)

    def end(self, why: str, now: float) -> list[Order]:
        """The dispatcher is to be heard no more, though it is there; return what the worker is to do."""
        return self._end(complete=False, why=why, now=now)

    def _end(self, *, complete: bool, why: str, now: float) -> list[Order]:
        run, earlier = self.run, self._earlier
        if not complete:
            self._leave(self.runs, now)
        self._forget(now)
        return [] if run is None else [Ended(run, complete, why, earlier)]

    def _forget(self, now: float) -> None:
        self._drop(self.runs)
        self.run, self._earlier = None, ()
        self._new_episode()
        self._greet_at = now

    def _new_episode(self) -> None:
        self.welcomed = False
        self._episode = next(_numbers)
        self._named = {}
        self.outbox.clear()

    def _send(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        self.outbox.append((message, buffers))


def numbered(run: str, reports: Packed) -> Frame:
    """Return reports with a number that no others of this process have."""
    return Frame(run, next(_numbers), reports)


def _sealed(frame: Frame) -> tuple[Sealed, Sequence[Buffer]]:
    """Return reports as they travel."""
    return Sealed(frame.run, frame.number, frame.reports.array), frame.reports.buffers
