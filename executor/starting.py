"""Which of a worker's calls start now: on which cores, in which child, and what a child is given ahead.

The first in line starts as soon as its cores are free, and none before one that stands earlier. Several small
calls of one width go to a child as one batch, and the next batch before it has ended that one. What waits in
a child is taken back when free cores could start it, or something that goes before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from executor.batching import SHARED_SECONDS, Batching
from executor.children import Children
from executor.cores import CoreSet
from executor.errors import NoProcess
from executor.line import Entry, Line
from executor.process import Child

#: Seconds for which narrow calls may overtake a wide one that waits for its cores, with ``--backfill``.
PUT_OFF_SECONDS = 10.0

#: Seconds until it is looked again whether a child has begun what stands before the next in line.
_GLANCE_SECONDS = 0.001


class Starting:
    """Gives what stands in the `line` to `children`, with the cores of `cores`.

    Who hears a child tells its `pace` how long its calls took, adds it to those that `spoke`, and has it
    `free` when it has ended all. The arguments `backfill` and `linger` are the pool's.
    """

    __slots__ = (
        "_backfills", "_children", "_cores", "_freed", "_line", "_linger", "_looked_for", "_most", "_pace",
        "_put_off", "busy", "look_at", "spoke",
    )  # fmt: skip

    def __init__(
        self, line: Line, children: Children, cores: CoreSet, pace: Batching, *,
        backfill: bool, linger: float,
    ) -> None:  # fmt: skip
        self._line = line
        self._children = children
        self._cores = cores
        self._most = len(cores)
        self._pace = pace
        self._linger = linger
        self._backfills = backfill
        self._put_off: tuple[Entry, float] | None = None  # who is overtaken, and since when
        #: The children that have cores, in the order in which they got them.
        self.busy: dict[Child, None] = {}
        #: Those of them that may want their next call since the last look.
        self.spoke: list[Child] = []
        self._looked_for: tuple[str, int] | None = None  # whose next call was looked for then; None: nobody's
        self._freed = False  # whether cores have become free since it was last looked what to start
        #: When it is to be looked again, by the monotonic clock, whatever is heard by then.
        self.look_at = math.inf

    def start(self, now: float) -> bool:
        """Start what stands first in line for as long as there are cores for it.

        Return whether cores have become free and are left, while others are busy.

        Raises:
            NoProcess: the system refuses to make a process, and there is none to wait for.
        """
        self.look_at = math.inf
        while self._line or self._share(now):
            width = self._line.first.item.width
            if width > self._cores.free:
                if self._share(now):  # narrower ones: they go first
                    continue
                if not self._backfill(now):
                    break
                width = self._line.first.item.width
            if width > 1 and not self._may_pass(width):
                if self._share(now):  # narrower ones: they go first
                    continue
                self.look_at = min(self.look_at, now + _GLANCE_SECONDS)
                break
            cores = self._cores.take(width)
            try:
                child = self._children.find(self._line.first.run, cores)
            except NoProcess:
                self._cores.give(cores)
                if not self.busy:
                    raise
                break  # those that are there must do
            self._send(child, self._next_batch(width), cores, now)
        freed, self._freed = self._freed, False
        return bool(freed and self.busy and self._cores.free)

    def look_ahead(self, now: float) -> None:
        """Give children what they run next, a batch to each in turn, so that they need not wait for it.

        Not behind a call that takes long: its successor would wait, while others overtake it.
        """
        spoke, self.spoke = self.spoke, []
        while self._line:
            first = self._line.first
            run, width = kind = first.run, first.item.width
            if not self._pace.looks_ahead(width):
                break
            # Those that have not spoken since were looked at for the like of it, and are none the readier.
            candidates = spoke if kind == self._looked_for else list(self.busy)
            self._looked_for = kind
            enough, given = self._pace.enough(width), False
            for child in candidates:
                if len(child.cores) != width or child.run != run or child.unstarted() >= enough:
                    continue
                if child.ending or child.dead or child.worn or self._is_slow(child, now):
                    continue
                self._send(child, self._next_batch(width), child.cores, now)
                given = True
                if not self._line or (self._line.first.run, self._line.first.item.width) != kind:
                    break  # the next one is of another kind
            else:
                if not given:
                    return
        self._looked_for = None

    def take_all_back(self) -> None:
        """Put everything that has not begun back into the line."""
        self.put_back([entry for child in self.busy for entry in child.take_back()])

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Put entries that were given out back into the line."""
        self._line.put_back(entries)
        self._looked_for = None  # who gave them back may be ready for them again

    def free(self, child: Child) -> None:
        """A child has ended all that it was given, or died: its cores are free."""
        self._freed = True
        self._cores.give(child.cores)
        del self.busy[child]
        child.cores, child.batches = (), 0

    # -- parts

    def _next_batch(self, width: int) -> list[Entry]:
        """Take a batch from the line: equals in a row."""
        return self._line.take(self._pace.batch(width, len(self._line), self._most // width))

    def _send(self, child: Child, batch: list[Entry], cores: tuple[int, ...], now: float) -> None:
        self.busy[child] = None
        self.spoke.append(child)
        linger = min(self._linger, self._pace.linger(len(cores)))
        self._children.send(child, batch, cores, pin=self._cores.pinned, linger=linger)
        if batch[0].item.timeout is not None:
            self.look_at = min(self.look_at, now + batch[0].item.timeout)

    def _is_slow(self, child: Child, now: float) -> bool:
        """Whether a child's present call takes much longer than others of its width did."""
        current = child.current()
        return current is not None and now - current[1] > self._pace.slow_after(len(child.cores))

    def _share(self, now: float) -> bool:
        """Take back what waits behind running calls, where free cores could start it; return if any was."""
        if not self._cores.free:
            return False
        back: list[Entry] = []
        for child in self.busy:
            width = len(child.cores)
            # Nothing waits there, or there is no room for it.
            if len(child.entries) < 2 or width > self._cores.free:
                continue
            count = child.unstarted() - (child.current() is None)  # one that just begins waits behind none
            if count > 0:
                if self._pace.is_much(width, count) or self._is_slow(child, now):
                    back += child.take_back()
                else:
                    self.look_at = min(self.look_at, now + SHARED_SECONDS)
        if back:
            self.put_back(back)
        return bool(back)

    def _backfill(self, now: float) -> bool:
        """Bring a narrow call that fits now before the first in line, which does not; return whether one is.

        The first in line is put off for `PUT_OFF_SECONDS` at most: then its cores are let run empty.
        """
        if not self._backfills or not self._cores.free:
            return False
        if self._put_off is None or self._put_off[0] is not self._line.first:
            self._put_off = (self._line.first, now)
        elif now - self._put_off[1] > PUT_OFF_SECONDS:
            return False
        return self._line.overtake(self._cores.free)

    def _may_pass(self, width: int) -> bool:
        """Whether no narrower call that was given to a child is still unstarted there."""
        return not any(
            len(child.cores) < width and child.entries and child.unstarted() for child in self.busy
        )
