"""A worker's processes: what is to run, and what becomes of it.

The pool takes items in order, has them started (`executor.starting`) and gives their reports, those that
their children sent (`executor.reported`) and its own about calls that their processes did not survive. What
takes too long, or too much memory, it kills.

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
from executor.batching import LINGER_SECONDS, Batching
from executor.beginning import Begun
from executor.children import Children, Spoke
from executor.cores import CoreSet
from executor.ears import Ears
from executor.errors import BadFrame, NoProcess
from executor.line import Entry, Line
from executor.memory import OutOfMemory, resident
from executor.messages import Buffer, Holding, Item, rejected, share_out
from executor.packed import Packed, pack
from executor.process import STATUS_OF, Child
from executor.reported import Taken, checked, take, take_shown
from executor.starting import Starting

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
        #: What the owner waits with.
        self.ears = Ears()
        self._most = len(cores)
        self._children = Children(self.ears, grace, allow, widest=len(cores), begun=begun)
        self._line = Line()
        self._pace = Batching()
        self._starting = Starting(
            self._line, self._children, cores, self._pace, backfill=backfill, linger=linger
        )
        self._finished: list[Finished] = []
        self._watched_at = self._watch_at = 0.0
        self._starved = OutOfMemory()
        self._children.prepare(min(READY_MOST, len(cores)))

    def patience(self) -> float | None:
        """Return after how many seconds `step` must be called even if nothing happens; None: never."""
        if self._children.pending or self._finished:
            return 0.0
        if not self._starting.busy:
            return None
        return max(0.0, self._watch_at - time.monotonic())

    @property
    def idle(self) -> bool:
        """Whether it holds nothing at all."""
        return not (self._line or self._finished or self._starting.busy)

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
            self._starting.take_all_back()
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
        self._starting.take_all_back()
        return self._line.give_up(run, count)

    def cancel(self, run: str, places: Iterable[int] | None = None) -> list[int]:
        """Stop a run's calls (`places` None: all): running ones are killed and reported as cancelled.

        Return the places of those that had not begun and now never will.
        """
        chosen = None if places is None else set(places)

        def meant(entry: Entry) -> bool:
            return entry.run == run and (chosen is None or entry.item.place in chosen)

        self._starting.take_all_back()
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
        for child in self._starting.busy:
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
            for child in self._starting.busy
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
        if self._starting.start(now):
            self._collect()
        self._starting.look_ahead(now)
        if self._starting.look_at < self._watch_at:
            self._watch_at = self._starting.look_at
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """Kill what runs, and end every process."""
        self._children.close()
        self.ears.close()

    # -- hearing

    def _collect(self) -> None:
        """Take what is reported on the boards: who has work for the free cores must know what has ended."""
        for child in self._starting.busy:
            if len(child.entries) > 1:
                self._rescue(child)

    def _listen(self, child: Child, frames: Sequence[Sequence[Buffer]]) -> None:
        """Take a child's reports."""
        for frame in frames:
            try:
                done = checked(child, frame)
            except BadFrame:
                self._starting.put_back(child.take_back())
                self._children.cut_off(child)
                return
            if (taken := take(child, done, frame[1:])) is not None:
                self._finish(child, taken)
            child.worn |= done.worn
            if child.worn and (done.batches or done.worn):
                self._starting.put_back(child.take_back())
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
            self._starting.put_back(back)
        if not child.batches:
            self._starting.free(child)

    def _finish(self, child: Child, taken: Taken) -> None:
        """Give reports of a child's calls."""
        reports, began, ended = taken
        assert child.run is not None
        self._starting.spoke.append(child)
        self._finished.append(Finished(child.run, reports))
        if began is not None and ended is not None:
            self._pace.learn(len(child.cores), max(0.0, ended - began) / reports.count)

    def _rescue(self, child: Child) -> None:
        """Take the reports that stand on the child's board, waiting to be sent."""
        if (taken := take_shown(child)) is not None:
            self._finish(child, taken)

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
        self._starting.put_back(back)
        if child.cores:
            self._starting.free(child)
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

    def _end_call(self, child: Child, entry: Entry, why: str, number: int = signal.SIGTERM) -> None:
        """Kill a child for what its present call does; what waits behind it goes elsewhere.

        Unless that call has just ended and the next one begun, which may take a signal for its own affair.
        """
        self._starting.put_back(child.take_back())
        current = child.current()
        if current is not None and current[0] is entry:
            self._kill(child, why, (entry,), number)

    # -- watching

    def _watch(self, now: float) -> None:
        """Look after what takes time: timeouts, graces that are over, long calls in front of others."""
        wait = _WATCH_SECONDS
        self._starved.look(now)
        for child in self._starting.busy:
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
                self._starting.put_back(child.take_back())
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
