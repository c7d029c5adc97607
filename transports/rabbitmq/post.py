"""What must reach the broker: kept until it is confirmed, and sent again over a new connection."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.events import Confirmed


class Outcome(enum.Enum):
    """What became of a publication."""

    SAFE = enum.auto()
    NO_QUEUE = enum.auto()
    #: Beyond what the broker takes in a message (`Post.most`).
    TOO_LARGE = enum.auto()


class _Letter(NamedTuple):
    queue: str
    body: bytes
    headers: Mapping[str, Any]
    message_id: str
    done: Callable[[Outcome], None]
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
        #: Bytes that the broker takes in a message, once it has said so.
        self.most: int | None = None

    def __len__(self) -> int:
        return len(self._letters)

    def send(
        self, queue: str, body: bytes, done: Callable[[Outcome], None], *,
        headers: Mapping[str, Any] | None = None, message_id: str = "", lasts: bool = True,
    ) -> None:  # fmt: skip
        """Publish `body`; `done` is told what came of it, which may be at once.

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
            letter.done(Outcome.NO_QUEUE if event.unroutable else Outcome.SAFE)

    def again(self) -> None:
        """Publish once more what the broker did not take."""
        refused, self._refused = self._refused, []
        for token in refused:
            if token in self._letters:
                self._publish(token)

    def lost(self, most: int | None = None) -> None:
        """The connection broke, over a message of more than `most` bytes, if that is given."""
        self.most = self.most if most is None else most
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
        if self.most is not None and len(letter.body) > self.most:
            del self._letters[token]
            self.size -= len(letter.body)
            letter.done(Outcome.TOO_LARGE)
            return
        self._connection.publish(
            "", letter.queue, letter.body, token=token, message_id=letter.message_id, headers=letter.headers
        )
