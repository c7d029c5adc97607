"""How far a run is, as one text; near its end with what still runs, where and for how long. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from executor.brief import call
from executor.task import Task
from executor.words import columns, duration, one_line, rate

if TYPE_CHECKING:
    from executor.screen import Summary

#: Calls that run while none waits: when there are no more, or none ends, they are named.
FEW = 20

#: How many calls are named at most.
NAMED_MOST = 16

#: Seconds between progress lines where there is no terminal: soon once, then rarely.
_FIRST_LINE, _LINES = 5.0, 30.0

#: Seconds until there is one when the end begins, and at least between it and the one before.
_TAIL_LINE, _APART = 2.0, 10.0

#: Columns of a call and of a worker's name: no more where there is room, and less only where it can't be.
_CALL_MOST, _CALL_LEAST = 40, 16
_WORKER_MOST, _WORKER_LEAST = 40, 8


class Lasting(NamedTuple):
    """A task that runs, on which worker, and for how many seconds it has."""

    task: Task
    worker: str
    seconds: float


class LineTimes:
    """When to say how far a run is that began at that moment, where there is no terminal."""

    def __init__(self, began: float) -> None:
        self._at = began + _FIRST_LINE
        self._soonest = self._at  # whatever happens
        self._tailed = False

    def due(self, now: float, *, tail: bool) -> bool:
        """Whether it is to be said now; `tail`: there are calls to be named, for the run's end is near."""
        if tail and not self._tailed:
            self._at = min(self._at, max(now + _TAIL_LINE, self._soonest))
        self._tailed = tail
        if now < self._at:
            return False
        self._at, self._soonest = now + _LINES, now + _APART
        return True


def progress_text(summary: Summary, running: int, per_second: float) -> str:
    """Return done, failed, running, rate and time left as one text."""
    parts = [f"{summary.done:,} of {summary.total:,} done"]
    if summary.failed:
        parts.append(f"{summary.failed:,} failed")
    parts.append(f"{running:,} running")
    if per_second > 0:
        parts.append(rate(per_second))
        left = (summary.total - summary.done) / per_second
        parts.append(f"{duration(math.ceil(left))} left")
    return ", ".join(parts)


def tail_text(summary: Summary, running: int, lasting: Sequence[Lasting], width: int) -> str:
    """Return what `progress_text` says of the end, where rate and time left mean nothing, in `width` columns.

    It names of the `running` calls those that run longest, `lasting`, the longest first, as many as fit.
    Where there is little room it leaves out first how many failed, then how many are done.
    """
    done = f"{summary.done:,} of {summary.total:,} done"
    runs = f"{running:,} running"
    heads = [f"{done}, {runs}", runs]
    if summary.failed:
        heads.insert(0, f"{done}, {summary.failed:,} failed, {runs}")
    needs = [_needed(each) for each in lasting]
    if lasting:
        heads = [head for head in heads if len(head) + 2 + needs[0] + _rest(running, 1) <= width] or [runs]
    else:
        heads = [head for head in heads if len(head) <= width] or [runs]
    room = width - len(heads[0])  # each entry has two columns before it
    named = min(1, len(needs))
    while (
        named < len(needs) and sum(needs[: named + 1]) + 2 * (named + 1) + _rest(running, named + 1) <= room
    ):
        named += 1
    spare = room - sum(needs[:named]) - 2 * named - _rest(running, named)
    entries = []
    for index, each in enumerate(lasting[:named]):
        share = spare // (named - index) if spare > 0 else spare
        entries.append(_entry(each, needs[index] + share))
        spare -= columns(entries[-1]) - needs[index]
    if _rest(running, named) and named:
        entries.append("…")
    return one_line(": ".join([heads[0], ", ".join(entries)] if entries else heads[:1]), width)


def _rest(running: int, named: int) -> int:
    """Return the columns of what tells that more run than are named."""
    return columns(", …") if running > named else 0


def _needed(each: Lasting) -> int:
    """Return the columns in which a running call can be read."""
    what = call(each.task.function, each.task.params, each.task.kwargs, _CALL_LEAST)
    return columns(what) + columns(_where(one_line(each.worker, _WORKER_MOST), each.seconds))


def _entry(each: Lasting, room: int) -> str:
    """Return a running call in so many columns: the call is shortened first, then the worker's name."""
    function, params, kwargs = each.task.function, each.task.params, each.task.kwargs
    least = columns(call(function, params, kwargs, _CALL_LEAST))
    left = room - least - columns(_where("", each.seconds))
    where = _where(one_line(each.worker, max(_WORKER_LEAST, min(_WORKER_MOST, left))), each.seconds)
    return call(function, params, kwargs, max(1, min(_CALL_MOST, room - columns(where)))) + where


def _where(worker: str, seconds: float) -> str:
    return f" on {worker} for {duration(round(seconds))}"
