"""The line of a worker's calls: who is next. Pure."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from executor.messages import Buffer, Item

#: How far behind the first in line a call is looked for that may overtake it.
_OVERTAKING_MOST = 1000


#: Bytes of buffers that make a batch large enough: a child begins with the first while the next is sent, and
#: several fit into the memory that is shared with it (`executor.arena`).
BATCH_BYTES = 4 << 20


class Entry(msgspec.Struct, gc=False, eq=False):
    """An item in the pool. `number` counts arrivals: entries stand in line by it, and by place.

    `stillborn` is how many children died of it before it began.
    """

    run: str
    item: Item
    buffers: Sequence[Buffer]
    number: int
    stillborn: int = 0

    def rank(self) -> tuple[int, int]:
        """Return what entries are sorted by."""
        return self.number, self.item.place


class Line:
    """Entries in order: runs by arrival, and by place within a run.

    What is given out and comes back stands where it stood.
    """

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._arrived = 0
        self._highest: dict[str, int] = {}  # place that ever came, by run

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> Entry:
        """The first in line; there must be one."""
        return self._entries[0]

    def add(self, run: str, items: Iterable[Item], shares: Mapping[int, Sequence[Buffer]] = {}) -> None:
        """Add items, each at the end, or before those of its run that stand later in order.

        `shares` has the large buffers of those that have some, by their index among `items`.
        """
        number = self._arrived = self._arrived + 1  # one for all: places tell those of one run apart
        entries: list[Entry] = []
        highest, in_order = self._highest.get(run, -1), True
        for item in items:
            entries.append(Entry(run, item, (), number))
            if item.place > highest:
                highest = item.place
            else:
                in_order = False
        self._highest[run] = highest
        for index, buffers in shares.items():
            entries[index].buffers = buffers
        if in_order:  # so it nearly always is
            self._entries.extend(entries)
        else:
            for entry in entries:
                self._insert(entry)

    def _insert(self, entry: Entry) -> None:
        """Add an entry whose run may have others that stand later in order."""
        run, place, entries = entry.run, entry.item.place, self._entries
        if not entries or entries[-1].run != run or entries[-1].item.place > place:
            for position, other in enumerate(entries):
                if other.run == run and other.item.place > place:
                    entry.number = other.number
                    entries.insert(position, entry)
                    return
        entries.append(entry)

    def was_passed(self, run: str, place: int) -> bool:
        """Return whether something of a run has come that stands behind a place."""
        return place < self._highest.get(run, -1)

    def forget(self, run: str) -> None:
        """A run is over, and nothing more of it will come."""
        self._highest.pop(run, None)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Put entries that were given out back to the front, in order."""
        self._entries.extendleft(sorted(entries, key=Entry.rank, reverse=True))

    def take(self, most: int) -> list[Entry]:
        """Take the first, and up to `most` in all of its run and width that stand behind it.

        No more of them are taken once they have `BATCH_BYTES` of buffers.
        """
        if most <= 1:
            return [self._entries.popleft()]
        first = self._entries[0]
        width, run = first.item.width, first.run
        size = 0
        batch: list[Entry] = []
        for entry in itertools.islice(self._entries, most):
            if entry.item.width != width or entry.run != run or size >= BATCH_BYTES:
                break
            batch.append(entry)
            if entry.buffers:
                size += sum(map(len, entry.buffers))
        next_ = self._entries.popleft
        for _ in batch:
            next_()
        return batch

    def overtake(self, width: int) -> bool:
        """Bring the next entry of at most `width` cores to the front; return whether there is one."""
        for position, entry in enumerate(itertools.islice(self._entries, 1, _OVERTAKING_MOST), 1):
            if entry.item.width <= width:
                del self._entries[position]
                self._entries.appendleft(entry)
                return True
        return False

    def give_up(self, run: str, most: int | None = None) -> list[int]:
        """Remove up to `most` entries of a run (None: all), the last first; return their places."""
        places: list[int] = []
        kept: list[Entry] = []
        while self._entries and (most is None or len(places) < most):
            entry = self._entries.pop()
            if entry.run == run:
                places.append(entry.item.place)
            else:
                kept.append(entry)
        self._entries.extend(reversed(kept))
        return places

    def drop(self, unwanted: Callable[[Entry], bool]) -> list[int]:
        """Remove all entries that are `unwanted`; return their places."""
        places = [entry.item.place for entry in self._entries if unwanted(entry)]
        self._entries = deque(entry for entry in self._entries if not unwanted(entry))
        return places

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)
