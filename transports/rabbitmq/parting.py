"""The end of a run on RabbitMQ: the broker is seen to have done what ends it, and not only asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from transports.base import wait_readable
from transports.rabbitmq import events
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.outage import Outage
from transports.rabbitmq.topology import Topology


def part(
    connection: Connection, outage: Outage, results: str, end: Callable[[], None], seconds: float
) -> bool:
    """End a run by `end`, which deletes its queue `results`; return whether the broker did.

    A connection may break just then, and what was asked of it is lost, though nobody knows. So the queue is
    looked for, and if it is there, or the connection is another, all is asked again. All has so many
    `seconds`, a connection that is away just then to come back, too.
    """
    deadline = time.monotonic() + seconds
    asked = False
    while True:
        if outage.opened and not asked:
            end()
            connection.look_for(results)
            asked = True
        now = time.monotonic()
        if now >= deadline:
            return False
        if not connection.ready():
            wait_readable(connection.fileno(), deadline - now)
        for event in connection.take():
            if isinstance(event, events.Opened):
                outage.opens()
                asked = False
            elif isinstance(event, events.Lost):
                if event.fatal:
                    return False
                outage.loses(event, now)
            elif isinstance(event, events.Found) and event.queue == results:
                if event.messages is None:
                    return True
                asked = False  # it was looked for before it was deleted


def remove(connection: Connection, names: Topology, queues: Iterable[str], widths: Iterable[int]) -> None:
    """Delete a run's `queues`; if the names are temporary, all others too, those of its `widths` included."""
    for queue in queues:
        connection.delete(queue)
    if names.temporary:
        of_widths = [name for width in widths for name in names.of_width(width)]
        for queue in [*of_widths, *names.common()]:
            connection.delete(queue)
        for exchange in (names.control, names.presence):
            connection.delete_exchange(exchange)
