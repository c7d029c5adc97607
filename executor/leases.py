"""What one worker holds, and how much of it it can have begun. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

#: What stands in a list of holders in place of a worker: the place waits in line ...
WAITING: Final = None

#: ... or nobody need run it now.
SETTLED: Final = False

#: Places that may stand in a worker's log without being held, beside as many as are.
_STALE_MOST = 32

#: Who holds a place: a worker, or one of these.
Holder: TypeAlias = "Leases | bool | None"


class Leases:
    """The places that one worker holds, in the order in which they were handed out.

    Who holds a place stands in `holders`, and how wide it is in `widths`, by place for all workers. A worker
    has but a log of what it was handed; what it has no more is taken out of that now and then. So to end a
    place touches nothing of the worker's own but a few numbers: a dictionary in each, where there are
    thousands, is out of the processor's caches.

    With `backfill` it may begin a narrow one before a wide one, so it is given twice what it can start.
    """

    # Twelve: with these an object lies in two lines of a processor's cache.
    __slots__ = (
        "_counts", "_holders", "_log", "_widths", "alone", "cores", "count", "draining", "hurried", "load",
        "recalled", "room",
    )  # fmt: skip

    def __init__(self, cores: int, holders: list[Holder], widths: Sequence[int], *, backfill: bool) -> None:
        self.cores = cores
        #: Cores' worth of tasks that it is given whatever their durations.
        self.room = 2 * cores if backfill else cores
        self.count = 0  # of places
        #: Those of them that it was given although it had enough; mostly none, and then all share one object.
        self.hurried: frozenset[int] = frozenset()
        self.load = 0  # the cores that all it holds would take at once
        self.draining = False
        self.recalled = False
        self.alone: int | None = None  # the place that it is kept for, or runs alone
        self._holders = holders
        self._widths = widths
        self._log = array("i")  # no place that it holds stands in it twice
        self._counts: Counter[int] | None = None

    def __iter__(self) -> Iterator[int]:
        """Yield the places."""
        holders = self._holders
        return (place for place in self._log if holders[place] is self)

    @property
    def backfill(self) -> bool:
        """Whether it may begin a narrow one before a wide one."""
        return self.room > self.cores

    @property
    def noted(self) -> int:
        """How many places the log has, with those that are held no more."""
        return len(self._log)

    def holds(self, place: int) -> bool:
        """Whether it holds a place."""
        return self._holders[place] is self

    @property
    def widths(self) -> Mapping[int, int]:
        """How many are held, by width; counted when somebody asks, which nobody does for long calls."""
        if self._counts is None:
            self._counts = Counter(map(self._widths.__getitem__, self))
        return self._counts

    def forget_widths(self) -> None:
        """Count no more how many are held by width, until somebody asks again."""
        self._counts = None

    def hold(self, places: Sequence[int], width: int, *, again: bool = False) -> None:
        """It was handed places of one width; `again` if one of them was ever handed out before."""
        holders, log = self._holders, self._log
        if again or len(log) > 2 * self.count + _STALE_MOST:
            log = self._log = array("i", self)
        for place in places:
            holders[place] = self
        log.extend(places)
        self.count += len(places)
        self.load += width * len(places)
        if self._counts is not None:
            self._counts[width] += len(places)

    def drop(self, places: Iterable[int], width: int) -> list[int]:
        """It has ended places of one width, or given them back; return those of them that it held."""
        holders = self._holders
        dropped: list[int] = []
        for place in places:
            if holders[place] is self:
                holders[place] = SETTLED
                dropped.append(place)
        if not dropped:
            return dropped
        self.count -= len(dropped)
        self.load -= width * len(dropped)
        if self._counts is not None:
            self._counts[width] -= len(dropped)
            if not self._counts[width]:  # what there is none of is not looked at
                del self._counts[width]
        if self.hurried:
            self.hurried = self.hurried.difference(dropped)
        return dropped

    def takes(self, width: int) -> bool:
        """Whether it can be given places of this width, now or when it has ended something."""
        return self.alone is None and not self.draining and self.cores >= width

    def starts_next(self, place: int, width: int) -> bool:
        """Whether it would start a place before what it holds unstarted, if it had it too.

        Not if as many wait for that as it can start when all that runs ends, and as many again: enough that
        another is there whenever one of them has ended.
        """
        if self.load <= self.cores or not self.takes(width) or place > max(self):
            return False
        return width + sum(self._widths[each] for each in self.hurried) <= 2 * self.cores

    def begun(self, places: Iterable[int]) -> list[int]:
        """Return those that it can have begun of the places it holds, if it begins them in this order."""
        free = self.cores
        begun: list[int] = []
        for place in places:
            width = self._widths[place]
            if width > free:
                break
            free -= width
            begun.append(place)
        return begun
