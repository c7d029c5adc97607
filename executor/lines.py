"""The places that wait, by width, and who of them is first for a worker of so many cores. Pure."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator


class Line:
    """The waiting places of one width: those never handed out, in order, and those that came back.

    A place that is taken out of the middle only counts as `gone`, until its turn comes or it is back.
    """

    __slots__ = ("back", "fresh", "gone")

    def __init__(self) -> None:
        self.fresh: deque[int] = deque()
        self.back: list[int] = []
        self.gone: set[int] = set()

    def head(self) -> int | None:
        """The first place in line, or None."""
        if self.gone:
            self._pass_over()
        if self.back and (not self.fresh or self.back[0] < self.fresh[0]):
            return self.back[0]
        return self.fresh[0] if self.fresh else None

    def pop(self) -> int:
        """Take the first place out of the line; there must be one."""
        if self.gone:
            self._pass_over()
        if self.back and (not self.fresh or self.back[0] < self.fresh[0]):
            return heapq.heappop(self.back)
        return self.fresh.popleft()

    def put_back(self, place: int) -> None:
        """A place comes back: it stands where it stood."""
        if place in self.gone:
            self.gone.discard(place)
        else:
            heapq.heappush(self.back, place)

    def remove(self, place: int) -> None:
        """Take a place out of the line, wherever it stands; it must be there."""
        self.gone.add(place)

    def __len__(self) -> int:
        return len(self.fresh) + len(self.back) - len(self.gone)

    def _pass_over(self) -> None:
        """Let go of the places at the head that are gone."""
        while self.fresh and self.fresh[0] in self.gone:
            self.gone.discard(self.fresh.popleft())
        while self.back and self.back[0] in self.gone:
            self.gone.discard(heapq.heappop(self.back))


class Lines:
    """All lines, by width.

    Who is first is asked for every few tasks, and there may be a hundred widths: so the answer is kept for
    each number of cores. Heads only grow while places are popped; what makes one smaller drops the answers.
    """

    def __init__(self) -> None:
        self._lines: dict[int, Line] = {}
        self._first: dict[int, tuple[Line, int, int | None]] = {}  # by cores: line, width, next line's head

    def push(self, place: int, width: int) -> None:
        """Add a place that was never handed out, behind all others."""
        line = self._line(width)
        if not len(line):
            self._first.clear()
        line.fresh.append(place)

    def put_back(self, place: int, width: int) -> None:
        """Add a place that comes back: it stands where it stood."""
        self._first.clear()
        self._line(width).put_back(place)

    def remove(self, place: int, width: int) -> None:
        """Take a place out of its line, wherever it stands; it must be there."""
        self._line(width).remove(place)

    def first_for(self, cores: int) -> tuple[Line, int, int | None] | None:
        """Return the line whose head is first for a worker of so many cores, its width, and a bound.

        Up to the bound (None: to its end) places of that line stand before those of all others. None if
        nothing waits for such a worker.
        """
        known = self._first.get(cores)
        if known is not None:
            line, _, bound = known
            head = line.head()
            if head is not None and (bound is None or head < bound):
                return known
        first: tuple[int, int, Line] | None = None
        bound = None
        for width, line in self._lines.items():
            if width > cores or (head := line.head()) is None:
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
        first = None if line is None else line.head()
        heads = (each.head() for narrow, each in self._lines.items() if narrow < width)
        return any(head is not None and (first is None or head < first) for head in heads)

    def withdraw(self, width: int | None = None) -> Iterator[int]:
        """Take out all places of a width, or all."""
        for each, line in self._lines.items():
            if width is None or each == width:
                while len(line):
                    yield line.pop()

    def counts(self) -> dict[int, int]:
        """Return how many wait, by width."""
        return {width: len(line) for width, line in self._lines.items() if len(line)}

    def __bool__(self) -> bool:
        return any(len(line) for line in self._lines.values())

    def _line(self, width: int) -> Line:
        line = self._lines.get(width)
        if line is None:
            line = self._lines[width] = Line()
        return line
