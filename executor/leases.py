"""What one worker holds, and how much of it it can have begun. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


class Leases:
    """The places that one worker holds, each with its width, in the order in which they were handed out.

    With `backfill` it may begin a narrow one before a wide one, so it is given twice what it can start.
    """

    __slots__ = (
        "_widths", "alone", "backfill", "cores", "draining", "held", "hurried", "load", "recalled", "room",
    )  # fmt: skip

    def __init__(self, cores: int, *, backfill: bool) -> None:
        self.cores = cores
        self.backfill = backfill
        #: Cores' worth of tasks that it is given whatever their durations.
        self.room = 2 * cores if backfill else cores
        self.held: dict[int, int] = {}  # width by place
        #: Those of them that it was given although it had enough; mostly none, and then all share one object.
        self.hurried: frozenset[int] = frozenset()
        self.load = 0  # the cores that all it holds would take at once
        self.draining = False
        self.recalled = False
        self.alone: int | None = None  # the place that it is kept for, or runs alone
        self._widths: Counter[int] | None = None

    @property
    def widths(self) -> Mapping[int, int]:
        """How many are held, by width.

        They are another dictionary in each worker, which is out of the processor's caches where there are
        thousands of them: so they are counted only once somebody asks, which nobody does for long calls.
        """
        if self._widths is None:
            self._widths = Counter(self.held.values())
        return self._widths

    def hold(self, places: Sequence[int], width: int) -> None:
        """It was handed places of one width."""
        held = self.held
        for place in places:
            held[place] = width
        self.load += width * len(places)
        if self._widths is not None:
            self._widths[width] += len(places)

    def drop(self, places: Iterable[int], width: int) -> list[int]:
        """It has ended places of one width, or given them back; return those of them that it held."""
        held = self.held
        dropped = [place for place in places if held.pop(place, None) is not None]
        if not dropped:
            return dropped
        self.load -= width * len(dropped)
        if self._widths is not None:
            self._widths[width] -= len(dropped)
            if not self._widths[width]:  # what there is none of is not looked at
                del self._widths[width]
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
        if self.load <= self.cores or not self.takes(width) or place > max(self.held):
            return False
        return width + sum(self.held[each] for each in self.hurried) <= 2 * self.cores

    def begun(self, places: Iterable[int]) -> list[int]:
        """Return those that it can have begun of the places it holds, if it begins them in this order."""
        free = self.cores
        begun: list[int] = []
        for place in places:
            width = self.held[place]
            if width > free:
                break
            free -= width
            begun.append(place)
        return begun
