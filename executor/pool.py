"""A worker's processes: which calls run now, on which cores, and what becomes of them.

The pool takes items in order, starts each as soon as its cores are free and never before one that stands
earlier in line, and gives their reports. Several small calls of one width go to a child as one batch; what
of it has not begun is taken back when the call before it turns out to be long.

One thread, no wait of its own: the owner selects on `fileno()` for at most `patience()` seconds and then
calls `step()`.
"""

from __future__ import annotations

import itertools
import os
import selectors
import signal
import time
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from executor.board import Done
from executor.child import read_printed
from executor.cores import CoreSet
from executor.guardian import DIED, FORKED, Guardian
from executor.memory import in_words, resident
from executor.messages import NIL, Buffer, Item, Report, rejected, share_out
from executor.process import BATCH_MOST, Child, Entry, death_in_words
from executor.task import MEMORY_LIMIT, Status

#: Seconds of work that a batch should hold: a wake-up of the worker costs well below a tenth of it.
BATCH_SECONDS = 0.004

#: A call that runs longer than this doesn't keep the rest of its batch waiting.
SLOW_SECONDS = 0.01

#: Seconds for which narrow calls may overtake a wide one that waits for its cores, with ``--backfill``.
PUT_OFF_SECONDS = 10.0

#: Seconds until it is looked again whether a child has begun what stands before the next in line.
_GLANCE_SECONDS = 0.001

#: Seconds between two looks at what takes its time.
_WATCH_SECONDS = 0.05

#: Deaths of fresh children that one item may cause before it began; then it is at fault itself.
STILLBORN_MOST = 3

_done = msgspec.msgpack.Decoder(Done)


#: What a call that is being killed for this reason ends as.
_STATUS_OF: dict[str | None, Status] = {"timeout": "timeout", "cancelled": "cancelled", "memory": "crashed"}

#: Seconds between two looks at the memory that a call holds, where it has a limit.
_MEMORY_SECONDS = 0.2


class Finished(NamedTuple):
    """A report of the pool, with the run it belongs to and the large buffers of its value."""

    run: str
    report: Report
    buffers: Sequence[Buffer]


class Running(NamedTuple):
    """A call that runs now, since when (epoch seconds), and on which cores."""

    run: str
    place: int
    since: float
    cores: tuple[int, ...]


class Pool:
    """Runs calls in child processes on the cores of `cores`.

    `grace` is the seconds between SIGTERM and SIGKILL; with `backfill`, narrow calls may start before a
    wide one that waits for its cores.
    """

    def __init__(self, cores: CoreSet, *, grace: float = 0.5, backfill: bool = False) -> None:
        self._cores = cores
        self._backfills = backfill
        self._put_off: tuple[Entry, float] | None = None  # who is overtaken, and since when
        self._grace = grace
        self._selector = selectors.DefaultSelector()
        self._children: dict[int, Child] = {}  # by slot, a number that is never used again
        self._by_pid: dict[int, Child] = {}
        self._slots = 0
        self._generation = 0
        self._queue: deque[Entry] = deque()
        self._pace: dict[int, float] = {}  # seconds a call takes, by width, as lately seen
        self._finished: list[Finished] = []
        self._watch_at = 0.0
        self._guardian = self._new_guardian()

    def fileno(self) -> int:
        """Return a descriptor that is readable when `step` has something to do."""
        return self._selector.fileno()

    def patience(self) -> float | None:
        """Return after how many seconds `step` must be called even if nothing happens; None: never."""
        if not any(child.busy for child in self._children.values()):
            return None
        return max(0.0, self._watch_at - time.monotonic())

    @property
    def idle(self) -> bool:
        """Whether it holds nothing at all."""
        return not self._queue and not self._finished and not any(c.busy for c in self._children.values())

    def begin(self, run: str) -> None:
        """A new run begins: replace the children of earlier ones, so that it sees the code on disk."""
        self._generation += 1
        for child in list(self._children.values()):
            if not child.busy:
                self._end(child)

    def add(self, run: str, items: Sequence[Item], buffers: Sequence[Buffer]) -> None:
        """Take items of a run into the line, at their places."""
        shares = share_out(items, buffers)
        queue = self._queue
        for index, item in enumerate(items):
            entry = Entry(run, item, shares.get(index, ()))
            if item.width > len(self._cores):  # the dispatcher knows better, unless it is not one of ours
                text = f"{item.width} cores, but this worker has {len(self._cores)}"
                self._finished.append(Finished(run, rejected(item, "Rejected", text), ()))
            elif queue and queue[-1].run == run and queue[-1].item.place > item.place:
                self._insert(entry)
            else:
                queue.append(entry)

    def _insert(self, entry: Entry) -> None:
        """Put an entry before those of its run that stand later in order."""
        for position, other in enumerate(self._queue):
            if other.run == entry.run and other.item.place > entry.item.place:
                self._queue.insert(position, entry)
                return
        self._queue.append(entry)

    def recall(self, run: str, count: int | None = None) -> list[int]:
        """Give up to `count` unstarted calls back (None: all), the last in line first: their places."""
        self._line_up(back for child in self._children.values() for back in child.take_back())
        places: list[int] = []
        kept: list[Entry] = []
        while self._queue and (count is None or len(places) < count):
            entry = self._queue.pop()
            if entry.run == run:
                places.append(entry.item.place)
            else:
                kept.append(entry)
        self._queue.extend(reversed(kept))
        return places

    def cancel(self, run: str, places: Iterable[int] | None = None) -> list[int]:
        """Stop a run's calls (`places` None: all): running ones are killed and reported as cancelled.

        Return the places of those that had not begun and now never will.
        """
        chosen = None if places is None else set(places)

        def meant(entry: Entry) -> bool:
            return entry.run == run and (chosen is None or entry.item.place in chosen)

        self._line_up(back for child in self._children.values() for back in child.take_back())
        dropped = [entry.item.place for entry in self._queue if meant(entry)]
        self._queue = deque(entry for entry in self._queue if not meant(entry))
        for child in self._children.values():
            if child.batch and child.received < len(child.batch) and meant(child.batch[-1]):
                self._kill(child, "cancelled")
        return dropped

    def holding(self) -> dict[str, list[int]]:
        """Return the places of what is unfinished, by run."""
        held: dict[str, list[int]] = {}
        for entry in self._queue:
            held.setdefault(entry.run, []).append(entry.item.place)
        for child in self._children.values():
            for entry in child.batch[child.received :]:
                held.setdefault(entry.run, []).append(entry.item.place)
        return held

    def running(self) -> list[Running]:
        """Return what runs now."""
        found = []
        for child in self._children.values():
            index, _, epoch = child.board.running()
            if child.received <= index < len(child.batch):
                entry = child.batch[index]
                found.append(Running(entry.run, entry.item.place, epoch, child.cores))
        return found

    def step(self) -> list[Finished]:
        """Do what there is to do without waiting; return what has finished since the last call."""
        for key, events in self._selector.select(0):
            child = key.data
            if child is None:
                self._hear_guardian()
            elif not child.dead:
                if events & selectors.EVENT_WRITE:
                    self._flush(child)
                if events & selectors.EVENT_READ:
                    self._receive(child)
        now = time.monotonic()
        if now >= self._watch_at:
            self._watch(now)
        self._start()
        finished, self._finished = self._finished, []
        return finished

    def close(self) -> None:
        """Kill what runs, and end every process."""
        self._guardian.close()
        for child in self._children.values():
            child.close()
        self._children.clear()
        self._selector.close()

    # -- starting

    def _start(self) -> None:
        """Start what stands first in line for as long as there are cores for it."""
        while self._queue:
            now = time.monotonic()
            width = self._queue[0].item.width
            if width > self._cores.free:
                if not self._backfill(now):
                    return
                width = self._queue[0].item.width
            elif self._put_off is not None:
                self._put_off = None
            if not self._may_pass(width):
                self._watch_at = min(self._watch_at, now + _GLANCE_SECONDS)
                return
            batch = self._next_batch(width)
            cores = self._cores.take(width)
            child = self._idle_child(cores)
            try:
                child.send(batch, cores, pin=self._cores.pinned)
            except OSError:  # it died a moment ago: its burial puts the batch back into the line
                pass
            if child.channel.unsent and not child.dead:
                self._selector.modify(child.channel, selectors.EVENT_READ | selectors.EVENT_WRITE, child)
            self._watch_at = min(self._watch_at, now + SLOW_SECONDS)

    def _backfill(self, now: float) -> bool:
        """Bring a narrow call that fits now before the first in line, which does not; return whether one is.

        The first in line is put off for `PUT_OFF_SECONDS` at most: then its cores are let run empty.
        """
        if not self._backfills or not self._cores.free:
            return False
        if self._put_off is None or self._put_off[0] is not self._queue[0]:
            self._put_off = (self._queue[0], now)
        elif now - self._put_off[1] > PUT_OFF_SECONDS:
            return False
        for position, entry in enumerate(itertools.islice(self._queue, 1, 1000), 1):
            if entry.item.width <= self._cores.free:
                del self._queue[position]
                self._queue.appendleft(entry)
                return True
        return False

    def _may_pass(self, width: int) -> bool:
        """Whether no narrower call that was given to a child is still unstarted there."""
        return not any(
            0 < len(child.cores) < width and child.unstarted() > 0 for child in self._children.values()
        )

    def _next_batch(self, width: int) -> list[Entry]:
        """Take a batch from the line: as many equals in a row as make up BATCH_SECONDS, fairly shared."""
        pace = self._pace.get(width)
        most = 1
        if pace is not None and pace < BATCH_SECONDS:
            fair = -(-len(self._queue) // max(1, len(self._cores) // width))
            most = min(BATCH_MOST, int(BATCH_SECONDS / max(pace, 1e-6)), fair)
        first = self._queue.popleft()
        batch = [first]
        while len(batch) < most and self._queue:
            entry = self._queue[0]
            if entry.item.width != width or entry.run != first.run:
                break
            batch.append(self._queue.popleft())
        return batch

    def _idle_child(self, cores: tuple[int, ...]) -> Child:
        """Return an idle child, one that is pinned to these cores already if there is one."""
        found = None
        for child in self._children.values():
            if child.generation == self._generation and not (child.busy or child.dead or child.ending):
                if child.last_cores == cores:
                    return child
                if found is None or (len(child.last_cores) == len(cores) != len(found.last_cores)):
                    found = child
        return found or self._fork()

    def _fork(self) -> Child:
        self._slots += 1
        child = Child(self._guardian, self._slots, self._generation)
        self._children[child.slot] = child
        self._selector.register(child.channel, selectors.EVENT_READ, child)
        return child

    def _line_up(self, entries: Iterable[Entry]) -> None:
        """Put entries that were given out back to the front of the line, in order."""
        back: list[Entry] = []
        for entry in entries:
            insort(back, entry, key=lambda e: e.item.place)
        self._queue.extendleft(reversed(back))

    # -- hearing

    def _flush(self, child: Child) -> None:
        try:
            child.channel.flush()
        except OSError:  # dead: the guardian says so next
            child.dead = True
        if child.dead or not child.channel.unsent:
            self._selector.modify(child.channel, selectors.EVENT_READ, child)

    def _receive(self, child: Child) -> None:
        """Take a child's reports."""
        try:
            frames = child.channel.receive()
        except OSError:
            frames = None
        if frames is None:  # dead or dying: the guardian tells how
            child.dead = True
            self._selector.unregister(child.channel)
            return
        for frame in frames:
            done = _done.decode(frame[0])
            self._take(child, done.first, done.reports, frame[1:])
            if done.last:
                self._free(child)
                if done.worn or child.ending or child.generation != self._generation:
                    self._end(child)

    def _take(
        self, child: Child, first: int, reports: Sequence[Report], buffers: Sequence[Buffer] = ()
    ) -> None:
        """Take the reports of the batch's items from index `first` on, once each."""
        shares = share_out(reports, buffers)
        fresh = [(i, report) for i, report in enumerate(reports) if first + i >= child.received]
        if not fresh:
            return
        for i, report in fresh:
            if child.ending in _STATUS_OF and report.status == "error":  # our SIGTERM made it raise
                report.status = _STATUS_OF[child.ending]
            run = child.batch[first + i].run
            self._finished.append(Finished(run, report, shares.get(i, ())))
        child.received = first + len(reports)
        began, ended = fresh[0][1].started, fresh[-1][1].finished
        if began is not None and ended is not None:
            pace = max(0.0, ended - began) / len(fresh)
            width = len(child.cores)
            old = self._pace.get(width)
            self._pace[width] = pace if old is None else (old + pace) / 2

    def _free(self, child: Child) -> None:
        self._cores.give(child.cores)
        child.cores, child.batch, child.received = (), [], 0

    def _hear_guardian(self) -> None:
        records = self._guardian.receive()
        if records is None:
            self._replace_guardian()
            return
        for what, first, second in records:
            if what == FORKED:
                child = self._children[first]
                child.pid = second
                self._by_pid[second] = child
                if child.ending is not None:  # decided before its number was known
                    self._kill(child, child.ending)
            elif what == DIED:
                self._bury(self._by_pid.pop(first), second)

    def _new_guardian(self) -> Guardian:
        guardian = Guardian()
        self._selector.register(guardian.sock, selectors.EVENT_READ, None)
        return guardian

    def _replace_guardian(self) -> None:
        """Somebody killed the guardian; its children died with it."""
        self._selector.unregister(self._guardian.sock)
        for child in self._children.values():
            if child.pid:
                try:
                    os.killpg(child.pid, signal.SIGKILL)
                except OSError:
                    pass
        self._guardian.close()
        self._by_pid.clear()
        self._guardian = self._new_guardian()
        for child in list(self._children.values()):
            self._bury(child, -signal.SIGKILL)

    # -- ending

    def _end(self, child: Child) -> None:
        """End an idle child."""
        self._kill(child, "replaced", signal.SIGKILL)

    def _kill(self, child: Child, why: str, number: int = signal.SIGTERM) -> None:
        """Begin to kill a child; SIGKILL follows after the grace."""
        child.ending = why
        child.kill_at = time.monotonic() + self._grace
        self._watch_at = min(self._watch_at, child.kill_at)
        if child.pid:
            try:
                self._guardian.signal(child.pid, number)
            except OSError:  # the guardian is gone, which the next step finds
                pass

    def _bury(self, child: Child, status: int) -> None:
        """A child is dead: take what it had reported, report what it ran, put back what it had not begun."""
        while not child.dead:
            before = child.received
            self._receive(child)
            if child.received == before and not child.dead:
                child.dead = True
                self._selector.unregister(child.channel)
        del self._children[child.slot]
        if child.batch:
            self._rescue(child)
            index, since, epoch = child.board.running()
            back = child.batch[max(index + 1, child.received) :]
            if child.received <= index < len(child.batch):
                self._fail(child, child.batch[index], status, since, epoch)
            elif back and child.ending is None:  # it died before it began anything
                back[0].stillborn += 1
                if back[0].stillborn >= STILLBORN_MOST:
                    self._fail(child, back.pop(0), status)
            self._line_up(back)
        if child.cores:
            self._free(child)
        child.close()
        if child.ending not in (None, "replaced"):
            self._fork()  # the next call finds a fresh child ready

    def _fail(
        self,
        child: Child,
        entry: Entry,
        status: int,
        since: float | None = None,
        epoch: float | None = None,
    ) -> None:
        """Report a call that its process did not survive, begun at `since` and `epoch` if it was."""
        item = entry.item
        kind: Status = "crashed"
        name, text = "Crashed", death_in_words(status, ours=child.ending is not None)
        if child.ending == "memory":
            limit, peak = in_words(item.memory or 0), in_words(child.peak)
            kind, name, text = "crashed", MEMORY_LIMIT, f"killed because it held {peak}; its limit is {limit}"
        elif child.ending == "timeout" and since is not None:
            had = time.monotonic() - since
            kind, name, text = (
                "timeout",
                "Timeout",
                f"killed after {had:.3g} s; its timeout is {item.timeout:g} s",
            )
        elif child.ending == "cancelled":
            kind, name, text = "cancelled", "Cancelled", "killed because its run was cancelled"
        report = Report(
            item.place,
            item.attempt,
            kind,
            NIL,
            error=(name, text, ""),
            cores=child.cores,
            started=epoch,
            finished=None if epoch is None else time.time(),
            stdout=read_printed(child.stdout, os.fstat(child.stdout).st_size),
            stderr=read_printed(child.stderr, os.fstat(child.stderr).st_size),
        )
        self._finished.append(Finished(entry.run, report, ()))

    def _rescue(self, child: Child) -> None:
        """Take the reports that stand on the child's board, waiting to be sent."""
        first, reports = child.board.unsent()
        self._take(child, first, reports)

    # -- watching

    def _watch(self, now: float) -> None:
        """Look after what takes time: timeouts, graces that are over, long calls in front of others."""
        wait = _WATCH_SECONDS
        for child in self._children.values():
            if not child.busy:
                continue
            child.bound_printed()
            index, since, _ = child.board.running()
            if child.ending is not None:
                if now >= child.kill_at and child.pid:
                    self._kill(child, child.ending, signal.SIGKILL)
                wait = min(wait, max(0.001, child.kill_at - now))
                continue
            if len(child.batch) > 1:
                wait = min(wait, SLOW_SECONDS)
            if not child.received <= index < len(child.batch):
                continue
            if len(child.batch) > 1 and now - since > SLOW_SECONDS:
                self._line_up(child.take_back())
                self._rescue(child)
            timeout = child.batch[index].item.timeout
            if timeout is not None:
                left = since + timeout - now
                if left <= 0:
                    self._line_up(child.take_back())
                    self._kill(child, "timeout")
                    wait = min(wait, self._grace)
                wait = min(wait, max(0.001, left))
            limit = child.batch[index].item.memory
            if limit is not None and child.ending is None and child.pid:
                child.peak = max(child.peak, resident(child.pid))
                if child.peak > limit:
                    self._line_up(child.take_back())
                    self._kill(child, "memory", signal.SIGKILL)  # it grows while one waits
                wait = min(wait, _MEMORY_SECONDS)
        self._watch_at = now + wait
