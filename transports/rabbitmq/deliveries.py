"""Messages that a channel has brought, until they are settled: acknowledged, or put back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.events import Delivered, Tag
from transports.rabbitmq.unsettled import Unsettled


class Deliveries:
    """Those of a `channel` of the connection `generation`, which come out of `envelopes`.

    `bulk` is whether it is the channel for many at once.
    """

    def __init__(self, channel: Any, generation: int, envelopes: Envelopes, *, bulk: bool) -> None:
        self._channel = channel
        self._generation = generation
        self._envelopes = envelopes
        self._bulk = bulk
        self._unsettled = Unsettled()

    def came(self, queue: str, method: Any, properties: Any, body: bytes) -> Delivered:
        """Return a message from a queue as the owner is told of it, who is to settle it."""
        number = method.delivery_tag
        self._unsettled.came(number)
        tag = Tag(self._generation, number, self._bulk)
        return self._envelopes.delivered(queue, tag, method, properties, body)

    def ack(self, numbers: Iterable[int]) -> None:
        """Acknowledge messages."""
        for number, multiple in self._unsettled.settle(numbers):
            self._channel.basic_ack(number, multiple=multiple)

    def reject(self, number: int) -> None:
        """Put a message back into its queue."""
        self._unsettled.rejected(number)
        self._channel.basic_nack(number, requeue=True)
