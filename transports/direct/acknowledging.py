"""Which workers are to be told that what they reported is recorded, and when. Pure."""

from __future__ import annotations

import math

#: Seconds between two acknowledgements: for each tiny call a message of its own would wake its worker.
TOGETHER_SECONDS = 0.05


class Acknowledging:
    """Workers whose reports are not recorded yet, and those who don't know yet that they are.

    They are told at once, or `TOGETHER_SECONDS` after others were. Those are not kept waiting who `hurry`:
    they hold large buffers until then, or are about to leave.
    """

    def __init__(self) -> None:
        self.reported: dict[str, None] = {}
        self._untold: dict[str, None] = {}
        self._told_at = -math.inf
        self._hurry = False

    def report(self, worker: str, *, hurry: bool) -> None:
        """Reports of a worker came, which are to be recorded."""
        self.reported[worker] = None
        self._hurry = self._hurry or hurry

    def record(self) -> list[str]:
        """All that came is recorded; return of which workers something was among it."""
        recorded = list(self.reported)
        self._untold |= self.reported
        self.reported.clear()
        return recorded

    def hurry(self) -> None:
        """Keep nobody waiting now."""
        self._hurry = True

    def missed(self, worker: str) -> None:
        """A worker that was due could not be told: it is again, with the others."""
        self._untold[worker] = None

    def forget(self, worker: str) -> None:
        """A worker is gone."""
        self.reported.pop(worker, None)
        self._untold.pop(worker, None)

    def due(self, now: float) -> list[str]:
        """Return the workers that are to be told at `now`, on the owner's clock."""
        if now < self.deadline:
            return []
        due = list(self._untold)
        self._untold.clear()
        self._told_at, self._hurry = now, bool(self.reported) and self._hurry
        return due

    @property
    def deadline(self) -> float:
        """When somebody is to be told, on the owner's clock."""
        if not self._untold:
            return math.inf
        return -math.inf if self._hurry else self._told_at + TOGETHER_SECONDS
