"""Whether the broker can be reached, and what its users are told of it, on either end."""

from __future__ import annotations

import time

from executor.errors import ConfigError
from transports.base import Say
from transports.rabbitmq.events import NO_ANSWER, Blocked, Lost

#: Seconds without a connection after which it is said: many are back before anybody has read that they went.
SAY_AFTER = 1.0

#: Seconds between two lines that say the same.
SAY_AGAIN = 30.0


class Outage:
    """Keeps the time of connections that come and go, to the broker at `address`."""

    def __init__(self, address: str, say: Say) -> None:
        self._address = address
        self._say = say
        #: Whether there is a connection.
        self.opened = False
        #: Whether the broker takes nothing for now.
        self.blocked = False
        #: When the last one broke, or the first was asked for, on the owner's clock.
        self.since = time.monotonic()
        self._why = "no answer yet"
        self._said_at: float | None = None
        self._no_answer_said_at = -SAY_AGAIN

    def opens(self) -> None:
        """There is a connection."""
        if self._said_at is not None:
            self._say(f"reached RabbitMQ again at {self._address}")
        self.opened, self.blocked, self._said_at = True, False, None

    def loses(self, event: Lost, now: float) -> bool:
        """A connection broke, or could not be made; return whether there was one.

        Raises:
            ConfigError: it makes no sense to try again.
        """
        if event.fatal:
            raise ConfigError(f"RabbitMQ at {self._address}: {event.fatal}")
        broke, self.opened, self._why = self.opened, False, event.why
        if broke:
            self.since = now
        if event.why == NO_ANSWER and now - self._no_answer_said_at >= SAY_AGAIN:
            self._no_answer_said_at = now
            self._say(f"RabbitMQ at {self._address} is there but does not answer; connecting anew")
        return broke

    def tick(self, now: float) -> None:
        """Say that the broker can't be reached, once that is worth a line, and now and then."""
        due = self.since + SAY_AFTER if self._said_at is None else self._said_at + SAY_AGAIN
        if not self.opened and now > due:
            self._said_at = now
            self._say(f"can't reach RabbitMQ at {self._address} ({self._why}); trying again")

    def blocks(self, event: Blocked) -> None:
        """Say that the broker takes nothing, or does again."""
        self.blocked = bool(event.why)
        if event.why:
            self._say(
                f"RabbitMQ at {self._address} takes no more for now: {event.why}; waiting until it does"
            )
        else:
            self._say(f"RabbitMQ at {self._address} takes messages again")
