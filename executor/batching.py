"""How many calls a child is given at once, and when they are too many. Pure."""

from __future__ import annotations

from executor.pace import Pace

#: Seconds of work that a batch should hold: at its end the worker is woken, on a full machine on the very
#: core that runs the calls, and then the dispatcher; together a millisecond at most.
BATCH_SECONDS = 0.03

#: Calls in one batch at most: beyond, a wake-up for each batch is next to nothing.
BATCH_MOST = 512

#: A call that runs longer than this, and than its like, doesn't keep others waiting behind it.
SLOW_SECONDS = 0.01

#: Calls that take longer than this are not given to a child before it is free: the wake-up is little beside.
LOOK_AHEAD_MOST = 0.1

#: Seconds of work behind a running call that are worth the trouble of moving them to free cores.
SHARED_SECONDS = 0.001


class Batching(Pace):
    """What a pool makes of the durations that it sees."""

    def batch(self, width: int, waiting: int, lanes: int) -> int:
        """Return how many calls to give to a child: as make up BATCH_SECONDS, but no more than is fair.

        That is when so many are `waiting`, for `lanes` children at once.
        """
        seconds = self._seconds.get(width)
        if seconds is None or seconds >= BATCH_SECONDS:
            return 1
        return min(BATCH_MOST, int(BATCH_SECONDS / max(seconds, 1e-6)), -(-waiting // max(1, lanes)))

    def looks_ahead(self, width: int) -> bool:
        """Whether calls are so short that the next one should wait in the child already."""
        return self._seconds.get(width, LOOK_AHEAD_MOST) < LOOK_AHEAD_MOST

    def is_slow(self, width: int, seconds: float) -> bool:
        """Whether a call that runs for so long takes much longer than others of its width did."""
        return seconds > SLOW_SECONDS + 2 * self._seconds.get(width, 0.0)

    def is_much(self, width: int, count: int) -> bool:
        """Whether so many calls are worth the trouble of moving them to free cores."""
        return count * self._seconds.get(width, 0.0) > SHARED_SECONDS
