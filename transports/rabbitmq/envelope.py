"""Messages, sealed with the user's keys for the place that they are sent to: others at a broker are no ends.

A message's place is its exchange and routing key, its id, and what our headers say. One that the broker
passed on by itself, when its worker vanished, was sealed for the queue in which it died first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from executor.errors import BadFrame
from executor.sealing import OVERHEAD, Seal
from transports.rabbitmq.events import Delivered, Tag
from transports.rabbitmq.topology import Topology

#: Bytes that an envelope adds to a body.
ENVELOPE_BYTES = OVERHEAD

_encoder = msgspec.msgpack.Encoder(order="deterministic")


class Envelopes:
    """Seals what is published, and opens what is delivered."""

    def __init__(self, seal: Seal, names: Topology) -> None:
        self._seal = seal
        self._names = names

    def close(
        self, exchange: str, key: str, headers: Mapping[str, Any], body: bytes, message_id: str = ""
    ) -> bytes:
        """Return a body, sealed for an exchange and a routing key."""
        return self._seal.seal(body, _place(exchange, key, message_id, headers))

    def delivered(self, queue: str, tag: Tag | None, method: Any, properties: Any, body: bytes) -> Delivered:
        """Return a message from a queue as its owner is told of it, opened."""
        opened = self.open(queue, method, properties, body)
        return Delivered(queue, tag, properties.headers or {}, properties.message_id or "", opened)

    def open(self, queue: str, method: Any, properties: Any, body: bytes) -> bytes:
        """Return the body of a message from a queue; b"" if it is not one of ours, or came before."""
        headers = properties.headers or {}
        exchange, key = method.exchange, method.routing_key
        died = headers.get("x-first-death-queue")
        again = bool(method.redelivered)
        if isinstance(died, str) and self._names.passes_on(died, queue):
            exchange, key, again = "", died, True
        place = _place(exchange, key, properties.message_id or "", headers)
        try:
            return self._seal.open(body, place, again=again)
        except BadFrame:
            return b""


def _place(exchange: str, key: str, message_id: str, headers: Mapping[str, Any]) -> bytes:
    own = {name: value for name, value in headers.items() if not name.startswith("x-")}
    return _encoder.encode([exchange, key, message_id, own])
