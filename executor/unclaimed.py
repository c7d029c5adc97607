"""What a worker keeps of runs whose dispatcher is gone, until a run that continues them claims it. Pure.

A run is *left* when its dispatcher is gone. What had been reported of it, unrecorded, and what comes of the
calls that still run is kept, for so many seconds since it was left, and so many bytes of all runs together.
Then it is dropped: the oldest run goes first, and of the last one its oldest reports.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

import msgspec

from executor.messages import Holding
from executor.packed import Packed
from executor.words import plural, round_duration, size

#: What a report takes beyond its bytes on the wire, in a frame of its own.
REPORT_BYTES = 500


class Frame(msgspec.Struct, frozen=True):
    """Reports of a run on their way, with the number by which they are acknowledged."""

    run: str
    number: int
    reports: Packed


class _Left:
    """What is kept of one run."""

    __slots__ = ("at", "bytes", "forgotten", "frames")

    def __init__(self, at: float) -> None:
        self.at = at
        self.frames: deque[Frame] = deque()
        self.bytes = 0
        self.forgotten = False  # its time is over, and some of its calls still run

    @property
    def results(self) -> int:
        return count(self.frames)


class Dropped(NamedTuple):
    """Results that were dropped; `why` is the rest of a sentence that begins with them."""

    run: str
    results: int
    why: str

    def __str__(self) -> str:
        return f"dropped {plural(self.results, 'result')} of run {self.run}: {self.why}"


class Unclaimed:
    """Keeps for `seconds` after a run was left, and `most` bytes at most; where either is 0, nothing."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._runs: dict[str, _Left] = {}  # the one that was left first is first
        self._bytes = 0
        #: What was dropped, for the owner to say and to clear.
        self.dropped: list[Dropped] = []

    def leave(self, run: str, frames: Iterable[Frame], now: float) -> None:
        """A run's dispatcher is gone, which had not recorded these reports."""
        frames = list(frames)
        if not self._seconds or not self._most:
            self._say(run, count(frames), "nothing is kept (keep)")
            return
        left = _Left(now)
        left.frames.extend(self.claim(run))
        left.bytes = sum(map(_size, left.frames))
        self._bytes += left.bytes
        self._runs[run] = left
        for frame in frames:
            self.add(run, frame)

    def add(self, run: str, frame: Frame) -> None:
        """Keep reports of calls that ended after their run was left; those of any other run are nobody's."""
        left = self._runs.get(run)
        if left is None:
            return
        if left.forgotten:
            self._say(run, frame.reports.count, self._too_late())
            return
        left.frames.append(frame)
        left.bytes += _size(frame)
        self._bytes += _size(frame)
        self._shrink()

    def claim(self, run: str) -> list[Frame]:
        """Give what is kept of a run, and keep nothing more of it."""
        left = self._runs.pop(run, None)
        if left is None:
            return []
        self._bytes -= left.bytes
        return list(left.frames)

    def expire(self, now: float, running: Callable[[], Holding]) -> None:
        """Let time pass; `running` gives what still runs, of all runs."""
        if not self._runs:
            return
        due = [run for run, left in self._runs.items() if now >= left.at + self._seconds]
        if not any(not self._runs[run].forgotten for run in due):
            return
        held = running()
        for run in due:
            left = self._runs[run]
            self._say(run, left.results, self._too_late())
            self.claim(run)
            if held.get(run):  # and nobody will want to know what comes of it
                self._runs[run] = left
                left.forgotten = True
                left.frames.clear()
                left.bytes = 0

    def deadline(self) -> float | None:
        """Return when `expire` has something to do; None: never."""
        if not self._runs:
            return None
        ends = [left.at + self._seconds for left in self._runs.values() if not left.forgotten]
        return min(ends, default=None)

    def holding(self) -> Holding:
        """Return the places of what is kept, each with its latest attempt."""
        return named(itertools.chain.from_iterable(left.frames for left in self._runs.values()))

    def results(self) -> dict[str, int]:
        """Return how many results are kept of each run that may still be claimed, the oldest run first."""
        return {run: left.results for run, left in self._runs.items() if not left.forgotten}

    def _shrink(self) -> None:
        """Drop what is too much: of the run that was left last no more than must be."""
        *older, newest = self._runs
        for run in older:
            if self._bytes > self._most:
                self._drop(run, len(self._runs[run].frames))
        many = 0
        excess = self._bytes - self._most
        for frame in self._runs[newest].frames:
            if excess <= 0:
                break
            excess -= _size(frame)
            many += 1
        self._drop(newest, many)

    def _drop(self, run: str, many: int) -> None:
        """Drop the oldest frames of a run."""
        left = self._runs[run]
        frames = [left.frames.popleft() for _ in range(many)]
        freed = sum(map(_size, frames))
        left.bytes -= freed
        self._bytes -= freed
        self._say(run, count(frames), f"more than {size(self._most)} would be kept")

    def _too_late(self) -> str:
        return f"nobody continued it within {round_duration(self._seconds)}"

    def _say(self, run: str, results: int, why: str) -> None:
        if results:
            self.dropped.append(Dropped(run, results, why))


def count(frames: Iterable[Frame]) -> int:
    """Return how many reports are in these."""
    return sum(frame.reports.count for frame in frames)


def named(frames: Iterable[Frame]) -> Holding:
    """Return the places that reports are about, by run, each with its latest attempt."""
    found: Holding = {}
    for frame in frames:
        places = found.setdefault(frame.run, {})
        for place, attempt in frame.reports.attempts():
            places[place] = max(attempt, places.get(place, 0))
    return found


def merged(*holdings: Holding) -> Holding:
    """Return all places of these, each with its latest attempt."""
    found: Holding = {}
    for holding in holdings:
        for run, attempts in holding.items():
            places = found.setdefault(run, {})
            for place, attempt in attempts.items():
                places[place] = max(attempt, places.get(place, 0))
    return found


def _size(frame: Frame) -> int:
    return REPORT_BYTES * frame.reports.count + frame.reports.size
