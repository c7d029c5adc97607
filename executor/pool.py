"""A worker's processes: which calls run now, on which cores, and what becomes of them.

The pool takes items in order, starts each as soon as its cores are free and never before one that stands
earlier in line, and gives their reports. Several small calls of one width go to a child as one batch; what
of it has not begun is taken back when the call before it turns out to be long.

One thread, no wait of its own: the owner waits with the pool's `ears`, among which its own descriptors may
be, for at most `patience()` seconds and then calls `step()`.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from executor import messages
from executor.batching import LINGER_SECONDS, SHARED_SECONDS, Batching
from executor.beginning import Begun
from executor.board import Done, read_done
from executor.children import Children, Spoke
from executor.cores import CoreSet
from executor.ears import Ears
from executor.errors import BadFrame, NoProcess
from executor.line import Entry, Line
from executor.memory import OutOfMemory, resident
from executor.messages import Buffer, Holding, Item, Report, rejected, share_out
from executor.packed import Packed, pack
from executor.process import STATUS_OF, Child

#: Seconds for which narrow calls may overtake a wide one that waits for its cores, with ``--backfill``.
PUT_OFF_SECONDS = 10.0

#: Seconds until it is looked again whether a child has begun what stands before the next in line.
_GLANCE_SECONDS = 0.001

#: Seconds between two looks at the memory of a call that has a limit.
MEMORY_SECONDS = 0.2

#: Seconds between two looks at what takes its time, those after which it is looked at by the way, and those
#: between two looks while much is printed.
_WATCH_SECONDS = 0.1
_WATCH_LEAST = 0.05
_PRINTING_SECONDS = 0.02

#: Children that wait for the first calls, at most. To make one takes 2 ms, one after the other, which is done
#: while a worker connects. No more, as a call may be as wide as all cores: then the others wait for nothing.
READY_MOST = 16

#: Deaths of fresh children that one item may cause before it began; then it is at fault itself.
STILLBORN_MOST = 3


class Finished(msgspec.Struct, frozen=True):
    """Reports of the pool, and the run that they belong to."""

    run: str
    reports: Packed


class Running(NamedTuple):
    """A call that runs now, since when (epoch seconds), and on which cores."""

    run: str
    place: int
    since: float
    cores: tuple[int, ...]


class Pool:
    """Runs calls in child processes on the cores of `cores`.

    `grace` is the seconds between SIGTERM and SIGKILL; with `backfill`, narrow calls may start before a
    wide one that waits for its cores. `allow` are patterns of the functions that it runs (see
    `executor.allow`); None: any. Reports wait up to `linger` seconds for others while there is more to run.
    `begun` is a guardian that waits already, see `executor.beginning`.
    """

    def __init__(
        self, cores: CoreSet, *, grace: float = 0.5, backfill: bool = False,
        allow: Sequence[str] | None = None, linger: float = LINGER_SECONDS,
        begun: Begun | None = None,
    ) -> None:  # fmt: skip
        self._cores = cores
        self._most = len(cores)
        self._linger = linger
        self._backfills = backfill
        self._put_off: tuple[Entry, float] | None = None  # who is overtaken, and since when
        #: What the owner waits with.
        self.ears = Ears()
        self._children = Children(self.ears, grace, allow, widest=len(cores), begun=begun)
        self._line = Line()
        self._pace = Batching()
        self._finished: list[Finished] = []
        self._busy: dict[Child, None] = {}  # that have cores, in the order in which they got them
        self._spoke: list[Child] = []  # of them, those that may want their next call since the last look
        self._looked_for: tuple[str, int] | None = None  # whose next call was looked for then; None: nobody's
        self._freed = False  # whether cores have become free since it was last looked what to start
        self._watched_at = self._watch_at = 0.0
        self._starved = OutOfMemory()
        self._children.prepare(min(READY_MOST, len(cores)))

    def patience(self) -> float | None:
        """Return after how many seconds `step` must be called even if nothing happens; None: never."""
        if self._children.pending or self._finished:
            return 0.0
        if not self._busy:
            return None
        return max(0.0, self._watch_at - time.monotonic())

    @property
    def idle(self) -> bool:
        """Whether it holds nothing at all."""
        return not (self._line or self._finished or self._busy)

    def finish(self, run: str) -> None:
        """A run is over, or left: end its children when what they run ends, for they know its code.

        Each run thus sees the code as it lies on disk when the run starts.
        """
        self._line.forget(run)
        for child in list(self._children):
            if child.run == run:
                child.worn = True
                if not child.busy:
                    self._children.end(child)

    def add(self, run: str, items: Sequence[Item], buffers: Sequence[Buffer]) -> None:
        """Take items of a run into the line, at their places."""
        shares = share_out(items, buffers) if buffers else {}
        most = self._most
        if items and self._line.was_passed(run, items[0].place):  # a child may have what stands behind it
            self._take_all_back()
        for item in items:
            if item.width > most:
                break
        else:
            self._line.add(run, items, shares)
            return
        for index, item in enumerate(items):  # the dispatcher knows better, unless it is not ours
            if item.width > most:
                text = f"{item.width} cores, but this worker has {most}"
                self._finished.append(Finished(run, pack([rejected(item, "TooWide", text)])))
            else:
                self._line.add(run, [item], {0: shares.get(index, ())})

    def recall(self, run: str, count: int | None = None) -> list[int]:
        """Give up to `count` unstarted calls back (None: all), the last in line first: their places."""
        self._take_all_back()
        return self._line.give_up(run, count)

    def cancel(self, run: str, places: Iterable[int] | None = None) -> list[int]:
        """Stop a run's calls (`places` None: all): running ones are killed and reported as cancelled.

        Return the places of those that had not begun and now never will.
        """
        chosen = None if places is None else set(places)

        def meant(entry: Entry) -> bool:
            return entry.run == run and (chosen is None or entry.item.place in chosen)

        self._take_all_back()
        dropped = self._line.drop(meant)
        for child in self._children:
            doomed = [entry for entry in child.entries.values() if meant(entry)]
            if any(entry not in child.condemned for entry in doomed):
                self._kill(child, "cancelled", doomed)
        return dropped

    def holding(self) -> Holding:
        """Return what is unfinished."""
        held: Holding = {}
        for entry in itertools.chain(*(child.entries.values() for child in self._children), self._line):
            attempts = held.setdefault(entry.run, {})
            attempts[entry.item.place] = max(entry.item.attempt, attempts.get(entry.item.place, 0))
        return held

    def running(self) -> list[Running]:
        """Return what runs now."""
        found = []
        for child in self._busy:
            current = child.current()
            if current is not None:
                entry, _, epoch = current
                found.append(Running(entry.run, entry.item.place, epoch, child.cores))
        return found

    def told(self) -> list[messages.Running]:
        """Return what runs now, as dispatchers are told of it."""
        now = time.monotonic()
        return [
            messages.Running(current[0].run, current[0].item.place, max(0.0, now - current[1]))
            for child in self._busy
            if (current := child.current()) is not None
        ]

    def step(self, told: Sequence[tuple[int, int]]) -> list[Finished]:
        """Do what there is to do without waiting; return what has finished since the last call.

        `told` is what `ears.wait` returned.

        Raises:
            NoProcess: the system refuses to make a process, and there is none to wait for.
        """
        if told or self._children.pending:
            for event in self._children.hear(told):
                if isinstance(event, Spoke):
                    self._listen(event.child, event.frames)
                else:
                    self._bury(event.child, event.status)
        now = time.monotonic()
        if now >= self._watch_at or now - self._watched_at > _WATCH_LEAST:
            self._watch(now)
        self._start(now)
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """Kill what runs, and end every process."""
        self._children.close()
        self.ears.close()

    # -- starting

    def _start(self, now: float) -> None:
        """Start what stands first in line for as long as there are cores for it."""
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
                self._watch_at = min(self._watch_at, now + _GLANCE_SECONDS)
                break
            cores = self._cores.take(width)
            try:
                child = self._children.find(self._line.first.run, cores)
            except NoProcess:
                self._cores.give(cores)
                if not self._busy:
                    raise
                break  # those that are there must do
            self._send(child, self._next_batch(width), cores, now)
        if self._freed and self._busy and self._cores.free:
            self._collect()
        self._freed = False
        self._look_ahead(now)

    def _collect(self) -> None:
        """Take what is reported on the boards: who has work for the free cores must know what has ended."""
        for child in self._busy:
            if len(child.entries) > 1:
                self._rescue(child)

    def _send(self, child: Child, batch: list[Entry], cores: tuple[int, ...], now: float) -> None:
        self._busy[child] = None
        self._spoke.append(child)
        linger = min(self._linger, self._pace.linger(len(cores)))
        self._children.send(child, batch, cores, pin=self._cores.pinned, linger=linger)
        if batch[0].item.timeout is not None:
            self._watch_at = min(self._watch_at, now + batch[0].item.timeout)

    def _look_ahead(self, now: float) -> None:
        """Give children what they run next, a batch to each in turn, so that they need not wait for it.

        Not behind a call that takes long: its successor would wait, while others overtake it.
        """
        spoke, self._spoke = self._spoke, []
        while self._line:
            first = self._line.first
            run, width = kind = first.run, first.item.width
            if not self._pace.looks_ahead(width):
                break
            # Those that have not spoken since were looked at for the like of it, and are none the readier.
            candidates = spoke if kind == self._looked_for else list(self._busy)
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

    def _is_slow(self, child: Child, now: float) -> bool:
        """Whether a child's present call takes much longer than others of its width did."""
        current = child.current()
        return current is not None and now - current[1] > self._pace.slow_after(len(child.cores))

    def _share(self, now: float) -> bool:
        """Take back what waits behind running calls, where free cores could start it; return if any was."""
        if not self._cores.free:
            return False
        back: list[Entry] = []
        for child in self._busy:
            width = len(child.cores)
            if (
                len(child.entries) < 2 or width > self._cores.free
            ):  # nothing waits, or there is no room for it
                continue
            count = child.unstarted() - (child.current() is None)  # one that just begins waits behind none
            if count > 0:
                if self._pace.is_much(width, count) or self._is_slow(child, now):
                    back += child.take_back()
                else:
                    self._watch_at = min(self._watch_at, now + SHARED_SECONDS)
        if back:
            self._put_back(back)
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
            len(child.cores) < width and child.entries and child.unstarted() for child in self._busy
        )

    def _next_batch(self, width: int) -> list[Entry]:
        """Take a batch from the line: equals in a row."""
        return self._line.take(self._pace.batch(width, len(self._line), self._most // width))

    def _take_all_back(self) -> None:
        """Put everything that has not begun back into the line."""
        self._put_back([entry for child in self._busy for entry in child.take_back()])

    def _put_back(self, entries: Iterable[Entry]) -> None:
        """Put entries that were given out back into the line."""
        self._line.put_back(entries)
        self._looked_for = None  # who gave them back may be ready for them again

    # -- hearing

    def _listen(self, child: Child, frames: Sequence[Sequence[Buffer]]) -> None:
        """Take a child's reports."""
        for frame in frames:
            try:
                done = self._checked(child, frame)
            except BadFrame:
                self._put_back(child.take_back())
                self._children.cut_off(child)
                return
            self._take(child, done, frame[1:])
            child.worn |= done.worn
            if child.worn and (done.batches or done.worn):
                self._put_back(child.take_back())
            for _ in range(done.batches):
                self._end_batch(child)
            if not child.batches and (child.worn or child.ending):
                self._children.end(child)

    def _end_batch(self, child: Child) -> None:
        """A child is done with a batch: what of it has not run does so elsewhere, if it still is to run."""
        back = []
        for entry in child.end_batch():
            if entry in child.condemned:
                self._fail(child, entry, None, None)
            else:
                back.append(entry)
        if back:
            self._put_back(back)
        if not child.batches:
            self._free(child)

    def _checked(self, child: Child, frame: Sequence[Buffer]) -> Done:
        """Return a frame of a child's, which is about its own calls.

        Raises:
            BadFrame: it is none.
        """
        done, reports = read_done(frame)
        for index, report in enumerate(reports, done.first):
            entry = child.entries.get(index)  # None: it was taken from the board already
            if entry is not None and entry.item.place != report.place:
                raise BadFrame(f"a report about place {report.place} in place of {entry.item.place}")
        if not 0 <= done.batches <= child.batches:
            raise BadFrame(f"the end of {done.batches} batches, where it has {child.batches}")
        return done

    def _take(self, child: Child, done: Done, buffers: Sequence[Buffer]) -> None:
        """Take a frame of reports, unread if that can be."""
        if not done.count:
            return
        last = done.first + done.count - 1
        there = done.first in child.entries and last in child.entries
        if child.condemned or not there:  # some may need other words, or were taken
            self._take_read(child, done.first, Packed(done.count, done.reports, buffers).each())
            return
        pop = child.entries.pop
        for index in range(done.first, done.first + done.count):
            pop(index, None)
        self._finish(child, Packed(done.count, done.reports, buffers), done.began, done.ended)

    def _take_read(
        self, child: Child, first: int, reports: Iterable[tuple[Report, Sequence[Buffer]]]
    ) -> None:
        """Take the reports of a child's entries from index `first` on, once each."""
        taken: list[Report] = []
        large: list[Buffer] = []
        for index, (report, buffers) in enumerate(reports, first):
            entry = child.entries.get(index)
            if entry is None or entry.item.place != report.place:  # taken already, or none of ours
                continue
            del child.entries[index]
            if (
                report.error and report.status == "error" and entry in child.condemned
            ):  # SIGTERM made it raise
                had = (report.finished or 0.0) - (report.started or 0.0)
                report.status = STATUS_OF[child.ending]
                report.error = (*child.sentence(entry, had), report.error[2])
            taken.append(report)
            large += buffers
        if taken:
            began = next((report.started for report in taken if report.started is not None), None)
            self._finish(child, pack(taken, large), began, taken[-1].finished)

    def _finish(self, child: Child, reports: Packed, began: float | None, ended: float | None) -> None:
        """Give reports of a child's calls, of which the first began then and the last ended."""
        assert child.run is not None
        self._spoke.append(child)
        self._finished.append(Finished(child.run, reports))
        if began is not None and ended is not None:
            self._pace.learn(len(child.cores), max(0.0, ended - began) / reports.count)

    def _free(self, child: Child) -> None:
        self._freed = True
        self._cores.give(child.cores)
        del self._busy[child]
        child.cores, child.batches = (), 0

    # -- ending

    def _kill(self, child: Child, why: str, condemned: Sequence[Entry], number: int = signal.SIGTERM) -> None:
        self._children.kill(child, why, condemned, number)
        self._watch_at = min(self._watch_at, child.kill_at)

    def _bury(self, child: Child, status: int | None) -> None:
        """A child is dead: take what it had reported, report what it ran, put back what it had not begun.

        A call that had begun when its child was killed for another is as good as not begun.
        """
        self._rescue(child)
        child.convict()
        current = child.current()
        back: list[Entry] = []
        for entry in child.entries.values():
            began = None if current is None or current[0] is not entry else current[1:]
            if entry in child.condemned or (began is not None and child.ending not in STATUS_OF):
                self._fail(child, entry, began, status)
            else:
                back.append(entry)
        if current is None and back and child.ending is None and status is not None:
            back[0].stillborn += 1  # it died before it began anything
            if back[0].stillborn >= STILLBORN_MOST:
                self._fail(child, back.pop(0), None, status)
        self._put_back(back)
        if child.cores:
            self._free(child)
        child.close()
        if child.ending in STATUS_OF:  # the next call finds a fresh child ready
            with contextlib.suppress(NoProcess):
                self._children.fork()

    def _fail(
        self, child: Child, entry: Entry, began: tuple[float, float] | None, status: int | None
    ) -> None:
        """Report a call that its process did not survive, and when it began, if it did, on both clocks."""
        starved = self._starved.lately() if status == -signal.SIGKILL else False
        report = child.obituary(entry, began, status or 0, starved=starved)
        self._finished.append(Finished(entry.run, pack([report])))

    def _rescue(self, child: Child) -> None:
        """Take the reports that stand on the child's board, waiting to be sent."""
        first, reports = child.board.unsent()
        self._take_read(child, first, ((report, ()) for report in reports))

    def _end_call(self, child: Child, entry: Entry, why: str, number: int = signal.SIGTERM) -> None:
        """Kill a child for what its present call does; what waits behind it goes elsewhere.

        Unless that call has just ended and the next one begun, which may take a signal for its own affair.
        """
        self._put_back(child.take_back())
        current = child.current()
        if current is not None and current[0] is entry:
            self._kill(child, why, (entry,), number)

    # -- watching

    def _watch(self, now: float) -> None:
        """Look after what takes time: timeouts, graces that are over, long calls in front of others."""
        wait = _WATCH_SECONDS
        self._starved.look(now)
        for child in self._busy:
            current = child.current()
            # What shorter calls print is taken at their end.
            if current is not None and now - current[1] > _PRINTING_SECONDS and child.bound_printed():
                wait = min(wait, _PRINTING_SECONDS)
            if child.ending is not None:
                wait = min(wait, self._children.insist(child, now))
                continue
            if current is None:
                continue
            # No sooner than need be: its like end about when such a look would come, on this very core.
            blocked_in = current[1] + self._pace.blocked_after(len(child.cores)) - now
            if blocked_in > 0:
                wait = min(wait, blocked_in)
            else:
                self._put_back(child.take_back())
                self._rescue(child)
            item = current[0].item
            if item.timeout is not None:
                left = current[1] + item.timeout - now
                if left <= 0:
                    self._end_call(child, current[0], "timeout")
                wait = min(wait, max(0.001, left))
            if item.memory is not None and child.ending is None:
                self._weigh(child, current[0], item.memory, now)
        self._watched_at, self._watch_at = now, now + wait

    def _weigh(self, child: Child, entry: Entry, limit: int, now: float) -> None:
        """Look at the memory that a call holds, now and then, and kill it beyond its limit."""
        if child.weighed is not entry:
            child.weighed, child.peak = entry, 0
        elif now < child.weigh_at:
            return
        child.peak = max(child.peak, resident(child.pid, enough=limit) if child.pid else 0)
        # To look closely takes long when it holds much, and must not keep the worker from all else.
        child.weigh_at = now + max(MEMORY_SECONDS, 10 * (time.monotonic() - now))
        if child.peak > limit:
            self._end_call(child, entry, "memory", signal.SIGKILL)  # it grows while one waits
