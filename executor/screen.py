"""What a dispatcher shows: a line for each result, progress, and the summary.

Everything is text from plain numbers; only `Screen` knows of streams and terminals.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from executor.brief import brief, call
from executor.cores import named
from executor.errors import OutputFailed
from executor.progress import FEW, Lasting, LineTimes, progress_text, tail_text
from executor.streams import complain, nowhere
from executor.task import Result, Task
from executor.words import columns, duration, one_line, plural, rate

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

#: Terminals that can't draw a bar, Emacs's shell for one, where rich would show nothing at all.
_NO_BARS = ("dumb", "unknown")

#: Characters of the names of cores and workers on a result's line; on a narrow terminal there are fewer.
_WIDEST = 24

#: Lines of a message in the summary: as much as a remedy takes on a narrow terminal.
_MESSAGE_LINES = 4

#: Characters of a value or a message on a line that no terminal bounds.
_PIPED_WIDTH = 400

#: Columns of the progress bar, and those of a terminal that has room for it beside what runs near the end.
_BAR, _WIDE = 20, 120

#: How many of the calls that run longest a progress line names, where no terminal bounds it.
_NAMED = 3


class ResultLines:
    """The lines of results, below one another: a column grows with the longest entry that it had so far."""

    def __init__(self) -> None:
        self._cores, self._worker = len("cores 0-1"), len("local-1")

    def line(self, result: Result, width: int) -> str:
        """Return the line of a result: how it ended, how long it took, on what, and what came of it."""
        if result.started is not None and result.finished is not None:
            took = duration(max(0.0, result.finished - result.started))
        else:
            took = "-"
        most = min(_WIDEST, width // 5)
        cores = one_line(named(result.cores) if result.cores else "-", most)
        worker = one_line(result.worker or "-", most)
        self._cores, self._worker = max(self._cores, len(cores)), max(self._worker, len(worker))
        head = f"{result.status:<9} {took:>8}  {cores:<{self._cores}}  {worker:<{self._worker}}  "
        left = max(20, width - len(head))
        if result.error is None:
            came = " = " + brief(result.value, max(10, left // 2))
        else:
            came = one_line(f": {result.error.type}: {result.error.message}", max(10, left * 2 // 3))
        what = call(result.function, result.params, result.kwargs, max(10, left - columns(came)))
        if result.error is not None:  # what the call left free
            came = one_line(f": {result.error.type}: {result.error.message}", width)
        return one_line(f"{head}{what}{came}", width)


class Summary:
    """Adds up a run's results; `total` are to come, and those of `before` were recorded by earlier runs."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.before: Mapping[str, int] = {}  # by status
        self.counts: dict[str, int] = {}
        self.core_seconds = 0.0
        self._within = 0.0  # core-seconds since the run began: a resumed run takes what began before it
        self.unwritten = 0  # of these results
        self.cores = 0  # the most that workers had at once
        self._failures: dict[tuple[str, str, str], tuple[int, str]] = {}

    def add(self, results: Sequence[Result]) -> None:
        """Count results of one run."""
        spent = late = 0.0
        submitted = (results[0].submitted or 0.0) if results else 0.0
        for result in results:
            began, ended = result.started, result.finished
            if began is not None and ended is not None and ended > began:
                spent += (ended - began) * result.resources
                if began < submitted:
                    late += (min(ended, submitted) - began) * result.resources
            if result.error is not None:
                key = (result.status, result.error.type, result.error.message)
                count, first = self._failures.get(key, (0, result.id))
                self._failures[key] = (count + 1, first)
        self.core_seconds += spent
        self._within += spent - late
        statuses = [result.status for result in results]
        for status in set(statuses):
            self.counts[status] = self.counts.get(status, 0) + statuses.count(status)

    @property
    def done(self) -> int:
        """How many results there are."""
        return sum(self.counts.values())

    @property
    def failed(self) -> int:
        """How many of them are not ok."""
        return self.done - self.counts.get("ok", 0)

    @property
    def all_ok(self) -> bool:
        """Whether all results are there and ok, those of before included."""
        return self.counts.get("ok", 0) == self.total and not self.before.keys() - {"ok"}

    def lines(self, wall: float, width: int, most: int = 10) -> list[str]:
        """Return the summary's lines, `wall` seconds after the first worker was there."""
        lines = [_counted(self.counts, self.total)]
        if self.unwritten:
            lines[0] += f"; {self.unwritten:,} of these could not be written"
        if self.before:
            before = sum(self.before.values())
            together = Counter(self.before)
            together.update(self.counts)
            lines.append(f"with those recorded before: {_counted(together, before + self.total)}")
        if self.done:
            speed = rate(self.done / wall) if wall > 0 else "-"
            spent = f"{self.core_seconds:,.0f}" if self.core_seconds >= 99.5 else f"{self.core_seconds:.3g}"
            text = f"{duration(wall)} wall time, {speed}, {spent} core-seconds"
            if self.cores and wall > 0:
                used = self._within / (wall * self.cores)
                text += f", efficiency {used:.0%} of {plural(self.cores, 'core')}"
            lines.append(text)
        failures = sorted(self._failures.items(), key=lambda item: -item[1][0])
        digits = len(f"{failures[0][1][0]:,}") if failures else 0
        for (status, kind, message), (count, first) in failures[:most]:
            mark = f"  {count:>{digits},} × "
            told = _wrapped(f"{kind}: {message}", max(20, width - len(mark)))
            for line in (*told, f"{status}, first {first}"):
                lines.append(mark + line)
                mark = " " * len(mark)
        if len(failures) > most:
            rest = sum(count for _, (count, _) in failures[most:])
            lines.append(f"  {rest:,} more, of {plural(len(failures) - most, 'other kind')}")
        return lines


def _counted(counts: Mapping[str, int], total: int) -> str:
    head = f"{sum(counts.values()):,} of {plural(total, 'task')} done"
    told = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items(), key=_ok_first))
    return f"{head}: {told}" if told else head


def _wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text of at most `width` columns each; of a long one, its beginning."""
    text = one_line(text, _MESSAGE_LINES * width)
    if columns(text) > len(text):
        width //= 2
    return textwrap.wrap(text, width, max_lines=_MESSAGE_LINES, placeholder=" …")


def _ok_first(item: tuple[str, int]) -> tuple[bool, str]:
    return item[0] != "ok", item[0]


class Screen:
    """Shows a run: results on `out`, everything else on stderr.

    `out` None shows no result lines; `quiet` also no progress. A progress bar appears when stderr is a
    terminal, else a line now and then. A stream that can't be written is given up, and the run goes on: a
    reader that went away is no error, and `unwritten` says why stdout could not be written else.
    """

    def __init__(self, summary: Summary, out: TextIO | None, *, quiet: bool) -> None:
        self._summary = summary
        self._out = None if quiet else out
        self._lines = ResultLines()
        self._quiet = quiet
        self.unwritten = ""
        self._terminal = sys.stderr.isatty() and os.environ.get("TERM") not in _NO_BARS
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        self._began = time.monotonic()
        self._times = LineTimes(self._began)
        self._columns: tuple[ProgressColumn, ...] = ()
        self._marks: list[tuple[float, int]] = []  # (when, done): the rate is that of the last seconds

    def say(self, text: str) -> None:
        """Say a line to the user, on stderr."""
        if self._progress is None:
            complain(text)
            return
        try:
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        except OSError:  # the terminal is gone
            nowhere(sys.stderr)

    @property
    def shows_results(self) -> bool:
        """Whether `result` shows anything."""
        return self._out is not None

    def result(self, result: Result) -> None:
        """Show a result."""
        if self._out is None:
            return
        if self._out.isatty():
            line = self._lines.line(result, shutil.get_terminal_size().columns)
        else:
            line = self._lines.line(result, _PIPED_WIDTH)
        try:
            if self._progress is not None and self._out.isatty():
                self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                self._out.write(line + "\n")
        except OSError as error:
            self._give_up(self._out, error)

    def _give_up(self, out: TextIO, error: OSError) -> None:
        """Go on without the lines: nobody reads them any more (``| head``), or the disk is full."""
        nowhere(out)
        self._out = None
        if out is sys.stdout and not isinstance(error, BrokenPipeError) and not self.unwritten:
            self.unwritten = f"results can't be printed: {error.strerror}"
            self.say(f"{self.unwritten}; the run goes on")

    def update(self, running: int, lasting: Sequence[Lasting] | None = None) -> None:
        """Show how far the run is.

        `lasting` are the calls that run longest, the longest first; None while others wait for a worker.
        """
        if self._out is not None:
            try:
                self._out.flush()
            except OSError as error:
                self._give_up(self._out, error)
        if self._quiet:
            return
        now = time.monotonic()
        self._marks = [mark for mark in self._marks if mark[0] > now - 10] or [(self._began, 0)]
        if now - self._marks[-1][0] > 0.5:
            self._marks.append((now, self._summary.done))
        then, before = self._marks[0]
        per_second = (self._summary.done - before) / (now - then) if now > then else 0.0
        if lasting is not None and running > FEW and per_second:
            lasting = None
        if self._terminal:
            self._show_bar(running, per_second, lasting)
        elif self._times.due(now, tail=bool(lasting)):
            if lasting is None:
                self.say(progress_text(self._summary, running, per_second))
            else:
                self.say(tail_text(self._summary, running, lasting[:_NAMED], _PIPED_WIDTH))

    def _show_bar(self, running: int, per_second: float, lasting: Sequence[Lasting] | None) -> None:
        if self._progress is None:
            if time.monotonic() - self._began < 0.5:  # a run that is over at once needs none
                return
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._columns = (BarColumn(bar_width=_BAR), TextColumn("{task.description}", markup=False))
            self._progress = Progress(
                *self._columns, console=Console(stderr=True), transient=True,
                redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._bar = self._progress.add_task("", total=self._summary.total)
            self._progress.start()
        assert self._bar is not None
        width = self._progress.console.width
        barred = lasting is None or width >= _WIDE
        self._progress.columns = self._columns if barred else self._columns[1:]
        if lasting is None:
            text = progress_text(self._summary, running, per_second)
        else:
            text = tail_text(self._summary, running, lasting, width - (_BAR + 1) * barred)
        self._progress.update(self._bar, completed=self._summary.done, description=text)

    def close(self) -> None:
        """Take the progress bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def abandon(self) -> None:
        """Give the terminal back as it was, right before a signal ends this process; takes no lock."""
        if self._progress is not None:
            try:
                os.write(2, b"\r\x1b[2K\x1b[?25h")  # clears the bar's line and shows the cursor
            except OSError:
                pass  # the terminal is gone, too

    def summarise(self, wall: float, out: TextIO) -> None:
        """Print the summary."""
        self.close()
        width = shutil.get_terminal_size().columns if out.isatty() else _PIPED_WIDTH
        try:
            for line in self._summary.lines(wall, width):
                print(line, file=out)
            out.flush()
        except OSError as error:
            self._give_up(out, error)


def show_order(tasks: Sequence[Task], out: TextIO) -> None:
    """Print tasks in the order in which they would be handed out; a reader that goes away is no error.

    Raises:
        OutputFailed: they can't be printed.
    """
    width = shutil.get_terminal_size().columns if out.isatty() else _PIPED_WIDTH
    digits = len(str(len(tasks)))
    wide = max(len("999 cores"), len(plural(max(task.resources for task in tasks), "core")))
    try:
        for number, task in enumerate(tasks, 1):
            head = f"{number:>{digits}}  {plural(task.resources, 'core'):>{wide}}  "
            print(head + call(task.function, task.params, task.kwargs, max(20, width - len(head))), file=out)
        out.flush()
    except OSError as error:
        nowhere(out)
        if not isinstance(error, BrokenPipeError):
            raise OutputFailed(f"the order can't be printed: {error.strerror}") from error
