"""How many calls a child is given at once, and when they are too many. Pure."""

from __future__ import annotations

from executor.pace import Pace

#: Seconds of work that a batch should hold: at its end the worker is woken, on a full machine on the very
#: core that runs the calls, and then the dispatcher; together a millisecond at most.
BATCH_SECONDS = 0.04

#: Calls in one batch at most: beyond, a wake-up for each batch is next to nothing.
BATCH_MOST = 512

#: Calls that a child is given at most beside what it runs: its board has room for the reports of as many.
ENOUGH_MOST = 1024

#: Seconds that a child's reports may wait for others while it has more to run: short against a person's
#: patience, long against the wake-ups of all that they pass through, for which the calls on these cores wait.
LINGER_SECONDS = 0.2

#: Seconds of work that a child is given beside what it runs: twice as long as its reports wait, for only with
#: them this worker wakes up to give it more.
ENOUGH_SECONDS = 0.4

#: A call that runs longer than this, and than its like, doesn't keep others waiting behind it where cores are
#: free for them; where none is, they wait so much longer. Who looks wakes up on a core that computes.
SLOW_SECONDS = 0.01
BLOCKED_SECONDS = 0.1

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

    def enough(self, width: int) -> int:
        """Return how many calls a child should have that it has not begun."""
        return max(1, min(ENOUGH_MOST, int(ENOUGH_SECONDS / max(self._seconds.get(width, 1.0), 1e-6))))

    def linger(self, width: int) -> float:
        """Return the seconds that reports may wait, so that a child has work when they come to its worker."""
        return self.enough(width) * self._seconds.get(width, 1.0) / 2

    def slow_after(self, width: int) -> float:
        """Return the seconds after which a call takes much longer than others of its width did."""
        return SLOW_SECONDS + 2 * self._seconds.get(width, 0.0)

    def blocked_after(self, width: int) -> float:
        """Return the seconds for which others wait behind a call if no core is free for them."""
        return BLOCKED_SECONDS + self.slow_after(width)

    def is_much(self, width: int, count: int) -> bool:
        """Whether so many calls are worth the trouble of moving them to free cores."""
        return count * self._seconds.get(width, 0.0) > SHARED_SECONDS
