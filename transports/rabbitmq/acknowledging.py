"""Reports that are recorded are acknowledged together: the broker writes each word of that to its disk."""

from __future__ import annotations

import math

from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.events import Tag

#: Messages of reports that are recorded and not acknowledged yet, at most, and for how many seconds.
DONE_MOST, DONE_SECONDS = 50, 0.03


class Acknowledging:
    """Acknowledges over a `connection` what came and was recorded; `now` is the owner's clock, in seconds."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._came: list[Tag] = []  # of reports that were given out, or will be
        self._done: list[Tag] = []  # of reports that are recorded, until they are acknowledged together
        self._done_at = 0.0  # when they were last
        #: When what is recorded is to be acknowledged.
        self.due = math.inf

    def came(self, tag: Tag) -> None:
        """Reports came that somebody will record."""
        self._came.append(tag)

    def hand_over(self) -> list[Tag]:
        """Return what came; who asks for it acknowledges it."""
        came, self._came = self._came, []
        return came

    def record(self, now: float) -> None:
        """All that came is recorded."""
        self._done += self._came
        self._came = []
        if len(self._done) >= DONE_MOST or now - self._done_at > DONE_SECONDS:
            self.let_go(now)
        elif self._done:
            self.due = self._done_at + DONE_SECONDS

    def let_go(self, now: float) -> None:
        """Have the broker forget what is recorded."""
        done, self._done = self._done, []
        self.due = math.inf
        if done:
            self._done_at = now
            self._connection.ack(*done)

    def lost(self) -> None:
        """The connection broke: all of it comes again, and is known by its places."""
        self._came.clear()
        self._done.clear()
        self.due = math.inf
