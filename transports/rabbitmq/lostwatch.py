"""Which calls the broker has lost: with a queue that was deleted or purged, or with its data. Pure.

A call without a report is in a queue of its width, in the hands of a worker that tells so, on its way
between the two, or on its way back from a worker that vanished. The last takes longest
(`Topology.returning`). So what no worker has for as long as that, while every queue that it might be in is
found empty again and again, is lost. Where runs share the queues of a width this can be told only once these
have run empty of all of them.

`now` is the owner's clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from transports.rabbitmq.topology import Topology

#: Intervals between two looks while reports come.
RARELY = 4


class LostWatch:
    """Judges by looks at queues: `ask` begins one, and `found` takes the answers."""

    def __init__(self, names: Topology) -> None:
        self._names = names
        self._interval = max(1.0, names.patience)
        self._missing: dict[int, dict[int, float]] = {}  # by width: places, and since when they are missed
        self._widths: list[int] = []  # that are looked at
        self._asked: dict[str, int | None] = {}  # by queue: its width; None for what all share
        self._full: set[int | None] = set()  # widths of queues that are not empty
        self._busy = False  # whether reports came since the last look
        #: When it should be looked again.
        self.look_at = 0.0

    @property
    def asking(self) -> bool:
        """Whether answers are missing."""
        return bool(self._asked)

    @property
    def waiting(self) -> list[int]:
        """The widths of which something waits, once all answers are there."""
        return [] if self._asked else [width for width in self._widths if width in self._full]

    def __contains__(self, queue: str) -> bool:
        return queue in self._asked

    def reset(self, now: float) -> None:
        """What was seen says nothing any more: the connection is new, or the broker was not to be asked."""
        self._missing.clear()
        self._asked.clear()
        self.look_at = now + self._interval

    def reported(self, width: int) -> None:
        """A call of a width was reported: others may be on their way between queues and hands."""
        self._busy = True
        self._missing.pop(width, None)

    def ask(self, widths: Iterable[int], results: Iterable[str], now: float) -> list[str]:
        """Begin a look; return the queues to look into: of these widths, and those of reports."""
        self.look_at = now + self._interval * (RARELY if self._busy else 1)
        self._busy = False
        self._full.clear()
        self._asked = dict.fromkeys([self._names.returned, *results])
        self._widths = list(widths)
        for width in self._widths:
            self._asked |= dict.fromkeys(self._names.of_width(width), width)
        return list(self._asked)

    def found(
        self,
        queue: str,
        messages: int | None,
        unheld: Callable[[Collection[int]], Mapping[int, Collection[int]]],
        now: float,
    ) -> list[int]:
        """Take how many messages wait in a queue (None: there is none); return the calls that are lost.

        These are known with the last answer. `unheld` returns, for some widths, the places of the calls that
        have no report, and that no worker has.
        """
        if queue not in self._asked:
            return []
        width = self._asked.pop(queue)
        if messages:
            self._full.add(width)
        if self._asked:
            return []
        seen, self._missing = self._missing, {}
        if None in self._full:  # something is on its way, of whatever width
            return []
        lost: list[int] = []
        empty = [each for each in self._widths if each not in self._full]
        for each, places in unheld(empty).items() if empty else ():
            before = seen.get(each, {})
            now_missing = {place: before.get(place, now) for place in places}
            gone = [place for place, at in now_missing.items() if now - at >= self._names.returning]
            lost += gone
            self._missing[each] = {} if gone else now_missing
        return sorted(lost)
