"""What the broker has lost is pushed again, and that is said: calls that are nowhere, or a whole run."""

from __future__ import annotations

from executor.words import plural
from transports.base import Say
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.continued import Continued
from transports.rabbitmq.events import Found
from transports.rabbitmq.lostwatch import LostWatch
from transports.rabbitmq.pushing import Pushing
from transports.rabbitmq.topology import Topology
from transports.rabbitmq.unheld import Unheld


class Restoring:
    """Looks over a `connection` where the `watch` wants to; `now` is the owner's clock, in seconds."""

    def __init__(
        self, connection: Connection, names: Topology, own: str, watch: LostWatch, unheld: Unheld,
        continued: Continued, pushing: Pushing, say: Say,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._names = names
        self._own = own
        self._watch = watch
        self._unheld = unheld
        self._continued = continued
        self._pushing = pushing
        self._say = say

    def look(self, now: float) -> None:
        """Begin a look for calls that are nowhere, though all is in line."""
        if widths := self._unheld.counts():
            results = [self._names.results(run) for run in self._continued.present()]
            for queue in self._watch.ask(widths, results, now):
                self._connection.look_for(queue)
        else:
            self._watch.reset(now)

    def found(self, event: Found, now: float) -> list[int]:
        """Take how much is in a queue that was looked into; return the calls that are nowhere."""
        return self._watch.found(event.queue, event.messages, self._unheld.by_width, now)

    def lost(self, run: str) -> None:
        """The broker has lost our run, or one that it continues."""
        if run == self._own:
            self._again(self._pushing.lost())
        elif self._pushing.settled:
            self._again(self._pushing.strayed(self._continued.left()))

    def nowhere(self, places: list[int]) -> None:
        """These calls are."""
        self._again(self._pushing.anew(places))

    def _again(self, places: list[int]) -> None:
        if places:
            self._say(f"the broker has lost {plural(len(places), 'task')}; pushed again")
