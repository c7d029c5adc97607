"""Which queues exist: questions on a channel of their own, which each "no" closes (AMQP 0-9-1, 1.7.2.1.2)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pika

from transports.rabbitmq.events import Found
from transports.rabbitmq.words import NOT_FOUND, in_words


class Prober:
    """Asks over a `connection` that stands, one question after the other.

    `found` is told each answer, `failed` why there will be none.
    """

    def __init__(
        self, connection: pika.SelectConnection, found: Callable[[Found], None], failed: Callable[[str], None]
    ) -> None:
        self._connection = connection
        self._found = found
        self._failed = failed
        self._queues: deque[str] = deque()
        self._channel: Any = None
        self._over = False

    @property
    def asking(self) -> bool:
        """Whether an answer is missing."""
        return bool(self._queues)

    def ask(self, queue: str) -> None:
        """Ask whether a queue exists."""
        self._queues.append(queue)
        if len(self._queues) == 1:
            self._next()

    def stop(self) -> None:
        """The connection is none any more."""
        self._over = True

    def _next(self) -> None:
        if not self._queues or self._over or not self._connection.is_open:
            return
        if self._channel is None:
            self._connection.channel(on_open_callback=self._opened)
        else:
            self._channel.queue_declare(self._queues[0], passive=True, callback=self._yes)

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._closed)
        self._next()

    def _closed(self, channel: Any, reason: Any) -> None:
        self._channel = None
        if self._over:
            return
        if getattr(reason, "reply_code", 0) == NOT_FOUND and self._queues:
            self._found(Found(self._queues.popleft(), None))
            self._next()
        else:
            self._failed(in_words(reason))

    def _yes(self, frame: Any) -> None:
        self._found(Found(self._queues.popleft(), frame.method.message_count))
        self._next()
