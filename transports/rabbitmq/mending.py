"""Calls that came back because their worker vanished: split, charged where due, and sent out again.

Workers and dispatchers both read the queue `returned`, so that it is done when any of them is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from executor.messages import Pushed, encode
from executor.packed import Packed
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

        def done(outcome: Outcome) -> None:
            if present != self._present:
                return
            self._open -= 1
            if not self._open:
                self._connection.ack(tag)
                if widths:
                    self._connection.publish(self._names.control, "", pack(encode(Pushed(widths))))

        def send(call: Call) -> None:
            width = call.item.width
            queue = self._names.alone(width) if call.item.lone else self._names.first(width)
            body = body_of(run, [call])

            def sent(outcome: Outcome) -> None:
                if present != self._present:
                    return
                if outcome is Outcome.TOO_LARGE:  # the broker took it once
                    too_large = beyond("the call", call.item.place, len(body), self._post.most)
                    report(packed([too_large]), headers())
                elif outcome is Outcome.NO_QUEUE and not self._names.temporary:  # somebody deleted it
                    for name, arguments in self._names.of_width(width).items():
                        self._connection.declare(name, arguments)
                    send(call)
                else:  # safe; or a temporary queue is gone, as its run is
                    done(outcome)

            self._post.send(queue, body, sent, headers=headers(), lasts=False)

        def report(reports: Packed, who: dict[str, Any]) -> None:
            self._post.send(self._names.results(run), report_of(run, reports), done, headers=who, lasts=False)

        self._open = len(again) + bool(lost)
        if not self._open:
            self._connection.ack(tag)
        for call in again:
            send(call)
        if lost:
            host = str(event.headers.get("host"))
            report(packed(lost), headers(worker=str(worker), host=host) if worker else headers())
