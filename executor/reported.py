"""What a child reports of its calls: checked against what it was given, and taken once.

A report may come twice, as it stands on the child's board until it is sent. What is taken is an entry of the
child's no more. The user's code runs there: nothing that it says is believed of calls that are not its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from executor.board import Done, read_done
from executor.errors import BadFrame
from executor.messages import Buffer, Report
from executor.packed import Packed, pack
from executor.process import STATUS_OF, Child

#: Reports, when the first of their calls began, and when the last of them ended; None: it never began.
Taken: TypeAlias = tuple[Packed, float | None, float | None]


def checked(child: Child, frame: Sequence[Buffer]) -> Done:
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


def take(child: Child, done: Done, buffers: Sequence[Buffer]) -> Taken | None:
    """Take a checked frame of reports, unread if that can be; None if there are none that were not taken."""
    if not done.count:
        return None
    last = done.first + done.count - 1
    there = done.first in child.entries and last in child.entries
    if child.condemned or not there:  # some may need other words, or were taken
        return _take_read(child, done.first, Packed(done.count, done.reports, buffers).each())
    pop = child.entries.pop
    for index in range(done.first, done.first + done.count):
        pop(index, None)
    return Packed(done.count, done.reports, buffers), done.began, done.ended


def take_shown(child: Child) -> Taken | None:
    """Take the reports that stand on the child's board, waiting to be sent; None if there are none."""
    first, reports = child.board.unsent()
    return _take_read(child, first, ((report, ()) for report in reports))


def _take_read(child: Child, first: int, reports: Iterable[tuple[Report, Sequence[Buffer]]]) -> Taken | None:
    """Take the reports of a child's entries from index `first` on, once each."""
    taken: list[Report] = []
    large: list[Buffer] = []
    for index, (report, buffers) in enumerate(reports, first):
        entry = child.entries.get(index)
        if entry is None or entry.item.place != report.place:  # taken already, or none of ours
            continue
        del child.entries[index]
        if report.error and report.status == "error" and entry in child.condemned:  # SIGTERM made it raise
            had = (report.finished or 0.0) - (report.started or 0.0)
            report.status = STATUS_OF[child.ending]
            report.error = (*child.sentence(entry, had), report.error[2])
        taken.append(report)
        large += buffers
    if not taken:
        return None
    began = next((report.started for report in taken if report.started is not None), None)
    return pack(taken, large), began, taken[-1].finished
