"""Calls that came back because their worker vanished: split, charged where due, and sent out again.

Workers and dispatchers both read the queue `returned`, so that it is done when any of them is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from executor.messages import Pushed, encode
from executor.packed import pack as packed
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.events import Delivered
from transports.rabbitmq.frames import Call, beyond, body_of, fate, headers, pack, report_of
from transports.rabbitmq.post import Outcome, Post
from transports.rabbitmq.topology import Topology


class Mending:
    """Mends messages from the queue `returned`, or of a worker that is known to be dead, one at a time."""

    def __init__(self, connection: Connection, post: Post, names: Topology) -> None:
        self._connection = connection
        self._post = post
        self._names = names
        self._open = 0
        self._present = 0  # the message under way; one whose connection broke is void

    def __bool__(self) -> bool:
        return self._open > 0

    def lost(self) -> None:
        """The connection broke: the message under way comes again."""
        self._open = 0
        self._present += 1

    def mend(self, event: Delivered, run: str, came_back: Sequence[Call]) -> None:
        """Send the calls of a message out again, singly, or report them lost; then acknowledge it."""
        tag = event.tag
        assert tag is not None
        worker = event.headers.get("worker")
        name = f"{worker} on {event.headers.get('host')}" if worker else "(unknown)"
        again, lost = fate(came_back, begun=worker is not None, worker=name)
        self._present += 1
        present = self._present
        widths = sorted({call.item.width for call in again})

        def done(outcome: Outcome, call: Call | None = None, size: int = 0) -> None:
            if present != self._present:
                return
            if outcome is Outcome.TOO_LARGE and call is not None:  # the broker took it once
                report = beyond("the call", call.item.place, size, self._post.most)
                body = report_of(run, packed([report]))
                self._post.send(self._names.results(run), body, done, headers=headers(), lasts=False)
                return
            self._open -= 1
            if not self._open:
                self._connection.ack(tag)
                if widths:
                    self._connection.publish(self._names.control, "", pack(encode(Pushed(widths))))

        self._open = len(again) + bool(lost)
        if not self._open:
            self._connection.ack(tag)
        for call in again:
            width = call.item.width
            queue = self._names.alone(width) if call.item.lone else self._names.first(width)
            body = body_of(run, [call])
            self._post.send(
                queue, body, partial(done, call=call, size=len(body)), headers=headers(), lasts=False
            )
        if lost:
            who = headers(worker=str(worker), host=str(event.headers.get("host"))) if worker else headers()
            body = report_of(run, packed(lost))
            self._post.send(self._names.results(run), body, done, headers=who, lasts=False)
