"""What a worker has of the broker's calls: which are in its hands, and how many more it should fetch. Pure.

A *copy* is the message in the worker's own queue that stands for some calls as long as they are unfinished;
it is acknowledged when the last of them is. A call can be in several copies, when it came back and was
handed out again although this worker had never let go of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from executor.messages import Holding, Report
from executor.pace import Pace, mean_seconds
from transports.rabbitmq.events import Tag
from transports.rabbitmq.frames import Call

#: Seconds of work fetched for each core beyond what runs: nobody asks for it back, as a dispatcher does.
AHEAD_SECONDS = 0.05

#: Seconds of work in hand for each core, of which others should have a part: much more than is fetched ahead.
SURPLUS_SECONDS = 5 * AHEAD_SECONDS

#: Seconds without any report after which durations seen before say nothing of what runs now.
STALE_SECONDS = 0.5


class Copy:
    """A message in the worker's own queue, and the places of the calls in it that are not finished.

    `tag` is its delivery, None before it came; `since` is when that was, on the owner's clock.
    """

    __slots__ = ("id", "places", "renewing", "run", "since", "tag")

    def __init__(self, message_id: str, run: str, places: Iterable[int]) -> None:
        self.id = message_id
        self.run = run
        self.places = set(places)
        self.tag: Tag | None = None
        self.since = math.inf
        self.renewing = False


class Entry(msgspec.Struct, eq=False, gc=False):
    """A call in hand; `out` when it no longer takes cores: its report, or itself, is on its way back.

    `attempt` is the one that may have begun here; None if it certainly never did. `begun` is whether it was
    handed to the owner.
    """

    place: int
    call: Call
    attempt: int | None
    copies: list[Copy]
    out: bool = False
    begun: bool = False


class Held:
    """The calls that a worker of so many cores has; with `backfill` it is given twice what it can start."""

    def __init__(self, cores: int, *, backfill: bool) -> None:
        self._cores = cores
        self._room = 2 * cores if backfill else cores
        self._entries: dict[str, dict[int, Entry]] = {}  # by run and place; no run without any
        self._copies: dict[str, Copy] = {}
        self._counts: dict[int, int] = {}  # of calls that take cores, by width
        self._lones = 0  # of these, those that must have the worker to themselves
        self._pace = Pace(AHEAD_SECONDS)
        self._reported_at = 0.0
        self._doubtful: set[tuple[str, int, int]] = set()  # run, place, attempt

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    def __bool__(self) -> bool:
        return bool(self._entries)

    def add(self, message_id: str, run: str, some: Sequence[Call]) -> list[Copy]:
        """Take calls whose copy is on its way, those too that are in hand already.

        Return the earlier copies that now stand for nothing: a call that was put back comes again before the
        broker has said that it was.
        """
        fresh: list[Call] = []
        done: list[Copy] = []
        copy = self._copies[message_id] = Copy(message_id, run, [call.item.place for call in some])
        entries = self._entries.setdefault(run, {})
        for call in some:
            item = call.item
            place = item.place
            entry = entries.get(place)
            if entry is None or entry.out:  # what was on its way back begins anew
                if entry is not None:
                    done += self._let_go(entry)
                entries[place] = Entry(place, call, item.attempt, [copy])
                fresh.append(call)
            elif copy not in entry.copies:
                entry.copies.append(copy)
        self._count(fresh, 1)
        return done

    def begin(self, copy: Copy) -> list[Call]:
        """A copy came; return those of its calls that are to be begun: none of their copies came before it.

        The first of two copies may have been lost, and the call have come again with its original.
        """
        entries = self._entries[copy.run]
        found = [
            entry for place in sorted(copy.places) if not (entry := entries[place]).begun and not entry.out
        ]
        for entry in found:
            entry.begun = True
        return [entry.call for entry in found]

    def copy(self, message_id: str) -> Copy | None:
        """Return a copy that stands for unfinished calls."""
        return self._copies.get(message_id)

    def copies(self) -> list[Copy]:
        """Return all of them."""
        return list(self._copies.values())

    def call(self, run: str, place: int) -> Call | None:
        """Return a call that takes cores here."""
        entry = self._entries.get(run, {}).get(place)
        return None if entry is None or entry.out else entry.call

    def present(self, run: str, places: Iterable[int]) -> list[Call | None]:
        """Return `call` of each of these."""
        entries = self._entries.get(run, {})
        found = map(entries.get, places)
        return [None if entry is None or entry.out else entry.call for entry in found]

    def calls_of(self, copy: Copy) -> list[Call]:
        """Return the unfinished calls that a copy stands for."""
        return [self._entries[copy.run][place].call for place in sorted(copy.places)]

    def of_run(self, run: str) -> list[int]:
        """Return the places of a run's calls, those on their way back included."""
        return list(self._entries.get(run, ()))

    def runs(self) -> set[str]:
        """Return the runs of which there are calls, those on their way back included."""
        return set(self._entries)

    def holding(self) -> Holding:
        """Return the calls that take cores."""
        found: Holding = {}
        for run, entries in self._entries.items():
            if some := {place: e.call.item.attempt for place, e in entries.items() if not e.out}:
                found[run] = some
        return found

    def leave(self, run: str, places: Iterable[int]) -> list[Entry]:
        """These calls take no cores any more; return what `arrived` is to be told when they are safe."""
        entries = self._entries.get(run, {})
        left: list[Entry] = []
        for place in places:
            entry = entries.get(place)
            if entry is not None and not entry.out:
                entry.out = True
                left.append(entry)
        self._count([entry.call for entry in left], -1)
        return left

    def arrived(self, run: str, left: Iterable[Entry]) -> list[Copy]:
        """What left is safe; return the copies that now stand for nothing, and forget them.

        A call that came again meanwhile is another, and stays.
        """
        entries = self._entries.get(run, {})
        return self._remove(run, [entry for entry in left if entries.get(entry.place) is entry])

    def finish(self, run: str, places: Iterable[int]) -> list[Copy]:
        """Nothing more is wanted of these calls; return the copies that now stand for nothing."""
        places = list(places)
        self.leave(run, places)
        entries = self._entries.get(run, {})
        return self._remove(run, [entries[place] for place in places if place in entries])

    def _remove(self, run: str, some: Sequence[Entry]) -> list[Copy]:
        done: list[Copy] = []
        if some:
            entries = self._entries[run]
            for entry in some:
                del entries[entry.place]
                done += self._let_go(entry)
            if not entries:
                del self._entries[run]
        return done

    def _let_go(self, entry: Entry) -> list[Copy]:
        """Take a call out of its copies; return those that now stand for nothing, and forget them."""
        done: list[Copy] = []
        for copy in entry.copies:
            copy.places.discard(entry.place)
            if not copy.places:
                done.append(self._copies.pop(copy.id))
        return done

    def doubt(self) -> None:
        """The connection broke: whether the broker still heard our acknowledgements is not known.

        So of what is in hand now, the original message may come again, long after we are done with it.
        """
        for run, entries in self._entries.items():
            self._doubtful |= {(run, e.place, e.attempt) for e in entries.values() if e.attempt is not None}

    @property
    def doubtful(self) -> bool:
        """Whether `done_before` may be true of any call."""
        return bool(self._doubtful)

    def done_before(self, run: str, call: Call) -> bool:
        """Whether this attempt at a call was made here, and its message comes again all the same."""
        place = call.item.place
        return (run, place, call.item.attempt) in self._doubtful and place not in self._entries.get(run, ())

    def never_begun(self, run: str, places: Iterable[int]) -> None:
        """These calls go back as they came."""
        entries = self._entries.get(run, {})
        for place in places:
            entry = entries.get(place)
            if entry is not None and entry.attempt is not None:
                self._doubtful.discard((run, place, entry.attempt))
                entry.attempt = None

    def forget(self, run: str) -> None:
        """A run is over."""
        self._doubtful = {each for each in self._doubtful if each[0] != run}

    def void(self, message_id: str) -> None:
        """A copy will not come: let go of the calls that only it stands for."""
        copy = self._copies.pop(message_id, None)
        if copy is None:
            return
        entries = self._entries[copy.run]
        alone = []
        for place in copy.places:
            entries[place].copies.remove(copy)
            if not entries[place].copies:
                alone.append(place)
        self.never_begun(copy.run, [place for place in alone if not entries[place].begun])
        self.finish(copy.run, alone)

    def _count(self, some: Sequence[Call], change: int) -> None:
        for width, count in Counter([call.item.width for call in some]).items():
            self._counts[width] = self._counts.get(width, 0) + change * count
        self._lones += change * len([call for call in some if call.item.lone])

    # -- how much

    @property
    def load(self) -> int:
        """The cores that all calls in hand would take at once."""
        return sum(width * count for width, count in self._counts.items())

    @property
    def lone(self) -> bool:
        """Whether a call here must have the worker to itself."""
        return self._lones > 0

    @property
    def excess(self) -> int:
        """How many calls can't have begun, as there are not cores enough for them."""
        if self.load <= self._room:
            return 0
        widest = max(width for width, count in self._counts.items() if count)
        return -(-(self.load - self._room) // widest)

    def surplus(self, now: float) -> int:
        """How many of the last calls others should have, since short ones became long.

        All that can't have begun, if nothing is heard; what is more than is fetched ahead, if that is much.
        """
        excess, work = self.excess, self._pace.work(self._counts)
        if self.stale(now):
            return excess
        if work <= self._cores * SURPLUS_SECONDS:
            return 0
        count = sum(self._counts.values())
        return min(excess, int(count * (1 - self._cores * AHEAD_SECONDS / work)))

    def learn(self, reports: Sequence[Report], width: int, now: float) -> None:
        """See how long calls of a width took."""
        self._reported_at = now
        self._pace.learn(width, mean_seconds(reports))

    def stale(self, now: float) -> bool:
        """Whether nothing was heard of what runs for so long that it is no longer as short as it was."""
        return now - self._reported_at > STALE_SECONDS

    def appetite(self, width: int, now: float) -> int:
        """Return how many calls of a width should be fetched now: what can start, and a little ahead.

        As the embedded broker does: beyond it work for a moment, by the durations seen. It is asked for in
        halves: each time costs the broker some writes to its disk, whatever comes of it.
        """
        if width > self._cores:
            return 0
        startable = max(0, self._room - self.load) // width
        if self.load >= self._cores and self.stale(now):
            return startable
        target, missing = self._pace.ahead(width, self._cores, self._counts)
        return max(startable, missing) if startable or (target and missing * 2 >= target) else 0
