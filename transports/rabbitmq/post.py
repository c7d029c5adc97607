"""What must reach the broker: kept until it is confirmed, and sent again over a new connection."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from transports.rabbitmq.amqp import Confirmed, Connection


class _Letter(NamedTuple):
    queue: str
    body: bytes
    headers: Mapping[str, Any]
    message_id: str
    #: Told whether it reached its queue.
    done: Callable[[bool], None]
    #: Whether it goes out again over a new connection.
    lasts: bool


class Post:
    """Publications to queues over a connection, many in flight. No more than a set of those unconfirmed."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._letters: dict[int, _Letter] = {}  # unconfirmed, in order
        self._refused: list[int] = []
        #: Bytes that are not confirmed.
        self.size = 0

    def __len__(self) -> int:
        return len(self._letters)

    def send(
        self, queue: str, body: bytes, done: Callable[[bool], None], *,
        headers: Mapping[str, Any] | None = None, message_id: str = "", lasts: bool = True,
    ) -> None:  # fmt: skip
        """Publish `body`; `done` is told True when it is safe, False when there is no such queue.

        With `lasts` False it is forgotten when the connection breaks, and `done` never told.
        """
        token = next(self._numbers)
        self._letters[token] = _Letter(queue, body, headers or {}, message_id, done, lasts)
        self.size += len(body)
        self._publish(token)

    def confirmed(self, event: Confirmed) -> None:
        """Take the broker's word on a publication."""
        if not event.taken:  # by a queue that is full or has no leader now
            self._refused.append(event.token)
            return
        letter = self._letters.pop(event.token, None)
        if letter is not None:
            self.size -= len(letter.body)
            letter.done(not event.unroutable)

    def again(self) -> None:
        """Publish once more what the broker did not take."""
        refused, self._refused = self._refused, []
        for token in refused:
            if token in self._letters:
                self._publish(token)

    def lost(self) -> None:
        """The connection broke."""
        self._refused.clear()
        for token, letter in list(self._letters.items()):
            if not letter.lasts:
                del self._letters[token]
                self.size -= len(letter.body)

    def opened(self) -> None:
        """A new connection stands: publish everything once more."""
        for token in list(self._letters):
            self._publish(token)

    def _publish(self, token: int) -> None:
        letter = self._letters[token]
        self._connection.publish(
            "", letter.queue, letter.body, token=token, message_id=letter.message_id, headers=letter.headers
        )
