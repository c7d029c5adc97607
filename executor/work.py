"""What a worker does all day: orders from the wire to the pool, results from the pool to the wire."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

import msgspec

from executor.errors import EXIT_INTERRUPTED, EXIT_OK, NobodyThere
from executor.messages import NIL, too_large
from executor.packed import Packed, join, pack
from executor.pool import Finished, Pool
from executor.session import Begin, Ended, GiveBack, Order, Stop, Take
from executor.streams import complain
from executor.words import plural, round_duration
from transports.base import Say, WorkerEnd

#: Seconds without a dispatcher after which a waiting worker says so, first and then ever more rarely.
_SAY_WAITING = (1.0, 60.0, 600.0, 3600.0)

#: Bytes of large buffers in one frame of reports; beyond it another frame begins.
_FRAME_BYTES = 8 << 20


class Worker:
    """A worker's loop, between a wire's end and a pool, which it closes.

    `once` ends it after the first run; `wait` bounds the seconds without any dispatcher (None: for ever);
    `lifeline` is a descriptor whose end-of-file ends the worker at once, or None. From the moment it
    is made, signals drain it.
    """

    def __init__(
        self, end: WorkerEnd, pool: Pool, *, say: Say, once: bool, wait: float | None, lifeline: int | None
    ) -> None:
        self._end = end
        self._pool = pool
        self._say = say
        self._once = once
        self._wait = wait
        self._signals = 0
        self._wake, wake_write = os.pipe()
        for descriptor in (self._wake, wake_write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        self._lifeline = lifeline
        self._draining = False
        self._runs: dict[str, int] = {}  # results of each present run
        self._served = False  # whether the last run that began has ended
        self._alone_since = time.monotonic()
        self._remarks: tuple[float, ...] = _SAY_WAITING  # after which seconds alone it says so

    def run(self) -> int:
        """Serve until drained; return the exit status.

        Raises:
            NobodyThere: no dispatcher came within `wait`.
        """
        self._end.holding = self._pool.holding
        self._end.running = self._pool.told
        try:
            return self._loop()
        finally:
            self._pool.close()
            signal.set_wakeup_fd(-1)

    def _loop(self) -> int:
        ears, wire = self._pool.ears, self._end.fileno()
        for descriptor in (self._wake, wire, self._lifeline):
            if descriptor is not None:
                ears.add(descriptor)
        told: list[tuple[int, int]] = []
        # A turn looks only at what has something to tell, or whose patience is over.
        wire_is_due = pool_is_due = True
        while True:
            if wire_is_due:
                for order in self._end.pull(0):
                    self._obey(order)
                    pool_is_due = True
            if pool_is_due and (finished := self._pool.step(told)):
                self._reply(finished)
            now = time.monotonic()
            if self._signals >= 2:
                self._say("killed by a second signal; what ran is lost")
                self._say_dropped()
                return EXIT_INTERRUPTED
            if (self._signals or (self._served and self._is_done())) and not self._draining:
                self._drain()
                pool_is_due = wire_is_due = True
                told = []
                continue
            if self._draining and self._pool.idle and (self._end.settled or not self._end.connected):
                self._say_dropped()
                return EXIT_OK
            wire_wait, pool_wait = self._end.patience(), self._pool.patience()
            wait = self._patience(now)
            if wire_wait is not None and (wait is None or wire_wait < wait):
                wait = wire_wait
            if pool_wait is not None and (wait is None or pool_wait < wait):
                wait = pool_wait
            events = ears.wait(None if wait is None else max(0.0, wait))
            waited = time.monotonic() - now
            wire_is_due = wire_wait is not None and waited >= wire_wait
            pool_is_due = pool_wait is not None and waited >= pool_wait
            told = []
            for each in events:
                descriptor = each[0]
                if descriptor == wire:
                    wire_is_due = True
                elif descriptor == self._wake:
                    os.read(self._wake, 256)
                elif descriptor != self._lifeline:
                    told.append(each)
                    pool_is_due = True
                elif not os.read(self._lifeline, 64):
                    return EXIT_OK  # whoever started us is gone

    def _patience(self, now: float) -> float | None:
        """Say now and then that no dispatcher is there; return the seconds until more is to be done.

        Raises:
            NobodyThere: none came within `wait`.
        """
        if self._end.connected:
            self._alone_since, self._remarks = now, _SAY_WAITING
            return None
        if self._draining:  # it waits for nobody
            return None
        alone = now - self._alone_since
        bounds: list[float] = []
        if self._wait is not None:
            if alone >= self._wait:
                self._say_dropped()
                raise NobodyThere(f"no dispatcher at {self._end.address} within {self._wait:g} s")
            bounds.append(self._wait - alone)
        if self._remarks and alone >= self._remarks[0]:
            self._remarks = self._remarks[1:]
            self._say(f"waiting for a dispatcher at {self._end.address}")
        if self._remarks:
            bounds.append(self._remarks[0] - alone)
        return min(bounds, default=None)

    def _obey(self, order: Order) -> None:
        """Do what a dispatcher asks for."""
        if isinstance(order, Take):
            self._pool.add(order.run, order.items, order.buffers)
        elif isinstance(order, Begin):
            self._runs[order.run] = 0
            self._served = False
            for run in order.earlier:  # what has not begun of them is given back, by orders that follow
                self._runs.pop(run, None)
                self._pool.finish(run)
            which = f", which continues run {order.earlier[-1]}" if order.earlier else ""
            self._say(f"serving run {order.run}{which}")
        elif isinstance(order, GiveBack):
            places = self._pool.recall(order.run, order.most)
            self._end.give_back(order.run, places)
        elif isinstance(order, Stop):
            self._end.give_back(order.run, self._pool.cancel(order.run, order.places))
        elif isinstance(order, Ended):
            for run in (order.run, *order.earlier):
                if order.complete:  # nobody will ever take what is still here of it
                    self._pool.cancel(run)
                else:
                    self._pool.recall(run, None)  # what has not begun is for others
                self._pool.finish(run)
            count = self._runs.pop(order.run, 0)
            how = "is over" if order.complete else f"is left: {order.why}"
            self._say(f"run {order.run} {how}; {plural(count, 'result')} sent")
            self._say_kept((order.run, *order.earlier))
            self._served = True

    def _say_kept(self, runs: Sequence[str]) -> None:
        """Say what is kept of runs that were left."""
        unclaimed, running = self._end.unclaimed, self._pool.holding()
        for run in runs:
            if run not in unclaimed:
                continue
            count, more = unclaimed[run], len(running.get(run, ()))
            has = [plural(count, "result")] if count else []
            if more:
                has.append(f"{plural(more, 'task')} that still {'runs' if more == 1 else 'run'}")
            how_long = round_duration(self._end.keep.seconds)
            self._say(
                f"keeps what it has of run {run} for {how_long}, in case it is resumed: {' and '.join(has)}"
            )

    def _say_dropped(self) -> None:
        """Say what is lost of runs that nobody continued, as the worker ends."""
        for run, count in self._end.unclaimed.items():
            if count:
                self._say(f"dropped {plural(count, 'result')} of run {run}: nobody continued it so far")

    def _is_done(self) -> bool:
        """Whether the run that was served is all that `once` asks for, and nothing of it may be continued."""
        return self._once and not self._end.unclaimed

    def _reply(self, finished: list[Finished]) -> None:
        """Send what has finished, in frames of one run and of bounded size."""
        at = 0
        while at < len(finished):
            run, size = finished[at].run, 0
            some: list[Packed] = []
            while at < len(finished) and finished[at].run == run and size < _FRAME_BYTES:
                reports = fitting(finished[at].reports, self._end.largest)
                some.append(reports)
                size += reports.size
                at += 1
            reports = join(some)
            if run in self._runs:
                self._runs[run] += reports.count
            self._end.reply(run, reports)

    def _drain(self) -> None:
        """Finish what runs, give the rest back, then end."""
        if self._draining:
            return
        self._draining = True
        if self._runs and not self._pool.idle:
            self._say("draining: what runs is finished, the rest goes back (once more: kill)")
        for order in self._end.drain():
            self._obey(order)

    def _on_signal(self, number: int, frame: object) -> None:
        self._signals += 1


def fitting(reports: Packed, largest: int) -> Packed:
    """Return reports as they can travel: a value beyond `largest` bytes is its task's error."""
    if reports.size <= largest:  # then none of them is too large, and they need not be looked into
        return reports
    fit: list[Packed] = []
    for report, buffers in reports.each():
        size = len(report.value) + sum(len(buffer) for buffer in buffers)
        if size > largest:
            error = ("CannotTravel", too_large("the result", size, largest), "")
            report = msgspec.structs.replace(report, status="error", value=NIL, buffers=0, error=error)
            buffers = ()
        fit.append(pack([report], buffers))
    return join(fit)


def speaker(name: str, *, clock: Callable[[], float] = time.time) -> Say:
    """Return a `Say` that writes a line to stderr, with the time of day and who speaks."""

    def say(text: str) -> None:
        moment = time.strftime("%H:%M:%S", time.localtime(clock()))
        complain(f"{moment} {name}: {text}")  # or not: that nobody reads the log is no reason to lose tasks

    return say
