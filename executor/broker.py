"""The broker that the brokerless wires carry: who gets which task next.

A pure state machine: it opens no socket, reads no clock and knows of a task only its place in the run and
its width in cores. Its owner tells it what happened and asks what to do: `grants()` and `recalls()`.

Order: a worker is given the first place in line among the tasks it can ever run, so no task waits for
another that only a wider worker could take. A place that comes back stands where it stood before, which
is ahead of all that was not handed out yet.

How much: what a worker can start at once; beyond that as many as keep it busy for `AHEAD_SECONDS`, by
the durations seen so far. Small calls thus travel in numbers and long ones alone, and of what is left no
worker gets more than its share.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

#: Seconds of work that a worker may hold beyond what it runs: some round trips, and yet soon given back.
AHEAD_SECONDS = 0.05

#: What even the smallest call costs a worker; keeps the number of calls held within reason.
LEAST_SECONDS = 20e-6

#: Calls in one frame: enough to make the frame's own cost small, few enough to start at once.
FRAME_MOST = 256

_WAITING, _LEASED, _SETTLED = 1, 2, 3


class Grant(NamedTuple):
    """Tasks that a worker is to be sent, in this order."""

    worker: str
    places: list[int]


class Recall(NamedTuple):
    """A worker holds tasks unstarted of which others could start up to `most` now."""

    worker: str
    most: int


class _Line:
    """The waiting places of one width: those never handed out, in order, and those that came back."""

    __slots__ = ("back", "fresh")

    def __init__(self) -> None:
        self.fresh: deque[int] = deque()
        self.back: list[int] = []

    def head(self) -> int | None:
        if self.back and (not self.fresh or self.back[0] < self.fresh[0]):
            return self.back[0]
        return self.fresh[0] if self.fresh else None

    def pop(self) -> int:
        if self.back and (not self.fresh or self.back[0] < self.fresh[0]):
            return heapq.heappop(self.back)
        return self.fresh.popleft()

    def __len__(self) -> int:
        return len(self.fresh) + len(self.back)


class _Worker:
    """A worker's leases."""

    __slots__ = ("cores", "draining", "held", "recalled", "room", "widths")

    def __init__(self, cores: int, room: int) -> None:
        self.cores = cores
        self.room = room  # cores' worth of tasks that it is given whatever their durations
        self.held: dict[int, int] = {}  # width by place
        self.widths: dict[int, int] = {}  # how many are held, by width
        self.draining = False
        self.recalled = False

    @property
    def load(self) -> int:
        """The cores that all it holds would take at once."""
        return sum(width * count for width, count in self.widths.items())

    def hold(self, place: int, width: int) -> None:
        if place in self.held:  # an earlier attempt at it that was given up, but still runs there
            return
        self.held[place] = width
        self.widths[width] = self.widths.get(width, 0) + 1

    def drop(self, place: int) -> bool:
        width = self.held.pop(place, None)
        if width is None:
            return False
        if self.widths[width] == 1:
            del self.widths[width]
        else:
            self.widths[width] -= 1
        return True


class Broker:
    """The waiting tasks of one run and the leases of its workers."""

    def __init__(self) -> None:
        self._widths: list[int] = []
        self._state = bytearray()
        self._suspects: set[int] = set()  # held by a worker that vanished: they travel alone
        self._lines: dict[int, _Line] = {}
        self._workers: dict[str, _Worker] = {}
        self._hungry: dict[str, None] = {}  # workers that may want more, in the order they began to
        self._cores = 0  # of all workers
        self._halted = False
        self._seconds: dict[int, float] = {}  # that a task takes, by width

    # -- tasks

    def push(self, widths: Sequence[int]) -> None:
        """Put tasks into line, behind the present ones: places count on from the last."""
        start = len(self._widths)
        self._widths.extend(widths)
        self._state.extend(bytes([_WAITING]) * len(widths))
        for place in range(start, len(self._widths)):
            self._line(self._widths[place]).fresh.append(place)
        self._all_hungry()

    def again(self, place: int, *, suspect: bool = False) -> None:
        """Put a place back into line where it stood; a suspect one is handed out alone."""
        if self._halted or self._state[place] == _WAITING:
            return
        self._state[place] = _WAITING
        if suspect:
            self._suspects.add(place)
        heapq.heappush(self._line(self._widths[place]).back, place)
        self._all_hungry()

    def withdraw(self, width: int | None = None) -> list[int]:
        """Take all waiting tasks of a width, or of all, out of the line; return their places in order."""
        found: list[int] = []
        for each, line in self._lines.items():
            if width is None or each == width:
                while len(line):
                    place = line.pop()
                    self._state[place] = _SETTLED
                    found.append(place)
        return sorted(found)

    def halt(self) -> None:
        """Hand out nothing more, and forget what comes back unstarted."""
        self._halted = True
        self.withdraw()

    def waiting(self) -> dict[int, int]:
        """Return how many tasks wait, by width."""
        return {width: len(line) for width, line in sorted(self._lines.items()) if len(line)}

    def leased(self) -> int:
        """Return how many tasks workers hold."""
        return sum(len(worker.held) for worker in self._workers.values())

    # -- workers

    def join(self, worker: str, cores: int, *, backfill: bool = False) -> None:
        """A worker is ready for tasks of up to `cores` cores.

        With `backfill` it may start narrow ones before a wide one, so it is given twice what it can start.
        """
        self._workers[worker] = _Worker(cores, 2 * cores if backfill else cores)
        self._cores += cores
        self._hungry[worker] = None

    def drain(self, worker: str) -> None:
        """A worker takes no more tasks; what it holds it still ends or gives back."""
        if worker in self._workers:
            self._workers[worker].draining = True

    def resume(self, worker: str) -> None:
        """A worker takes tasks again, after `drain`."""
        if worker in self._workers:
            self._workers[worker].draining = False
            self._hungry[worker] = None

    def leave(self, worker: str) -> list[int]:
        """A worker is gone; return the places that it held, which are in line no more."""
        gone = self._workers.pop(worker, None)
        if gone is None:
            return []
        self._cores -= gone.cores
        self._hungry.pop(worker, None)
        return sorted(gone.held)

    def held(self, worker: str) -> list[int]:
        """Return the places that a worker holds, in order of their handing out."""
        return list(self._workers[worker].held)

    def running(self, worker: str) -> int:
        """Return how many tasks a worker can have begun of those it holds."""
        mine = self._workers[worker]
        free = mine.cores
        begun = 0
        for width in mine.held.values():
            if width > free:
                break
            free -= width
            begun += 1
        return begun

    def give_back(self, worker: str, places: Iterable[int]) -> None:
        """A worker returns tasks that it did not start and never will."""
        mine = self._workers.get(worker)
        if mine is None:
            return
        mine.recalled = False
        for place in places:
            if mine.drop(place) and self._state[place] == _LEASED:
                self.again(place)
        self._hungry[worker] = None

    def settle(self, worker: str, places: Iterable[int], seconds: float | None = None) -> None:
        """A worker ended these tasks, in `seconds` each on average.

        One that it does not hold (any more) stays where it is: what came too late may not be what the
        owner records, and a task that is run once too often does less harm than one that never is.
        """
        mine = self._workers.get(worker)
        width = None
        for place in places:
            width = self._widths[place]
            if mine is not None and mine.drop(place) and self._state[place] == _LEASED:
                self._state[place] = _SETTLED
                self._suspects.discard(place)
        if mine is not None:
            self._hungry[worker] = None
        if seconds is not None and width is not None and math.isfinite(seconds):
            old = self._seconds.get(width)
            self._seconds[width] = seconds if old is None else (old + seconds) / 2

    # -- what to do

    def grants(self) -> list[Grant]:
        """Hand out what workers can take now."""
        grants: list[Grant] = []
        hungry, self._hungry = self._hungry, {}
        for ahead in (False, True):  # what one would only hold, another may be able to start
            for worker in hungry:
                mine = self._workers[worker]
                while not mine.draining and (places := self._next(mine, ahead)):
                    grants.append(Grant(worker, places))
        return grants

    def _next(self, mine: _Worker, ahead: bool) -> list[int]:
        """Take the next frame of places for a worker; [] if it has enough or there is none for it.

        Without `ahead` it is given only what it can start at once.
        """
        width, bound = self._first_for(mine.cores)
        if width is None:
            return []
        line = self._lines[width]
        startable = max(0, ((mine.room if ahead else mine.cores) - mine.load) // width)
        count = startable
        seconds = self._seconds.get(width)
        if ahead and seconds is not None:
            held = sum(w * n * max(LEAST_SECONDS, self._seconds.get(w, 0.0)) for w, n in mine.widths.items())
            each = width * max(LEAST_SECONDS, seconds)
            target = int(mine.cores * AHEAD_SECONDS / each)
            share = -(-len(line) * mine.cores // (2 * self._cores))
            unstarted = max(0, mine.load - mine.cores) // width
            more = min(int((mine.cores * AHEAD_SECONDS - held) / each), share - unstarted)
            # Topped up by quarters, so that tiny calls don't trickle one by one.
            if startable or more * 4 >= min(target, share):
                count = max(startable, more)
        places: list[int] = []
        while len(places) < min(count, FRAME_MOST):
            head = line.head()
            if head is None or (bound is not None and head > bound):
                break
            suspect = head in self._suspects
            if suspect and (places or len(places) >= startable):
                break
            place = line.pop()
            self._state[place] = _LEASED
            mine.hold(place, width)
            places.append(place)
            if suspect:
                break
        return places

    def _first_for(self, cores: int) -> tuple[int | None, int | None]:
        """Return the width whose head is first in line for a worker, and the next width's head."""
        first: tuple[int, int] | None = None
        bound: int | None = None
        for width, line in self._lines.items():
            if width > cores:
                continue
            head = line.head()
            if head is None:
                continue
            if first is None or head < first[0]:
                first, bound = (head, width), (first[0] if first else None)
            elif bound is None or head < bound:
                bound = head
        return (first[1] if first else None), bound

    def recalls(self) -> list[Recall]:
        """Ask busy workers for what idle ones could start; for the tail, when little or nothing waits."""
        idle = [w for w in self._workers.values() if not w.draining and w.load < w.cores]
        room = sum(w.cores - w.load for w in idle)
        if not room or any(self._first_for(w.cores)[0] is not None for w in idle):
            return []
        recalls: list[Recall] = []
        widest = max(w.cores - w.load for w in idle)
        for name, mine in self._workers.items():
            excess = mine.load - mine.cores
            if excess <= 0 or room <= 0 or mine.recalled:
                continue
            most = 0
            last_first = sorted(mine.held, reverse=True)  # as workers give back
            for count, place in enumerate(last_first, 1):
                if excess <= 0 or room <= 0:
                    break
                width = mine.held[place]
                excess -= width
                if width <= min(widest, room):
                    room -= width
                    most = count
            if most:
                recalls.append(Recall(name, most))
                mine.recalled = True
        return recalls

    # -- parts

    def _line(self, width: int) -> _Line:
        line = self._lines.get(width)
        if line is None:
            line = self._lines[width] = _Line()
        return line

    def _all_hungry(self) -> None:
        self._hungry.update(dict.fromkeys(self._workers))
