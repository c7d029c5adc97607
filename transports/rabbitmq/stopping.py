"""How a run is stopped: all workers are told, and told again as long as one has not answered. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

from executor.messages import Cancel, Halt
from transports.rabbitmq.presence import Presence

#: Seconds until workers that did not answer are told again that the run is stopped.
STOP_AGAIN = 0.5

#: Seconds that what a worker first said may be on its way.
FIRST_WORDS = 0.5


class Stopping:
    """Stops a run, and those that it continues: `runs` returns them all, and `tell` tells the workers.

    Which of these have answered is known from their `presence`. `now` is the owner's clock, in seconds.
    """

    def __init__(
        self, presence: Presence, runs: Callable[[], list[str]], tell: Callable[[Halt | Cancel], None]
    ) -> None:
        self._presence = presence
        self._runs = runs
        self._tell = tell
        self._word: type[Halt | Cancel] = Halt
        self._at = 0.0
        #: Whether the run is stopped.
        self.stopped = False
        #: When those that did not answer are told again.
        self.again_at = math.inf

    def stop(self, word: type[Halt | Cancel], run: str, now: float) -> None:
        """Stop the run, which is `run`, by a word."""
        self.stopped, self._word, self._at = True, word, now
        self._presence.stop(run)
        self._tell_all(now)

    def again(self, now: float) -> None:
        """Tell it again, unless all have answered."""
        if not self._presence.answered:
            self._tell_all(now)

    def heard_first_words(self, now: float) -> bool:
        """Whether the first words of all workers that were given calls before must have come by now."""
        return now - self._at > FIRST_WORDS

    def _tell_all(self, now: float) -> None:
        self.again_at = now + STOP_AGAIN
        for run in self._runs():  # ours last: who answers that has heard the others
            self._tell(self._word(run))
