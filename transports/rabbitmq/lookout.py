"""Into which queue of calls a worker should look next. Pure: `now` is the owner's clock, in seconds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from transports.rabbitmq.topology import Topology

#: Seconds until a queue that was empty is looked into again, unless somebody says that calls wait there.
LOOK_AGAIN = 1.0

#: Seconds until it is looked again for queues of widths that there were none of.
LOOK_FOR_WIDTHS = 60.0


class Lookout:
    """Knows the queues of the widths up to `cores` that exist, and which of them were empty just now."""

    def __init__(self, names: Topology, cores: int) -> None:
        self._names = names
        self._cores = cores
        self._widths: list[int] = []  # of which there are queues, ascending
        self._earlier: set[int] = set()  # ... and were, over earlier connections
        self._empty_until: dict[str, float] = {}
        self._search_at = 0.0

    def forget(self) -> None:
        """The connection is a new one: somebody may have deleted queues, or filled them."""
        self._earlier.update(self._widths)
        self._widths = []
        self._search_at = 0.0
        self._empty_until.clear()

    def missing(self, widths: Iterable[int]) -> list[str]:
        """Return the queues to search for, as there are calls of these widths that may concern us.

        All of them, as these calls may have come back, and somebody have deleted the line.
        """
        unknown = self._unknown(widths)
        return [*map(self._names.line, unknown), *self._others(unknown)]

    def search(self, now: float) -> list[str]:
        """Return the queues to search for now: once in a while the lines that are not known to exist.

        Of widths that were known before, all queues: what came back may be there without a line.
        """
        if now < self._search_at:
            return []
        self._search_at = now + LOOK_FOR_WIDTHS * random.uniform(1.0, 1.2)
        unknown = self._unknown(range(1, self._cores + 1))
        return [*map(self._names.line, unknown), *self._others(self._earlier.intersection(unknown))]

    def _unknown(self, widths: Iterable[int]) -> list[int]:
        return [width for width in sorted(set(widths) - set(self._widths)) if 0 < width <= self._cores]

    def _others(self, widths: Iterable[int]) -> list[str]:
        """Return the queues of widths beside their lines."""
        return [queue for w in sorted(widths) for queue in (self._names.first(w), self._names.alone(w))]

    def exists(self, queue: str) -> list[int]:
        """A queue was searched for, and is there; return the width that was not known before, if any."""
        found = [width for width in range(1, self._cores + 1) if queue in self._names.of_width(width)]
        new = [width for width in found if width not in self._widths]
        self._widths = sorted([*self._widths, *new])
        return new

    def width(self, queue: str) -> int:
        """Return of what width a queue's calls are; 0 if its messages are taken one by one."""
        names = self._names
        for width in self._widths:
            if queue in (names.line(width), names.first(width)):
                return width
        return 0

    def empty(self, queue: str, now: float) -> None:
        """There was nothing in a queue."""
        self._empty_until[queue] = now + LOOK_AGAIN * random.uniform(0.7, 1.3)

    def filled(self, queue: str = "") -> None:
        """Something may be in a queue again, or in any."""
        if queue:
            self._empty_until.pop(queue, None)
        else:
            self._empty_until.clear()

    def next(self, now: float, *, idle: bool, mends: bool, wants: Callable[[int], object]) -> str:
        """Return the queue to look into, "" for none: what came back, then the narrowest.

        `idle`: the worker has nothing, so that it can take a call that must be alone; `mends`: it can see to
        what came back; `wants` tells whether it wants calls of a width.
        """
        before = [self._names.alone(width) for width in self._widths] if idle else []
        if mends:
            before.append(self._names.returned)
        for queue in before:
            if self._due(queue, now):
                return queue
        for width in self._widths:
            for queue in (self._names.first(width), self._names.line(width)):
                if self._due(queue, now):
                    return queue if wants(width) else ""
        return ""

    def times(self, now: float) -> Iterator[float]:
        """Yield when something is to be done next, if that is not now."""
        return (at for at in self._empty_until.values() if at > now)

    def _due(self, queue: str, now: float) -> bool:
        return self._empty_until.get(queue, 0.0) <= now
