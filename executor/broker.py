"""The broker that the brokerless wires carry: who gets which task next.

A pure state machine: it opens no socket, reads no clock and knows of a task only its place in the run and
its width in cores. Its owner tells it what happened and asks what to do: `grants()` and `recalls()`.

Order: a worker is given the first place in line among the tasks it can ever run, so no task waits for
another that only a wider worker could take. A place that comes back stands where it stood before, which
is ahead of all that was not handed out yet.

How much: what a worker can start at once; beyond that as many as keep it busy for a moment, by the
durations seen so far (`executor.pace`). Small calls thus travel in numbers and long ones alone, and of what
is left no worker gets more than its share. A place whose attempt failed *hurries*: it is given even to a
worker that has enough, if that holds unstarted what stands behind it, for there it is the next to start.

Who is at fault: what a worker held that vanished is suspect, and travels singly; what it may have begun of
it is charged an attempt. A place whose last attempt that is runs *alone*: a worker is chosen for it, ends
what it has, and holds nothing else until it is reported. So the innocent are never lost for the company
that they kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from executor.leases import SETTLED, WAITING, Holder, Leases
from executor.lines import Line, Lines
from executor.pace import Pace

#: Calls that a worker holds at most beyond what it can start. Each may travel in a frame of its own, and a
#: wire queues 10,000 frames for one worker: credit must never reach that.
AHEAD_MOST = 4096

#: Calls in one frame: enough to make the frame's own cost small, few enough to start at once.
FRAME_MOST = 256

#: Workers at which it is looked for one where a place that hurries would start next; there may be thousands.
LOOK_MOST = 100

_NO_LINE = 0  # no width


class Grant(NamedTuple):
    """Tasks that a worker is to be sent, in this order."""

    worker: str
    places: list[int]


class Recall(NamedTuple):
    """A worker holds tasks unstarted of which others could start up to `most` now."""

    worker: str
    most: int


class Broker:
    """The waiting tasks of one run and the leases of its workers."""

    def __init__(self) -> None:
        self._widths: list[int] = []
        self._holders: list[Holder] = []  # of each place: the worker that holds it, or none
        self._returned: set[int] = set()  # places that were handed out, and wait again since
        self._lines = Lines()
        self._repeats: set[int] = set()  # an attempt failed: they hurry, until they are settled
        self._suspects: set[int] = set()  # held by a worker that vanished: they travel singly
        self._loners: set[int] = set()  # to be run alone, until they are settled
        self._strays: set[int] = set()  # who held them may yet report, though it holds them no more
        self._alone: dict[int, str | None] = {}  # those of them that wait, each with the worker chosen for it
        self._search = False  # whether one may be found for them where there was none
        self._workers: dict[str, Leases] = {}
        self._hungry: dict[str, None] = {}  # workers that may want more, in the order they began to
        self._roomy: dict[str, None] = {}  # those with free cores
        self._blocked: dict[int, dict[str, None]] = {}  # by width, those with cores free, but too few for it
        self._laden: dict[str, None] = {}  # those that hold more than they can have begun, by their last news
        self._cores = 0  # of all workers
        self._halted = False
        self._pace = Pace()

    # -- tasks

    def push(self, widths: Sequence[int], done: Iterable[int] = ()) -> None:
        """Put tasks into line, behind the present ones: places count on from the last.

        Those whose places are among the `done` are never handed out.
        """
        first = len(self._widths)
        self._widths.extend(widths)
        self._holders.extend(itertools.repeat(WAITING, len(widths)))
        lines = widths  # each place's
        if settled := list(done):
            lines = marked = list(widths)
            for place in settled:
                self._holders[place] = SETTLED
                marked[place - first] = _NO_LINE
        for width, run in itertools.groupby(lines):
            after = first + len(list(run))
            if width != _NO_LINE:
                self._lines.push(range(first, after), width)
            first = after
        self._hungry.update(self._roomy)

    def again(self, place: int, *, suspect: bool = False, alone: bool = False) -> None:
        """Put a place back into line where it stood, for another attempt; who holds it makes an earlier one.

        A `suspect` one travels in a frame of its own; one that is to run `alone` is given to a worker that
        holds nothing else meanwhile, and others pass it by. Any other hurries.
        """
        if self._halted or self._holders[place] is WAITING:
            return
        if suspect:
            self._suspects.add(place)
        if alone:
            self._loners.add(place)
        self._repeats.add(place)
        self.take_away(place)

    def take_away(self, place: int) -> None:
        """Put a place back into line where it stood: who holds it makes an attempt that counts no more."""
        if self._holders[place] is WAITING:
            return
        if self._holders[place] is not SETTLED:  # rare: a worker that was given up before told of its attempt
            for name, worker in self._workers.items():
                if worker.holds(place):
                    self._drop(worker, [place])
                    self._strays.add(place)
                    self._weigh(name, worker)
                    break
        self._put_back(place)

    def withdraw(self, width: int | None = None) -> list[int]:
        """Take all waiting tasks of a width, or of all, out of the line; return their places in order."""
        found = self._lines.withdraw(width)
        for place in [place for place in self._alone if width in (None, self._widths[place])]:
            found.append(place)
            self._loners.discard(place)
            chosen = self._alone.pop(place)
            if chosen is not None:
                self._release(self._workers[chosen])
                self._hungry[chosen] = None
        for place in found:
            self._holders[place] = SETTLED
        self._hungry.update(self._roomy)
        return sorted(found)

    def halt(self) -> None:
        """Hand out nothing more, and forget what comes back unstarted."""
        self._halted = True
        self.withdraw()

    def waiting(self) -> dict[int, int]:
        """Return how many tasks wait, by width."""
        counts = self._lines.counts()
        for place in self._alone:
            counts[self._widths[place]] = counts.get(self._widths[place], 0) + 1
        return dict(sorted(counts.items()))

    @property
    def exhausted(self) -> bool:
        """Whether nothing waits in line; what is to run alone stands beside it."""
        return not self._lines.waiting

    def leased(self) -> int:
        """Return how many tasks workers hold."""
        return sum(worker.count for worker in self._workers.values())

    # -- workers

    def join(self, worker: str, cores: int, *, backfill: bool = False) -> None:
        """A worker is ready for tasks of up to `cores` cores.

        With `backfill` it may start narrow ones before a wide one, so it is given twice what it can start.
        """
        mine = Leases(cores, self._holders, self._widths, backfill=backfill)
        self._workers[worker] = mine
        self._cores += cores
        self._hungry[worker] = None
        self._weigh(worker, mine)

    def adopt(self, worker: str, places: Iterable[int]) -> None:
        """A worker has these tasks already, from before it was known here: those that wait are leased to it.

        All others are left as they are: another worker has them, or nobody need run them any more.
        """
        mine = self._workers[worker]
        for place in places:
            width = self._widths[place]
            if self._holders[place] is not WAITING or width > mine.cores:
                continue
            if place in self._alone:
                chosen = self._alone.pop(place)
                if chosen is not None:
                    self._release(self._workers[chosen])
                    self._hungry[chosen] = None
            else:
                self._lines.remove(place, width)
                self._wake(width)
            mine.hold([place], width, again=True)
            if place in self._loners:  # with what it has besides, but nothing more is given to it
                self._forsake(mine)
                mine.alone = place if mine.alone is None else mine.alone
        self._weigh(worker, mine)

    def drain(self, worker: str) -> None:
        """A worker takes no more tasks; what it holds it still ends or gives back."""
        mine = self._workers.get(worker)
        if mine is not None:
            mine.draining = True
            self._forsake(mine)
            self._weigh(worker, mine)

    def resume(self, worker: str) -> None:
        """A worker takes tasks again, after `drain`."""
        mine = self._workers.get(worker)
        if mine is not None:
            mine.draining = False
            self._hungry[worker] = None
            self._search = True
            self._weigh(worker, mine)

    def leave(self, worker: str) -> list[int]:
        """A worker is gone; return the places that it may have begun, in order: they are in line no more.

        It began what it held in strict order, by place or as it came, as its cores allowed; or in any order,
        if it backfills. What stood behind that is back in line, uncharged. It is suspect all the same: had
        something ended whose report died with the worker, then the next in line ran, and may be at fault.
        """
        gone = self._workers.pop(worker, None)
        if gone is None:
            return []
        self._forsake(gone)
        self._release(gone)
        self._cores -= gone.cores
        for known in (self._hungry, self._roomy, self._laden):
            known.pop(worker, None)
        held = list(gone)
        begun = {*held} if gone.backfill else {*gone.begun(sorted(held)), *gone.begun(held)}
        self._strays.update(held)  # it may come back
        for place in held:
            if place in begun:
                self._holders[place] = SETTLED  # until its owner decides
            else:
                self._suspects.add(place)
                self._put_back(place)
        return sorted(begun)

    def held(self, worker: str) -> list[int]:
        """Return the places that a worker holds, in order of their handing out."""
        return list(self._workers[worker])

    def count(self, worker: str) -> int:
        """Return how many places a worker holds."""
        return self._workers[worker].count

    def running(self, worker: str) -> int:
        """Return how many tasks a worker can have begun of those it holds."""
        mine = self._workers[worker]
        return mine.count if mine.load <= mine.cores else len(mine.begun(mine))

    def give_back(self, worker: str, places: Iterable[int], *, strays: bool = False) -> None:
        """A worker returns tasks that it did not start and never will.

        With `strays` that was only concluded: it may have them after all.
        """
        mine = self._workers.get(worker)
        if mine is None:
            return
        mine.recalled = False
        for place in places:
            if self._drop(mine, [place]):
                if strays:
                    self._strays.add(place)
                self._put_back(place)
        self._hungry[worker] = None
        self._weigh(worker, mine)

    def settle(self, worker: str, places: Sequence[int], seconds: float | None = None) -> int:
        """A worker ended these tasks, which are of one width, in `seconds` each; return how many it held.

        One that it does not hold (any more) stays where it is: what came too late may not be what the
        owner records, and a task that is run once too often does less harm than one that never is.
        """
        ended: list[int] = []
        mine = self._workers.get(worker)
        if mine is not None:
            ended = self._drop(mine, places)
            if self._repeats or self._suspects or self._loners:
                for known in (self._repeats, self._suspects, self._loners):
                    known.difference_update(ended)
            self._hungry[worker] = None
            self._weigh(worker, mine)
        if places:
            self._pace.learn(self._widths[places[0]], seconds)
        return len(ended)

    def can_have(self, place: int) -> bool:
        """Whether a worker that does not hold a place can have run its task, or have it still.

        Not if it waits and never did anything else, nor if it is with the first worker that was given it.
        """
        return self._holders[place] is SETTLED or place in self._strays

    # -- what to do

    def grants(self) -> list[Grant]:
        """Hand out what workers can take now."""
        grants = self._seat() if self._alone else []
        hungry = self._take_hungry()
        while hungry:
            woken = hungry
            while woken:
                grants += self._feed(woken, ahead=False)
                woken = self._take_hungry()
                hungry |= woken
            grants += self._feed(hungry, ahead=True)  # what one would only hold, nobody could start
            hungry = self._take_hungry()
        return grants

    def _take_hungry(self) -> dict[str, None]:
        hungry, self._hungry = self._hungry, {}
        return hungry

    def _feed(self, hungry: Iterable[str], *, ahead: bool) -> list[Grant]:
        """Hand out what these workers can take; those who waited behind it are hungry then."""
        grants: list[Grant] = []
        for name in hungry:
            if not self._lines.waiting:
                break
            mine = self._workers[name]
            if mine.draining or mine.alone is not None:
                continue
            before = len(grants)
            while (ahead or mine.load < mine.cores) and (places := self._next(name, mine, ahead)):
                grants.append(Grant(name, places))
            if len(grants) > before:
                self._weigh(name, mine)
        return grants

    def _seat(self) -> list[Grant]:
        """Choose workers for the places that are to run alone, and hand those out whose worker is empty.

        An empty worker is taken for each; of those that have work, only one at a time is let run empty, for
        its cores idle meanwhile.
        """
        grants: list[Grant] = []
        search, self._search = self._search, False
        for place in sorted(self._alone):
            chosen = self._alone[place] or self._choose(self._widths[place], search)
            if chosen is None:
                continue
            mine = self._workers[chosen]
            self._alone[place], mine.alone = chosen, place
            if not mine.count:
                del self._alone[place]
                mine.hold([place], self._widths[place], again=True)
                self._weigh(chosen, mine)
                grants.append(Grant(chosen, [place]))
        return grants

    def _choose(self, width: int, search: bool) -> str | None:
        """Return the worker that is to run a place of this width alone, or None: there is none at present.

        Without `search` only one that just became empty: it is hungry still.
        """
        empty = [n for n in self._hungry if not (mine := self._workers[n]).count and mine.takes(width)]
        if not empty and (not search or any(mine.alone is not None for mine in self._workers.values())):
            return None
        names = empty or [name for name, mine in self._workers.items() if mine.takes(width)]
        return min(
            names, key=lambda name: (self._workers[name].load, self._workers[name].cores), default=None
        )

    def _next(self, name: str, mine: Leases, ahead: bool) -> list[int]:
        """Take the next frame of places for a worker; [] if it has enough or there is none for it.

        Without `ahead` it is given only what it can start at once.
        """
        first = self._lines.first_for(mine.cores)
        if first is None:
            return []
        line, width, bound = first
        free = (mine.room if ahead else mine.cores) - mine.load
        startable = free // width if free > 0 else 0
        if not startable and mine.load < mine.cores:
            self._blocked.setdefault(width, {})[name] = None
        count = max(startable, self._ahead(mine, line, width, startable)) if ahead else startable
        if not startable and (self._repeats or self._suspects):
            head = line.head
            if head in self._suspects:
                return []
            if ahead and not count and head is not None and self._hurries(mine, head):
                mine.hurried |= {head}
                count = 1
        if not count:
            return []
        places = self._lines.take(line, min(count, FRAME_MOST), bound, self._suspects)
        again = bool(self._returned) and not self._returned.isdisjoint(places)
        mine.hold(places, width, again=again)
        if again:
            self._returned.difference_update(places)
        if bound is not None and ((head := line.head) is None or head > bound):
            self._wake(width)
        return places

    def _ahead(self, mine: Leases, line: Line, width: int, startable: int) -> int:
        """Return how many places of a line, of this width, a worker is given for the time after."""
        if self._pace.is_long(width, mine.cores) or self._pace.is_enough(mine.load, mine.cores):
            if mine.load <= mine.cores:  # of long calls nobody asks how many it has of which
                mine.forget_widths()
            return 0
        target, missing = self._pace.ahead(width, mine.cores, mine.widths)
        # Half of its part, as others may be faster; the last of it at once, so that it doesn't trickle.
        part = -(-len(line) * mine.cores // self._cores)
        share = max(-(-part // 2), min(part, 2 * mine.cores), self._pace.least_share(width))
        unstarted = max(0, mine.load - mine.cores) // width
        more = min(missing, share - unstarted, AHEAD_MOST - mine.count)
        # Topped up by quarters, so that tiny calls don't trickle one by one.
        return max(0, more) if startable or more * 4 >= min(target, share, AHEAD_MOST) else 0

    def _hurries(self, mine: Leases, place: int) -> bool:
        """Whether a place is given to a worker that has enough."""
        if place not in self._repeats or place in self._suspects:
            return False
        return mine.starts_next(place, self._widths[place])

    def recalls(self) -> list[Recall]:
        """Ask busy workers for what idle ones could start; for the tail, when little or nothing waits."""
        if not self._laden or not self._roomy:
            return []
        idle = [mine for name in self._roomy if (mine := self._workers[name]).alone is None]
        room = sum(mine.cores - mine.load for mine in idle)
        if not room or self._lines.first_for(max(mine.cores for mine in idle)) is not None:
            return []
        recalls: list[Recall] = []
        widest = max(mine.cores - mine.load for mine in idle)
        for name in self._laden:
            mine = self._workers[name]
            if room <= 0:
                break
            if mine.recalled or min(mine.widths) > widest:
                continue
            excess = mine.load - mine.cores
            most = unstarted = 0
            last_first = sorted(mine, reverse=True)  # as workers give back
            for unstarted, place in enumerate(last_first, 1):
                width = self._widths[place]
                excess -= width
                if width <= min(widest, room):
                    room -= width
                    most = unstarted
                if excess <= 0:
                    break
            if most:
                # Half of it at least: the last may be tiny, and each recall takes its time.
                recalls.append(Recall(name, max(most, unstarted // 2)))
                mine.recalled = True
        return recalls

    # -- parts

    def _put_back(self, place: int) -> None:
        """Put a place back into line where it stood, and wake who could take it."""
        self._holders[place] = SETTLED if self._halted else WAITING
        if self._halted:
            return
        self._returned.add(place)
        self._hungry.update(self._roomy)
        if place in self._loners:
            self._alone[place] = None
            self._search = True
            return
        self._lines.put_back(place, self._widths[place])
        if place in self._repeats:
            for name in itertools.islice(reversed(self._laden), LOOK_MOST):
                if self._hurries(self._workers[name], place):
                    self._hungry[name] = None
                    break

    def _wake(self, width: int) -> None:
        """Places of a width were taken: those they were too wide for may start what now stands before."""
        if self._blocked.get(width) and self._lines.narrower_first(width):
            for name in self._blocked.pop(width):
                if name in self._workers:
                    self._hungry[name] = None

    def _weigh(self, name: str, mine: Leases) -> None:
        """Note whether a worker has free cores, or more than it can have begun."""
        if mine.load < mine.cores and not mine.draining:
            self._roomy[name] = None
        else:
            self._roomy.pop(name, None)
        self._laden.pop(name, None)
        if mine.load > mine.cores:
            self._laden[name] = None

    def _drop(self, mine: Leases, places: Sequence[int]) -> list[int]:
        """A worker holds these places, of one width, no more; return those that it did."""
        dropped = mine.drop(places, self._widths[places[0]]) if places else []
        if mine.alone is not None and mine.alone in dropped and mine.alone not in self._alone:
            self._release(mine)
        return dropped

    def _forsake(self, mine: Leases) -> None:
        """Another worker is to be chosen for the waiting place that this one was kept for."""
        if mine.alone in self._alone:
            self._alone[mine.alone] = None
            self._release(mine)

    def _release(self, mine: Leases) -> None:
        """A worker is no longer kept for a place, nor runs one alone."""
        mine.alone = None
        self._search = True
