"""Many messages of a queue at once: a subscription for so many, which ends when they have come.

A quorum queue writes each `get` to the disk before it answers: half a millisecond of the broker for a message
(RabbitMQ 3.10). A subscription is written when it begins and when it ends, and what it brings costs next to
nothing. It has a channel of its own, where one acknowledgement can stand for all that came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from transports.rabbitmq.deliveries import Deliveries
from transports.rabbitmq.events import Delivered

#: Bytes after which no more messages are waited for.
_BYTES = 4 << 20

#: Looks, two in the time that it lingers, after which it ends though more come.
_LOOKS = 20


class Bulk:
    """Fetches over a `channel`, whose `deliveries` are settled elsewhere.

    `later` calls something after so many seconds.
    `fetched` is told a queue and what came of it, `ended` one that was deleted meanwhile.
    """

    def __init__(
        self, channel: Any, deliveries: Deliveries, later: Callable[[float, Callable[[], None]], object],
        fetched: Callable[[str, Sequence[Delivered]], None], ended: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._channel = channel
        self._deliveries = deliveries
        self._later = later
        self._fetched = fetched
        self._subscriptions = 0
        self._queue = ""
        channel.add_on_cancel_callback(lambda _: ended(self._queue))

    def fetch(self, queue: str, most: int, linger: float) -> None:
        """Take up to `most` messages of a queue, until none has come for `linger` seconds.

        The broker sends at once what there is. What is on its way when we end it goes back to the front of
        the queue, and comes after what others were given meanwhile: so not before all is quiet, or for long.
        """
        self._queue = queue
        self._subscriptions += 1
        consumer = f"{queue} {self._subscriptions}"  # never the same twice: the broker counts by it
        some: list[Delivered] = []
        size = seen = quiet = looks = 0
        over = False

        def came(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            nonlocal size
            some.append(self._deliveries.came(queue, method, properties, body))
            size += len(body)
            if len(some) == most or size >= _BYTES:
                end()

        def end() -> None:
            nonlocal over
            if not over and self._channel.is_open:
                over = True
                # Before any acknowledgement, so that none makes room for more.
                self._channel.basic_cancel(consumer, callback=lambda _: self._fetched(queue, some))

        def look() -> None:
            """End it after two looks in a row that saw nothing new: what lay unread was read between them."""
            nonlocal seen, quiet, looks
            quiet = quiet + 1 if len(some) == seen else 0
            seen, looks = len(some), looks + 1
            if quiet == 2 or looks == _LOOKS:
                end()
            elif not over:
                self._later(linger / 2, look)

        self._channel.basic_qos(prefetch_count=most)
        self._channel.basic_consume(
            queue, came, consumer_tag=consumer, callback=lambda _: self._later(linger / 2, look)
        )
