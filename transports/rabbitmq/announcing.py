"""What a worker says of itself to all dispatchers: with each heartbeat, and soon when it has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from executor.messages import Hello, Running, encode, longest
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.frames import pack
from transports.rabbitmq.held import Held
from transports.rabbitmq.runs import Runs
from transports.rabbitmq.topology import Topology


class Announcing:
    """Announces over a `connection` the worker that `hello` introduces, every so many seconds (`heartbeat`).

    With it goes what is `held`, what of that runs, and which `runs` are known to be stopped.
    """

    def __init__(
        self, connection: Connection, names: Topology, hello: Hello, held: Held, runs: Runs,
        running: Callable[[], Iterable[Running]], heartbeat: float,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._exchange = names.presence
        self._hello = hello
        self._held = held
        self._runs = runs
        self._running = running
        self._heartbeat = heartbeat
        #: When it is to be announced next, on the owner's clock.
        self.beat_at = 0.0

    def soon(self) -> None:
        """Something has changed that is worth to be known."""
        self.beat_at = 0.0

    def announce(self, now: float) -> None:
        """Announce the worker as it is now."""
        self.beat_at = now + self._heartbeat
        self._hello.holding = self._held.holding()
        self._hello.running = longest(self._running())
        self._hello.stopped = self._runs.told()
        self._connection.publish(self._exchange, "", pack(encode(self._hello)))

    def leave(self) -> None:
        """Say from now on that the worker leaves."""
        self._hello.leaving = True
        self.soon()
