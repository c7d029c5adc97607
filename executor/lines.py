"""The places that wait, by width, and who of them is first for a worker of so many cores. Pure."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence, Set


class Line:
    """The waiting places of one width: those never handed out, in order, and those that came back.

    The former stand in runs of adjacent places, of each of which only the ends are kept: few bytes,
    and a slice is taken at once. A place that is taken out of the middle only counts as `gone`, until its
    turn comes or it is back.
    """

    __slots__ = ("back", "fresh", "gone", "head", "runs", "turn")

    def __init__(self) -> None:
        #: The first place in line, or None.
        self.head: int | None = None
        self.runs = array("q")  # the first place of each run, and the one after its last
        self.turn = 0  # the index of the first run of which some wait; its first place grows
        self.fresh = 0  # how many wait in runs, or are gone from them
        self.back: list[int] = []
        self.gone: set[int] = set()

    def push(self, places: range) -> None:
        """Add places that were never handed out, behind all others."""
        self.runs.append(places.start)
        self.runs.append(places.stop)
        self.fresh += len(places)
        if self.head is None:
            self.head = places.start

    def take(self, most: int, before: int | None = None, singly: Set[int] = frozenset()) -> list[int]:
        """Take the first places out of the line: at most so many, and only those that stand `before` another.

        One of `singly` comes by itself.
        """
        places: list[int] = []
        while len(places) < most and (head := self.head) is not None and (before is None or head < before):
            alone = head in singly
            if alone and places:
                break
            if self.back and self.back[0] == head:
                places.append(heapq.heappop(self.back))
            else:
                places += self._take_run(head, 1 if alone else most - len(places), before, singly)
            self._find_head()
            if alone:
                break
        return places

    def put_back(self, place: int) -> None:
        """A place comes back: it stands where it stood."""
        if place in self.gone:
            self.gone.discard(place)
        else:
            heapq.heappush(self.back, place)
            self._find_head()

    def remove(self, place: int) -> None:
        """Take a place out of the line, wherever it stands; it must be there."""
        self.gone.add(place)
        self._find_head()

    def __len__(self) -> int:
        return self.fresh + len(self.back) - len(self.gone)

    def _take_run(self, head: int, most: int, before: int | None, singly: Set[int]) -> Sequence[int]:
        """Take the first places of the first run, but for those that are gone; its head is not."""
        end = min(head + most, self.runs[self.turn + 1])
        if before is not None and before < end:
            end = before
        if self.back and self.back[0] < end:
            end = self.back[0]
        places: Sequence[int] = range(head, end)
        if singly and not singly.isdisjoint(places[1:]):
            places = range(head, next(place for place in places[1:] if place in singly))
        self._advance(len(places))
        if self.gone and not self.gone.isdisjoint(places):
            kept = [place for place in places if place not in self.gone]
            self.gone.difference_update(places)
            return kept
        return places

    def _advance(self, count: int) -> None:
        """So many of the first run are in line no more."""
        runs, turn = self.runs, self.turn
        self.fresh -= count
        runs[turn] += count
        if runs[turn] == runs[turn + 1]:
            self.turn = turn + 2

    def _find_head(self) -> None:
        """Let go of the places in front that are gone, and note which is the first then."""
        while self.gone and self.fresh and self.runs[self.turn] in self.gone:
            self.gone.discard(self.runs[self.turn])
            self._advance(1)
        while self.gone and self.back and self.back[0] in self.gone:
            self.gone.discard(heapq.heappop(self.back))
        self.head = self.runs[self.turn] if self.fresh else None
        if self.back and (self.head is None or self.back[0] < self.head):
            self.head = self.back[0]


class Lines:
    """All lines, by width.

    Who is first is asked for every few tasks, and there may be a hundred widths: so the answer is kept for
    each number of cores. Heads only grow while places are taken; what makes one smaller drops the answers.
    """

    def __init__(self) -> None:
        #: How many places wait in all lines.
        self.waiting = 0
        self._lines: dict[int, Line] = {}
        self._first: dict[int, tuple[Line, int, int | None]] = {}  # by cores: line, width, next line's head

    def push(self, places: range, width: int) -> None:
        """Add places that were never handed out, behind all others."""
        line = self._line(width)
        if line.head is None:
            self._first.clear()
        line.push(places)
        self.waiting += len(places)

    def put_back(self, place: int, width: int) -> None:
        """Add a place that comes back: it stands where it stood."""
        self._first.clear()
        self._line(width).put_back(place)
        self.waiting += 1

    def remove(self, place: int, width: int) -> None:
        """Take a place out of its line, wherever it stands; it must be there."""
        self._line(width).remove(place)
        self.waiting -= 1

    def take(self, line: Line, most: int, before: int | None, singly: Set[int]) -> list[int]:
        """Take the first places out of a line, as `Line.take` does."""
        places = line.take(most, before, singly)
        self.waiting -= len(places)
        return places

    def first_for(self, cores: int) -> tuple[Line, int, int | None] | None:
        """Return the line whose head is first for a worker of so many cores, its width, and a bound.

        Up to the bound (None: to its end) places of that line stand before those of all others. None if
        nothing waits for such a worker.
        """
        known = self._first.get(cores)
        if known is not None:
            line, _, bound = known
            head = line.head
            if head is not None and (bound is None or head < bound):
                return known
        first: tuple[int, int, Line] | None = None
        bound = None
        for width, line in self._lines.items():
            if width > cores or (head := line.head) is None:
                continue
            if first is None or head < first[0]:
                bound = first[0] if first is not None else None
                first = head, width, line
            elif bound is None or head < bound:
                bound = head
        if first is None:
            self._first.pop(cores, None)
            return None
        found = self._first[cores] = first[2], first[1], bound
        return found

    def narrower_first(self, width: int) -> bool:
        """Return whether something narrower stands before all places of a width."""
        line = self._lines.get(width)
        first = None if line is None else line.head
        heads = (each.head for narrow, each in self._lines.items() if narrow < width)
        return any(head is not None and (first is None or head < first) for head in heads)

    def withdraw(self, width: int | None = None) -> list[int]:
        """Take out all places of a width, or all; return them, in no order."""
        found: list[int] = []
        for each, line in self._lines.items():
            if width is None or each == width:
                found += line.take(len(line))
        self.waiting -= len(found)
        return found

    def counts(self) -> dict[int, int]:
        """Return how many wait, by width."""
        return {width: len(line) for width, line in self._lines.items() if len(line)}

    def _line(self, width: int) -> Line:
        line = self._lines.get(width)
        if line is None:
            line = self._lines[width] = Line()
        return line
