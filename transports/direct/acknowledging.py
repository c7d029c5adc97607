"""Which workers are to be told that what they reported is recorded, and when. Pure."""

from __future__ import annotations

import math

#: Seconds between two acknowledgements to a worker: it need not hear of each tiny call.
TOGETHER_SECONDS = 0.05

#: Seconds after which a worker is told at the latest. Until then it is with the next tasks that it is sent:
#: a message of its own would wake both processes, and each may do so on a core that computes.
LATEST_SECONDS = 0.5


class Acknowledging:
    """Workers whose reports are not recorded yet, and those who don't know yet that they are.

    They are told together with tasks (`goes_along`), or when nothing has taken them along for
    `LATEST_SECONDS`. Those are not kept waiting who `hurry`: they hold large buffers until then, or are about
    to leave. Times are on the owner's clock.
    """

    def __init__(self) -> None:
        self.reported: dict[str, None] = {}
        self._untold: dict[str, float] = {}  # each since when; the one that waits longest comes first
        self._hurry = False

    def report(self, worker: str, *, hurry: bool) -> None:
        """Reports of a worker came, which are to be recorded."""
        self.reported[worker] = None
        self._hurry = self._hurry or hurry

    def record(self, now: float) -> list[str]:
        """All that came is recorded; return of which workers something was among it."""
        recorded = list(self.reported)
        for worker in recorded:
            self._untold.setdefault(worker, now)
        self.reported.clear()
        return recorded

    def hurry(self) -> None:
        """Keep nobody waiting now."""
        self._hurry = True

    def missed(self, worker: str, now: float) -> None:
        """A worker that was due could not be told: it is again, with the others."""
        self._untold.setdefault(worker, now)

    def forget(self, worker: str) -> None:
        """A worker is gone."""
        self.reported.pop(worker, None)
        self._untold.pop(worker, None)

    def goes_along(self, worker: str, now: float) -> bool:
        """Whether a worker is to be told now, as it was just sent something else."""
        since = self._untold.get(worker)
        if since is None or now - since < TOGETHER_SECONDS:
            return False
        del self._untold[worker]
        return True

    def due(self, now: float) -> list[str]:
        """Return the workers that are to be told at `now`, whatever else they are sent."""
        if now < self.deadline:
            return []
        due = list(self._untold)
        self._untold.clear()
        self._hurry = bool(self.reported) and self._hurry
        return due

    @property
    def deadline(self) -> float:
        """When somebody is to be told, whatever else is sent."""
        if not self._untold:
            return math.inf
        return -math.inf if self._hurry else next(iter(self._untold.values())) + LATEST_SECONDS
