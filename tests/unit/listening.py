"""Somebody at an address where a broker is expected, and what a connection to it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from executor.keys import Keys
from executor.sealing import Seal
from transports.base import wait_readable
from transports.rabbitmq.amqp import Connection
from transports.rabbitmq.envelope import Envelopes
from transports.rabbitmq.events import Lost
from transports.rabbitmq.topology import Topology
from transports.rabbitmq.words import Broker


@contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where everybody is answered so, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    near, _ = server.accept()
                except OSError:
                    return
                with near:
                    near.settimeout(10)
                    answer(near)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def connection_to(url: str, ca_file: str | None = None) -> Connection:
    envelopes = Envelopes(Seal(Keys(Path(), bytes(32))), Topology("q", 5.0, 1800.0))
    return Connection(Broker(url, ca_file), envelopes, name="test", heartbeat=5)


def first_lost(url: str, ca_file: str | None = None) -> Lost:
    connection = connection_to(url, ca_file)
    try:
        while True:
            for event in connection.take():
                assert isinstance(event, Lost)
                return event
            wait_readable(connection.fileno(), 10)
    finally:
        connection.close()
