"""The wires as the suite sees them: what stands in the YAML of each end, for addresses that it chooses."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from executor import keys
from executor.sealing import Seal
from tests.contract.rabbit import free_ports
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.topology import Topology


class Wire(ABC):
    """A wire under test. To test one of your own, subclass this and give it to `suite.Contract`."""

    #: A name from `transports.WIRES`, or ``package.module:Class``.
    transport: str
    #: Whether each worker listens, or the dispatcher alone does.
    workers_listen: bool
    #: Whether who listens can say that bytes came which are none of the wire's protocol.
    says_garbage = True
    #: Whether both ends connect to something that lies between them.
    broker_between = False

    def free_addresses(self, count: int) -> list[str]:
        """Return host:port for each of so many ends that listen; of one if workers don't."""
        return free_addresses(count if self.workers_listen else 1)

    @abstractmethod
    def dispatcher(self, listen: Sequence[str], reach: Sequence[str]) -> dict[str, Any]:
        """Return the keys of the dispatcher's YAML.

        `listen` has a free host:port for each end that listens, `reach` where the others find it, which is
        elsewhere when something lies in between.
        """

    @abstractmethod
    def worker(self, listen: str, reach: str) -> dict[str, Any]:
        """Return the keys of a worker's YAML; the addresses are its own, or the dispatcher's."""

    def __repr__(self) -> str:
        return self.transport


class ZeroMQ(Wire):
    transport = "zmq"
    workers_listen = False

    def dispatcher(self, listen: Sequence[str], reach: Sequence[str]) -> dict[str, Any]:
        return {"address": f"tcp://{reach[0]}", "bind": f"tcp://{listen[0]}"}

    def worker(self, listen: str, reach: str) -> dict[str, Any]:
        return {"address": f"tcp://{reach}"}


class Served(Wire):
    workers_listen = True

    def __init__(self, transport: str) -> None:
        self.transport = transport
        self.says_garbage = transport != "grpc"  # gRPC hangs up without a word to the program

    def dispatcher(self, listen: Sequence[str], reach: Sequence[str]) -> dict[str, Any]:
        return {"workers": list(reach)}

    def worker(self, listen: str, reach: str) -> dict[str, Any]:
        return {"listen": listen}


class RabbitMQ(Wire):
    """RabbitMQ at `url`: in the place of one end's address stands the broker's."""

    transport = "rabbitmq"
    workers_listen = False
    says_garbage = False  # what is none of AMQP never leaves the broker
    broker_between = True

    def __init__(self, url: str) -> None:
        self.url = url
        self.setting = f"test-{secrets.token_hex(4)}"

    @property
    def queue(self) -> str:
        """What the names of its queues begin with."""
        return f"{self.setting}.{keys.load(keys.place()).short}"

    def opened(self, queue: str, got: tuple[Any, Any, Any]) -> bytes:
        """Return what was sealed in a message from a queue of ours, as `basic_get` gives it."""
        method, properties, body = got
        names = Topology(self.queue, 5.0, 1800.0)
        seal = Seal(keys.load(keys.place()))
        return Envelopes(seal, names).open(f"{self.queue}.{queue}", method, properties, body)

    def free_addresses(self, count: int) -> list[str]:
        parts = urlsplit(self.url)
        return [f"{parts.hostname}:{parts.port or 5672}"]

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """Open a channel of one's own to the broker."""
        import pika

        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def waiting(self, queue: str) -> int | None:
        """How many messages wait in a queue of ours; None if there is none of that name."""
        from pika.exceptions import ChannelClosedByBroker

        with self.channel() as channel:
            try:
                found = channel.queue_declare(f"{self.queue}.{queue}", passive=True)
            except ChannelClosedByBroker as closed:
                if closed.reply_code == 404:
                    return None
                if closed.reply_code == 405:  # it is another connection's own
                    return 0
                raise
            count: int = found.method.message_count
            return count

    def dispatcher(self, listen: Sequence[str], reach: Sequence[str]) -> dict[str, Any]:
        return self.worker(listen[0], listen[0])

    def worker(self, listen: str, reach: str) -> dict[str, Any]:
        parts = urlsplit(self.url)
        user = parts.netloc.rpartition("@")[0]
        return {"url": urlunsplit(parts._replace(netloc=f"{user}@{reach}")), "queue": self.setting}


#: Every wire of this project that needs no broker of its own.
WIRES: list[Wire] = [ZeroMQ(), Served("grpc"), Served("rpyc")]


def free_addresses(count: int) -> list[str]:
    """Return host:port of so many ports that nobody listens on."""
    return [f"127.0.0.1:{port}" for port in free_ports(count)]
