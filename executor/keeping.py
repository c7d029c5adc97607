"""Runs that a broker keeps while no dispatcher is there: to leave one, to collect it later, to cancel it."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Collection, Sequence

from executor import manifest
from executor.config import Wire
from executor.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_TERMINATED, NobodyThere, TransportError
from executor.gather import Gatherer
from executor.run import Run
from executor.task import Result
from executor.waiting import SAY_AFTER, SAY_AGAIN, nobody_line
from executor.words import plural
from transports.base import Delivery, KeepingEnd, Say

#: Results, and seconds, after which it is noted that they were collected. Until then they come again if this
#: dispatcher dies.
NOTE_RESULTS = 100
NOTE_SECONDS = 2.0


def detach(run: Run, wire: Wire, *, wait: float | None, say: Say) -> int:
    """Push a run and leave it with the broker; print its name, alone, to stdout. Return the exit status.

    Ctrl-C and SIGTERM meanwhile remove what was pushed of it; a second one ends at once.

    Raises:
        ConfigError: the wire has no broker, or the name is in use.
        NobodyThere: the broker did not answer within `wait` seconds.
    """
    run.submitted = time.time()
    signals: list[int] = []

    def stop(number: int, frame: object) -> None:
        signals.append(number)
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    with wire.transport.kept_run(wire.settings, run.name, collects=False, say=say) as end:
        end.check_name(wait)
        records = list(manifest.records(run.tasks, run.retries, run.timeout, run.submitted))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        end.push(run)
        if not end.keep(records, wait, lambda: bool(signals)):
            say(f"removing what was pushed of run {run.name}")
            end.drop(wait)
            return EXIT_TERMINATED if signals[0] == signal.SIGTERM else EXIT_INTERRUPTED
        say(f"{plural(len(run.tasks), 'task')} of run {run.name} now at {end.address}")
    say(f"collect the results with the same --yaml (and --address) and --collect {run.name} --output FILE")
    print(run.name)
    return EXIT_OK


def new_name() -> str:
    """Return a name for a run, which nobody else has."""
    return f"run-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def open_kept(end: KeepingEnd, name: str, *, wait: float | None) -> Run:
    """Return the run of that name that a broker kept; what was collected of it counts as recorded.

    Raises:
        ConfigError: there is none, or somebody else collects it.
        NobodyThere: the broker did not answer within `wait` seconds.
    """
    kept = manifest.read(name, end.kept(wait))
    run = Run(kept.tasks, retries=kept.retries, timeout=kept.timeout, name=name)
    run.submitted = kept.submitted
    run.skip(kept.collected)
    return run


def cancel(name: str, wire: Wire, *, wait: float | None, say: Say) -> int:
    """Cancel a run that a broker keeps; return the exit status.

    Raises:
        ConfigError: the wire has no broker, or there is no such run.
        NobodyThere: the broker did not answer within `wait` seconds.
    """
    with wire.transport.kept_run(wire.settings, name, collects=True, say=say) as end:
        end.drop(wait)
    say(f"run {name} is cancelled: what runs of it is killed, and no other task of it will run")
    return EXIT_OK


class Collector(Gatherer):
    """Gathers the results of a run that a broker kept; it pushes, rejects and cancels nothing.

    It ends when all results are there, or after ``--wait`` seconds in which none came.
    """

    #: Places whose results an earlier `--collect` wrote into the same file: they are noted as collected.
    had: Collection[int] = ()

    _end: KeepingEnd
    _left = -1
    _news_at = 0.0
    _alone_since: float | None = None
    _said_at = 0.0
    _noted_at = 0.0
    _first: float | None = None  # epoch seconds at which the first of its tasks started
    _last: float | None = None  # ... and the last finished

    @property
    def wall(self) -> float:
        """Seconds from the first task's start to the last one's end, whenever that was."""
        return 0.0 if self._first is None or self._last is None else max(0.0, self._last - self._first)

    def gather(self) -> int:  # noqa: D102 — as its base says
        self._unnoted: set[int] = set(self.had)  # places of results that were recorded here since
        self._delivered = bool(self.had)  # something came since
        try:
            status = super().gather()
        except TransportError:  # the run is gone
            raise
        except BaseException:
            self._leave()
            raise
        if self._run.unrecorded or self._recording.left:
            self._leave()
        else:
            self._end.forget()
        return status

    def _leave(self) -> None:
        if not self._recording.left:  # else some of what came is in no file
            self._note(time.monotonic())
        name, rest = self._run.name, plural(self._run.unrecorded + self._recording.unwritten, "result")
        how = ", with --resume into the same file" if self._recording.resumable else ""
        self._screen.say(f"run {name} stays with the broker; --collect {name} gathers the other {rest}{how}")

    def _begin(self) -> None:
        self._news_at = time.monotonic()
        self._end.gather(self._run)

    def _stop(self) -> bool:
        return False  # only this dispatcher stops: the run goes on

    def _take(self, deliveries: list[Delivery]) -> None:
        super()._take(deliveries)
        self._delivered = self._delivered or bool(deliveries)
        places = {report.place for each in deliveries for report in each.reports}
        self._unnoted |= {place for place in places if self._run.is_recorded(place)}
        now = time.monotonic()
        due = len(self._unnoted) >= NOTE_RESULTS or now - self._noted_at >= NOTE_SECONDS
        if due and not self._recording.stuck:  # what is not written is not noted
            self._note(now)

    def _note(self, now: float) -> None:
        """Tell the broker what was recorded here, so that who collects the rest does not wait for it."""
        self._noted_at = now
        if self._delivered:  # be it nothing new: it has to be acknowledged
            self._end.note(manifest.note(self._unnoted))
            self._unnoted.clear()
            self._delivered = False

    def _record(self, results: Sequence[Result]) -> None:
        super()._record(results)
        for result in results:
            if result.started is not None and result.finished is not None:
                self._first = min(result.started, self._first or result.started)
                self._last = max(result.finished, self._last or result.finished)

    def _judge(self, now: float, cores: list[int], held: int) -> None:
        if self._left != self._run.unrecorded:
            self._left, self._news_at = self._run.unrecorded, now
        wait = self._wishes.wait
        if wait is not None and now - self._news_at >= wait:
            raise NobodyThere(f"no result of run {self._run.name} came within {wait:g} s")
        waiting = self._end.waiting()
        too_wide = {width: count for width, count in waiting.items() if cores and width > max(cores)}
        if cores and not (too_wide and not held and len(too_wide) == len(waiting)):
            self._alone_since = None
            return
        self._alone_since = now if self._alone_since is None else self._alone_since
        if now - self._alone_since >= SAY_AFTER and (not self._said_at or now - self._said_at >= SAY_AGAIN):
            self._said_at = now
            if cores:
                text = f"no worker is wide enough for {plural(sum(too_wide.values()), 'task')} of more than"
                self._screen.say(f"{text} {plural(max(cores), 'core')}")
            else:
                self._screen.say(nobody_line(self._end.address, self._wishes.start))
