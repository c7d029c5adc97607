"""What a dispatcher does: push a run's tasks, gather the results, record and show each."""

from __future__ import annotations

import heapq
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

from executor.errors import (
    EXIT_INTERRUPTED,
    EXIT_NOT_OK,
    EXIT_OK,
    EXIT_TERMINATED,
    NobodyThere,
)
from executor.history import History
from executor.journal import Journal
from executor.launch import LocalWorkers
from executor.progress import NAMED_MOST, Lasting
from executor.recording import Recording
from executor.resume import UNFINISHED
from executor.run import Run
from executor.screen import Screen, Summary
from executor.task import Result
from executor.waiting import START, Reunion, Waiting
from executor.words import plural
from transports.base import Delivery, DispatcherEnd, WorkerView

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

#: Seconds between two looks at signals, workers and the progress line.
_TURN = 0.2

#: Seconds that what runs gets to be reported after it was cancelled, and after each report.
_CANCELLING = 3.0


class Wishes(NamedTuple):
    """What the command line asks of a run.

    `max_failures` stops handing out after so many results that aren't ok (None: never); `failures_only`
    shows only those; `wait` is ``--wait`` in seconds; `start` is how one starts a worker.
    """

    wait: float | None = None
    max_failures: int | None = None
    failures_only: bool = False
    start: str = START


class Gatherer:
    """Takes one run from its push to its summary. It owns nothing that it is given.

    `history` is where it notes what a run that continues this one has to know; `reunion` waits for workers
    of the runs that this one continues.
    """

    def __init__(
        self, run: Run, end: DispatcherEnd, screen: Screen, summary: Summary, journal: Journal | None,
        workers: LocalWorkers | None, wishes: Wishes, history: History | None = None,
        reunion: Reunion | None = None,
    ) -> None:  # fmt: skip
        self._run = run
        self._end = end
        self._screen = screen
        self._summary = summary
        self._recording = Recording(journal, end, screen.say, wishes.wait)
        self._workers = workers
        self._wishes = wishes
        self._history = history
        self._reunion = reunion or Reunion((), 0.0)
        self._waiting = Waiting(
            end.address, wait=wishes.wait, widest=max(workers.widths) if workers is not None else None,
            start=wishes.start,
        )  # fmt: skip
        self._halted = False
        self._signal: int | None = None
        self._pushed = 0.0
        self._began: float | None = None  # when the first worker was there, on the monotonic clock
        self._ended: float | None = None

    @property
    def wall(self) -> float:
        """Seconds from the first worker to the last result."""
        return 0.0 if self._began is None else (self._ended or time.monotonic()) - self._began

    @property
    def unfinished(self) -> int:
        """How many tasks a resume would run."""
        again = sum(self._run.counts.get(status, 0) for status in UNFINISHED)
        return min(self._run.unrecorded + self._recording.unwritten + again, self._summary.total)

    def gather(self) -> int:
        """Gather until every task has its result, or the run is stopped; return the exit status.

        Raises:
            NobodyThere: no worker came within ``--wait``.
            WorkersFailed: the workers of ``--workers N`` end by themselves.
            OutputFailed: results can't be recorded.
        """
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)
        try:
            self._pushed = time.monotonic()
            self._end.paused = not self._reunion.over
            self._begin()
            self._go_on()
        finally:
            self._recording.leave()
            self._summary.unwritten = self._recording.unwritten
        self._ended = time.monotonic()
        self._count_cores(self._end.workers())  # a short run may be over before the first look at them
        if self._signal is not None:
            return EXIT_TERMINATED if self._signal == signal.SIGTERM else EXIT_INTERRUPTED
        return EXIT_OK if self._summary.all_ok else EXIT_NOT_OK

    def _go_on(self) -> None:
        """Gather until all is recorded, or the run is stopped."""
        look_at = 0.0
        cancelled_at: float | None = None  # or when something came after that
        while self._run.unrecorded or not self._recording.finish():
            came = self._end.results(_TURN)
            self._take(came)
            self._recording.turn()
            self._pause()
            now = time.monotonic()
            if self._signal is not None and cancelled_at is None:
                # What can't be written would be lost if the run were stopped in earnest.
                if self._recording.stuck or not self._stop():
                    break
                cancelled_at = now
                self._halted = True
            if now < look_at and not self._halted:
                continue
            held = self._look(now)
            # With ten thousand workers a look takes its time, and must not take it all.
            look_at = now + max(_TURN, 10 * (time.monotonic() - now))
            if came:  # a broker may have many more that are finished, and the end of the run removes them
                cancelled_at = None if cancelled_at is None else now
                continue
            if cancelled_at is not None and now - cancelled_at > _CANCELLING:
                break
            if self._halted and not held and self._end.knows_all and self._recording.finish():
                break

    def _pause(self) -> None:
        """Hand out nothing while results can't be written, or before the workers of before are back."""
        pause = self._recording.stuck or not self._reunion.over
        if pause != self._end.paused:
            self._end.paused = pause

    def _begin(self) -> None:
        self._run.submitted = time.time()
        self._end.push(self._run)

    def _stop(self) -> bool:
        """A signal came: stop the run; return whether there is something to wait for."""
        self._screen.say("cancelling what runs")
        self._end.cancel()
        return True

    def _take(self, deliveries: list[Delivery]) -> None:
        """Record what came; then, and only then, let the workers forget it."""
        if not deliveries:
            return
        started: list[float] = []
        for delivery in deliveries:
            self._record_all(delivery)
            started += [each.started for each in delivery.reports if each.started is not None]
        self._recording.save()
        if started:
            self._note_begin(time.monotonic() - (time.time() - min(started)))
        if not self._halted:
            for due in self._run.due:
                self._end.again(due.place, suspect=due.suspect, alone=due.alone)
        self._run.due.clear()

    def _record_all(self, delivery: Delivery) -> None:
        worker, host, reports, buffers = delivery
        accepted = self._run.accept_all(reports, buffers, worker=worker, host=host)
        for bad in accepted.bad:
            self._screen.say(f"ignored a report of worker {worker}: {bad}")
        self._record(accepted.results)

    def _record(self, results: Sequence[Result]) -> None:
        self._summary.add(results)
        self._recording.take(results)
        if self._screen.shows_results:
            for result in results:
                if result.status != "ok" or not self._wishes.failures_only:
                    self._screen.result(result)
        most = self._wishes.max_failures
        if most is not None and self._summary.failed >= most and not self._halted:
            self._halted = True
            failed = plural(self._summary.failed, "result")
            self._screen.say(f"{failed} not ok: handing out no more (--max-failures {most})")
            self._end.halt()

    def _look(self, now: float) -> int:
        """Look at workers and progress; return how many tasks workers hold."""
        if self._workers is not None and (died := self._workers.check()):
            for pid in died:
                self._end.worker_died(pid)
            self._take(self._end.results(0))  # so that nobody holds what has been heard
        workers = self._end.workers()
        cores = [worker.cores for worker in workers]
        held = sum(worker.held for worker in workers)
        if workers:
            self._note_begin(now)
        self._count_cores(workers)
        self._screen.update(sum(worker.running for worker in workers), self._tail(workers))
        self._remember(now, {worker.instance for worker in workers})
        if not self._halted and self._reunion.over:
            self._judge(now, cores, held)
        return held

    def _tail(self, workers: list[WorkerView]) -> list[Lasting] | None:
        """Return what runs longest, the longest first; None while tasks wait that workers can be given."""
        widest = max((worker.cores for worker in workers), default=0)
        if not workers or (not self._halted and any(width <= widest for width in self._end.waiting())):
            return None
        found = [(seconds, place, worker.name) for worker in workers for place, seconds in worker.longest]
        return [
            Lasting(self._run.tasks[place], name, seconds)
            for seconds, place, name in heapq.nlargest(NAMED_MOST, found)
        ]

    def _judge(self, now: float, cores: list[int], held: int) -> None:
        """See whether the run stands still, with workers of these cores that hold so many tasks."""
        verdict = self._waiting.look(now, cores, held, self._end.waiting())
        if verdict.say:
            self._screen.say(verdict.say)
        if verdict.nobody:
            raise NobodyThere(f"no worker at {self._end.address} within {self._wishes.wait:g} s")
        for width in verdict.reject:
            for place in self._end.withdraw(width):
                result = self._run.reject(place, f"{width} cores, but {verdict.reason}")
                if result is not None:
                    self._record([result])
        if verdict.reject:
            self._recording.save()

    def _remember(self, now: float, present: set[str]) -> None:
        """Note who is there for the run that continues this one, and see who was there in the one before."""
        if not self._reunion.over:
            verdict = self._reunion.look(now, present)
            if verdict.say:
                self._screen.say(verdict.say)
            if verdict.given_up and self._history is not None:
                self._history.given_up(verdict.given_up)
        if self._history is not None:
            if self._workers is None:  # those of --workers N end with this process
                self._history.workers(present)
            self._history.pushed(self._end.pushed)

    def _note_begin(self, moment: float) -> None:
        """A worker was there at this moment, on the monotonic clock."""
        if self._began is None or moment < self._began:
            self._began = max(moment, self._pushed)  # the clock of another machine may be wrong

    def _count_cores(self, workers: list[WorkerView]) -> None:
        self._summary.cores = max(self._summary.cores, sum(worker.cores for worker in workers))

    def _on_signal(self, number: int, frame: object) -> None:
        if self._signal is not None:  # the second one: at once
            self._screen.abandon()
            if self._workers is not None:
                self._workers.abandon()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self._signal = number


def end_with(close: Callable[[], None]) -> None:
    """Let SIGINT and SIGTERM call `close` and end the process, until a `Gatherer` takes them over."""

    def end(number: int, frame: object) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)  # a second one ends it at once
        close()
        signal.raise_signal(number)

    for number in _SIGNALS:
        signal.signal(number, end)


def results_stream(output: str | None) -> TextIO:
    """Return where result lines and the summary go: stdout, unless that is for the records."""
    return sys.stderr if output == "-" else sys.stdout
