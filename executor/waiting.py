"""When nobody can take the tasks: what to say, whom to reject, and when to give up. Pure: no I/O, no clock.

It is asked again and again how things stand, and answers what to do about it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from executor.words import plural

#: Seconds after which a standstill is said: shorter ones are only workers that start.
SAY_AFTER = 1.0

#: Seconds until it is said again, while it lasts.
SAY_AGAIN = 60.0

#: Seconds that tasks too wide for every worker wait for a wider one, when nothing else is left to run.
REJECT_AFTER = 30.0


#: How one starts a worker that needs to be told nothing.
START = "python worker.py"


def nobody_line(address: str, start: str) -> str:
    """Return what is said when no worker is there; `start` is how one starts one."""
    return f"waiting for a worker at {address}; start one: {start}"


class Verdict(NamedTuple):
    """What to do: a line to say or "", widths whose tasks are rejected and why, and whether to give up."""

    say: str = ""
    reject: tuple[int, ...] = ()
    reason: str = ""
    nobody: bool = False


class Waiting:
    """Watches one run for a standstill.

    `wait` bounds the seconds without any worker (None: for ever) and the seconds that too wide tasks
    wait at the end (None: `REJECT_AFTER`). `widest` is the width of the widest worker there will ever
    be, where that is known: then too wide tasks are rejected at once. `start` is how one starts a worker.
    """

    def __init__(
        self, address: str, *, wait: float | None, widest: int | None = None, start: str = START
    ) -> None:
        self._nobody = nobody_line(address, start)
        self._wait = wait
        self._widest = widest
        self._alone_since: float | None = None
        self._stuck_since: float | None = None
        self._alone_said_at: float | None = None
        self._wide_said: dict[int, float] = {}

    def look(self, now: float, cores: Sequence[int], held: int, waiting: Mapping[int, int]) -> Verdict:
        """Judge how things stand.

        `cores` are those of each worker, `held` the tasks that they hold, `waiting` the others, by width.
        """
        widest = self._widest if self._widest is not None else max(cores, default=0)
        stuck = tuple(width for width in sorted(waiting) if width > widest)
        if self._widest is not None and stuck:
            return Verdict(reject=stuck, reason=self._too_wide(widest))
        if not cores and self._widest is None:
            self._stuck_since = None
            return self._alone(now)
        self._alone_since = self._alone_said_at = None
        if not stuck:
            self._stuck_since = None
            self._wide_said.clear()
            return Verdict()
        if held or len(stuck) < len(waiting):  # others still run: there is time for a wider worker to come
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        limit = REJECT_AFTER if self._wait is None else self._wait
        if self._stuck_since is not None and now - self._stuck_since >= limit:
            return Verdict(reject=stuck, reason=self._too_wide(widest))
        return Verdict(say=self._wide_line(now, stuck, waiting, widest, limit))

    def _alone(self, now: float) -> Verdict:
        if self._alone_since is None:
            self._alone_since = now
        alone = now - self._alone_since
        if self._wait is not None and alone >= self._wait:
            return Verdict(nobody=True)
        if alone >= SAY_AFTER and (self._alone_said_at is None or now - self._alone_said_at >= SAY_AGAIN):
            self._alone_said_at = now
            return Verdict(say=self._nobody)
        return Verdict()

    def _wide_line(
        self, now: float, stuck: tuple[int, ...], waiting: Mapping[int, int], widest: int, limit: float
    ) -> str:
        fresh = [w for w in stuck if now - self._wide_said.get(w, now - SAY_AGAIN) >= SAY_AGAIN]
        if not fresh:
            return ""
        self._wide_said.update(dict.fromkeys(stuck, now))
        count = sum(waiting[width] for width in stuck)
        cores = f"more than {plural(widest, 'core')}" if len(stuck) > 1 else plural(stuck[0], "core")
        return (
            f"no worker is wide enough for {plural(count, 'task')} of {cores}: the widest has {widest}; "
            f"rejected {limit:g} s after the rest, unless a wider one comes"
        )

    def _too_wide(self, widest: int) -> str:
        return f"the widest worker has {widest}"


class Back(NamedTuple):
    """A line to say or "", and the workers for whom it is waited no more."""

    say: str = ""
    given_up: frozenset[str] = frozenset()


class Reunion:
    """Waits for the workers of an earlier run, by their instances, which may hold results of it.

    It is over when all of them were seen, or `patience` seconds after the first look.
    """

    def __init__(self, workers: Collection[str], patience: float) -> None:
        self._patience = patience
        self._since: float | None = None
        self._said = False
        self._missing = set(workers)
        #: Whether it is waited for nobody any more.
        self.over = not self._missing

    def look(self, now: float, present: Collection[str]) -> Back:
        """Take note of who is there."""
        if self._since is None:
            self._since = now
        self._missing.difference_update(present)
        waited = now - self._since
        if not self._missing or waited >= self._patience:
            self.over = True
            return Back(given_up=frozenset(self._missing))
        if self._said or waited < SAY_AFTER:
            return Back()
        self._said = True
        who = plural(len(self._missing), "worker")
        return Back(f"waiting up to {self._patience:g} s for {who} of the run before, which may hold results")
