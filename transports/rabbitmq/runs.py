"""The runs of which a worker has, or lately had, calls. Pure: `now` is the owner's clock, in seconds."""

from __future__ import annotations

from collections.abc import Collection

from executor.bounds import MOST_RUNS

#: Seconds without anything of a run, and without its dispatcher, after which it counts as left.
RUN_IDLE = 5.0

#: Seconds in which a run's results queue need not be looked for again.
RUN_KNOWN = 10.0

#: Seconds after which a run that was left is forgotten.
RUN_FORGOTTEN = 50.0


class _Run:
    __slots__ = ("begun", "dispatcher_at", "gone", "known_at", "last_at", "stopped")

    def __init__(self, now: float) -> None:
        self.begun = False
        self.stopped = False
        self.gone = False  # stopped as its results queue was gone, and not by anybody's word
        self.known_at = -RUN_KNOWN  # when it was last seen that its results queue is there
        self.last_at = now
        self.dispatcher_at: float | None = None


class Runs:
    """Which runs a worker takes part in; a dispatcher that is silent for `patience` seconds is gone."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._runs: dict[str, _Run] = {}

    def touch(self, run: str, now: float) -> None:
        """Something of a run is here."""
        known = self._runs.get(run)
        if known is None:
            known = self._runs[run] = _Run(now)
        known.last_at = now

    def begun(self) -> list[str]:
        """Return the runs that this worker takes part in."""
        return [name for name, run in self._runs.items() if run.begun]

    def stopped(self, run: str) -> bool:
        """Whether none of a run's calls is to begin any more."""
        return run in self._runs and self._runs[run].stopped

    def told(self) -> list[str]:
        """Return the runs that somebody said are to stop, as long as they are remembered."""
        return [name for name, run in self._runs.items() if run.stopped and not run.gone][-MOST_RUNS:]

    def unknown(self, run: str, now: float) -> bool:
        """Whether a run may be over without our having heard of it."""
        known = self._runs.get(run)
        return known is None or not (known.stopped or known.begun or now - known.known_at <= RUN_KNOWN)

    def seen(self, run: str, now: float) -> None:
        """A run's results queue is there."""
        self.touch(run, now)
        self._runs[run].known_at = now

    def alive(self, run: str, now: float) -> None:
        """A run's dispatcher is there; and so is the run, be it that its results queue was gone."""
        known = self._runs.get(run)
        if known is not None:
            known.dispatcher_at = now
            if known.gone:
                known.stopped = known.gone = False
                known.known_at = -RUN_KNOWN

    def begin(self, run: str, now: float) -> bool:
        """A call of a run is to begin; return whether it is the first of those here."""
        self.touch(run, now)
        first = not self._runs[run].begun
        self._runs[run].begun = True
        return first

    def stop(self, run: str, now: float) -> None:
        """No more calls of a run are to begin."""
        self.touch(run, now)
        self._runs[run].stopped, self._runs[run].gone = True, False

    def vanish(self, run: str, now: float) -> None:
        """A run's results queue is gone: no more of its calls are to begin, unless its dispatcher goes on."""
        self.touch(run, now)
        known = self._runs[run]
        known.gone, known.stopped = known.gone or not known.stopped, True

    def leave(self, run: str) -> bool:
        """Nothing of a run is here any more; return whether anything was."""
        known = self._runs.get(run)
        was = known is not None and known.begun
        if known is not None:
            known.begun = False
        return was

    def idle(self, busy: Collection[str], now: float) -> list[tuple[str, str]]:
        """Leave the runs that seem to be over, and say why; `busy` are those of which something is here."""
        left: list[tuple[str, str]] = []
        for name, run in list(self._runs.items()):
            if name in busy:
                run.last_at = now
                continue
            silent = run.dispatcher_at is not None and now - run.dispatcher_at > self._patience
            if run.begun and (silent or (run.dispatcher_at is None and now - run.last_at > RUN_IDLE)):
                run.begun = False
                gone = f"its dispatcher is silent for {self._patience:g} s"
                left.append((name, gone if silent else "nothing more of it is here"))
            elif not run.begun and now - run.last_at > RUN_FORGOTTEN:
                del self._runs[name]
        return left
