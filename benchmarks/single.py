"""RabbitMQ with one call in each message: the wire as it is, but for how many calls it puts together."""

from __future__ import annotations

from typing import Any

from transports.base import Say
from transports.rabbitmq import RabbitMQ, pushing
from transports.rabbitmq.dispatcher import RabbitDispatcherEnd


class OnePerMessage(RabbitMQ):
    """The transport `benchmarks.single:OnePerMessage`."""

    @classmethod
    def dispatcher_end(cls, settings: Any, *, say: Say, wait: float | None) -> RabbitDispatcherEnd:
        """Open the dispatcher's end, in the process of a dispatcher that does nothing else."""
        pushing.CALLS_MOST = 1
        return super().dispatcher_end(settings, say=say, wait=wait)
