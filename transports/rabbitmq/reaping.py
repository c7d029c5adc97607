"""Looks for calls that came back, of whatever run: in `returned`, and in the queues of workers that died."""

from __future__ import annotations

import math
from collections.abc import Sequence

from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.events import Delivered, Found
from transports.rabbitmq.frames import Call
from transports.rabbitmq.mending import Mending
from transports.rabbitmq.topology import Topology

#: Seconds between two looks for calls that came back.
LOOK_AGAIN = 1.0

#: Seconds in which the queues of a worker that died are looked into, and between two looks.
REAPING, _REAP_AGAIN = 10.0, 0.1


class Reaping:
    """Fetches one message at a time, while `mending` has none under way; `now` is the owner's clock."""

    def __init__(self, connection: Connection, mending: Mending, names: Topology) -> None:
        self._connection = connection
        self._mending = mending
        self._names = names
        self._getting = False
        self._dead: dict[str, float] = {}  # queues of workers that died, and until when they are looked into
        self._look_at = 0.0

    def died(self, instance: str, now: float) -> None:
        """A worker's process died: nothing else would bring back soon what it had."""
        for queue in (self._names.held(instance), self._names.orphaned(instance)):
            self._dead[queue] = now + REAPING

    def lost(self) -> None:
        """The connection broke: what was being fetched is void."""
        self._getting = False
        self._mending.lost()

    def empty(self) -> None:
        """There was nothing to fetch."""
        self._getting = False

    def __contains__(self, queue: str) -> bool:
        return queue in self._dead

    def __len__(self) -> int:
        return len(self._dead)

    def found(self, event: Found) -> None:
        """Take the answer whether a dead worker's queue is there: one that ended in peace has removed it."""
        if event.messages is None:
            del self._dead[event.queue]
        elif event.messages and not self._busy:
            self._get(event.queue)

    def came(self, event: Delivered, run: str, some: Sequence[Call]) -> None:
        """Mend the calls of a message that was fetched."""
        self._getting = False
        self._mending.mend(event, run, some)

    def tick(self, now: float) -> None:
        """Look, if it is time to."""
        if self._busy or now < self._look_at:
            return
        self._dead = {queue: until for queue, until in self._dead.items() if now < until}
        if self._dead:  # in turn
            queue, until = self._dead.popitem()
            self._dead = {queue: until, **self._dead}
            self._look_at = now + _REAP_AGAIN
            self._connection.look_for(queue)
        else:
            self._look_at = now + LOOK_AGAIN
            self._get(self._names.returned)

    @property
    def look_at(self) -> float:
        """When it looks next; while it waits for an answer, nobody need look at the time for it."""
        return math.inf if self._busy else self._look_at

    @property
    def _busy(self) -> bool:
        return self._getting or bool(self._mending)

    def _get(self, queue: str) -> None:
        self._getting = True
        self._connection.get(queue)
