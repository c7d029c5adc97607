"""How long calls take, as lately seen, and so how many a worker is given ahead. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from executor.messages import Report

#: Seconds of work that a worker may hold beyond what it runs: more than its processes are given at once (see
#: `executor.batching`), so that something is at hand when they report, and yet soon given back.
AHEAD_SECONDS = 0.5

#: Core-seconds of tiny calls that a worker is given at least, however many workers share what is left: a
#: frame costs more than what comes of sharing them out evenly.
SHARE_SECONDS = 0.002

#: Calls that take no longer are tiny.
TINY_SECONDS = 100e-6

#: What even the smallest call costs a worker; keeps the number of calls held within reason.
LEAST_SECONDS = 20e-6


class Pace:
    """The seconds that a call takes, by its width in cores.

    What is given `ahead` is work for so many seconds beyond what runs.
    """

    def __init__(self, ahead: float = AHEAD_SECONDS) -> None:
        self._seconds: dict[int, float] = {}
        self._most = ahead
        self._shortest = math.inf  # of them all

    def learn(self, width: int, seconds: float | None) -> None:
        """Calls of a width took so long on average; None, or what is beyond reason, teaches nothing."""
        if seconds is not None and math.isfinite(seconds):
            old = self._seconds.get(width)
            new = self._seconds[width] = seconds if old is None else (old + seconds) / 2
            if new < self._shortest:
                self._shortest = new
            elif old == self._shortest:
                self._shortest = min(self._seconds.values())

    def work(self, counts: Mapping[int, int]) -> float:
        """Return the core-seconds that so many calls of each width take; unknown ones count for tiny."""
        seconds = self._seconds
        return sum(
            width * count * max(LEAST_SECONDS, seconds.get(width, 0.0)) for width, count in counts.items()
        )

    def is_long(self, width: int, cores: int) -> bool:
        """Whether none of a width is given ahead: one takes longer than that, or nobody knows how long."""
        seconds = self._seconds.get(width)
        return seconds is None or width * max(LEAST_SECONDS, seconds) > cores * self._most

    def is_enough(self, load: int, cores: int) -> bool:
        """Whether what takes so many cores at once keeps these busy for that time, whatever its widths are.

        Told from the shortest calls of all, so that it need not be known what they are; one of which nobody
        knows how long it takes counts as such. If not, `ahead` has the answer.
        """
        return load * self._shortest >= cores * self._most

    def least_share(self, width: int) -> int:
        """Return how many calls of a width take `SHARE_SECONDS` together if they are tiny, else 0."""
        each = max(LEAST_SECONDS, self._seconds.get(width, math.inf))
        return int(SHARE_SECONDS / (width * each)) if each <= TINY_SECONDS else 0

    def ahead(self, width: int, cores: int, counts: Mapping[int, int]) -> tuple[int, int]:
        """Return how many calls of a width keep so many cores busy for that time, and the missing ones.

        Those are missing beside `counts`, what is in hand of each width; they may be less than none. Nothing
        of unknown duration is given ahead: (0, 0).
        """
        seconds = self._seconds.get(width)
        if seconds is None:
            return 0, 0
        each, whole = width * max(LEAST_SECONDS, seconds), cores * self._most
        return int(whole / each), int((whole - self.work(counts)) / each)


def mean_seconds(reports: Iterable[Report]) -> float | None:
    """Return how long the calls of these reports took on average; None if none of them began."""
    spans = [r.finished - r.started for r in reports if r.started is not None and r.finished is not None]
    return max(0.0, sum(spans)) / len(spans) if spans else None
