"""RabbitMQ with messages in the clear: the wire as it is, but for the seal."""

from __future__ import annotations

from typing import Any

from executor.messages import Hello
from transports.base import Say
from transports.rabbitmq import RabbitMQ
from transports.rabbitmq.dispatcher import RabbitDispatcherEnd
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.worker import RabbitWorkerEnd


def _open_all() -> None:
    """Have this process, which does nothing else, seal nothing."""
    Envelopes.close = lambda self, exchange, key, headers, body, message_id="": body  # type: ignore[method-assign]
    Envelopes.open = lambda self, queue, method, properties, body: body  # type: ignore[method-assign]


class Unsealed(RabbitMQ):
    """The transport `benchmarks.unsealed:Unsealed`."""

    @classmethod
    def dispatcher_end(cls, settings: Any, *, say: Say, wait: float | None) -> RabbitDispatcherEnd:
        """Open the dispatcher's end."""
        _open_all()
        return super().dispatcher_end(settings, say=say, wait=wait)

    @classmethod
    def worker_end(cls, settings: Any, hello: Hello, *, say: Say) -> RabbitWorkerEnd:
        """Open the worker's end."""
        _open_all()
        return super().worker_end(settings, hello, say=say)
