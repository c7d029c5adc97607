"""Publications over one channel, and what the broker says of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pika

from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.events import Confirmed

#: A message that survives the broker's restart (AMQP 0-9-1, delivery mode).
_PERSISTENT = 2


class Publisher:
    """Publishes over a `channel` that confirms; `tell` is told of each publication that has a token.

    `generation` is the connection's, and is in the ids of its messages, which go in `envelopes`.
    """

    def __init__(
        self, channel: Any, generation: int, envelopes: Envelopes, tell: Callable[[Confirmed], None]
    ) -> None:
        self._channel = channel
        self._envelopes = envelopes
        self._generation = generation
        self._tell = tell
        self._count = 0
        self._unconfirmed: dict[int, tuple[int, str]] = {}  # token and message id by delivery tag
        self._returned: set[str] = set()
        channel.add_on_return_callback(
            lambda _, __, properties, ___: self._returned.add(properties.message_id)
        )

    @property
    def waits(self) -> bool:
        """Whether something is not confirmed."""
        return bool(self._unconfirmed)

    def publish(
        self, exchange: str, key: str, body: bytes, token: int | None, message_id: str,
        headers: Mapping[str, Any] | None,
    ) -> None:  # fmt: skip
        """Publish a message; see `Connection.publish`."""
        self._count += 1
        properties = pika.BasicProperties(headers=dict(headers or {}))
        if token is not None:
            message_id = message_id or f"{self._generation}.{self._count}"
            properties.delivery_mode = _PERSISTENT
            self._unconfirmed[self._count] = (token, message_id)
        properties.message_id = message_id
        sealed = self._envelopes.close(exchange, key, properties.headers, body, message_id)
        self._channel.basic_publish(exchange, key, sealed, properties, mandatory=token is not None)

    def confirmed(self, frame: Any) -> None:
        """Take the broker's word on a publication, or on all up to one."""
        number, taken = frame.method.delivery_tag, isinstance(frame.method, pika.spec.Basic.Ack)
        if frame.method.multiple:
            numbers = [each for each in self._unconfirmed if each <= number]
        else:
            numbers = [number] if number in self._unconfirmed else []
        for each in numbers:
            token, message_id = self._unconfirmed.pop(each)
            unroutable = message_id in self._returned
            self._returned.discard(message_id)
            self._tell(Confirmed(token, taken, unroutable))
